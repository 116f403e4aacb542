//! What is not finite: ops hand NaN on as PyTorch's do, forward and back, fused or not.

use super::super::case::{Case, Entry, Kind};
use super::super::random::Random;
use super::super::reference;
use crate::graph::{DType, Tensor};
use crate::ops::{BatchNormMode, BatchNormParameters};

const NAN: f64 = f64::NAN;
const INFINITY: f64 = f64::INFINITY;

pub(super) fn cases(dtype: DType, all: &mut Vec<Entry>) {
    all.push(relu(dtype));
    all.push(max_pool(dtype));
    all.extend([false, true].map(|training| batch_norm(training, dtype)));
    all.push(block(dtype));
    if dtype == DType::F32 {
        all.extend([argmax(), normalize(), log_softmax(), sinkhorn()]);
    }
}

/// max(x, 0) as PyTorch has it.
fn rectified(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.0) }
}

fn relu(dtype: DType) -> Entry {
    Entry::new("relu", "not finite".into(), dtype, move |_| {
        let x = vec![NAN, INFINITY, -INFINITY, 0.0, -0.0, 1.0, -1.0, 2.0, NAN, -2.0];
        // To differentiate at: what lets through and what does not.
        let stand_in = vec![1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0, 2.0, 1.0, -2.0];
        let mut case =
            Case::new(Box::new(|t: &[Tensor]| vec![t[0].relu()]), Box::new(|v: &[Vec<f64>]| vec![v[0].iter().map(|x| rectified(*x)).collect()]))
                .input("input", &[2, 5], x, dtype)
                .sized(1, 80);
        case.stand_in = Some(vec![stand_in]);
        case
    })
}

/// Of several NaN the last one takes the gradient.
fn max_pool(dtype: DType) -> Entry {
    let size = [2, 5, 4, 3];
    Entry::new("max_pool2d", format!("{size:?}, not finite"), dtype, move |random| {
        let mut x = random.distinct(size.iter().product());
        let mut stand_in = x.clone();
        for (at, value, large) in [(16, NAN, 100.0), (31, NAN, 200.0), (2, INFINITY, 50.0), (40, -INFINITY, -50.0)] {
            (x[at], stand_in[at]) = (value, large);
        }
        let pool = move |v: &[Vec<f64>]| vec![reference::max_pool2d(&v[0], size, 3, 2, 1, 0.0)];
        // A maximum in f64 takes a number before NaN: what stands in for NaN is put back.
        let forward = move |v: &[Vec<f64>]| {
            let large = v[0].iter().map(|x| if x.is_nan() { f64::MAX } else { *x }).collect();
            let y = pool(&[large]).remove(0);
            vec![y.into_iter().map(|y| if y == f64::MAX { NAN } else { y }).collect()]
        };
        let mut case =
            Case::new(Box::new(|t: &[Tensor]| vec![t[0].max_pool2d(3, 2, 1)]), Box::new(forward)).input("input", &size, x, dtype).sized(1, 120 * 9);
        case.smooth = Some(Box::new(pool));
        case.stand_in = Some(vec![stand_in]);
        case
    })
}

