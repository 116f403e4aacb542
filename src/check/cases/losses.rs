//! Softmax, cross-entropy, Sinkhorn codes and their swap.

use super::super::case::{Case, Entry, Kind};
use super::super::random::Random;
use super::super::reference;
use crate::graph::{DType, Tensor};

pub(super) fn cases(all: &mut Vec<Entry>) {
    // Logits around -200 would overflow if padding took part; ones of ±1000 if the largest were not taken off.
    for (rows, columns, scale, shift) in [
        (1, 1, 1.0, 0.0),
        (5, 7, 1.0, 0.0),
        (4, 33, 1.0, -200.0),
        (3, 30, 1_000.0, 0.0),
        (2, 257, 5.0, 300.0),
        (3, 30, 1.0, 1e5),
        (7, 3_000, 10.0, 0.0),
    ] {
        all.push(log_softmax(rows, columns, scale, shift));
        all.push(hard(rows, columns, scale, shift));
        all.push(soft(rows, columns, scale, shift));
        all.push(weighted(rows, columns, scale, shift));
    }
    for (rows, columns, keep, epsilon, iterations) in [
        (1, 5, 1, 0.05, 3),
        (6, 1, 6, 0.05, 3),
        (9, 13, 9, 0.05, 1),
        (63, 7, 63, 0.03, 3),
        (64, 30, 8, 0.03, 3),
        (65, 33, 1, 0.05, 2),
        (200, 3_000, 32, 0.05, 3),
    ] {
        all.push(sinkhorn(rows, columns, keep, epsilon, iterations));
    }
    all.push(swap_codes(5, 7, 4, &[0, 1]));
    all.push(swap_codes(2, 30, 3, &[0, 2]));
    all.push(swap_codes(1, 3, 2, &[1]));
}

fn logits(random: &mut Random, count: usize, scale: f64, shift: f64) -> Vec<f64> {
    random.values(count, scale).into_iter().map(|v| v + shift).collect()
}

fn log_softmax(rows: usize, columns: usize, scale: f64, shift: f64) -> Entry {
    Entry::new("log_softmax", format!("{rows}x{columns}, {shift} ± {scale}"), DType::F32, move |random| {
        Case::new(Box::new(|t: &[Tensor]| vec![t[0].log_softmax()]), Box::new(move |v: &[Vec<f64>]| vec![reference::log_softmax(&v[0], columns)]))
            .input("input", &[rows, columns], logits(random, rows * columns, scale, shift), DType::F32)
            .transcendental()
            .sized(columns, 20 * rows * columns)
    })
}

fn hard(rows: usize, columns: usize, scale: f64, shift: f64) -> Entry {
    Entry::new("cross_entropy", format!("{rows}x{columns}, {shift} ± {scale}"), DType::F32, move |random| {
        let labels: Vec<usize> = (0..rows).map(|_| random.below(columns)).collect();
        #[expect(clippy::cast_precision_loss, reason = "test sizes")]
        let (values, mean) = (labels.iter().map(|&l| l as f64).collect(), 1.0 / rows as f64);
        let targets: Vec<f64> = labels.iter().flat_map(|&l| (0..columns).map(move |k| f64::from(u8::from(k == l)))).collect();
        let forward = move |v: &[Vec<f64>]| vec![vec![reference::soft_cross_entropy(&v[0], &targets, columns, 1.0, mean)]];
        Case::new(Box::new(|t: &[Tensor]| vec![t[0].cross_entropy(&t[1])]), Box::new(forward))
            .input("input", &[rows, columns], logits(random, rows * columns, scale, shift), DType::F32)
            .with("labels", &[rows], values, DType::U32, Kind::Input, false)
            .transcendental()
            .sized(columns, 20 * rows * columns)
    })
}

