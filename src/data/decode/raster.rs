//! Every format but JPEG and GIF, by way of the `image` crate.

use std::io::Cursor;

use image::codecs::pnm::PnmDecoder;
use image::error::LimitErrorKind;
use image::{ColorType, DynamicImage, ExtendedColorType, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, Pixel};

use super::{MAX_EXTRA, MAX_SIDE, Rgb8, check_size, too_much_memory};

/// Most memory for colour profiles, texts, and a decoder's own buffers.
const MAX_ASIDE: u64 = MAX_EXTRA / 4;

/// Decodes an image of a format that `recognise` lets through.
pub(super) fn decode(bytes: &[u8], format: ImageFormat) -> Result<Rgb8, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height, limits.max_alloc) = (Some(MAX_SIDE), Some(MAX_SIDE), Some(MAX_ASIDE));
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let color = decoder.color_type();
    if matches!(color, ColorType::Rgb32F | ColorType::Rgba32F) {
        return Err("holds colours as floats, whose range nothing tells: which is not read".into());
    }
    // Three bytes a pixel are the result; what has another form is turned, so both are there for a while.
    let (pixels, total) = (u64::from(width) * u64::from(height), decoder.total_bytes());
    let extra = match color {
        // Its lossless kind is unpacked with alpha, used or not.
        _ if format == ImageFormat::WebP => 4 * pixels,
        ColorType::Rgb8 => 0,
        ColorType::Rgba8 => total / 4,
        _ => total,
    };
    // Unpacked once more within the decoder; of CMYK, with its fourth colour.
    let inner = match decoder.original_color_type() {
        _ if format != ImageFormat::Tiff => 0,
        ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16 => total / 3 * 4,
        _ => total,
    };
    let is_rle = format == ImageFormat::Bmp && bytes.get(14) >= Some(&40) && matches!(bytes.get(30), Some(1 | 2));
    // Read twice, see `fill_skipped`.
    let extra = if is_rle { total + 3 * pixels } else { extra };
    let extra = extra.max((inner + total).saturating_sub(3 * pixels));
    if extra > MAX_EXTRA {
        return Err(too_much_memory(width, height));
    }
    if inner > 0 {
        limits.max_alloc = Some(inner + MAX_ASIDE);
        decoder.set_limits(limits).map_err(failed)?;
    }
    // Pillow turns TIFF upright by itself, and no other format.
    let orientation = if inner > 0 { Some(decoder.orientation().map_err(failed)?) } else { None };
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    let (width, height) = (image.width() as usize, image.height() as usize);
    match format {
        ImageFormat::Bmp => round_as_pillow(bytes, &mut image),
        ImageFormat::Pnm => return Ok(Rgb8 { width, height, pixels: scaled(bytes, image)? }),
        _ => {}
    }
    let mut pixels = to_rgb(image);
    if is_rle {
        fill_skipped(bytes, &mut pixels)?;
    }
    Ok(Rgb8 { width, height, pixels })
}

/// Pixels that runs pass over have the palette's first colour in Pillow, and are black in the decoder. They are those that stay black under a palette of white.
fn fill_skipped(bytes: &[u8], pixels: &mut [u8]) -> Result<(), String> {
    let word = |at: usize| bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let (palette, data) = (14 + word(14), word(10));
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

fn failed(error: ImageError) -> String {
    match error {
        ImageError::Limits(limit) => match limit.kind() {
            LimitErrorKind::DimensionError => format!("cannot be decoded: more than {MAX_SIDE} pixels a side"),
            _ => format!("cannot be decoded: more than {} MiB of memory for its profiles, texts and buffers, beyond the pixels", MAX_ASIDE >> 20),
        },
        error => format!("cannot be decoded: {error}"),
    }
}

/// Five and six bits to eight, rounded down as Pillow does, where the decoder rounds to the nearest. Files of other depths stay.
fn round_as_pillow(bytes: &[u8], image: &mut DynamicImage) {
    let word = |at: usize| bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let DynamicImage::ImageRgb8(image) = image else { return };
    if word(14) < 40 || word(28) & 0xFFFF != 16 {
        return;
    }
    // Without masks of its own, five bits for each.
    let bits = if word(30) == 0 { [5; 3] } else { [54, 58, 62].map(|at| word(at).count_ones().clamp(1, 8)) };
    for pixel in image.pixels_mut() {
        for (byte, bits) in pixel.0.iter_mut().zip(bits) {
            let most = (1u32 << bits) - 1;
            *byte = ((u32::from(*byte) * most + 127) / 255 * 255 / most) as u8;
        }
    }
}

/// Samples of PPM and its like on the scale of their maximum, rounded as Pillow does: ties to even. Grey of 16 bits keeps its high byte.
fn scaled(bytes: &[u8], image: DynamicImage) -> Result<Vec<u8>, String> {
    let most = f64::from(PnmDecoder::new(Cursor::new(bytes)).map_err(failed)?.into_inner().1.maximal_sample());
    // The decoder has spread them over all values of its type; what they were before comes first.
    let turned = |value: f64, full: f64| ((value * most / full).round() / most * 255.0).round_ties_even() as u8;
    Ok(match image {
        DynamicImage::ImageRgb16(b) => colours(&b, |v| turned(f64::from(v), 65535.0)),
        image @ DynamicImage::ImageLuma16(_) => to_rgb(image),
        image => {
            let mut pixels = to_rgb(image);
            if most != 1.0 && most != 255.0 {
                let table: Vec<u8> = (0..=255u8).map(|v| turned(f64::from(v), 255.0)).collect();
                pixels.iter_mut().for_each(|v| *v = table[usize::from(*v)]);
            }
            pixels
        }
    })
}

fn to_rgb(image: DynamicImage) -> Vec<u8> {
    match image {
        DynamicImage::ImageRgb8(b) => b.into_raw(),
        DynamicImage::ImageRgba8(b) => {
            let pixels = b.pixels().len();
            let mut bytes = b.into_raw();
            for at in 0..pixels {
                bytes.copy_within(4 * at..4 * at + 3, 3 * at);
            }
            bytes.truncate(3 * pixels);
            bytes.shrink_to_fit();
            bytes
        }
        DynamicImage::ImageLuma8(b) => colours(&b, |v| v),
        DynamicImage::ImageLumaA8(b) => colours(&b, |v| v),
        // The high byte, as Pillow unpacks 16-bit PNG; rounding would brighten half of all values by one.
        DynamicImage::ImageRgb16(b) => colours(&b, |v| (v >> 8) as u8),
        DynamicImage::ImageRgba16(b) => colours(&b, |v| (v >> 8) as u8),
        DynamicImage::ImageLuma16(b) => colours(&b, |v| (v >> 8) as u8),
        DynamicImage::ImageLumaA16(b) => colours(&b, |v| (v >> 8) as u8),
        // Floats are refused before; the type may grow.
        other => other.into_rgb8().into_raw(),
    }
}

/// Colours without alpha, grey repeated.
fn colours<P: Pixel>(image: &ImageBuffer<P, Vec<P::Subpixel>>, byte: impl Fn(P::Subpixel) -> u8) -> Vec<u8> {
    let grey = P::CHANNEL_COUNT <= 2;
    let mut pixels = Vec::with_capacity(3 * image.pixels().len());
    for pixel in image.pixels() {
        let c = pixel.channels();
        pixels.extend(if grey { [byte(c[0]); 3] } else { [byte(c[0]), byte(c[1]), byte(c[2])] });
    }
    pixels
}
