//! Members of shards that are odd: links, names that lead elsewhere, marks in front of texts; and
//! what the kept index hangs on.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::dataset::{listing, own, png, put, refused, tar};
use swav_wgpu::data::{Contents, Dataset, ScanOptions, Split, kept_shards};

/// What a member of a raw tar file is.
type Raw<'a> = (&'a str, tar::EntryType, &'a str, &'a [u8]);

/// A tar file whose names are written as they are, also such as tools refuse to write.
fn raw(path: &Path, members: &[Raw<'_>]) {
    let mut out = Vec::new();
    for (name, kind, target, bytes) in members {
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        old.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    fs::write(path, out).unwrap();
}

const FILE: tar::EntryType = tar::EntryType::Regular;
const HARD: tar::EntryType = tar::EntryType::Link;

#[test]
fn hard_links_are_the_files_that_they_stand_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.tar");
    let image = png(7);
    raw(&path, &[("cat/a.png", FILE, "", &image), ("./dog/b.png", HARD, "./cat/a.png", b""), ("eel/c.png", HARD, "dog/b.png", b"")]);
    let wanted = own(&[("train.tar!cat/a.png", Some(0)), ("train.tar!dog/b.png", Some(1)), ("train.tar!eel/c.png", Some(2))]);
    assert_eq!(listing(dir.path(), Split::Train), wanted);
    let set = Dataset::open(dir.path(), Split::Train).unwrap();
    assert!((0..3).all(|i| set.decode(i).unwrap().pixels[0] == 7));
    // The class of a sample may be a link as well.
    raw(&path, &[("a.png", FILE, "", &image), ("a.cls", FILE, "", b"4"), ("b.png", HARD, "a.png", b""), ("b.cls", HARD, "a.cls", b"")]);
    assert_eq!(listing(dir.path(), Split::Train), own(&[("train.tar!a.png", Some(4)), ("train.tar!b.png", Some(4))]));
    raw(&path, &[("a.png", FILE, "", &image), ("b.png", HARD, "gone.png", b"")]);
    refused(dir.path(), Split::Train, "b.png is a hard link to gone.png, which the shard does not hold");
    refused(dir.path(), Split::Train, "--hard-dereference");
    raw(&path, &[("cat/a.png", FILE, "", &image), ("dog/b.png", tar::EntryType::Symlink, "../cat/a.png", b"")]);
    let set = Dataset::open(dir.path(), Split::Train).unwrap();
    assert_eq!(set.summary().to_string(), "1 picture: 1 training in 1 class; passed over: symbolic links in shards (1)");
}

#[test]
fn names_with_dots_between_slashes_are_read_and_those_that_lead_out_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("train.tar");
    let names = ["./cat/./a.png", "b/../dog/b.png", "/eel/c.png", "fox//d.png", "../out.png", ".hidden/e.png", "cat/._f.png"];
    let image = png(1);
    raw(&path, &names.map(|name| (name, FILE, "", &image[..])));
    let set = Dataset::open(dir.path(), Split::Train).unwrap();
    assert_eq!(set.classes(), ["cat", "dog", "eel", "fox"]);
    let said = set.summary().to_string();
    assert_eq!(said, "4 pictures: 4 training in 4 classes; passed over: members whose names lead out of the shard (1)");
    // One file under two names is one too many.
    raw(&path, &["cat/a.png", "./cat/a.png"].map(|name| (name, FILE, "", &image[..])));
    refused(dir.path(), Split::Train, "cat/a.png twice");
}

