//! Encoded bytes to 8-bit RGB, with the pixels of Pillow's `convert("RGB")`.
//!
//! Greyscale is repeated, palettes are looked up, alpha is dropped (not blended), 16-bit samples keep their high byte, of several pictures the first is taken,
//! and orientation tags are left alone. The format is told by content, never by the file name. A damaged or cut-off file is an error, not a grey area. What is
//! read, how far it is from Pillow, and why: docs/images.md.

mod bmp;
mod foreign;
mod gif;
mod jpeg;
mod jpeg_layout;
mod raster;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::ImageFormat;

use crate::error::{Error, Result};

/// The decoders that decide what pixels a file has, with their versions: part of a run's record. Lossless formats have only one right result.
pub const DECODERS: &str = "libjpeg-turbo-rs 0.9.0, image-webp 0.2.4";

/// File extensions that are taken for images, in any case.
pub const EXTENSIONS: [&str; 14] = ["png", "jpg", "jpeg", "jfif", "jpe", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "pbm", "pnm"];

/// Longest side that is decoded, in pixels: larger files are refused before their memory is asked for.
const MAX_SIDE: u32 = 16384;

/// Most pixels, as Pillow has it (twice `Image.MAX_IMAGE_PIXELS`): a few bytes of a file can stand for gigabytes of them.
const MAX_PIXELS: u64 = 178_956_970;

/// Most memory that decoding may take beyond the pixels themselves (and the file), in bytes.
const MAX_EXTRA: u64 = 256 << 20;

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

/// Reads one image file.
pub fn read_image(path: impl AsRef<Path>) -> Result<Rgb8> {
    let path = path.as_ref();
    // A pipe or a device might never end.
    if path.metadata().is_ok_and(|about| !about.is_file()) {
        return Err(Error::data(path, "is no file"));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::data(path, format!("cannot be read: {e}")))?;
    decode(&bytes).map_err(|message| Error::data(path, message))
}

/// Decodes an image; the error is a message without a path, for the caller to attach one.
pub(super) fn decode(bytes: &[u8]) -> Result<Rgb8, String> {
    let format = foreign::recognise(bytes)?;
    // A fault in one of the decoders is an error of this file, not the end of a run.
    catch_unwind(AssertUnwindSafe(|| match format {
        ImageFormat::Jpeg => jpeg::decode(bytes),
        ImageFormat::Gif => gif::decode(bytes),
        format => raster::decode(bytes, format),
    }))
    .unwrap_or_else(|_| Err("cannot be decoded: it leads the decoder astray".into()))
}

/// Refuses what is larger than the program is made for.
fn check_size(width: u32, height: u32) -> Result<(), String> {
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("cannot be decoded: {width}x{height}, more than {MAX_SIDE} pixels a side, or {MAX_PIXELS} in all"));
    }
    Ok(())
}

fn too_much_memory(width: u32, height: u32) -> String {
    let limit = MAX_EXTRA >> 20;
    format!("cannot be decoded: {width}x{height} pixels of this kind take more than {limit} MiB of memory beyond the pixels")
}

#[cfg(test)]
mod tests;
