//! Every format but JPEG and GIF, by way of the `image` crate.

use std::io::Cursor;

use image::codecs::pnm::PnmDecoder;
use image::error::LimitErrorKind;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ExtendedColorType, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, Pixel};

use super::{MAX_EXTRA, MAX_SIDE, Rgb8, bmp, check_size, too_much_memory};

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
    let is_tiff = format == ImageFormat::Tiff;
    // Unpacked once more within the decoder; of CMYK, with its fourth colour.
    let inner = match decoder.original_color_type() {
        _ if !is_tiff => 0,
        ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16 => total / 3 * 4,
        _ => total,
    };
    let is_rle = format == ImageFormat::Bmp && bmp::is_rle(bytes);
    // Read twice, see `bmp::fill_skipped`.
    let extra = if is_rle { total + 3 * pixels } else { extra };
    let extra = extra.max((inner + total).saturating_sub(3 * pixels));
    if extra > MAX_EXTRA {
        return Err(too_much_memory(width, height));
    }
    let mut orientation = Orientation::NoTransforms;
    if is_tiff {
        limits.max_alloc = Some(inner + MAX_ASIDE);
        decoder.set_limits(limits).map_err(failed)?;
        // Pillow applies it by itself for TIFF, and for no other format.
        orientation = decoder.orientation().map_err(failed)?;
    }
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    image.apply_orientation(orientation);
    let (width, height) = (image.width() as usize, image.height() as usize);
    match format {
        ImageFormat::Bmp => bmp::round_as_pillow(bytes, &mut image),
        ImageFormat::Pnm => return Ok(Rgb8 { width, height, pixels: scaled(bytes, image)? }),
        _ => {}
    }
    let mut pixels = to_rgb(image);
    if is_rle {
        bmp::fill_skipped(bytes, &mut pixels)?;
    }
    Ok(Rgb8 { width, height, pixels })
}

pub(super) fn failed(error: ImageError) -> String {
    match error {
        ImageError::Limits(limit) => match limit.kind() {
            LimitErrorKind::DimensionError => format!("cannot be decoded: more than {MAX_SIDE} pixels a side"),
            _ => format!("cannot be decoded: more than {} MiB of memory for its profiles, texts and buffers, beyond the pixels", MAX_ASIDE >> 20),
        },
        error => format!("cannot be decoded: {error}"),
    }
}

/// Samples of PPM and its like on the scale of their maximum, rounded as Pillow does: ties to even.
/// Grey of 16 bits keeps its high byte.
fn scaled(bytes: &[u8], image: DynamicImage) -> Result<Vec<u8>, String> {
    let most = f64::from(PnmDecoder::new(Cursor::new(bytes)).map_err(failed)?.into_inner().1.maximal_sample());
    // The decoder has spread them over all values of its type; what they were before comes first.
    let rescaled = |value: f64, full: f64| ((value * most / full).round() / most * 255.0).round_ties_even() as u8;
    Ok(match image {
        DynamicImage::ImageRgb16(b) => colours(&b, |v| rescaled(f64::from(v), 65535.0)),
        image @ DynamicImage::ImageLuma16(_) => to_rgb(image),
        image => {
            let mut pixels = to_rgb(image);
            // Black and white, and bytes, are on their scale already.
            if most != 1.0 && most != 255.0 {
                let table: Vec<u8> = (0..=255u8).map(|v| rescaled(f64::from(v), 255.0)).collect();
                pixels.iter_mut().for_each(|v| *v = table[usize::from(*v)]);
            }
            pixels
        }
    })
}

pub(super) fn to_rgb(image: DynamicImage) -> Vec<u8> {
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
