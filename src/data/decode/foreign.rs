//! What kind of file some bytes are: an image that is read, or something else, called by its name.

use image::ImageFormat;

/// How files of kinds that are not read begin: (offset, bytes, name).
const FOREIGN: &[(usize, &[u8], &str)] = &[
    (4, b"ftypheic", "a HEIC image"),
    (4, b"ftypheix", "a HEIC image"),
    (4, b"ftyphevc", "a HEIC image"),
    (4, b"ftypheim", "a HEIC image"),
    (4, b"ftypmif1", "a HEIF image"),
    (4, b"ftypmsf1", "a HEIF image"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftypavis", "an AVIF image"),
    (4, b"ftyp", "a film (MP4 or its like)"),
    (0, b"\xFF\x0A", "a JPEG XL image"),
    (0, b"\0\0\0\x0CJXL ", "a JPEG XL image"),
    (0, b"\0\0\0\x0CjP  ", "a JPEG 2000 image"),
    (0, b"\xFF\x4F\xFF\x51", "a JPEG 2000 image"),
    (0, b"II\xBC", "a JPEG XR image"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"qoif", "a QOI image"),
    (0, b"DDS ", "a DDS texture"),
    (0, b"\x76\x2F\x31\x01", "an OpenEXR image"),
    (0, b"#?RADIANCE", "a Radiance HDR image"),
    (0, b"farbfeld", "a farbfeld image"),
    (0, b"\0\0\x01\0", "an icon (ICO)"),
    (0, b"P7\n", "a PAM image"),
    (0, b"PF\n", "a PFM image"),
    (0, b"Pf\n", "a PFM image"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"%PDF", "a PDF document"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an XML document"),
    (0, b"<!DOCTYPE", "an HTML page"),
    (0, b"<!doctype", "an HTML page"),
    (0, b"<html", "an HTML page"),
    (0, b"<HTML", "an HTML page"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1F\x8B", "a gzip file"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
];

/// The formats that are read.
const READ: &str = "PNG, JPEG, WebP, BMP, TIFF, GIF and PPM";

/// The format of an image that is read, or what the file is instead.
pub(super) fn recognise(bytes: &[u8]) -> Result<ImageFormat, String> {
    if bytes.is_empty() {
        return Err("is empty".into());
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Err("holds nothing but zeros".into());
    }
    if let Some((.., name)) = FOREIGN.iter().find(|(at, magic, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic))) {
        return Err(format!("holds {name}; only {READ} are read"));
    }
    // Stray bytes may follow the start of a JPEG, as anywhere between its segments.
    if bytes.starts_with(b"\xFF\xD8") {
        return Ok(ImageFormat::Jpeg);
    }
    match image::guess_format(bytes) {
        Ok(
            format @ (ImageFormat::Png
            | ImageFormat::Jpeg
            | ImageFormat::WebP
            | ImageFormat::Bmp
            | ImageFormat::Tiff
            | ImageFormat::Gif
            | ImageFormat::Pnm),
        ) => Ok(format),
        Ok(other) => Err(format!("holds a {} image; only {READ} are read", other.extensions_str().first().unwrap_or(&"foreign"))),
        Err(_) => Err(format!("is none of {READ}")),
    }
}
