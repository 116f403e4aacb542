//! Every format but JPEG, by way of the `image` crate.

use std::io::Cursor;

use image::{ColorType, DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, Pixel};

use super::{MAX_EXTRA, MAX_SIDE, Rgb8, check_size, too_much_memory};

/// Decodes an image of a format that `recognise` lets through.
pub(super) fn decode(bytes: &[u8], format: ImageFormat) -> Result<Rgb8, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    // Colour profiles and texts are unpacked within this, too.
    (limits.max_image_width, limits.max_image_height, limits.max_alloc) = (Some(MAX_SIDE), Some(MAX_SIDE), Some(MAX_EXTRA / 4));
    reader.limits(limits);
    let failed = |e| match e {
        ImageError::Limits(_) => format!("cannot be decoded: more than {MAX_SIDE} pixels a side, or more memory than it is worth"),
        e => format!("cannot be decoded: {e}"),
    };
    let decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    // Three bytes a pixel are the result; what has another form is turned, so both are there for a while.
    let extra = match decoder.color_type() {
        // Its lossless kind is unpacked with alpha, used or not.
        _ if format == ImageFormat::WebP => 4 * u64::from(width) * u64::from(height),
        ColorType::Rgb8 => 0,
        ColorType::Rgba8 => decoder.total_bytes() / 4,
        _ => decoder.total_bytes(),
    };
    if extra > MAX_EXTRA {
        return Err(too_much_memory(width, height));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    Ok(Rgb8 { width, height, pixels: to_rgb(image) })
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
