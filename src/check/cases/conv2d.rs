//! Convolution: the kernels' tiles are 16, 32, 64, 128 rows by 4, 32, 64, 128 columns, the weight gradient's 32, 64, 128 by 32, 64, 128.

use super::super::case::{Case, Entry, Kind};
use super::super::reference;
use crate::graph::DType;

/// Batch, height, width, channels in and out, window, stride, padding.
type Size = [usize; 8];

const SIZES: &[Size] = &[
    [1, 1, 1, 1, 1, 1, 1, 0],
    [1, 7, 5, 3, 1, 1, 1, 0],
    [5, 1, 1, 3, 4, 3, 1, 1],
    [1, 1, 70, 4, 6, 3, 1, 1],
    [2, 9, 9, 2, 3, 5, 3, 2],
    [2, 11, 13, 5, 7, 3, 1, 1],
    [1, 2, 2, 5, 7, 3, 2, 1],
    [1, 33, 31, 3, 10, 7, 2, 3],
    [2, 7, 7, 30, 13, 3, 2, 1],
    [1, 8, 9, 31, 37, 1, 2, 0],
    [1, 7, 8, 6, 5, 2, 3, 1],
    // Rows around the edges of tiles.
    [1, 1, 15, 8, 33, 1, 1, 0],
    [1, 1, 16, 8, 32, 1, 1, 0],
    [1, 1, 17, 8, 31, 3, 1, 1],
    [1, 7, 9, 65, 64, 1, 1, 0],
    [1, 8, 8, 64, 64, 3, 1, 1],
    [1, 5, 13, 17, 257, 1, 1, 0],
    [1, 3, 11, 36, 40, 3, 1, 1],
    [3, 5, 9, 33, 130, 3, 1, 1],
    // Tiles of 4x4 that an image does not fill, of more images than go at a time where bindings are small; windows beyond the edge and within it.
    [7, 10, 9, 8, 7, 3, 1, 1],
    [2, 6, 7, 8, 12, 3, 1, 2],
    [2, 9, 6, 12, 8, 3, 1, 0],
    // As many channels as the largest tiles have rows, and more tiles of 4x4 than a segment of pixels has.
    [3, 33, 37, 128, 8, 3, 1, 1],
    // Whole slabs of 16, 32 and 64 terms, so that nothing is looked for: every pixel, every other one, and where a stride leaves classes of them a single tap.
    [2, 8, 8, 128, 72, 1, 1, 0],
    [1, 9, 15, 64, 48, 1, 2, 0],
    [1, 6, 7, 24, 64, 3, 2, 1],
];

/// Beyond what a driver that cuts loops lets one invocation count, and beyond 65,535 workgroups of the plain kernel.
const MANY_PIXELS: &[Size] = &[[2, 190, 190, 3, 4, 3, 1, 1], [1, 1, 70_001, 4, 4, 1, 1, 0]];

pub(super) fn cases(dtype: DType, all: &mut Vec<Entry>) {
    let sizes = SIZES.iter().chain(MANY_PIXELS.iter().filter(|_| dtype == DType::F32));
    all.extend(sizes.clone().map(|&size| entry(size, dtype, dtype)));
    if dtype == DType::F32 {
        all.extend(sizes.map(|&size| entry(size, dtype, dtype).rounding()));
    } else {
        // Weights that stay in f32.
        all.extend([SIZES[5], SIZES[7], SIZES[14]].map(|size| entry(size, dtype, DType::F32)));
    }
}

fn entry(size: Size, dtype: DType, weight: DType) -> Entry {
    let [n, h, w, c, o, k, stride, padding] = size;
    let mixed = if weight == dtype { "" } else { ", weight in f32" };
    let shape = format!("{n}x{h}x{w}x{c} to {o}, {k}x{k} stride {stride} padding {padding}{mixed}");
    Entry::new("conv2d", shape, dtype, move |random| {
        let (p, q) = ((h + 2 * padding - k) / stride + 1, (w + 2 * padding - k) / stride + 1);
        let build = Box::new(move |t: &[crate::graph::Tensor]| vec![t[0].conv2d(&t[1], stride, padding)]);
        let reference = Box::new(move |v: &[Vec<f64>]| vec![reference::conv2d(&v[0], [n, h, w, c], &v[1], [k, k, o], stride, padding)]);
        let weights = random.values(k * k * c * o, 1.0);
        Case::new(build, reference)
            .input("input", &[n, h, w, c], random.values(n * h * w * c, 1.0), dtype)
            .with("weight", &[k, k, c, o], weights, weight, Kind::Weight, true)
            .sized((n * p * q).max(k * k * c.max(o)), n * p * q * k * k * c * o)
    })
}
