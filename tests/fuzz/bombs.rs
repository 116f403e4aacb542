//! Images made to take memory or time: none takes more than 256 MiB beyond its pixels, nor more
//! than 2 s a megapixel.

use std::io::Write;
use std::time::Duration;

use flate2::{Compression, write::ZlibEncoder};
use swav_wgpu::data::read_image;

use super::harness::{alone, costs};

/// Decodes, holds the bounds, and gives the message of the refusal, if it is one.
#[track_caller]
fn bounded(name: &str, bytes: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    std::fs::write(&file, bytes).unwrap();
    let (read, time, memory) = costs(|| read_image(&file));
    let pixels = read.as_ref().map_or(0, |image| image.width * image.height);
    let most = (pixels * 3 + bytes.len()) as u64 + (256 << 20);
    assert!(memory <= most, "{name}: {} MiB for {pixels} pixels: {read:?}", memory >> 20);
    // What is refused has no megapixels; what is tiny still costs a file's reading.
    let most = Duration::from_millis(500) + Duration::from_secs(2).mul_f64(pixels as f64 / 1e6);
    assert!(time <= most, "{name}: {time:?} for {pixels} pixels: {read:?}");
    read.map(|_| ()).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(name: &str, bytes: &[u8], word: &str) {
    let said = bounded(name, bytes).expect_err(name);
    assert!(said.contains(word), "{name}: {said}");
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut out = ZlibEncoder::new(Vec::new(), Compression::best());
    out.write_all(data).unwrap();
    out.finish().unwrap()
}

/// 400 MiB of one byte, packed.
fn grown() -> Vec<u8> {
    let mut out = ZlibEncoder::new(Vec::new(), Compression::fast());
    (0..400).for_each(|_| out.write_all(&[7; 1 << 20]).unwrap());
    out.finish().unwrap()
}

/// A progressive JPEG of `scans` scans in which every block is empty, by end-of-band runs of 32767
/// blocks (its symbol has one bit).
fn scan_bomb(width: u16, height: u16, scans: usize) -> Vec<u8> {
    let mut file = b"\xFF\xD8\xFF\xDB\0\x43\0".to_vec();
    file.extend([1; 64]);
    file.extend(b"\xFF\xC2\0\x0B\x08");
    file.extend(height.to_be_bytes());
    file.extend(width.to_be_bytes());
    file.extend(b"\x01\x01\x11\0");
    // One code of one bit: for DC a difference of none, for AC a run of 2^14 blocks and 14 bits
    // more.
    for (class, symbol) in [(0x00, 0x00), (0x10, 0xE0)] {
        file.extend([0xFF, 0xC4, 0, 20, class, 1]);
        file.extend([0; 15]);
        file.push(symbol);
    }
    let blocks = usize::from(width).div_ceil(8) * usize::from(height).div_ceil(8);
    file.extend(b"\xFF\xDA\0\x08\x01\x01\0\0\0\0");
    file.extend(vec![0; blocks.div_ceil(8)]);
    // A code of 0 and fourteen bits of 0: a run of 16384 blocks.
    let run = vec![0; (blocks.div_ceil(16384) * 15).div_ceil(8)];
    for _ in 1..scans {
        file.extend(b"\xFF\xDA\0\x08\x01\x01\0\x01\x3F\0");
        file.extend(&run);
    }
    file.extend(b"\xFF\xD9");
    file
}

#[test]
fn jpegs_of_many_scans() {
    let _alone = alone();
    assert_eq!(bounded("few.jpg", &scan_bomb(1000, 1000, 10)), Ok(()));
    assert_eq!(bounded("hundreds, small.jpg", &scan_bomb(64, 64, 900)), Ok(()));
    assert_eq!(bounded("all that a large one may have.jpg", &scan_bomb(2000, 2000, 64)), Ok(()));
    refused("many, large.jpg", &scan_bomb(4000, 4000, 300), "64 times the picture's");
    refused("very many, small.jpg", &scan_bomb(64, 64, 30_000), "more than 1000 scans");
    refused("large, progressive.jpg", &scan_bomb(13_000, 13_000, 10), "256 MiB");
}

/// A baseline JPEG of empty blocks in `scans` scans of all components; only the first belongs to
/// the picture. `odd`: luma is subsampled below chroma, which is read component by component.
fn repeated(side: u16, scans: usize, odd: bool) -> Vec<u8> {
    let mut file = b"\xFF\xD8\xFF\xDB\0\x43\0".to_vec();
    file.extend([1; 64]);
    file.extend(b"\xFF\xC0\0\x11\x08");
    file.extend(side.to_be_bytes());
    file.extend(side.to_be_bytes());
    let chroma = if odd { 0x22 } else { 0x11 };
    file.extend([3, 1, 0x11, 0, 2, chroma, 0, 3, chroma, 0]);
    // One code of one bit: a difference of none, the end of a block.
    for class in [0x00, 0x10] {
        file.extend([0xFF, 0xC4, 0, 20, class, 1]);
        file.extend([0; 16]);
    }
    let (pixels, blocks) = if odd { (16, 9) } else { (8, 3) };
    let units = usize::from(side).div_ceil(pixels).pow(2);
    let data = vec![0; (2 * blocks * units).div_ceil(8)];
    for _ in 0..scans {
        file.extend(b"\xFF\xDA\0\x0C\x03\x01\0\x02\0\x03\0\0\x3F\0");
        file.extend(&data);
    }
    file.extend(b"\xFF\xD9");
    file
}

#[test]
fn jpegs_with_scans_behind_the_only_one() {
    let _alone = alone();
    for odd in [false, true] {
        assert_eq!(bounded("one.jpg", &repeated(800, 1, odd)), Ok(()), "{odd}");
        let _ = bounded(&format!("thousands, odd {odd}.jpg"), &repeated(800, 4000, odd));
    }
}

/// Pictures of one colour, which pack well in every way.
#[test]
fn whole_pictures_that_were_packed_well() {
    let _alone = alone();
    let mut gif = Vec::new();
    let mut encoder = gif::Encoder::new(&mut gif, 6000, 6000, &[1, 2, 3]).unwrap();
    encoder.write_frame(&gif::Frame::from_indexed_pixels(6000, 6000, vec![0; 36_000_000], None)).unwrap();
    drop(encoder);
    assert_eq!(bounded("well packed.gif", &gif), Ok(()));
    let mut webp = Vec::new();
    let black = image::RgbImage::new(4000, 4000);
    image::codecs::webp::WebPEncoder::new_lossless(&mut webp).encode(&black, 4000, 4000, image::ExtendedColorType::Rgb8).unwrap();
    drop(black);
    assert_eq!(bounded("well packed.webp", &webp), Ok(()));
    // Runs that end at once leave all of it out.
    for (side, read) in [(6000_u32, true), (8000, false)] {
        let mut bmp = b"BM\0\0\0\0\0\0\0\0\x3A\0\0\0\x28\0\0\0".to_vec();
        bmp.extend([side, side].into_iter().flat_map(u32::to_le_bytes));
        bmp.extend(b"\x01\0\x08\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
        // A palette of one colour, and the end of the picture.
        bmp.extend(b"\x01\x02\x03\0\0\x01");
        match read {
            true => assert_eq!(bounded("skipped.bmp", &bmp), Ok(())),
            false => refused("skipped.bmp", &bmp, "256 MiB"),
        }
    }
}

fn png(width: u32, height: u32, colour: u8, before: &[(&[u8], Vec<u8>)], data: Vec<u8>) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, colour, 0, 0, 0]].concat();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunks: Vec<(&[u8], Vec<u8>)> = vec![(b"IHDR", header)];
    chunks.extend(before.iter().cloned());
    chunks.extend([(&b"IDAT"[..], data), (b"IEND", Vec::new())]);
    for (kind, body) in chunks {
        let mut sum = flate2::Crc::new();
        sum.update(kind);
        sum.update(&body);
        file.extend((body.len() as u32).to_be_bytes());
        file.extend(kind);
        file.extend(&body);
        file.extend(sum.sum().to_be_bytes());
    }
    file
}

