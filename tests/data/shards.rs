//! Shards: compressed ones, odd ones, and the index that is kept of them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::dataset::{listing, own, png, put, refused, tar};
use flate2::{Compression, write::GzEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use swav_wgpu::data::{Contents, Dataset, ScanOptions, Split};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// The bytes of a tar file.
fn tarred(members: &[(&str, &[u8])]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    tar(dir.path().join("x.tar"), members);
    fs::read(dir.path().join("x.tar")).unwrap()
}

fn scan(root: &Path, cache: &Path, only: &[Split]) -> Contents {
    Contents::scan(root, &ScanOptions { cache: Some(cache.to_owned()), only: only.to_vec(), ..ScanOptions::default() }).unwrap()
}

fn reds(set: &Dataset) -> Vec<u8> {
    (0..set.len()).map(|i| set.decode(i).unwrap().pixels[0]).collect()
}

/// What lies in the cache, by ending.
fn kept(cache: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache.join("shards")).into_iter().flatten();
    let mut all: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).filter(|p| p.to_string_lossy().ends_with(ending)).collect();
    all.sort();
    all
}

/// As if the file had been there for an hour, so that the index takes it.
fn settle(path: &Path) {
    File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
}

#[test]
fn compressed_shards_are_read_as_the_plain_ones() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let shard = |class: &str, red: u8| tarred(&[("a.png", &png(red)), ("a.cls", class.as_bytes()), ("b.png", &png(red + 1)), ("b.cls", b"0")]);
    fs::write(dir.path().join("train-0000.tar"), shard("1", 10)).unwrap();
    fs::write(dir.path().join("train-0001.tar.gz"), gzip(&shard("2", 20))).unwrap();
    fs::write(dir.path().join("train-0002.tgz"), gzip(&shard("3", 30))).unwrap();
    // Several frames, as parallel compressors write them, and one to be skipped.
    let (first, second) = (shard("4", 40), shard("4", 40));
    let skipped = [0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9];
    fs::write(dir.path().join("train-0003.tar.zst"), [&zstd(&first[..700])[..], &skipped, &zstd(&second[700..])].concat()).unwrap();
    // What is in a file its first bytes say.
    fs::write(dir.path().join("train-0004.tar"), gzip(&shard("5", 50))).unwrap();
    fs::write(dir.path().join("train-0005.TGZ"), shard("6", 60)).unwrap();
    let wanted: Vec<u8> = (1..=6).flat_map(|n| [n * 10, n * 10 + 1]).collect();
    let list = listing(dir.path(), Split::Train);
    assert_eq!((list[2].0.as_str(), list[2].1, list.len()), ("train-0001.tar.gz!a.png", Some(2), 12));
    let temporary = Dataset::open(dir.path(), Split::Train).unwrap();
    assert_eq!(reds(&temporary), wanted);
    assert!(temporary.summary().to_string().ends_with("; 4 compressed shards read from unpacked copies"), "{}", temporary.summary());

    let set = scan(dir.path(), cache.path(), &[]).into_dataset(Split::Train).unwrap();
    assert_eq!((reds(&set), set.fingerprint(dir.path())), (wanted.clone(), temporary.fingerprint(dir.path())));
    let copies = kept(cache.path(), ".tar");
    assert_eq!(copies.len(), 4);
    // The second time nothing is unpacked: a change of a copy shows.
    let times = |paths: &[PathBuf]| -> Vec<SystemTime> { paths.iter().map(|p| fs::metadata(p).unwrap().modified().unwrap()).collect() };
    let before = times(&copies);
    let again = scan(dir.path(), cache.path(), &[]).into_dataset(Split::Train).unwrap();
    assert_eq!((reds(&again), times(&kept(cache.path(), ".tar"))), (wanted, before));
    // A shard that changed is unpacked anew, and its old copy goes.
    fs::write(dir.path().join("train-0002.tgz"), gzip(&tarred(&[("z.png", &png(99)), ("z.cls", b"3")]))).unwrap();
    let changed = scan(dir.path(), cache.path(), &[]).into_dataset(Split::Train).unwrap();
    assert!(changed.len() == 11 && reds(&changed).contains(&99));
    assert_eq!(kept(cache.path(), ".tar").len(), 4);
}

