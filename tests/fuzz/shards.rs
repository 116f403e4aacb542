//! Shards with long names and links, compressed ones, the index that is kept of them, and records
//! of raw pixels.

use super::data::{opened, png};
use super::harness::fuzz;
use flate2::{Compression, write::GzEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use swav_wgpu::data::{Contents, ScanOptions, Split};

/// A tar with names in PAX and GNU headers, a hard link, a symbolic one, and class texts.
fn tar() -> Vec<u8> {
    let image = png(2);
    let mut out = tar::Builder::new(Vec::new());
    let long = format!("cat/{}.png", "n".repeat(200));
    out.append_pax_extensions([("path", long.as_bytes()), ("mtime", b"1.5")]).unwrap();
    let mut own = tar::Header::new_ustar();
    own.set_path("short.png").unwrap();
    own.set_size(image.len() as u64);
    own.set_cksum();
    out.append(&own, &image[..]).unwrap();
    for (name, bytes) in [(format!("{}/a.png", "g".repeat(150)), &image[..]), ("b.json".into(), br#"{"label": "cat"}"#), ("b.png".into(), &image)] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        out.append_data(&mut header, name, bytes).unwrap();
    }
    for (kind, name, target) in [(tar::EntryType::Link, "d.png", "b.png"), (tar::EntryType::Symlink, "e.png", "b.png")] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        out.append_link(&mut header, name, target).unwrap();
    }
    out.into_inner().unwrap()
}

/// Gives every header its right sum again: else nothing behind a changed one would ever be looked
/// at.
fn with_sums(mut file: Vec<u8>) -> Vec<u8> {
    for block in file.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        let sum: u32 = block.iter().enumerate().map(|(i, byte)| if (148..156).contains(&i) { 32 } else { u32::from(*byte) }).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    file
}

#[test]
fn tar_files_with_right_sums() {
    fuzz("shard.tar", &[tar()], |path| {
        std::fs::write(path, with_sums(std::fs::read(path).unwrap())).unwrap();
        opened(path)
    });
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

#[test]
fn compressed_tar_files() {
    fuzz("shard.tar.gz", &[gzip(&tar()), [gzip(&tar()[..512]), gzip(&tar()[512..])].concat()], opened);
    fuzz("shard.tar.zst", &[compress_to_vec(&tar()[..], CompressionLevel::Fastest)], opened);
}

/// The file that mutations of an index take the place of, for the shard beside `path`.
fn indexed(path: &Path) -> PathBuf {
    let cache = path.with_file_name("cache").join("shards");
    std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).find(|p| p.extension().is_some_and(|e| e == "index")).unwrap()
}

fn scan(path: &Path) -> bool {
    let options = ScanOptions { cache: Some(path.with_file_name("cache")), ..ScanOptions::default() };
    let set = Contents::scan(&path.with_file_name("set"), &options).and_then(|set| set.into_dataset(Split::All));
    set.is_ok_and(|set| {
        (0..set.len().min(8)).for_each(|i| drop(set.decode(i)));
        true
    })
}

/// A shard in `set/`, as if it were old.
fn shard(path: &Path) {
    let place = path.with_file_name("set").join("0.tar");
    if !place.exists() {
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, tar()).unwrap();
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        std::fs::File::options().write(true).open(&place).unwrap().set_modified(old).unwrap();
        assert!(scan(path), "the index is made");
    }
}

/// What is kept behind the first line and the sum, with a right sum before it: a file whose sum is
/// wrong is never looked into.
#[test]
fn kept_indexes() {
    fuzz("body", &[b"own".to_vec(), vec![0]], |path| {
        shard(path);
        let place = indexed(path);
        let good = path.with_file_name("good.index");
        if !good.exists() {
            std::fs::copy(&place, &good).unwrap();
        }
        let good = std::fs::read(good).unwrap();
        let head = good.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let mutation = std::fs::read(path).unwrap();
        // The mutation is laid over the good body, at a place that it names itself.
        let mut body = good[head + 32..].to_vec();
        if mutation != b"own" {
            let at = mutation.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte))) % body.len();
            body.splice(at..(at + mutation.len()).min(body.len()), mutation);
        }
        let whole = [&good[..head], &blake3::hash(&body).as_bytes()[..], &body].concat();
        std::fs::write(place, whole).unwrap();
        scan(path)
    });
}

#[test]
fn records_of_cifar_and_stl() {
    let record: Vec<u8> = (0..3073_usize * 2).map(|i| (i % 10) as u8).collect();
    fuzz("data_batch_2.bin", std::slice::from_ref(&record), |path| {
        let beside = |name: &str, bytes: &[u8]| std::fs::write(path.with_file_name(name), bytes).unwrap();
        [1, 3, 4, 5].iter().for_each(|n| beside(&format!("data_batch_{n}.bin"), &record));
        beside("batches.meta.txt", b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n");
        opened(path.parent().unwrap())
    });
    let names: &[u8] = b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n";
    fuzz("train_y.bin", &[vec![1, 10]], |path| {
        std::fs::write(path.with_file_name("train_X.bin"), vec![3; 27_648 * 2]).unwrap();
        std::fs::write(path.with_file_name("class_names.txt"), names).unwrap();
        opened(path.parent().unwrap())
    });
    fuzz("train_X.bin", &[vec![3; 27_648]], |path| {
        std::fs::write(path.with_file_name("train_y.bin"), [4]).unwrap();
        std::fs::write(path.with_file_name("class_names.txt"), names).unwrap();
        opened(path.parent().unwrap())
    });
    fuzz("class_names.txt", &[names.to_vec()], |path| {
        std::fs::write(path.with_file_name("train_X.bin"), vec![3; 27_648]).unwrap();
        std::fs::write(path.with_file_name("train_y.bin"), [4]).unwrap();
        opened(path.parent().unwrap())
    });
}
