//! Matrices: linear layers, normalisation, the queue.

use super::super::case::{Case, Entry, Kind};
use super::super::reference;
use crate::graph::{DType, Tensor};

/// Fully connected layers: the matrix product of the convolution kernels, and the bias.
pub(super) fn linear(dtype: DType, all: &mut Vec<Entry>) {
    for (rows, inputs, outputs, bias) in
        [(1, 1, 1, true), (5, 13, 7, true), (16, 64, 16, false), (3, 2_049, 11, true), (130, 17, 129, true), (64, 30, 301, false), (257, 8, 33, true)]
    {
        let shape = format!("{rows}x{inputs} to {outputs}{}", if bias { " + bias" } else { "" });
        all.push(Entry::new("linear", shape, dtype, move |random| {
            let forward = move |v: &[Vec<f64>]| {
                let mut y = reference::conv2d(&v[0], [rows, 1, 1, inputs], &v[1], [1, 1, outputs], 1, 0);
                if bias {
                    y.iter_mut().enumerate().for_each(|(i, y)| *y += v[2][i % outputs]);
                }
                vec![y]
            };
            let case = Case::new(Box::new(|t: &[Tensor]| vec![t[0].linear(&t[1], t.get(2))]), Box::new(forward))
                .input("input", &[rows, inputs], random.values(rows * inputs, 1.0), dtype)
                .with("weight", &[1, 1, inputs, outputs], random.values(inputs * outputs, 1.0), dtype, Kind::Weight, true)
                .sized(inputs.max(outputs).max(rows), rows * inputs * outputs);
            if bias { case.input("bias", &[outputs], random.values(outputs, 1.0), DType::F32) } else { case }
        }));
    }
}

pub(super) fn cases(all: &mut Vec<Entry>) {
    // 65,537 workgroups of one row.
    for (rows, columns, scale) in [(1, 1, 1.0), (5, 7, 1.0), (33, 257, 1e-3), (3, 2_048, 10.0), (65_537, 5, 1.0)] {
        all.push(normalize(rows, columns, scale));
    }
    for (rows, columns) in [(1, 1), (128, 30), (7, 257)] {
        all.push(normalize_columns(rows, columns));
    }
    for (rows, columns) in [(1, 1), (127, 5), (129, 7), (20_000, 33)] {
        all.push(sum_columns(rows, columns));
    }
    for (rows, columns, levels) in [(1, 1, 1), (5, 7, 2), (3, 257, 3), (65_537, 5, 4), (33, 3_000, 1_000_000)] {
        all.push(argmax(rows, columns, levels));
    }
    for (position, rows) in [(0, 4), (5, 4), (9, 11)] {
        all.push(queue_push(position, rows));
        all.push(rows_at(position, rows));
    }
}

fn normalize(rows: usize, columns: usize, scale: f64) -> Entry {
    Entry::new("normalize", format!("{rows}x{columns} times {scale}"), DType::F32, move |random| {
        // Away from 0, where a direction turns on a hair.
        let away = |v: f64| v + 0.2_f64.copysign(v);
        let values = random.values(rows * columns, 1.0).into_iter().map(|v| away(v) * scale).collect();
        Case::new(Box::new(|t: &[Tensor]| vec![t[0].normalize()]), Box::new(move |v: &[Vec<f64>]| vec![reference::normalize(&v[0], columns)]))
            .input("input", &[rows, columns], values, DType::F32)
            .sized(columns, 4 * rows * columns)
    })
}

/// Values of a few levels only, so that there are ties.
fn argmax(rows: usize, columns: usize, levels: usize) -> Entry {
    Entry::new("argmax", format!("{rows}x{columns} of {levels} levels"), DType::F32, move |random| {
        #[expect(clippy::cast_precision_loss, reason = "test sizes")]
        let values = (0..rows * columns).map(|_| random.below(levels) as f64 - 700.0).collect();
        #[expect(clippy::cast_precision_loss, reason = "test sizes")]
        let best = move |row: &[f64]| (0..columns).fold(0, |best, k| if row[k] > row[best] { k } else { best }) as f64;
        let forward = move |v: &[Vec<f64>]| vec![v[0].chunks_exact(columns).map(best).collect()];
        Case::new(Box::new(|t: &[Tensor]| vec![t[0].argmax_rows()]), Box::new(forward)).fixed("input", &[rows, columns], values)
    })
}

