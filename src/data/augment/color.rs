//! Colour changes on 8-bit RGB as torchvision (and mmcv's `pillow` backend) make them on PIL images, bit for bit.
//!
//! Brightness, contrast and saturation blend with black, with the image's mean grey and with the grey image, in f32, truncated; hue goes
//! through Pillow's 8-bit HSV. All work in place on `(n, 3)` bytes.

use std::sync::LazyLock;

/// How a picture is turned grey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gray {
    /// Pillow's mode L: ITU-R 601 weights in 16-bit fixed point, rounded.
    Pillow,
    /// mmpretrain's weights .2989, .587, .114 over their sum, truncated.
    Weighted,
}

/// Pillow's L of one pixel.
fn luma(p: &[u8]) -> u8 {
    ((19595 * u32::from(p[0]) + 38470 * u32::from(p[1]) + 7471 * u32::from(p[2]) + 0x8000) >> 16) as u8
}

/// `base + factor (value - base)`, clipped to 0..=255 and truncated.
fn blend(base: u8, value: u8, factor: f32) -> u8 {
    let mixed = f32::from(base) + factor * (f32::from(value) - f32::from(base));
    mixed.clamp(0.0, 255.0) as i32 as u8
}

/// Blends every value with one base value.
fn blend_with(pixels: &mut [u8], base: u8, factor: f64) {
    let table: [u8; 256] = std::array::from_fn(|v| blend(base, v as u8, factor as f32));
    for v in pixels {
        *v = table[usize::from(*v)];
    }
}

/// Multiplies by `factor` (1 changes nothing, 0 is black).
pub fn brightness(pixels: &mut [u8], factor: f64) {
    blend_with(pixels, 0, factor);
}

/// Moves values away from (`factor` > 1) or towards the mean grey level of the image.
pub fn contrast(pixels: &mut [u8], factor: f64) {
    let sum: u64 = pixels.chunks_exact(3).map(|p| u64::from(luma(p))).sum();
    let mean = sum as f64 / (pixels.len() / 3).max(1) as f64;
    blend_with(pixels, (mean + 0.5) as u8, factor);
}

/// Moves each pixel away from (`factor` > 1) or towards its own grey.
pub fn saturation(pixels: &mut [u8], factor: f64) {
    let factor = factor as f32;
    for p in pixels.chunks_exact_mut(3) {
        let gray = luma(p);
        for v in p {
            *v = blend(gray, *v, factor);
        }
    }
}

/// Everything that depends on the 8-bit hue alone: its sector of the circle and its position in the sector.
static SECTORS: LazyLock<[(u8, f32); 256]> = LazyLock::new(|| {
    std::array::from_fn(|h| {
        let position = h as f64 * 6.0 / 255.0;
        (position as u8 % 6, (position - position.floor()) as f32)
    })
});

/// Turns the hue by `turn` of a full circle, -0.5..=0.5.
pub fn hue(pixels: &mut [u8], turn: f64) {
    // Truncated towards zero and wrapped, as a cast to uint8 does.
    let shift = (turn * 255.0) as i32 as u8;
    let sectors = &*SECTORS;
    for p in pixels.chunks_exact_mut(3) {
        let (h, s, v) = to_hsv(p[0], p[1], p[2]);
        if s == 0 {
            p.fill(v);
            continue;
        }
        let (sector, f) = sectors[usize::from(h.wrapping_add(shift))];
        let (s, f, value) = (f64::from(f32::from(s) / 255.0), f64::from(f), f64::from(v));
        // Halves are rounded up; nothing here is negative.
        let scaled = |x: f64| (((value * x) as f32) + 0.5) as i32 as u8;
        let (low, falling, rising) = (scaled(1.0 - s), scaled(1.0 - s * f), scaled(1.0 - s * (1.0 - f)));
        let rgb = match sector {
            0 => [v, rising, low],
            1 => [falling, v, low],
            2 => [low, v, rising],
            3 => [low, falling, v],
            4 => [rising, low, v],
            _ => [v, low, falling],
        };
        p.copy_from_slice(&rgb);
    }
}

/// Pillow's 8-bit HSV of one pixel; which steps are f32 and which f64 decides about the last bit.
fn to_hsv(r: u8, g: u8, b: u8) -> (u8, u8, u8) {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    if max == min {
        return (0, 0, max);
    }
    let chroma = f32::from(max - min);
    let away = |v: u8| f32::from(max - v) / chroma;
    let (rc, gc, bc) = (away(r), away(g), away(b));
    let sixths = if r == max {
        bc - gc
    } else if g == max {
        (2.0 + f64::from(rc) - f64::from(bc)) as f32
    } else {
        (4.0 + f64::from(gc) - f64::from(rc)) as f32
    };
    let turns = f64::from(sixths) / 6.0 + 1.0;
    let turns = (if turns >= 1.0 { turns - 1.0 } else { turns }) as f32;
    let s = chroma / f32::from(max);
    ((f64::from(turns) * 255.0) as i32 as u8, (f64::from(s) * 255.0) as i32 as u8, max)
}

/// Makes every pixel grey, keeping three channels.
pub fn grayscale(pixels: &mut [u8], kind: Gray) {
    const SUM: f64 = 0.114 + 0.587 + 0.2989;
    for p in pixels.chunks_exact_mut(3) {
        let gray = match kind {
            Gray::Pillow => luma(p),
            Gray::Weighted => {
                let [r, g, b] = [p[0], p[1], p[2]].map(f64::from);
                (b * (0.114 / SUM) + g * (0.587 / SUM) + r * (0.2989 / SUM)) as u8
            }
        };
        p.fill(gray);
    }
}