#[test]
fn compressed_shards_of_a_part_that_nobody_needs_stay_packed() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tar(dir.path().join("train.tar"), &[("cat/a.png", &png(0))]);
    fs::write(dir.path().join("val.tar.gz"), gzip(&tarred(&[("cat/a.png", &png(0))]))).unwrap();
    let set = scan(dir.path(), cache.path(), &[Split::Pretrain]).into_dataset(Split::Pretrain).unwrap();
    assert_eq!(
        set.summary().to_string(),
        "1 picture: 1 training in 1 class, 0 validation and 1 compressed shard not counted; not used here: validation"
    );
    assert!(kept(cache.path(), ".tar").is_empty());
    assert_eq!(scan(dir.path(), cache.path(), &[Split::Val]).into_dataset(Split::Val).unwrap().len(), 1);
}

#[test]
fn compressed_shards_that_are_wrong_are_refused() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (name, first, tool) in [("a.tar.bz2", &b"BZh9"[..], "bzip2 -d"), ("a.tar.xz", b"\xfd7zXZ\0", "xz -d"), ("a.tar", b"BZh9", "bzip2 -d")] {
        fs::write(dir.path().join(name), first).unwrap();
        refused(dir.path(), Split::Train, tool);
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let whole = tarred(&[("cat/a.png", &[7; 5000])]);
    let path = dir.path().join("train.tar.gz");
    let expect = |bytes: &[u8], said: &str| {
        fs::write(&path, bytes).unwrap();
        for cached in [None, Some(cache.path().to_owned())] {
            let scanned = Contents::scan(dir.path(), &ScanOptions { cache: cached, ..ScanOptions::default() }).unwrap();
            let error = scanned.into_dataset(Split::Train).unwrap_err();
            assert!(error.to_string().contains(said) && error.to_string().contains("train.tar.gz"), "{error} should say {said}");
            assert_eq!(error.exit_code(), 4);
        }
        assert!(kept(cache.path(), "").iter().all(|p| p.ends_with(".index")), "nothing half is left");
    };
    let packed = gzip(&whole);
    expect(&packed[..packed.len() - 9], "cannot be unpacked");
    let packed = zstd(&whole);
    expect(&packed[..packed.len() - 3], "cannot be unpacked");
    // Far more than images can shrink.
    expect(&gzip(&vec![0; 100 << 20]), "times as large as its file");
}

/// A header that says what it likes.
fn header(kind: tar::EntryType, name: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_path(name).unwrap();
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn names_are_bounded_before_they_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.tar");
    for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader, tar::EntryType::XGlobalHeader] {
        fs::write(&path, header(kind, "x", 10_000_000_000)).unwrap();
        // All of it is there, as far as the file system is concerned.
        File::options().write(true).open(&path).unwrap().set_len(20_000_000_000).unwrap();
        refused(&path, Split::Train, "claims a name or header of 10000000000 bytes");
    }
    let end = [0; 1024];
    let long = [&header(tar::EntryType::Regular, "x.png", u64::MAX >> 1)[..], &end].concat();
    fs::write(&path, long).unwrap();
    refused(&path, Split::Train, "cut off inside of x.png");
}