fn normalize_columns(rows: usize, columns: usize) -> Entry {
    Entry::new("normalize_columns", format!("{rows}x{columns}"), DType::F32, move |random| {
        let build = |t: &[Tensor]| {
            t[0].normalize_columns();
            vec![t[0].clone()]
        };
        let forward = move |v: &[Vec<f64>]| {
            let transpose = |m: &[f64], rows: usize, columns: usize| -> Vec<f64> {
                (0..columns).flat_map(|c| (0..rows).map(move |r| (r, c))).map(|(r, c)| m[r * columns + c]).collect()
            };
            vec![transpose(&reference::normalize(&transpose(&v[0], rows, columns), rows), columns, rows)]
        };
        // Columns that are zero stay zero.
        let mut values = random.values(rows * columns, 1.0);
        values.iter_mut().skip(columns / 2).step_by(columns).for_each(|v| *v = if columns > 1 { 0.0 } else { *v });
        Case::new(Box::new(build), Box::new(forward)).variable("matrix", &[1, 1, rows, columns], values).sized(rows, 0)
    })
}

fn sum_columns(rows: usize, columns: usize) -> Entry {
    Entry::new("sum_columns", format!("{rows}x{columns}"), DType::F32, move |random| {
        let forward = move |v: &[Vec<f64>]| vec![(0..columns).map(|c| v[0].iter().skip(c).step_by(columns).sum()).collect()];
        Case::new(Box::new(|t: &[Tensor]| vec![t[0].sum_columns()]), Box::new(forward))
            .fixed("input", &[rows, columns], random.values(rows * columns, 1.0))
            .sized(rows, 0)
    })
}

const LENGTH: usize = 13;
const DEPTH: usize = 6;

fn rows_at(position: usize, rows: usize) -> Entry {
    Entry::new("rows_at", format!("{rows} rows at {position} of {LENGTH}x{DEPTH}"), DType::F32, move |random| {
        let forward = move |v: &[Vec<f64>]| {
            let row = |r: usize| v[1][(position + r) % LENGTH * DEPTH..][..DEPTH].to_vec();
            vec![(0..rows).flat_map(row).collect()]
        };
        #[expect(clippy::cast_precision_loss, reason = "a row number")]
        let at = vec![position as f64];
        Case::new(Box::new(move |t: &[Tensor]| vec![t[1].rows_at(&t[0], rows)]), Box::new(forward))
            .with("position", &[1], at, DType::U32, Kind::Input, false)
            .variable("bank", &[LENGTH, DEPTH], random.values(LENGTH * DEPTH, 1.0))
    })
}

fn queue_push(position: usize, rows: usize) -> Entry {
    Entry::new("queue_push", format!("{rows} rows at {position} of {LENGTH}x{DEPTH}"), DType::F32, move |random| {
        let build = move |t: &[Tensor]| {
            t[0].queue_push(2, rows, &t[1], &t[2]);
            vec![t[2].clone()]
        };
        let forward = move |v: &[Vec<f64>]| {
            let mut queue = v[2].clone();
            for row in 0..rows {
                let to = (position + row) % LENGTH * DEPTH;
                queue[to..to + DEPTH].copy_from_slice(&v[0][(2 + row) * DEPTH..(3 + row) * DEPTH]);
            }
            vec![queue]
        };
        #[expect(clippy::cast_precision_loss, reason = "a row number")]
        let at = vec![position as f64];
        Case::new(Box::new(build), Box::new(forward))
            .fixed("features", &[rows + 2, DEPTH], random.values((rows + 2) * DEPTH, 1.0))
            .with("position", &[1], at, DType::U32, Kind::Input, false)
            .variable("queue", &[LENGTH, DEPTH], random.values(LENGTH * DEPTH, 1.0))
    })
}
