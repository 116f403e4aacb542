//! What a residual block is made of, in one: two convolutions with batch norm, ReLU and a residual, and two paths that go on. Here nodes can be
//! fused; alone they cannot.

use super::super::case::{Case, Entry, Kind};
use super::super::random::Random;
use super::super::reference::{self, Normalized, batch_norm_training};
use crate::graph::{DType, Tensor};
use crate::ops::{BatchNormMode, BatchNormParameters};

/// Batch, height, width, channels in, between and out, stride.
type Size = [usize; 7];

const SIZES: &[Size] = &[[1, 5, 6, 3, 8, 8, 1], [2, 9, 7, 5, 13, 10, 2], [1, 3, 23, 4, 36, 33, 1], [3, 5, 7, 12, 6, 65, 2], [7, 6, 9, 8, 12, 8, 1]];

const MOMENTUM: f32 = 0.1;

/// In f16, where what lies between is rounded: few enough values that none need be near a kink.
/// And one with several matrices of columns.
const HALF: &[Size] = &[[1, 5, 6, 3, 8, 8, 1], [2, 5, 5, 5, 6, 7, 2], [1, 3, 3, 8, 24, 40, 1]];

pub(super) fn cases(dtype: DType, all: &mut Vec<Entry>) {
    for &size in if dtype == DType::F32 { SIZES } else { HALF } {
        let [n, h, w, c, m, o, stride] = size;
        let shape = format!("{n}x{h}x{w}x{c} to {m} to {o}, stride {stride}");
        all.push(Entry::new("block", shape, dtype, move |random| case(size, dtype, random)));
    }
}

/// What the two batch norms make, each before its ReLU, and the end.
fn stages([n, h, w, c, m, o, stride]: Size, v: &[Vec<f64>]) -> ([Normalized; 2], Vec<f64>) {
    let relu = |x: &[f64]| x.iter().map(|x| x.max(0.0)).collect::<Vec<f64>>();
    let (p, q) = ((h - 1) / stride + 1, (w - 1) / stride + 1);
    let first = batch_norm_training(&reference::conv2d(&v[0], [n, h, w, c], &v[1], [3, 3, m], 1, 1), &v[2], &v[3], None);
    let inner = reference::conv2d(&relu(&first.y), [n, h, w, m], &v[6], [3, 3, o], stride, 1);
    let second = batch_norm_training(&inner, &v[7], &v[8], Some(&v[11]));
    let joined = relu(&second.y);
    let end = reference::conv2d(&joined, [n, p, q, o], &v[12], [1, 1, o], 1, 0).iter().zip(&joined).map(|(a, b)| a + b).collect();
    ([first, second], end)
}

fn build(stride: usize) -> impl Fn(&[Tensor]) -> Vec<Tensor> {
    move |t: &[Tensor]| {
        let parameters = |at: usize| BatchNormParameters {
            weight: t[at].clone(),
            bias: t[at + 1].clone(),
            running_mean: t[at + 2].clone(),
            running_var: t[at + 3].clone(),
        };
        let mode = BatchNormMode::Training { momentum: MOMENTUM };
        let inner = t[0].conv2d(&t[1], 1, 1).batch_norm(&parameters(2), mode).relu();
        let joined = inner.conv2d(&t[6], stride, 1).batch_norm(&parameters(7), mode).add(&t[11]).relu();
        vec![joined.conv2d(&t[12], 1, 0).add(&joined), t[4].clone(), t[10].clone()]
    }
}

fn case(size: Size, dtype: DType, random: &mut Random) -> Case {
    let [n, h, w, c, m, o, stride] = size;
    let (p, q) = ((h - 1) / stride + 1, (w - 1) / stride + 1);
    // Neither differences nor roundings may step over a ReLU's kink.
    let margin = if dtype == DType::F32 { 3e-4 } else { 6e-3 };
    loop {
        let drawn = draw(size, dtype, random);
        let values: Vec<Vec<f64>> = drawn.operands.iter().map(|operand| operand.values.clone()).collect();
        let ([first, second], _) = stages(size, &values);
        if first.y.iter().chain(&second.y).all(|v| v.abs() > margin) {
            let work = 9 * n * (h * w * c * m + p * q * m * o);
            return drawn.outputs(&["", "running_mean", "running_var"]).sized(9 * m.max(n * h * w), work);
        }
    }
}

fn draw([n, h, w, c, m, o, stride]: Size, dtype: DType, random: &mut Random) -> Case {
    let (p, q) = ((h - 1) / stride + 1, (w - 1) / stride + 1);
    let reference = move |v: &[Vec<f64>]| {
        let ([first, second], end) = stages([n, h, w, c, m, o, stride], v);
        let [mean, _] = reference::running([&v[4], &v[5]], &first, n * h * w, MOMENTUM);
        let [_, variance] = reference::running([&v[9], &v[10]], &second, n * p * q, MOMENTUM);
        vec![end, mean, variance]
    };
    let mut case = Case::new(Box::new(build(stride)), Box::new(reference));
    case = case.input("input", &[n, h, w, c], random.values(n * h * w * c, 1.0), dtype);
    case = convolution(case, "weight1", [3, c, m], dtype, random);
    case = normalization(case, ["gamma1", "beta1", "mean1", "variance1"], m, random);
    case = convolution(case, "weight2", [3, m, o], dtype, random);
    case = normalization(case, ["gamma2", "beta2", "mean2", "variance2"], o, random);
    case = case.input("residual", &[n, p, q, o], random.values(n * p * q * o, 1.0), dtype);
    convolution(case, "weight3", [1, o, o], dtype, random)
}

fn convolution(case: Case, name: &'static str, [k, i, o]: [usize; 3], dtype: DType, random: &mut Random) -> Case {
    case.with(name, &[k, k, i, o], random.values(k * k * i * o, 1.0), dtype, Kind::Weight, true)
}

fn normalization(case: Case, [gamma, beta, mean, variance]: [&'static str; 4], channels: usize, random: &mut Random) -> Case {
    case.input(gamma, &[channels], random.values(channels, 0.5).iter().map(|v| v + 1.0).collect(), DType::F32)
        .input(beta, &[channels], random.values(channels, 0.5), DType::F32)
        .variable(mean, &[channels], random.values(channels, 1.0))
        .variable(variance, &[channels], random.values(channels, 0.5).iter().map(|v| v + 1.0).collect())
}
