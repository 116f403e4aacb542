//! BMP: where the decoder of the `image` crate and Pillow differ.

use image::{DynamicImage, ImageFormat};

use super::raster::{failed, to_rgb};

/// Where fields of the two headers begin, in bytes.
const DATA: usize = 10;
const HEADER_SIZE: usize = 14;
const BITS: usize = 28;
const COMPRESSION: usize = 30;
const MASKS: [usize; 3] = [54, 58, 62];

/// Four bytes of a file, 0 where it ends before.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

/// Whether pixels are runs of 8 or 4 bits.
pub(super) fn is_rle(bytes: &[u8]) -> bool {
    word(bytes, HEADER_SIZE) >= 40 && matches!(word(bytes, COMPRESSION), 1 | 2)
}

/// Pixels that runs pass over have the palette's first colour in Pillow, and are black in the
/// decoder. They are those that stay black under a palette of white.
pub(super) fn fill_skipped(bytes: &[u8], pixels: &mut [u8]) -> Result<(), String> {
    let (palette, data) = (14 + word(bytes, HEADER_SIZE) as usize, word(bytes, DATA) as usize);
    let Some(&[blue, green, red]) = bytes.get(palette..palette + 3) else { return Ok(()) };
    if [red, green, blue] == [0; 3] {
        return Ok(());
    }
    let mut white = bytes.to_vec();
    let Some(entries) = white.get_mut(palette..data) else { return Err("is a BMP whose palette and data overlap, which is not read".into()) };
    entries.fill(255);
    let white = to_rgb(image::load_from_memory_with_format(&white, ImageFormat::Bmp).map_err(failed)?);
    for (pixel, set) in pixels.chunks_exact_mut(3).zip(white.chunks_exact(3)) {
        if set == [0; 3] {
            pixel.copy_from_slice(&[red, green, blue]);
        }
    }
    Ok(())
}

/// Five and six bits to eight, rounded down as Pillow does, where the decoder rounds to the
/// nearest. Files of other depths stay.
pub(super) fn round_as_pillow(bytes: &[u8], image: &mut DynamicImage) {
    let DynamicImage::ImageRgb8(image) = image else { return };
    if word(bytes, HEADER_SIZE) < 40 || word(bytes, BITS) & 0xFFFF != 16 {
        return;
    }
    // Without masks of its own, five bits for each.
    let bits = if word(bytes, COMPRESSION) == 0 { [5; 3] } else { MASKS.map(|at| word(bytes, at).count_ones().clamp(1, 8)) };
    for pixel in image.pixels_mut() {
        for (byte, bits) in pixel.0.iter_mut().zip(bits) {
            let most = (1u32 << bits) - 1;
            *byte = ((u32::from(*byte) * most + 127) / 255 * 255 / most) as u8;
        }
    }
}
