//! Pooling, ties included.

use super::super::case::{Case, Entry};
use super::super::reference;
use crate::graph::{DType, Tensor};

pub(super) fn cases(dtype: DType, all: &mut Vec<Entry>) {
    for size in [[1, 1, 1, 1], [2, 7, 5, 3], [1, 8, 8, 5], [3, 5, 2, 30], [1, 33, 31, 4]] {
        all.push(max_pool(size, [3, 2, 1], false, dtype));
        all.push(max_pool(size, [3, 2, 1], true, dtype));
    }
    for window in [[2, 2, 0], [3, 1, 1], [5, 3, 2]] {
        all.push(max_pool([2, 11, 7, 6], window, true, dtype));
    }
    for size in [[1, 1, 1], [2, 49, 3], [5, 1, 257], [7, 33, 30], [1, 3_001, 5], [2, 60_001, 3]] {
        all.push(global_avg_pool(size, dtype));
    }
}

fn max_pool(size: [usize; 4], [kernel, stride, padding]: [usize; 3], ties: bool, dtype: DType) -> Entry {
    let shape = format!("{size:?} {kernel}x{kernel} stride {stride} padding {padding}{}", if ties { ", ties" } else { "" });
    Entry::new("max_pool2d", shape, dtype, move |random| {
        let count = size.iter().product();
        // Three values only, or values that differ by more than the differences' step even in f16.
        let values = if ties { (0..count).map(|_| random.below(3) as f64 * 0.5 - 1.0).collect() } else { random.distinct(count.min(1_000)) };
        let values = values.iter().copied().cycle().take(count).collect();
        let mut case = Case::new(
            Box::new(move |t: &[Tensor]| vec![t[0].max_pool2d(kernel, stride, padding)]),
            Box::new(move |v: &[Vec<f64>]| vec![reference::max_pool2d(&v[0], size, kernel, stride, padding, 0.0)]),
        )
        .input("input", &size, values, dtype)
        .sized(1, count * kernel * kernel);
        // Small enough to decide between equal values only, and larger than the differences' step.
        case.smooth = Some(Box::new(move |v: &[Vec<f64>]| vec![reference::max_pool2d(&v[0], size, kernel, stride, padding, 5e-5)]));
        case
    })
}

fn global_avg_pool([n, pixels, c]: [usize; 3], dtype: DType) -> Entry {
    Entry::new("global_avg_pool2d", format!("{n}x{pixels}x{c}"), dtype, move |random| {
        Case::new(
            Box::new(|t: &[Tensor]| vec![t[0].global_avg_pool2d()]),
            Box::new(move |v: &[Vec<f64>]| vec![reference::global_avg_pool2d(&v[0], [n, pixels, c])]),
        )
        .input("input", &[n, 1, pixels, c], random.values(n * pixels * c, 1.0), dtype)
        .sized(pixels, n * pixels * c)
    })
}
