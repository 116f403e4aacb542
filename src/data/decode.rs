//! Encoded bytes to 8-bit RGB, with the meaning of Pillow's `convert("RGB")`.
//!
//! Greyscale is repeated, palettes are looked up, alpha is dropped (not blended), 16-bit samples keep their high byte, and orientation tags
//! are left alone. The format is told by content, never by the file name. A damaged or cut-off file is an error, not a grey area.

use std::fmt;
use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use crate::error::{Error, Result};

/// Longest side that is decoded, in pixels: larger files are refused before their memory is asked for.
const MAX_SIDE: u32 = 16384;

/// Most pixels, as Pillow has it (twice `Image.MAX_IMAGE_PIXELS`): a few bytes of a file can stand for gigabytes of them.
const MAX_PIXELS: u64 = 178_956_970;

/// Most memory one decoder may take, in bytes: the largest allowed image at 8 bytes a pixel.
const MAX_BYTES: u64 = 8 * MAX_PIXELS;

/// A decoded image.
#[derive(Clone, PartialEq, Eq)]
pub struct Rgb8 {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// `(height, width, 3)` bytes: red, green, blue, row by row from the top.
    pub pixels: Vec<u8>,
}

impl fmt::Debug for Rgb8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rgb8({}x{})", self.width, self.height)
    }
}

/// Reads one PNG or JPEG file.
pub fn read_image(path: impl AsRef<Path>) -> Result<Rgb8> {
    let path = path.as_ref();
    // A pipe or a device might never end.
    if path.metadata().is_ok_and(|about| !about.is_file()) {
        return Err(Error::data(path, "is no file"));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::data(path, format!("cannot be read: {e}")))?;
    decode(&bytes).map_err(|message| Error::data(path, message))
}

/// Decodes a PNG or JPEG; the error is a message without a path, for the caller to attach one.
pub(super) fn decode(bytes: &[u8]) -> Result<Rgb8, String> {
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        Ok(other) => return Err(format!("holds a {} image; only PNG and JPEG are read", other.extensions_str().first().unwrap_or(&"foreign"))),
        Err(_) if bytes.is_empty() => return Err("is empty".into()),
        Err(_) => return Err("is neither a PNG nor a JPEG image".into()),
    };
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        return Err("is a JPEG that ends before its last scan does: the file is cut off".into());
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height, limits.max_alloc) = (Some(MAX_SIDE), Some(MAX_SIDE), Some(MAX_BYTES));
    reader.limits(limits);
    let failed = |e| match e {
        ImageError::Limits(_) => format!("cannot be decoded: more than {MAX_SIDE} pixels a side, or {MAX_PIXELS} in all"),
        e => format!("cannot be decoded: {e}"),
    };
    let decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("cannot be decoded: {width}x{height} pixels are more than {MAX_PIXELS}"));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    Ok(Rgb8 { width, height, pixels: to_rgb(image) })
}