#[test]
fn marks_before_texts_are_no_part_of_a_class() {
    let dir = tempfile::tempdir().unwrap();
    let image = png(1);
    let members: [(&str, &[u8]); 6] = [
        ("a.png", &image),
        ("a.cls", b"\xef\xbb\xbf10\r\n"),
        ("b.png", &image),
        ("b.cls", b"2\n"),
        ("c.png", &image),
        ("c.json", b"\xef\xbb\xbf{\"label\": 3}"),
    ];
    tar(dir.path().join("train.tar"), &members);
    let labels: Vec<_> = listing(dir.path(), Split::Train).into_iter().map(|(_, label)| label).collect();
    assert_eq!(labels, [Some(10), Some(2), Some(3)]);
    // What is wrong is named with shard, sample and value.
    tar(dir.path().join("train.tar"), &[("a.png", &image), ("a.cls", b"-3")]);
    refused(dir.path(), Split::Train, "train.tar!a.png: class -3 is no class number");
    tar(dir.path().join("train.tar"), &[("a.png", &image), ("a.json", b"{\"label\": 2.5}")]);
    refused(dir.path(), Split::Train, "train.tar!a.png: class 2.5 is no class number");
    // A text that was cut off is no JSON: the picture has no class, and it is said.
    tar(dir.path().join("train.tar"), &[("a.png", &image), ("a.json", b"{\"label\": 2"), ("b.png", &image), ("b.json", b"{\"label\": 1}")]);
    let said = Dataset::open(dir.path(), Split::AllTrain).unwrap().summary().to_string();
    assert!(said.contains("(1 without a class); passed over: members .json that are no JSON (1)"), "{said}");
}

fn settle(path: &Path) {
    File::options().write(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
}

fn labels(root: &Path, cache: &Path, key: Option<&str>) -> Vec<Option<usize>> {
    let options = ScanOptions { cache: Some(cache.to_owned()), label_key: key.map(str::to_owned), ..ScanOptions::default() };
    let set = Contents::scan(root, &options).unwrap().into_dataset(Split::Train).unwrap();
    (0..set.len()).map(|i| set.label(i)).collect()
}

#[test]
fn the_index_is_not_taken_for_another_key_of_the_class() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("train.tar");
    tar(path.clone(), &[("a.png", &png(1)), ("a.json", br#"{"label": 1, "breed": 5}"#)]);
    settle(&path);
    for _ in 0..2 {
        assert_eq!(labels(dir.path(), cache.path(), None), [Some(1)]);
        assert_eq!(labels(dir.path(), cache.path(), Some("breed")), [Some(5)]);
    }
}

#[cfg(unix)]
#[test]
fn a_shard_that_was_replaced_by_one_of_its_size_and_time_is_read_anew() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("train.tar");
    for label in ["3", "4"] {
        tar(path.clone(), &[("a.png", &png(1)), ("a.cls", label.as_bytes())]);
        settle(&path);
        assert_eq!(labels(dir.path(), cache.path(), None), [label.parse().ok()]);
        // A clock that has moved on.
        std::thread::sleep(Duration::from_millis(30));
    }
}

#[test]
fn what_is_kept_is_counted_and_deleted_and_nothing_else_is() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("train.tar");
    tar(path.clone(), &[("cat/a.png", &png(1))]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &fs::read(&path).unwrap()).unwrap();
    fs::write(dir.path().join("train-2.tar.gz"), packed.finish().unwrap()).unwrap();
    settle(&path);
    settle(&dir.path().join("train-2.tar.gz"));
    let empty = kept_shards(cache.path(), true).unwrap();
    assert_eq!((empty.copies, empty.indexes), (0, 0));
    assert_eq!(labels(dir.path(), cache.path(), None).len(), 2);
    put(cache.path(), "shards/mine.tar", b"x");
    let kept = kept_shards(cache.path(), false).unwrap();
    assert_eq!((kept.copies, kept.indexes, kept.copy_bytes), (1, 1, fs::metadata(&path).unwrap().len()));
    // A copy that was cut is made anew.
    let mut copies = fs::read_dir(cache.path().join("shards")).unwrap().map(|e| e.unwrap().path());
    let copy = copies.find(|p| p.extension().is_some_and(|e| e == "tar") && !p.ends_with("mine.tar")).unwrap();
    fs::write(&copy, b"cut").unwrap();
    let options = ScanOptions { cache: Some(cache.path().to_owned()), ..ScanOptions::default() };
    let set = Contents::scan(dir.path(), &options).unwrap().into_dataset(Split::Train).unwrap();
    assert!((0..2).all(|i| set.decode(i).unwrap().pixels[0] == 1));
    assert_eq!(kept_shards(cache.path(), true).unwrap().copies, 1);
    assert_eq!(kept_shards(cache.path(), false).unwrap().copies, 0);
    assert!(cache.path().join("shards/mine.tar").is_file());
}