#[test]
fn pngs_whose_profile_or_text_grows() {
    let _alone = alone();
    let grown = grown();
    let dot = zlib(&[0, 1, 2, 3]);
    for (kind, start) in [(&b"iCCP"[..], &b"name\0\0"[..]), (b"zTXt", b"Comment\0\0"), (b"iTXt", b"Comment\0\x01\0\0\0")] {
        let name = String::from_utf8_lossy(kind).into_owned() + ".png";
        let _ = bounded(&name, &png(1, 1, 2, &[(kind, [start, &grown].concat())], dot.clone()));
    }
    // Data that go on after the last row.
    let _ = bounded("more.png", &png(1, 1, 2, &[], grown));
}

#[test]
fn headers_that_promise_more_than_there_is() {
    let _alone = alone();
    let dot = zlib(&[0, 1, 2, 3]);
    refused("side.png", &png(60_000, 60_000, 2, &[], dot.clone()), "16384 pixels a side");
    refused("area.png", &png(16_000, 16_000, 2, &[], dot.clone()), "178956970");
    let _ = bounded("empty.png", &png(13_000, 13_000, 2, &[], dot.clone())).unwrap_err();
    refused("deep.png", &png(13_000, 13_000, 4, &[], dot), "256 MiB");
    let bmp = |width: i32, height: i32, bits: u16, kind: u32| {
        let mut file = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
        file.extend(width.to_le_bytes());
        file.extend(height.to_le_bytes());
        file.extend([1, 0]);
        file.extend(bits.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend([0; 20]);
        file.extend([0; 64]);
        file
    };
    for (width, height) in [(i32::MAX, i32::MAX), (i32::MAX, i32::MIN), (-5, 5), (60_000, 1), (13_000, 13_000)] {
        for (bits, kind) in [(24, 0), (8, 1), (4, 2), (16, 3), (32, 3), (1, 0)] {
            let _ = bounded(&format!("{width}x{height} {bits} {kind}.bmp"), &bmp(width, height, bits, kind));
        }
    }
    for text in [
        "P6 13000 13000 255\n",
        "P5 13000 13000 65535\n",
        "P6 99999999999 1 255\n",
        "P3 13000 13000 255\n1 2 3",
        "P6 16000 16000 255\n",
        "P4 13000 13000\n",
    ] {
        assert!(bounded("promise.ppm", text.as_bytes()).is_err(), "{text}");
    }
    let mut gif = b"GIF89a\0\x33\0\x33\x80\0\0\x01\x02\x03\x04\x05\x06,\0\0\0\0\0\x33\0\x33\0\x02".to_vec();
    gif.extend(b"\x02\x44\x01\0;");
    refused("promise.gif", &gif, "cannot be decoded");
    let mut webp = b"RIFF\x20\0\0\0WEBPVP8L\x10\0\0\0\x2f".to_vec();
    webp.extend([0xFF; 23]);
    let _ = bounded("promise.webp", &webp).unwrap_err();
}

/// One strip of a little-endian TIFF: (tag, type, count, value).
fn tiff(width: u32, height: u32, compression: u32, more: &[(u16, u16, u32, u32)], strip: &[u8]) -> Vec<u8> {
    let mut tags = vec![
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, strip.len() as u32),
    ];
    tags.extend(more);
    let mut file = b"II\x2a\0".to_vec();
    file.extend((8 + strip.len() as u32).to_le_bytes());
    file.extend(strip);
    file.extend((tags.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in tags {
        file.extend(tag.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(count.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend([0; 4]);
    file
}

#[test]
fn tiffs_that_unpack_to_more() {
    let _alone = alone();
    assert_eq!(bounded("large.tif", &tiff(8000, 8000, 8, &[], &zlib(&vec![7; 64_000_000]))), Ok(()));
    let grown = grown();
    let _ = bounded("deflate bomb.tif", &tiff(100, 100, 8, &[], &grown));
    let _ = bounded("promise.tif", &tiff(13_000, 13_000, 1, &[], &[0; 64])).unwrap_err();
    refused("side.tif", &tiff(60_000, 60_000, 8, &[], &grown), "16384 pixels a side");
    for (tag, kind) in [(34675, 7), (700, 1), (273, 4), (320, 3), (339, 3)] {
        let _ = bounded(&format!("count {tag}.tif"), &tiff(100, 100, 1, &[(tag, kind, u32::MAX, 8)], &[0; 10_000]));
    }
    // A directory that says it has 65535 entries.
    let mut endless = tiff(100, 100, 1, &[], &[0; 10_000]);
    endless[10_008..10_010].copy_from_slice(&[0xFF, 0xFF]);
    endless.resize(900_000, 0);
    let _ = bounded("endless.tif", &endless);
}