/// Running statistics go the way of the batch in f32; in f16 they go on without it.
fn batch_norm(training: bool, dtype: DType) -> Entry {
    const ROWS: usize = 9;
    const CHANNELS: usize = 6;
    let mode = if training { "training" } else { "evaluation" };
    Entry::new("batch_norm", format!("{ROWS}x{CHANNELS} {mode}, relu, not finite"), dtype, move |random| {
        let build = move |t: &[Tensor]| {
            let parameters = BatchNormParameters { weight: t[1].clone(), bias: t[2].clone(), running_mean: t[3].clone(), running_var: t[4].clone() };
            let mode = if training { BatchNormMode::Training { momentum: 0.1 } } else { BatchNormMode::Evaluation };
            vec![t[0].batch_norm(&parameters, mode).relu(), t[3].clone(), t[4].clone()]
        };
        let forward = move |v: &[Vec<f64>]| {
            if !training {
                let y = reference::batch_norm_evaluation(&v[0], &v[1], &v[2], &v[3], &v[4], None);
                return vec![y.iter().map(|y| rectified(*y)).collect(), v[3].clone(), v[4].clone()];
            }
            let n = reference::batch_norm_training(&v[0], &v[1], &v[2], None);
            let [mut mean, mut variance] = reference::running([&v[3], &v[4]], &n, ROWS, 0.1);
            // The kernel decides for four channels at a time.
            for four in (0..CHANNELS).step_by(4).map(|first| first..CHANNELS.min(first + 4)) {
                if dtype == DType::F16 && four.clone().any(|c| mean[c].is_nan()) {
                    mean[four.clone()].copy_from_slice(&v[3][four.clone()]);
                    variance[four.clone()].copy_from_slice(&v[4][four]);
                }
            }
            vec![n.y.iter().map(|y| rectified(*y)).collect(), mean, variance]
        };
        let mut x = random.values(ROWS * CHANNELS, 1.0);
        let mut stand_in = x.clone();
        (x[2 * CHANNELS + 1], stand_in[2 * CHANNELS + 1]) = (NAN, 9.0);
        let mut case = Case::new(Box::new(build), Box::new(forward))
            .outputs(&["", "running_mean", "running_var"])
            .with("input", &[ROWS, CHANNELS], x, dtype, Kind::Input, !training)
            .fixed("weight", &[CHANNELS], random.values(CHANNELS, 0.5).iter().map(|v| v + 1.0).collect())
            .fixed("bias", &[CHANNELS], random.values(CHANNELS, 0.5))
            .variable("running_mean", &[CHANNELS], random.values(CHANNELS, 1.0))
            .variable("running_var", &[CHANNELS], random.values(CHANNELS, 0.5).iter().map(|v| v + 1.0).collect())
            .sized(ROWS, 4 * ROWS * CHANNELS);
        let operands = case.operands.iter().map(|o| o.values.clone()).enumerate();
        case.stand_in = Some(operands.map(|(i, values)| if i == 0 { stand_in.clone() } else { values }).collect());
        if !training {
            let near = |v: &[Vec<f64>]| {
                let y = reference::batch_norm_evaluation(&v[0], &v[1], &v[2], &v[3], &v[4], None);
                y.iter().map(|y| if y.is_nan() { 1.0 } else { y.abs() }).collect()
            };
            case.kink = Some(Box::new(near));
        }
        case
    })
}

const SIZE: [usize; 4] = [2, 7, 6, 4];
const BETWEEN: usize = 8;
const OUT: usize = 12;

/// Before each ReLU of a block in evaluation mode, and its end, with ReLUs as they are or as
/// `masks` have them.
fn block_stages(v: &[Vec<f64>], masks: Option<&[Vec<f64>; 2]>) -> ([Vec<f64>; 2], Vec<f64>) {
    let [n, h, w, c] = SIZE;
    let activated = |y: &[f64], which: usize| -> Vec<f64> {
        y.iter().enumerate().map(|(i, y)| masks.map_or_else(|| rectified(*y), |masks| masks[which][i] * y)).collect()
    };
    let normalized = |y: &[f64], at: usize, residual| reference::batch_norm_evaluation(y, &v[at], &v[at + 1], &v[at + 2], &v[at + 3], residual);
    let first = normalized(&reference::conv2d(&v[0], [n, h, w, c], &v[1], [3, 3, BETWEEN], 1, 1), 2, None);
    let inner = reference::conv2d(&activated(&first, 0), [n, h, w, BETWEEN], &v[6], [3, 3, OUT], 1, 1);
    let second = normalized(&inner, 7, Some(&v[11]));
    let joined = activated(&second, 1);
    let end = reference::conv2d(&joined, [n, h, w, OUT], &v[12], [1, 1, OUT], 1, 0).iter().zip(&joined).map(|(a, b)| a + b).collect();
    ([first, second], end)
}

/// A residual block of which one pixel is no number.
fn block(dtype: DType) -> Entry {
    let [n, h, w, c] = SIZE;
    Entry::new("block", format!("{n}x{h}x{w}x{c} to {BETWEEN} to {OUT}, not finite"), dtype, move |random| {
        let margin = if dtype == DType::F32 { 3e-4 } else { 6e-3 };
        loop {
            let mut case = draw(dtype, random);
            let values: Vec<Vec<f64>> = case.operands.iter().map(|o| o.values.clone()).collect();
            let (before, _) = block_stages(&values, None);
            if before.iter().flatten().any(|v| v.abs() < margin) {
                continue;
            }
            let masks = before.map(|y| y.iter().map(|y| f64::from(u8::from(y.is_nan() || *y > 0.0))).collect());
            case.smooth = Some(Box::new(move |v| vec![block_stages(v, Some(&masks)).1]));
            let finite = |v: &Vec<f64>| v.iter().map(|v| if v.is_nan() { 0.0 } else { *v }).collect();
            case.stand_in = Some(values.iter().map(finite).collect());
            return case;
        }
    })
}