#[test]
fn members_of_all_kinds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.tar");
    let image = png(3);
    let long = format!("cat/{}.png", "n".repeat(300));
    let mut out = tar::Builder::new(File::create(&path).unwrap());
    out.append_pax_extensions([("path", long.as_bytes())]).unwrap();
    let mut own_header = tar::Header::new_ustar();
    own_header.set_path("short.png").unwrap();
    own_header.set_size(image.len() as u64);
    own_header.set_cksum();
    out.append(&own_header, &image[..]).unwrap();
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    out.append_link(&mut link, "cat/link.png", "short.png").unwrap();
    for (name, bytes) in [("cat/x.npy", &b"1234"[..]), ("cat/x.json", b"{}"), ("cat/x.heic", b"?")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        out.append_data(&mut header, name, bytes).unwrap();
    }
    out.finish().unwrap();
    drop(out);
    assert_eq!(listing(dir.path(), Split::Train), own(&[(&format!("train.tar!{long}"), Some(0))]));
    let set = Dataset::open(dir.path(), Split::Train).unwrap();
    assert_eq!(set.summary().to_string(), "1 picture: 1 training in 1 class; passed over: 1 .heic, 1 .json, 1 .npy, symbolic links in shards (1)");
    assert_eq!(reds(&set), [3]);
}

#[test]
fn the_index_is_kept_and_counts_while_a_shard_is_as_it_was() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let shards: Vec<PathBuf> = (0..3).map(|i| dir.path().join(format!("train-{i}.tar"))).collect();
    for (i, path) in shards.iter().enumerate() {
        tar(path.clone(), &[("cat/a.png", &png(i as u8)), ("b.png", &png(9)), ("b.cls", b"dog"), ("b.npy", b"")]);
        settle(path);
    }
    let open = || scan(dir.path(), cache.path(), &[]).into_dataset(Split::Train);
    let (first, list) = (open().unwrap(), listing(dir.path(), Split::Train));
    let index = kept(cache.path(), ".index");
    assert_eq!((index.len(), kept(cache.path(), "").len()), (1, 1));
    // It is written where a header was read, and not where none was.
    let written = || fs::metadata(&index[0]).unwrap().modified().unwrap();
    let before = written();
    std::thread::sleep(Duration::from_millis(20));
    let second = open().unwrap();
    let same = |set: &Dataset| (0..set.len()).map(|i| (set.path(i), set.label(i))).collect::<Vec<_>>();
    assert_eq!((same(&second), second.summary()), (same(&first), first.summary()));
    assert_eq!((second.len(), written()), (list.len(), before));
    // Another time of change, another size: read anew.
    let bytes = fs::read(&shards[1]).unwrap();
    fs::write(&shards[1], vec![7; bytes.len()]).unwrap();
    settle(&shards[1]);
    assert!(open().unwrap_err().to_string().contains("train-1.tar: is not a readable tar file"));
    fs::write(&shards[1], &bytes).unwrap();
    settle(&shards[1]);
    assert_eq!(same(&open().unwrap()), same(&first));
    // An index that is damaged, or another folder's, is nobody's.
    let good = fs::read(&index[0]).unwrap();
    for at in [0, 20, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&index[0], bad).unwrap();
        assert_eq!(same(&open().unwrap()), same(&first), "byte {at}");
        assert_ne!(fs::read(&index[0]).unwrap()[at], good[at] ^ 1, "it is written anew");
    }
    let other = tempfile::tempdir().unwrap();
    tar(other.path().join("train-0.tar"), &[("eel/x.png", &png(0))]);
    settle(&other.path().join("train-0.tar"));
    scan(other.path(), cache.path(), &[]);
    let foreign = kept(cache.path(), ".index").into_iter().find(|p| *p != index[0]).unwrap();
    fs::copy(&foreign, &index[0]).unwrap();
    assert_eq!(same(&open().unwrap()), same(&first));
    // A cache that cannot be written is no error.
    put(dir.path(), "file", b"");
    assert_eq!(scan(dir.path(), &dir.path().join("file"), &[]).into_dataset(Split::Train).unwrap().len(), 3);
}

#[test]
fn a_shard_that_changes_under_an_open_set_is_not_read_at_the_old_places() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.tar");
    tar(path.clone(), &[("cat/a.png", &png(1))]);
    let set = Dataset::open(dir.path(), Split::Train).unwrap();
    tar(path, &[("cat/0.png", &png(2)), ("cat/a.png", &png(1))]);
    let error = set.decode(0).unwrap_err().to_string();
    assert!(error.contains("has changed since the set was opened"), "{error}");
}
