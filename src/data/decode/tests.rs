//! Files of every format, whole and damaged.

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
    assert!(decode(b"just text").unwrap_err().contains("is none of PNG, JPEG"));
    assert!(decode(b"").unwrap_err().contains("is empty"));
    assert!(decode(&[0; 100]).unwrap_err().contains("nothing but zeros"));
    let mut jpeg = Vec::new();
    JpegEncoder::new(&mut jpeg).write_image(&noise, 32, 32, ExtendedColorType::Rgb8).unwrap();
    assert!(decode(&jpeg).is_ok());
    assert!(decode(&jpeg[..jpeg.len() - 40]).unwrap_err().contains("cut off"));
    assert!(decode(&jpeg[..20]).is_err());
    for cut in 0..whole.len() {
        let _ = decode(&whole[..cut]); // must not panic
    }
    let right = decode(&jpeg).unwrap();
    for cut in 0..jpeg.len() {
        // Without its end marker, or a last byte that only fills up bits, nothing is missing.
        let read = decode(&jpeg[..cut]);
        assert!(read.is_err() || (cut + 3 >= jpeg.len() && read == Ok(right.clone())), "JPEG cut to {cut} of {} bytes", jpeg.len());
        // Nor does an end marker make a cut file whole.
        let ended = decode(&[&jpeg[..cut], &[0xFF, 0xD9]].concat());
        assert!(ended.is_err() || (cut + 3 >= jpeg.len() && ended == Ok(right.clone())), "JPEG cut to {cut} and ended");
    }
    // A header that promises 20000x1 is refused before anything is allocated.
    let mut huge = png(&[0; 3], 1, 1, ExtendedColorType::Rgb8);
    huge[16..20].copy_from_slice(&20_000u32.to_be_bytes());
    let crc = crc32(&huge[12..29]);
    huge[29..33].copy_from_slice(&crc.to_be_bytes());
    assert!(decode(&huge).is_err());
}

/// Segments of markers between the start and what follows.
fn with_segments(jpeg: &[u8], segments: &[u8]) -> Vec<u8> {
    [&jpeg[..2], segments, &jpeg[2..]].concat()
}

fn a_jpeg() -> Vec<u8> {
    let noise: Vec<u8> = (0..24 * 16 * 3).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut jpeg = Vec::new();
    JpegEncoder::new(&mut jpeg).write_image(&noise, 24, 16, ExtendedColorType::Rgb8).unwrap();
    jpeg
}

#[test]
fn what_is_around_a_jpegs_data_does_not_matter() {
    let jpeg = a_jpeg();
    let right = decode(&jpeg).unwrap();
    assert_eq!(decode(&jpeg[..jpeg.len() - 2]).unwrap(), right, "no end marker");
    assert_eq!(decode(&jpeg[..jpeg.len() - 1]).unwrap(), right, "half an end marker");
    assert_eq!(decode(&[&jpeg[..], b"more"].concat()).unwrap(), right, "more behind the end");
    assert_eq!(decode(&with_segments(&jpeg, b"\0\x12junk\xFF\xFF\xFF\xFE\0\x04ab")).unwrap(), right, "stray bytes, filled markers, a comment");
    let thumbnail = [b"\xFF\xE1".as_slice(), &(jpeg.len() as u16 + 2).to_be_bytes(), &jpeg].concat();
    assert_eq!(decode(&with_segments(&jpeg, &thumbnail)).unwrap(), right, "a thumbnail");
}