fn soft(rows: usize, columns: usize, scale: f64, shift: f64) -> Entry {
    const TEMPERATURE: f32 = 0.1;
    const SCALE: f32 = 0.125;
    Entry::new("soft_cross_entropy", format!("{rows}x{columns}, {shift} ± {scale}"), DType::F32, move |random| {
        let forward =
            move |v: &[Vec<f64>]| vec![vec![reference::soft_cross_entropy(&v[0], &v[1], columns, f64::from(TEMPERATURE), f64::from(SCALE))]];
        // Rows of any mass, as a view that predicts two crops or none has.
        let targets = (0..rows * columns).map(|i| (i / columns % 3) as f64 * random.signed().abs()).collect();
        Case::new(Box::new(|t: &[Tensor]| vec![t[0].soft_cross_entropy(&t[1], TEMPERATURE, SCALE)]), Box::new(forward))
            .input("input", &[rows, columns], logits(random, rows * columns, scale, shift), DType::F32)
            .fixed("targets", &[rows, columns], targets)
            .transcendental()
            .sized(columns, 20 * rows * columns)
    })
}

fn weighted(rows: usize, columns: usize, scale: f64, shift: f64) -> Entry {
    const TEMPERATURE: f32 = 0.1;
    Entry::new("weighted_cross_entropy", format!("{rows}x{columns}, {shift} ± {scale}"), DType::F32, move |random| {
        let labels: Vec<usize> = (0..rows).map(|_| random.below(columns)).collect();
        // Every third row does not count.
        let weights: Vec<f64> = (0..rows).map(|i| if i % 3 == 1 { 0.0 } else { 0.25 + random.signed().abs() }).collect();
        #[expect(clippy::cast_precision_loss, reason = "test sizes")]
        let values = labels.iter().map(|&l| l as f64).collect();
        let forward = move |v: &[Vec<f64>]| {
            let targets: Vec<f64> = labels.iter().zip(&v[2]).flat_map(|(&l, &w)| (0..columns).map(move |k| if k == l { w } else { 0.0 })).collect();
            vec![vec![reference::soft_cross_entropy(&v[0], &targets, columns, f64::from(TEMPERATURE), 1.0)]]
        };
        Case::new(Box::new(|t: &[Tensor]| vec![t[0].weighted_cross_entropy(&t[1], &t[2], TEMPERATURE)]), Box::new(forward))
            .input("input", &[rows, columns], logits(random, rows * columns, scale, shift), DType::F32)
            .with("labels", &[rows], values, DType::U32, Kind::Input, false)
            .fixed("weights", &[rows], weights)
            .transcendental()
            .sized(columns, 20 * rows * columns)
    })
}

fn sinkhorn(rows: usize, columns: usize, keep: usize, epsilon: f32, iterations: usize) -> Entry {
    let shape = format!("{rows}x{columns}, last {keep}, epsilon {epsilon}, {iterations} iterations");
    Entry::new("sinkhorn", shape, DType::F32, move |random| {
        let build = move |t: &[Tensor]| vec![t[0].sinkhorn(epsilon, iterations, keep)];
        let forward = move |v: &[Vec<f64>]| {
            let q = reference::sinkhorn(&v[0], columns, f64::from(epsilon), iterations);
            vec![q[(rows - keep) * columns..].to_vec()]
        };
        Case::new(Box::new(build), Box::new(forward))
            .fixed("scores", &[rows, columns], random.values(rows * columns, 1.0))
            .transcendental()
            .sized(columns, 0)
    })
}

fn swap_codes(batch: usize, columns: usize, views: usize, assign: &'static [usize]) -> Entry {
    Entry::new("swap_codes", format!("{batch}x{columns}, {views} views predict {assign:?}"), DType::F32, move |random| {
        let build = move |t: &[Tensor]| vec![t[0].swap_codes(views, assign)];
        let forward = move |v: &[Vec<f64>]| {
            let mut targets = vec![0.0; views * batch * columns];
            for view in 0..views {
                for (block, _) in assign.iter().enumerate().filter(|(_, crop)| **crop != view) {
                    for i in 0..batch * columns {
                        targets[view * batch * columns + i] += v[0][block * batch * columns + i];
                    }
                }
            }
            vec![targets]
        };
        let count = assign.len() * batch * columns;
        Case::new(Box::new(build), Box::new(forward)).fixed("codes", &[assign.len() * batch, columns], random.values(count, 1.0))
    })
}