fn draw(dtype: DType, random: &mut Random) -> Case {
    let [n, h, w, c] = SIZE;
    let build = |t: &[Tensor]| {
        let parameters = |at: usize| BatchNormParameters {
            weight: t[at].clone(),
            bias: t[at + 1].clone(),
            running_mean: t[at + 2].clone(),
            running_var: t[at + 3].clone(),
        };
        let inner = t[0].conv2d(&t[1], 1, 1).batch_norm(&parameters(2), BatchNormMode::Evaluation).relu();
        let joined = inner.conv2d(&t[6], 1, 1).batch_norm(&parameters(7), BatchNormMode::Evaluation).add(&t[11]).relu();
        vec![joined.conv2d(&t[12], 1, 0).add(&joined)]
    };
    let mut x = random.values(n * h * w * c, 1.0);
    x[(w + 1) * c + 2] = NAN;
    let weight = |case: Case, name, [k, i, o]: [usize; 3], random: &mut Random| {
        case.with(name, &[k, k, i, o], random.values(k * k * i * o, 1.0), dtype, Kind::Weight, false)
    };
    let norm = |case: Case, [gamma, beta, mean, variance]: [&'static str; 4], channels: usize, random: &mut Random| {
        case.fixed(gamma, &[channels], random.values(channels, 0.5).iter().map(|v| v + 1.0).collect())
            .fixed(beta, &[channels], random.values(channels, 0.5))
            .variable(mean, &[channels], random.values(channels, 1.0))
            .variable(variance, &[channels], random.values(channels, 0.5).iter().map(|v| v + 1.0).collect())
    };
    let case = Case::new(Box::new(build), Box::new(|v: &[Vec<f64>]| vec![block_stages(v, None).1])).input("input", &SIZE, x, dtype);
    let case = weight(case, "weight1", [3, c, BETWEEN], random);
    let case = norm(case, ["gamma1", "beta1", "mean1", "variance1"], BETWEEN, random);
    let case = weight(case, "weight2", [3, BETWEEN, OUT], random);
    let case = norm(case, ["gamma2", "beta2", "mean2", "variance2"], OUT, random);
    let case = case.input("residual", &[n, h, w, OUT], random.values(n * h * w * OUT, 1.0), dtype);
    weight(case, "weight3", [1, OUT, OUT], random).sized(9 * OUT, 9 * n * h * w * BETWEEN * (c + OUT))
}

/// Rows of the least numbers, of infinities, of equal zeros of both signs, and with NaN, of which
/// the first is taken.
fn argmax() -> Entry {
    const LOW: f64 = f32::MIN as f64;
    let rows: [([f64; 6], f64); 6] = [
        ([LOW; 6], 0.0),
        ([-INFINITY; 6], 0.0),
        ([LOW, -3.3e38, LOW, -3.3e38, LOW, LOW], 1.0),
        ([-0.0, 0.0, -0.0, 0.0, -1.0, -0.0], 0.0),
        ([1.0, NAN, INFINITY, NAN, 0.0, 2.0], 1.0),
        ([-INFINITY, -1.0, INFINITY, 3.0, INFINITY, -2.0], 2.0),
    ];
    Entry::new("argmax", "rows of limits".into(), DType::F32, move |_| {
        let best = rows.map(|(_, best)| best).to_vec();
        Case::new(Box::new(|t: &[Tensor]| vec![t[0].argmax_rows()]), Box::new(move |_: &[Vec<f64>]| vec![best.clone()])).fixed(
            "input",
            &[6, 6],
            rows.iter().flat_map(|(row, _)| *row).collect(),
        )
    })
}

/// A row with NaN is NaN; the others are what they would be.
fn rows(op: &'static str, build: fn(&Tensor) -> Tensor, forward: fn(&[f64]) -> Vec<f64>, transcendental: bool) -> Entry {
    Entry::new(op, "4x5, not finite".into(), DType::F32, move |random| {
        let mut x = random.values(20, 1.0);
        x[7] = NAN;
        let mut case = Case::new(Box::new(move |t: &[Tensor]| vec![build(&t[0])]), Box::new(move |v: &[Vec<f64>]| vec![forward(&v[0])])).fixed(
            "input",
            &[4, 5],
            x,
        );
        case.transcendental = transcendental;
        case.stand_in = Some(Vec::new());
        case
    })
}

fn normalize() -> Entry {
    rows(
        "normalize",
        Tensor::normalize,
        |x| {
            let mut y = reference::normalize(x, 5);
            // A maximum in f64 takes a number before NaN.
            y[5..10].fill(NAN);
            y
        },
        false,
    )
}

fn log_softmax() -> Entry {
    let spoilt = |x: &[f64]| {
        let mut y = reference::log_softmax(x, 5);
        y[5..10].fill(NAN);
        y
    };
    rows("log_softmax", Tensor::log_softmax, spoilt, true)
}

/// All codes share the sums of the spoilt column, and all columns those of the spoilt row.
fn sinkhorn() -> Entry {
    rows("sinkhorn", |x| x.sinkhorn(0.05, 2, 4), |_| vec![NAN; 20], true)
}
