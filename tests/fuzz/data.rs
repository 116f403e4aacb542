//! Images and tar shards.

use super::harness::fuzz;
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use std::path::Path;
use swav_wgpu::data::{Dataset, Split, read_image};

/// A picture with some structure, `side` pixels a side.
fn picture(side: u32) -> Vec<u8> {
    (0..side * side).flat_map(|i| [(i % side * 7) as u8, (i / side * 5) as u8, (i.wrapping_mul(2_654_435_761) >> 27) as u8]).collect()
}

pub fn png(side: u32) -> Vec<u8> {
    let mut out = Vec::new();
    PngEncoder::new(&mut out).write_image(&picture(side), side, side, ExtendedColorType::Rgb8).unwrap();
    out
}

fn jpeg(side: u32) -> Vec<u8> {
    let mut out = Vec::new();
    JpegEncoder::new(&mut out).write_image(&picture(side), side, side, ExtendedColorType::Rgb8).unwrap();
    out
}

#[test]
fn png_files() {
    fuzz("image.png", &[png(1), png(24)], |path| read_image(path).is_ok());
}

/// A PNG whose chunks have the right checksums again: else nothing behind them would ever be looked at.
fn with_checksums(mut file: Vec<u8>) -> Vec<u8> {
    let mut at = 8;
    while let Some(length) = file.get(at..at + 4).map(|b| u32::from_be_bytes(b.try_into().unwrap()) as usize) {
        let Some(body) = file.get(at + 4..at.saturating_add(8).saturating_add(length)) else { break };
        let sum = crc32(body).to_be_bytes();
        let end = at + 8 + length;
        file.iter_mut().skip(end).zip(sum).for_each(|(byte, right)| *byte = right);
        at = end + 4;
    }
    file
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |crc, &b| (0..8).fold(crc ^ u32::from(b), |c, _| if c & 1 == 1 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 }))
}

#[test]
fn png_files_with_right_checksums() {
    fuzz("checked.png", &[png(1), png(24)], |path| {
        std::fs::write(path, with_checksums(std::fs::read(path).unwrap())).unwrap();
        read_image(path).is_ok()
    });
}

#[test]
fn jpeg_files() {
    fuzz("image.jpg", &[jpeg(8), jpeg(40)], |path| read_image(path).is_ok());
}

/// A tar of an image of a class in a folder and of one with a text.
fn tar() -> Vec<u8> {
    let (image, photo) = (png(2), jpeg(8));
    let long = format!("{}/c.png", "long".repeat(40));
    tar_of(&[("cat/a.png", &image), ("b.jpg", &photo), ("b.cls", b"7"), (&long, &image)])
}

fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for &(name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        out.append_data(&mut header, name, bytes).unwrap();
    }
    out.into_inner().unwrap()
}

/// Opens everything in `path` and decodes the first images.
pub fn opened(path: &Path) -> bool {
    Dataset::open(path, Split::All).is_ok_and(|set| {
        for i in 0..set.len().min(8) {
            let _ = set.decode(i);
        }
        true
    })
}

#[test]
fn tar_files() {
    let seed = tar();
    fuzz("shard.tar", &[seed], opened);
}

#[test]
fn classes_in_members() {
    let (image, json) = (png(2), br#"{"label": 3, "caption": "a cat"}"#);
    let seed = tar_of(&[("a.png", &image), ("a.json", json), ("b.png", &image), ("b.cls", b"12"), ("b.seg.png", &image)]);
    fuzz("train.tar", &[seed], opened);
}
