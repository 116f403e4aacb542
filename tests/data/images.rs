//! Images of every kind against the pixels that Pillow has of them.
//!
//! The files lie in tests/files/; tests/golden/images/ says what made them, and the right pixels' hashes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use swav_wgpu::data::read_image;

fn fnv(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3));
    format!("{hash:016x}")
}

/// Width, height and hash of the pixels; none for what must be refused, with a word of the reason.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Right {
    Pixels(usize, usize, String),
    Refused(String),
}

fn holds(folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(folder);
    let right: BTreeMap<String, Right> = serde_json::from_slice(&std::fs::read(folder.join("right.json")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for (name, right) in &right {
        match (read_image(folder.join(name)), right) {
            (Ok(image), Right::Pixels(width, height, hash)) if (image.width, image.height, &fnv(&image.pixels)) == (*width, *height, hash) => {}
            (Err(error), Right::Refused(reason)) if error.to_string().contains(reason) => {}
            (Ok(image), _) => wrong.push(format!("{name}: other pixels ({}x{})", image.width, image.height)),
            (Err(error), _) => wrong.push(format!("{name}: {error}")),
        }
    }
    assert!(right.len() > 20 && wrong.is_empty(), "{} of {} files:\n{}", wrong.len(), right.len(), wrong.join("\n"));
}

#[test]
fn jpegs_have_libjpegs_pixels_to_the_bit() {
    holds("jpeg");
}

#[test]
fn other_formats_have_pillows_pixels() {
    holds("formats");
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files(&path, found);
        } else if !path.to_string_lossy().ends_with(".right.png") {
            found.push(path);
        }
    }
}

#[test]
#[ignore = "needs the files that tests/golden/images/ makes"]
#[expect(clippy::print_stdout, reason = "the table of docs/images.md")]
fn sweep() {
    let folder = PathBuf::from(std::env::var("SWEEP").expect("SWEEP=FOLDER"));
    let mut all = Vec::new();
    files(&folder, &mut all);
    // Of a kind: files, read, largest difference, sum of differences, bytes, refused though Pillow reads them, and why.
    type Row = (usize, usize, u8, u64, u64, usize, String);
    let mut table: BTreeMap<String, Row> = BTreeMap::new();
    for path in &all {
        let kind = path.parent().unwrap().strip_prefix(&folder).unwrap().display().to_string();
        let row = table.entry(kind).or_default();
        row.0 += 1;
        let right = read_image(PathBuf::from(format!("{}.right.png", path.display())));
        match (read_image(path), right) {
            (Ok(image), Ok(right)) => {
                assert_eq!((image.width, image.height), (right.width, right.height), "{}", path.display());
                row.1 += 1;
                let off: Vec<u8> = image.pixels.iter().zip(&right.pixels).map(|(a, b)| a.abs_diff(*b)).collect();
                row.2 = row.2.max(off.iter().copied().max().unwrap_or(0));
                row.3 += off.iter().map(|d| u64::from(*d)).sum::<u64>();
                row.4 += off.len() as u64;
                if off.iter().any(|d| *d > 2) {
                    println!("{}: {}", path.display(), off.iter().max().unwrap());
                }
            }
            (Ok(_), Err(_)) => println!("{}: read, though Pillow refuses it", path.display()),
            (Err(error), Ok(_)) => {
                row.5 += 1;
                row.6 = error.to_string().rsplit("jpg: ").next().unwrap().to_owned();
            }
            (Err(_), Err(_)) => {}
        }
    }
    for (kind, (count, read, largest, sum, bytes, refused, why)) in table {
        println!("| {kind} | {count} | {read} | {largest} | {:.4} | {refused} {why} |", sum as f64 / bytes.max(1) as f64);
    }
}
