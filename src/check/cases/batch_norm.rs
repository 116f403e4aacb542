//! Batch normalisation, with and without residual and ReLU.

use super::super::case::{Case, Entry};
use super::super::random::Random;
use super::super::reference::{self, Normalized};
use crate::graph::{DType, Tensor};
use crate::ops::{BatchNormMode, BatchNormParameters};

#[derive(Clone, Copy)]
struct Config {
    rows: usize,
    channels: usize,
    training: bool,
    residual: bool,
    relu: bool,
    /// Data are `mean` ± `spread`.
    mean: f64,
    spread: f64,
}

const MOMENTUM: f32 = 0.1;

pub(super) fn cases(dtype: DType, all: &mut Vec<Entry>) {
    // One and two rows with a variance of the size of eps: with a larger one the gradient cancels down to rounding noise.
    let mut sizes = vec![(1, 5, 0.0, 1.0), (2, 3, 0.0, 3e-3), (7, 1, 0.0, 1.0), (31, 13, 0.5, 1.0), (32, 33, 0.0, 1.0), (65, 30, -0.25, 1.0)];
    if dtype == DType::F32 {
        // Large means, many chunks, and many rows of one.
        sizes.extend([(257, 4, 100.0, 0.5), (4_099, 257, 0.0, 1.0), (210_001, 4, 1.0, 1.0)]);
    }
    for (rows, channels, mean, spread) in sizes {
        for training in [true, false] {
            for (residual, relu) in [(false, false), (false, true), (true, true), (true, false)] {
                // The two plain combinations are enough for what is large.
                if rows > 300 && (residual != relu || !training) {
                    continue;
                }
                all.push(entry(Config { rows, channels, training, residual, relu, mean, spread }, dtype));
            }
        }
    }
}

fn entry(config: Config, dtype: DType) -> Entry {
    let Config { rows, channels, training, residual, relu, .. } = config;
    let mode = if training { "training" } else { "evaluation" };
    let shape = format!(
        "{rows}x{channels} {mode}{}{}{}",
        if residual { " + residual" } else { "" },
        if relu { ", relu" } else { "" },
        if config.mean.abs() > 10.0 { ", large mean" } else { "" }
    );
    Entry::new("batch_norm", shape, dtype, move |random| case(config, dtype, random))
}

fn case(config: Config, dtype: DType, random: &mut Random) -> Case {
    let Config { rows, channels, training, residual, relu, .. } = config;
    let count = rows * channels;
    let build = move |t: &[Tensor]| {
        let parameters = BatchNormParameters { weight: t[1].clone(), bias: t[2].clone(), running_mean: t[3].clone(), running_var: t[4].clone() };
        let mode = if training { BatchNormMode::Training { momentum: MOMENTUM } } else { BatchNormMode::Evaluation };
        let y = t[0].batch_norm(&parameters, mode);
        let y = t.get(5).map_or(y.clone(), |residual| y.add(residual));
        vec![if relu { y.relu() } else { y }, t[3].clone(), t[4].clone()]
    };
    let normalized = move |v: &[Vec<f64>]| -> Normalized {
        let residual = v.get(5).map(Vec::as_slice);
        if training {
            return reference::batch_norm_training(&v[0], &v[1], &v[2], residual);
        }
        let y = reference::batch_norm_evaluation(&v[0], &v[1], &v[2], &v[3], &v[4], residual);
        Normalized { y, mean: Vec::new(), variance: Vec::new() }
    };
    let reference = move |v: &[Vec<f64>]| {
        let mut n = normalized(v);
        if relu {
            n.y.iter_mut().for_each(|y| *y = y.max(0.0));
        }
        if !training {
            return vec![n.y, v[3].clone(), v[4].clone()];
        }
        let [mean, variance] = reference::running([&v[3], &v[4]], &n, rows, MOMENTUM);
        vec![n.y, mean, variance]
    };
    let x = random.values(count, config.spread).into_iter().map(|v| v + config.mean).collect();
    let mut case = Case::new(Box::new(build), Box::new(reference))
        .outputs(&["", "running_mean", "running_var"])
        .input("input", &[rows, channels], x, dtype)
        .input("weight", &[channels], random.values(channels, 0.5).iter().map(|v| v + 1.0).collect(), DType::F32)
        .input("bias", &[channels], random.values(channels, 0.5), DType::F32)
        .variable("running_mean", &[channels], random.values(channels, 1.0))
        .variable("running_var", &[channels], random.values(channels, 0.5).iter().map(|v| v + 1.0).collect())
        .sized(rows, 4 * count);
    // Uniform data deviate by spread/√3. The sums of a single channel have no larger neighbour to be measured by.
    case.cancellation = (2.0 * config.mean.abs() / config.spread).max(if channels == 1 { 100.0 } else { 1.0 });
    if residual {
        case = case.input("residual", &[rows, channels], random.values(count, 1.0), dtype);
    }
    if relu {
        case.kink = Some(Box::new(move |v| normalized(v).y.iter().map(|y| y.abs()).collect()));
    }
    case
}
