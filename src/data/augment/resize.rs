//! Bilinear resize of 8-bit RGB, bit for bit as Pillow does it.
//!
//! Antialiased: when shrinking, the triangle filter is as wide as the scale. Weights are 22-bit fixed point, normalised per output pixel;
//! columns are resized first, then rows, each pass rounded to 8 bits. The box is cut out before resizing: taps never reach outside it.
//! Only the wanted window of the output is computed, so a centre crop of a very long image costs no more than the crop.

use crate::data::Rgb8;

/// Fraction bits of a weight: 32 less 8 for the pixel and 2 of headroom.
const BITS: u32 = 22;

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// Left edge.
    pub x: usize,
    /// Top edge.
    pub y: usize,
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
}

impl Rect {
    /// The rectangle from the origin.
    pub fn full(width: usize, height: usize) -> Self {
        Self { x: 0, y: 0, width, height }
    }
}

/// Buffers that resizing needs, kept between calls.
#[derive(Default)]
pub struct ResizeScratch {
    across: Taps,
    down: Taps,
    rows: Vec<u8>,
    sums: Vec<i32>,
}

/// For a run of output pixels: which input pixels each one is made of.
#[derive(Default)]
struct Taps {
    /// First input pixel and number of them.
    spans: Vec<(usize, usize)>,
    /// Weights of all spans, one after the other.
    weights: Vec<i32>,
    /// One span's weights before rounding.
    exact: Vec<f64>,
}

impl Taps {
    /// Taps of output pixels `from..from + count` when `input` pixels become `output`.
    fn compute(&mut self, input: usize, output: usize, from: usize, count: usize) {
        self.spans.clear();
        self.weights.clear();
        let scale = input as f64 / output as f64;
        let support = scale.max(1.0);
        let inverse = 1.0 / support;
        for x in from..from + count {
            let center = (x as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            self.exact.clear();
            self.exact.extend((first..end).map(|i| (1.0 - ((i as f64 - center + 0.5) * inverse).abs()).max(0.0)));
            // A left-to-right sum, as the reference adds them: another order could round differently.
            let total: f64 = self.exact.iter().sum();
            self.weights.extend(self.exact.iter().map(|w| (0.5 + w / total * f64::from(1 << BITS)) as i32));
            self.spans.push((first, end - first));
        }
    }

    /// The input pixels that are used at all: first and one past the last.
    fn range(&self) -> (usize, usize) {
        let first = self.spans.first().map_or(0, |s| s.0);
        (first, self.spans.last().map_or(first, |s| s.0 + s.1))
    }

    /// Spans with their weights.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let mut at = 0;
        self.spans.iter().map(move |&(first, count)| {
            at += count;
            (first, &self.weights[at - count..at])
        })
    }
}

/// A rounded sum back to a pixel. Weights are not negative, so only the upper end can be passed (by rounding).
fn pixel(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// Cuts `crop` out of `image`, resizes it to `size` = (width, height) and writes the part `window` of the result to `out`, which becomes
/// `(window.height, window.width, 3)` bytes.
///
/// # Panics
/// When `crop` is empty or not inside the image, or `window` not inside `size`: both are the caller's arithmetic.
pub fn resize(image: &Rgb8, crop: Rect, size: (usize, usize), window: Rect, scratch: &mut ResizeScratch, out: &mut Vec<u8>) {
    assert!(crop.width > 0 && crop.height > 0, "empty crop {crop:?}");
    assert!(crop.x + crop.width <= image.width && crop.y + crop.height <= image.height, "crop {crop:?} outside of {image:?}");
    assert!(window.x + window.width <= size.0 && window.y + window.height <= size.1, "window {window:?} outside of {size:?}");
    let ResizeScratch { across, down, rows, sums } = scratch;
    across.compute(crop.width, size.0, window.x, window.width);
    down.compute(crop.height, size.1, window.y, window.height);
    let (top, bottom) = down.range();
    let stride = window.width * 3;

    rows.resize((bottom - top) * stride, 0);
    for (y, row) in rows.chunks_exact_mut(stride.max(1)).enumerate() {
        let start = ((crop.y + top + y) * image.width + crop.x) * 3;
        let source = &image.pixels[start..start + crop.width * 3];
        for ((first, weights), target) in across.iter().zip(row.chunks_exact_mut(3)) {
            let mut sum = [1 << (BITS - 1); 3];
            for (p, &w) in source[first * 3..].chunks_exact(3).zip(weights) {
                for c in 0..3 {
                    sum[c] += w * i32::from(p[c]);
                }
            }
            target.copy_from_slice(&sum.map(pixel));
        }
    }

    out.resize(window.height * stride, 0);
    sums.resize(stride, 0);
    for ((first, weights), target) in down.iter().zip(out.chunks_exact_mut(stride.max(1))) {
        sums.fill(1 << (BITS - 1));
        for (row, &w) in rows[(first - top) * stride..].chunks_exact(stride).zip(weights) {
            for (sum, &p) in sums.iter_mut().zip(row) {
                *sum += w * i32::from(p);
            }
        }
        for (t, &sum) in target.iter_mut().zip(sums.iter()) {
            *t = pixel(sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_that_part_of_the_whole_and_one_pixel_fills_everything() {
        let pixels = (0..23 * 17 * 3).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let image = Rgb8 { width: 23, height: 17, pixels };
        let crop = Rect { x: 2, y: 1, width: 20, height: 15 };
        let (mut s, mut whole, mut part) = (ResizeScratch::default(), Vec::new(), Vec::new());
        resize(&image, crop, (11, 31), Rect::full(11, 31), &mut s, &mut whole);
        resize(&image, crop, (11, 31), Rect { x: 3, y: 9, width: 5, height: 6 }, &mut s, &mut part);
        for y in 0..6 {
            let at = ((y + 9) * 11 + 3) * 3;
            assert_eq!(part[y * 15..(y + 1) * 15], whole[at..at + 15]);
        }
        // A 1x1 image, and a window of a very long resized one: neither may run out of bounds or memory.
        let dot = Rgb8 { width: 1, height: 1, pixels: vec![9, 8, 7] };
        resize(&dot, Rect::full(1, 1), (4, 4), Rect::full(4, 4), &mut s, &mut part);
        assert!(part.len() == 48 && part.chunks(3).all(|p| p == [9, 8, 7]));
        let line = Rgb8 { width: 1, height: 9000, pixels: vec![5; 27000] };
        let window = Rect { x: 16, y: 1_000_000, width: 8, height: 8 };
        resize(&line, Rect::full(1, 9000), (256, 256 * 9000), window, &mut s, &mut part);
        assert_eq!(part, [5; 192]);
    }
}
