//! Pillow's Gaussian blur, bit for bit: three box blurs of fractional radius, first along rows, then along columns.
//!
//! The box's radius is computed in f32 as Pillow does (f64 gives other pixels for some radii). A box of radius `r + f` takes `2r + 1` pixels
//! whole and the two beyond in part, with 24-bit fixed point weights; edges are repeated; every pass rounds to 8 bits.

const PASSES: usize = 3;
const BITS: u32 = 24;

/// Buffers that blurring needs, kept between calls.
#[derive(Default)]
pub struct BlurScratch {
    lines: [Vec<u8>; 2],
    spare: Vec<u8>,
    sums: Vec<u32>,
}

/// One box: `radius` whole pixels to each side weigh `whole`, the next one weighs `part` (2^24 is one).
#[derive(Clone, Copy)]
struct Kernel {
    radius: usize,
    whole: u32,
    part: u32,
}

impl Kernel {
    /// The box whose threefold application has the standard deviation `sigma` (Gwosdek et al., SSVM 2011: the extended box).
    fn of_gaussian(sigma: f32) -> Self {
        let variance = sigma * sigma / PASSES as f32;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let l = ((f64::from(length) - 1.0) / 2.0).floor() as f32;
        let a = (2.0 * l + 1.0) * (l * (l + 1.0) - 3.0 * variance) / (6.0 * (variance - (l + 1.0) * (l + 1.0)));
        let exact = l + a;
        let radius = exact as usize;
        let whole = ((1u32 << BITS) as f32 / (exact * 2.0 + 1.0)) as u32;
        let part = ((1 << BITS) - (2 * radius as u32 + 1) * whole) / 2;
        Self { radius, whole, part }
    }

    /// Blurs along the axis that `line(-radius - 1 ..= radius + 1)` steps through: `line(d)` are all pixels moved by `d`.
    fn pass<'a>(self, line: impl Fn(isize) -> &'a [u8], sums: &mut [u32], out: &mut [u8]) {
        const HALF: u32 = 1 << (BITS - 1);
        let r = self.radius as isize;
        let (low, high) = (line(-r - 1), line(r + 1));
        // Up to sigma 2.4 the radius is 0 or 1: those two need no memory between the additions.
        let whole: &[u32] = match r {
            0 => {
                for (((o, &m), &l), &h) in out.iter_mut().zip(line(0)).zip(low).zip(high) {
                    *o = ((u32::from(m) * self.whole + (u32::from(l) + u32::from(h)) * self.part + HALF) >> BITS) as u8;
                }
                return;
            }
            1 => {
                for (((s, &a), &b), &c) in sums.iter_mut().zip(line(-1)).zip(line(0)).zip(line(1)) {
                    *s = u32::from(a) + u32::from(b) + u32::from(c);
                }
                sums
            }
            _ => {
                sums.fill(0);
                for d in -r..=r {
                    for (s, &p) in sums.iter_mut().zip(line(d)) {
                        *s += u32::from(p);
                    }
                }
                sums
            }
        };
        for (((o, &m), &l), &h) in out.iter_mut().zip(whole).zip(low).zip(high) {
            *o = ((m * self.whole + (u32::from(l) + u32::from(h)) * self.part + HALF) >> BITS) as u8;
        }
    }
}

/// Blurs `pixels`, `(height, width, 3)` bytes, in place; `sigma` is the standard deviation in pixels (what Pillow calls radius).
pub fn gaussian_blur(pixels: &mut Vec<u8>, width: usize, sigma: f64, scratch: &mut BlurScratch) {
    let stride = width * 3;
    if pixels.is_empty() || !sigma.is_finite() || sigma <= 0.0 {
        return;
    }
    let kernel = Kernel::of_gaussian(sigma as f32);
    let BlurScratch { lines: [line, next], spare, sums } = scratch;
    sums.resize(stride, 0);

    // Along rows: a line carries repeated edge pixels on both sides, renewed before each pass because they follow the blurred edge.
    let margin = (kernel.radius + 1) * 3;
    line.resize(stride + 2 * margin, 0);
    next.resize(stride + 2 * margin, 0);
    for row in pixels.chunks_exact_mut(stride) {
        line[margin..margin + stride].copy_from_slice(row);
        for _ in 0..PASSES {
            for at in (0..margin).step_by(3) {
                line.copy_within(margin..margin + 3, at);
                line.copy_within(margin + stride - 3..margin + stride, margin + stride + at);
            }
            let shifted = |d: isize| &line[margin.wrapping_add_signed(3 * d)..][..stride];
            kernel.pass(shifted, sums, &mut next[margin..margin + stride]);
            std::mem::swap(line, next);
        }
        row.copy_from_slice(&line[margin..margin + stride]);
    }

    // Along columns: whole rows are added, which needs no margins, only clamped row numbers.
    spare.resize(pixels.len(), 0);
    let last = pixels.len() / stride - 1;
    for _ in 0..PASSES {
        for (y, row) in spare.chunks_exact_mut(stride).enumerate() {
            let moved = |d: isize| &pixels[y.saturating_add_signed(d).min(last) * stride..][..stride];
            kernel.pass(moved, sums, row);
        }
        std::mem::swap(pixels, spare);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_image_stays_flat_and_a_dot_keeps_its_mass_at_any_radius() {
        let mut scratch = BlurScratch::default();
        for sigma in [0.1, 0.7, 1.9, 2.5, 6.0, 40.0] {
            let mut flat = vec![201; 7 * 5 * 3];
            gaussian_blur(&mut flat, 7, sigma, &mut scratch);
            assert_eq!(flat, [201; 105], "sigma {sigma}");
        }
        let mut dot = vec![0; 33 * 33 * 3];
        dot[(16 * 33 + 16) * 3] = 255;
        gaussian_blur(&mut dot, 33, 2.0, &mut scratch);
        let mass: u32 = dot.iter().map(|&v| u32::from(v)).sum();
        assert!((200..=310).contains(&mass) && dot[(16 * 33 + 16) * 3] < 20, "{mass}");
        assert!(dot.iter().skip(1).step_by(3).all(|&v| v == 0), "channels must not mix");
        let before = dot.clone();
        gaussian_blur(&mut dot, 33, 0.0, &mut scratch);
        assert_eq!(dot, before);
    }
}