#[test]
fn a_header_that_promises_more_than_there_is_is_refused() {
    let jpeg = a_jpeg();
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    for (height, width) in [(13_300u16, 13_300u16), (24, 24), (17, 24)] {
        let mut more = jpeg.clone();
        more[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
        more[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
        assert!(decode(&more).is_err(), "{width}x{height}");
    }
    let mut kinds = jpeg.clone();
    for (marker, name) in [(0xC1, ""), (0xC3, "lossless"), (0xC5, "hierarchical"), (0xC9, "arithmetic"), (0xF7, "JPEG-LS")] {
        kinds[frame + 1] = marker;
        let read = decode(&kinds);
        assert!(if name.is_empty() { read.is_ok() } else { read.unwrap_err().contains(name) }, "{name}");
    }
    let mut deep = jpeg.clone();
    deep[frame + 4] = 12;
    assert!(decode(&deep).unwrap_err().contains("12 bits"));
}

#[test]
fn other_kinds_of_files_are_called_by_their_name() {
    for (start, name) in [
        (&b"\0\0\0\x1cftypheic\0\0"[..], "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0", "AVIF"),
        (b"\0\0\0\x1cftypmp42\0\0", "film"),
        (b"\xFF\x0A\0\0", "JPEG XL"),
        (b"\0\0\0\x0CjP  \r\n", "JPEG 2000"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"%PDF-1.7", "PDF"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
    ] {
        let said = decode(start).unwrap_err();
        assert!(said.contains(name), "{said}");
    }
}

#[test]
fn the_recorded_versions_are_those_of_the_lock_file() {
    let lock = include_str!("../../../Cargo.lock");
    for decoder in DECODERS.split(", ") {
        let (name, version) = decoder.split_once(' ').unwrap();
        assert!(lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")), "{decoder}");
    }
}

/// A progressive file cut anywhere is refused, whether an end marker is put behind the cut or not:
/// but for its end, where nothing is missing.
#[test]
fn progressive_jpegs_that_are_cut_are_refused() {
    for whole in [
        &include_bytes!("../../../tests/files/jpeg/004_444_progressive.jpg")[..],
        include_bytes!("../../../tests/files/jpeg/031_420_progressive.jpg"),
        include_bytes!("../../../tests/files/jpeg/049_other_factors_progressive_many_refinements.jpg"),
        include_bytes!("../../../tests/files/jpeg/067_luma_below_chroma_progressive_many_refinements.jpg"),
    ] {
        let right = decode(whole).unwrap();
        for cut in 0..whole.len() {
            for end in [&[][..], &[0xFF, 0xD9]] {
                let read = decode(&[&whole[..cut], end].concat());
                let at_its_end = cut + 3 >= whole.len() && read == Ok(right.clone());
                assert!(read.is_err() || at_its_end, "cut to {cut} of {} bytes, with {} more", whole.len(), end.len());
            }
        }
    }
}

/// Restart markers that are missing, of another number, or in the wrong place: an error, or all
/// pixels right.
#[test]
fn damaged_restart_markers_are_refused() {
    let mut coefficients = libjpeg_turbo_rs::read_coefficients(&a_jpeg()).unwrap();
    coefficients.restart_interval = 1;
    let jpeg = libjpeg_turbo_rs::write_coefficients(&coefficients).unwrap();
    let right = decode(&jpeg).unwrap();
    assert_eq!(right, decode(&a_jpeg()).unwrap());
    let markers: Vec<usize> = (0..jpeg.len() - 1).filter(|at| jpeg[*at] == 0xFF && (0xD0..=0xD7).contains(&jpeg[at + 1])).collect();
    assert!(markers.len() >= 5, "{} restart markers", markers.len());
    let holds = |file: &[u8], what: &str| {
        let read = decode(file);
        assert!(read.is_err() || read.as_ref() == Ok(&right), "{what}: taken, with other pixels");
        read.is_err()
    };
    let mut refused = 0;
    for at in markers {
        refused += usize::from(holds(&[&jpeg[..at], &jpeg[at + 2..]].concat(), &format!("without the marker at {at}")));
        for marker in [0xD0, 0xD1, 0xD3, 0xD7, 0xD9, 0xFE, 0x00] {
            let mut other = jpeg.clone();
            other[at + 1] = marker;
            refused += usize::from(holds(&other, &format!("{marker:x} at {at}")));
        }
        holds(&[&jpeg[..at], &jpeg[at..at + 2], &jpeg[at..]].concat(), &format!("the marker at {at} twice"));
        refused += usize::from(holds(&[&jpeg[..at - 2], &jpeg[at..]].concat(), &format!("data missing before {at}")));
    }
    assert!(refused > 10, "{refused} refused");
}

/// Colours as floats have no range to be seen in.
#[test]
fn tiffs_of_floats_are_refused_by_name() {
    let mut file = std::io::Cursor::new(Vec::new());
    let floats = image::Rgb32FImage::from_pixel(2, 2, image::Rgb([0.5, 1.5, 2.5]));
    image::DynamicImage::from(floats).write_to(&mut file, ImageFormat::Tiff).unwrap();
    let said = decode(file.get_ref()).unwrap_err();
    assert!(said.contains("floats"), "{said}");
}

/// A GIF that is cut within its first frame is refused.
#[test]
fn gifs_that_are_cut_are_refused() {
    let whole = include_bytes!("../../../tests/files/formats/GIF_first_frame_unlike_its_screen_7x5-7-2.gif");
    let right = decode(whole).unwrap();
    // The trailer, and the empty block that ends the frame, have nothing of it.
    for cut in 0..whole.len() - 2 {
        let read = decode(&whole[..cut]);
        assert!(read.is_err() || read == Ok(right.clone()) && cut + 8 >= whole.len(), "cut to {cut} of {} bytes", whole.len());
    }
}

/// A JPEG of one scan ends with it: what a file goes on with is no part of the picture, also where
/// components are read one by one.
#[test]
fn scans_behind_the_only_one_do_not_matter() {
    for whole in [
        &include_bytes!("../../../tests/files/jpeg/054_luma_below_chroma_interleaved.jpg")[..],
        include_bytes!("../../../tests/files/jpeg/027_420_interleaved.jpg"),
    ] {
        let right = decode(whole).unwrap();
        let scan = whole.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
        let again = whole[scan..whole.len() - 2].repeat(2000);
        assert_eq!(decode(&[&whole[..whole.len() - 2], &again, &[0xFF, 0xD9]].concat()).unwrap(), right);
    }
}