fn to_rgb(image: DynamicImage) -> Vec<u8> {
    // The high byte, as Pillow unpacks 16-bit PNG; rounding would brighten half of all values by one.
    let high = |v: u16| (v >> 8) as u8;
    match image {
        DynamicImage::ImageRgb8(b) => b.into_raw(),
        DynamicImage::ImageRgba8(b) => b.pixels().flat_map(|p| [p[0], p[1], p[2]]).collect(),
        DynamicImage::ImageLuma8(b) => b.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageLumaA8(b) => b.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageRgb16(b) => b.pixels().flat_map(|p| [high(p[0]), high(p[1]), high(p[2])]).collect(),
        DynamicImage::ImageRgba16(b) => b.pixels().flat_map(|p| [high(p[0]), high(p[1]), high(p[2])]).collect(),
        DynamicImage::ImageLuma16(b) => b.pixels().flat_map(|p| [high(p[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(b) => b.pixels().flat_map(|p| [high(p[0]); 3]).collect(),
        other => other.into_rgb8().into_raw(),
    }
}

/// Whether the end-of-image marker follows the first scan. The decoder itself fills what is missing with grey and says nothing.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    // Step over the header segments by their lengths, so that the marker of an embedded thumbnail is not mistaken for the image's own.
    let mut at = 2;
    while let Some(&[0xFF, marker]) = bytes.get(at..at + 2) {
        match marker {
            0xFF => at += 1,
            0x01 | 0xD0..=0xD9 => at += 2,
            _ => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
                if marker == 0xDA {
                    // Inside a scan 0xFF is always escaped, so the pair can only be the marker; it usually is the last thing.
                    return bytes.get(at..).is_some_and(|scan| scan.windows(2).rev().any(|pair| pair == [0xFF, 0xD9]));
                }
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder, codecs::png::PngEncoder};

    fn png(data: &[u8], width: u32, height: u32, color: ExtendedColorType) -> Vec<u8> {
        let mut out = Vec::new();
        PngEncoder::new(&mut out).write_image(data, width, height, color).unwrap();
        out
    }

    #[test]
    fn every_png_kind_becomes_rgb_as_pillow_does() {
        assert_eq!(decode(&png(&[1, 2, 3], 1, 1, ExtendedColorType::Rgb8)).unwrap().pixels, [1, 2, 3]);
        assert_eq!(decode(&png(&[9, 200], 2, 1, ExtendedColorType::L8)).unwrap().pixels, [9, 9, 9, 200, 200, 200]);
        // Alpha is dropped, not blended: a fully transparent red pixel stays red.
        assert_eq!(decode(&png(&[255, 0, 0, 0], 1, 1, ExtendedColorType::Rgba8)).unwrap().pixels, [255, 0, 0]);
        assert_eq!(decode(&png(&[7, 0], 1, 1, ExtendedColorType::La8)).unwrap().pixels, [7, 7, 7]);
        // 0x12FF would round up to 0x13.
        let wide: Vec<u8> = [0x12FFu16, 0x80FF, 0xFFFF].iter().flat_map(|v| v.to_ne_bytes()).collect();
        assert_eq!(decode(&png(&wide, 1, 1, ExtendedColorType::Rgb16)).unwrap().pixels, [0x12, 0x80, 0xFF]);
        assert_eq!(decode(&png(&0x12FFu16.to_ne_bytes(), 1, 1, ExtendedColorType::L16)).unwrap().pixels, [0x12; 3]);
    }

    #[test]
    fn palette_png_is_looked_up() {
        // 2x1, 1 bit, palette {(10,20,30), (40,50,60)}; written by hand because the encoder knows no palettes.
        let chunk = |kind: &[u8], data: &[u8]| {
            let body = [kind, data].concat();
            [(data.len() as u32).to_be_bytes().to_vec(), body.clone(), crc32(&body).to_be_bytes().to_vec()].concat()
        };
        let header = [&2u32.to_be_bytes()[..], &1u32.to_be_bytes(), &[1, 3, 0, 0, 0]].concat();
        // zlib: stored block of two bytes (filter 0, bits 01), Adler-32.
        let idat = [0x78, 0x01, 0x01, 2, 0, 0xFD, 0xFF, 0, 0x40, 0, 0x42, 0, 0x41];
        let file = [
            b"\x89PNG\r\n\x1a\n".to_vec(),
            chunk(b"IHDR", &header),
            chunk(b"PLTE", &[10, 20, 30, 40, 50, 60]),
            chunk(b"IDAT", &idat),
            chunk(b"IEND", &[]),
        ]
        .concat();
        assert_eq!(decode(&file).unwrap().pixels, [10, 20, 30, 40, 50, 60]);
    }

    fn crc32(data: &[u8]) -> u32 {
        !data.iter().fold(!0u32, |crc, &b| (0..8).fold(crc ^ u32::from(b), |c, _| if c & 1 == 1 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 }))
    }

    #[test]
    fn damaged_files_are_errors_that_say_what_is_wrong() {
        let noise: Vec<u8> = (0..32 * 32 * 3).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let whole = png(&noise, 32, 32, ExtendedColorType::Rgb8);
        assert!(decode(&whole).is_ok());
        assert!(decode(&whole[..whole.len() / 2]).unwrap_err().contains("cannot be decoded"));
        assert!(decode(b"just text").unwrap_err().contains("neither a PNG nor a JPEG"));
        assert!(decode(b"").unwrap_err().contains("is empty"));
        assert!(decode(b"GIF89a\0\0\0\0").unwrap_err().contains("gif"));
        let mut jpeg = Vec::new();
        JpegEncoder::new(&mut jpeg).write_image(&noise, 32, 32, ExtendedColorType::Rgb8).unwrap();
        assert!(decode(&jpeg).is_ok());
        assert!(decode(&jpeg[..jpeg.len() - 40]).unwrap_err().contains("cut off"));
        assert!(decode(&jpeg[..20]).is_err());
        for cut in 0..whole.len() {
            let _ = decode(&whole[..cut]); // must not panic
        }
        for cut in 0..jpeg.len() {
            assert!(decode(&jpeg[..cut]).is_err(), "JPEG cut to {cut} of {} bytes", jpeg.len());
        }
        // A header that promises 20000x1 is refused before anything is allocated.
        let mut huge = png(&[0; 3], 1, 1, ExtendedColorType::Rgb8);
        huge[16..20].copy_from_slice(&20_000u32.to_be_bytes());
        let crc = crc32(&huge[12..29]);
        huge[29..33].copy_from_slice(&crc.to_be_bytes());
        assert!(decode(&huge).is_err());
    }
}
