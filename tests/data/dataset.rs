//! Every layout a set may have, and what is said about sets and images that are wrong.

use std::fs;
use std::path::{Path, PathBuf};

use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder, codecs::png::PngEncoder};
use swav_wgpu::data::{Dataset, Split, read_image};
use tempfile::TempDir;

pub fn png(red: u8) -> Vec<u8> {
    let mut out = Vec::new();
    PngEncoder::new(&mut out).write_image(&[red, 2, 3], 1, 1, ExtendedColorType::Rgb8).unwrap();
    out
}

pub fn jpeg() -> Vec<u8> {
    let mut out = Vec::new();
    JpegEncoder::new(&mut out).write_image(&[200; 64 * 3], 8, 8, ExtendedColorType::Rgb8).unwrap();
    out
}

/// A folder with these files in it; images get their position as the red value.
pub fn folder(files: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (i, name) in files.iter().enumerate() {
        put(dir.path(), name, &png(i as u8));
    }
    dir
}

pub fn put(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

pub fn tar(path: PathBuf, members: &[(&str, &[u8])]) {
    let mut out = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        out.append_data(&mut header, name, *bytes).unwrap();
    }
    out.finish().unwrap();
}

/// (path below the root, label) of every sample.
pub fn listing(root: &Path, split: Split) -> Vec<(String, Option<usize>)> {
    let set = Dataset::open(root, split).unwrap();
    let prefix = format!("{}/", root.display());
    (0..set.len()).map(|i| (set.path(i).replace('\\', "/").replacen(&prefix, "", 1), set.label(i))).collect()
}

pub fn refused(root: &Path, split: Split, what: &str) {
    let error = Dataset::open(root, split).expect_err(what);
    assert!(error.to_string().contains(what), "{error} should say {what:?}");
    assert!(error.to_string().contains(&root.display().to_string()), "{error} should name the path");
    assert_eq!(error.exit_code(), 4);
}

pub fn own(list: &[(&str, Option<usize>)]) -> Vec<(String, Option<usize>)> {
    list.iter().map(|(name, label)| ((*name).to_owned(), *label)).collect()
}

#[test]
fn train_val_and_unlabelled_folders() {
    let dir = folder(&[
        "train/dog/b.PNG",
        "train/dog/a.png",
        "train/cat/deep/er/x.Jpeg",
        "train/cat/notes.txt",
        "train/cat/._x.png",
        "val/dog/v.png",
        "unlabelled/any/u.png",
        "unlabelled/t.png",
    ]);
    let train = [("train/cat/deep/er/x.Jpeg", Some(0)), ("train/dog/a.png", Some(1)), ("train/dog/b.PNG", Some(1))];
    assert_eq!(listing(dir.path(), Split::Train), own(&train));
    // Val alone has one class, but is numbered as in train.
    assert_eq!(listing(dir.path(), Split::Val), own(&[("val/dog/v.png", Some(1))]));
    let more = [("unlabelled/any/u.png", None), ("unlabelled/t.png", None)];
    assert_eq!(listing(dir.path(), Split::Pretrain), [own(&train), own(&more)].concat());
    assert_eq!(listing(dir.path(), Split::All), [own(&train), own(&[("val/dog/v.png", Some(1))]), own(&more)].concat());
    assert_eq!(listing(dir.path(), Split::Unlabelled), own(&more));
    assert_eq!(listing(dir.path(), Split::AllVal), listing(dir.path(), Split::Val));
    let set = Dataset::open(dir.path(), Split::Val).unwrap();
    assert_eq!(set.classes(), ["cat", "dog"]);
    assert_eq!(set.decode(0).unwrap().pixels, [5, 2, 3]);
    assert_eq!(*set.image(0).unwrap(), set.decode(0).unwrap());
    assert!(!set.is_empty());
}

#[test]
fn flat_folders() {
    let dir = folder(&["dog/a.png", "cat/b.png", "unlabelled/c.png"]);
    assert_eq!(listing(dir.path(), Split::Train), own(&[("cat/b.png", Some(0)), ("dog/a.png", Some(1))]));
    assert_eq!(listing(dir.path(), Split::AllTrain), listing(dir.path(), Split::Train));
    assert_eq!(listing(dir.path(), Split::All), listing(dir.path(), Split::Pretrain));
    assert_eq!(listing(dir.path(), Split::Pretrain).len(), 3);
    refused(dir.path(), Split::Val, "looked for the folder val/");

    let dir = folder(&["b.png", "a.png"]);
    assert_eq!(listing(dir.path(), Split::Pretrain), own(&[("a.png", None), ("b.png", None)]));
    assert_eq!(listing(dir.path(), Split::All), listing(dir.path(), Split::Pretrain));
    refused(dir.path(), Split::Train, "no image has a class");

    // A class that training lacks is a mistake where validation is judged by it, and a class like any other where all images are listed.
    let dir = folder(&["train/cat/a.png", "val/ant/b.png", "val/cat/c.png"]);
    refused(dir.path(), Split::Val, "class \"ant\" does not occur in training");
    assert_eq!(listing(dir.path(), Split::All), own(&[("train/cat/a.png", Some(0)), ("val/ant/b.png", Some(1)), ("val/cat/c.png", Some(0))]));
}

#[test]
fn shards_of_classes() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("dog/{}.png", "n".repeat(150)); // needs a GNU long name
    tar(dir.path().join("sprites-train.tar"), &[(&long, &png(1)), ("./cat/a.png", &png(2)), ("cat/read.me", b"x"), ("cat/._a.png", b"x")]);
    tar(dir.path().join("sprites-val.tar"), &[("dog/v.png", &png(3))]);
    tar(dir.path().join("sprites-unlabelled.tar"), &[("unlabelled/u.png", &png(4))]);
    let train = own(&[("sprites-train.tar!cat/a.png", Some(0)), (&format!("sprites-train.tar!{long}"), Some(1))]);
    assert_eq!(listing(dir.path(), Split::Train), train);
    assert_eq!(listing(dir.path(), Split::Val), own(&[("sprites-val.tar!dog/v.png", Some(1))]));
    assert_eq!(listing(dir.path(), Split::Pretrain)[2..], own(&[("sprites-unlabelled.tar!unlabelled/u.png", None)]));
    let set = Dataset::open(dir.path(), Split::Pretrain).unwrap();
    let reds: Vec<u8> = (0..3).map(|i| set.decode(i).unwrap().pixels[0]).collect();
    assert_eq!(reds, [2, 1, 4]);
    // A single shard is a set of its own.
    let one = dir.path().join("sprites-val.tar");
    assert_eq!(Dataset::open(&one, Split::All).unwrap().classes(), ["dog"]);
    let one = dir.path().join("sprites-unlabelled.tar");
    assert_eq!(Dataset::open(&one, Split::All).unwrap().label(0), None);
    refused(&one, Split::Val, "no validation part");
    // A selection keeps the classes.
    let some = set.select(&[2, 1, 1]).unwrap();
    assert_eq!((some.len(), some.classes(), some.label(1), some.decode(0).unwrap().pixels[0]), (3, set.classes(), Some(1), 4));
}

#[test]
fn pipes_are_told_from_data() {
    #[cfg(unix)]
    {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.png"), png(1)).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(dir.path().join("b.png")).status().unwrap().success());
        std::os::unix::fs::symlink("b.png", dir.path().join("c.png")).unwrap();
        assert_eq!(listing(dir.path(), Split::All), own(&[("a.png", None)]));
    }
}

#[test]
fn shards_with_class_texts() {
    let dir = tempfile::tempdir().unwrap();
    // Numbers are labels, whichever occur; the text counts more than the folder, wherever it stands.
    tar(dir.path().join("train-0.tar"), &[("a.jpg", &jpeg()), ("a.cls", b"10\n"), ("x/b.cls", b"2"), ("x/b.jpg", &jpeg())]);
    tar(dir.path().join("train-1.tar"), &[("c.png", &png(0))]);
    tar(dir.path().join("val-0.tar"), &[("v.jpg", &jpeg()), ("v.cls", b"7")]);
    assert_eq!(listing(dir.path(), Split::Train), own(&[("train-0.tar!a.jpg", Some(10)), ("train-0.tar!x/b.jpg", Some(2))]));
    assert_eq!(listing(dir.path(), Split::Pretrain)[2..], own(&[("train-1.tar!c.png", None)]));
    assert_eq!(listing(dir.path(), Split::Val), own(&[("val-0.tar!v.jpg", Some(7))]));
    let set = Dataset::open(dir.path(), Split::Train).unwrap();
    assert_eq!((set.classes().len(), set.classes()[10].as_str()), (11, "10"));
    assert_eq!(set.decode(0).unwrap().width, 8);

    let dir = tempfile::tempdir().unwrap();
    tar(dir.path().join("some.tar"), &[("a.png", &png(0)), ("a.cls", b"wolf"), ("b.png", &png(0)), ("b.cls", b"ape")]);
    assert_eq!(listing(dir.path(), Split::Train), own(&[("some.tar!a.png", Some(1)), ("some.tar!b.png", Some(0))]));
    tar(dir.path().join("huge.tar"), &[("a.png", &png(0)), ("a.cls", b"99999999999")]);
    refused(&dir.path().join("huge.tar"), Split::Train, "is larger than");
}

#[test]
fn sets_that_are_wrong_are_refused_with_their_path() {
    let dir = folder(&["train/cat/a.png", "val/eel/b.png", "train-not.txt"]);
    let error = Dataset::open(dir.path(), Split::Val).unwrap_err().to_string();
    assert!(error.contains("\"eel\"") && error.contains("b.png"), "{error}");
    refused(&dir.path().join("gone"), Split::Train, "does not exist");
    refused(&dir.path().join("train-not.txt"), Split::Train, "neither a folder nor a .tar");
    let empty = tempfile::tempdir().unwrap();
    for split in [Split::Train, Split::Pretrain, Split::All] {
        refused(empty.path(), split, "holds no ");
    }
    put(empty.path(), "train/cat/notes.txt", b"x");
    refused(empty.path(), Split::Train, "holds no training image");

    let shards = tempfile::tempdir().unwrap();
    let path = shards.path().join("train.tar");
    fs::write(&path, [7; 2048]).unwrap();
    refused(&path, Split::Train, "not a readable tar");
    let big = [b"x".repeat(3000)].concat();
    tar(path.clone(), &[("cat/a.png", &big)]);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..2000]).unwrap();
    refused(&path, Split::Train, "cut off inside of cat/a.png");
    // Between two members, as a download that broke off, and joined by `cat`.
    tar(path.clone(), &[("cat/a.png", &png(0)), ("cat/b.png", &png(1))]);
    let (bytes, first) = (fs::read(&path).unwrap(), (512 + png(0).len()).next_multiple_of(512));
    fs::write(&path, &bytes[..first]).unwrap();
    refused(&path, Split::Train, "it is cut off");
    fs::write(&path, [&bytes[..], &bytes[..]].concat()).unwrap();
    refused(&path, Split::Train, "holds more behind its end");
    fs::write(&path, &bytes).unwrap();
    assert_eq!(Dataset::open(&path, Split::Train).unwrap().len(), 2);
    fs::write(&path, b"").unwrap();
    refused(&path, Split::Train, "is empty");
}

/// Names that are no Unicode, as Linux allows: two classes, not one of a replacement character.
#[cfg(target_os = "linux")]
#[test]
fn classes_whose_names_are_no_unicode_are_told_apart() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    for byte in [0xfd, 0xfe] {
        let class = dir.path().join("train").join(std::ffi::OsStr::from_bytes(&[b'a', byte]));
        fs::create_dir_all(&class).unwrap();
        fs::write(class.join("x.png"), png(byte)).unwrap();
    }
    assert_eq!(Dataset::open(dir.path(), Split::Train).unwrap().classes(), ["a\\xFD", "a\\xFE"]);
}

#[test]
fn images_that_are_wrong_are_named() {
    let dir = folder(&["good.png"]);
    put(dir.path(), "text.png", b"I am a text");
    put(dir.path(), "short.png", &png(0)[..40]);
    put(dir.path(), "short.jpg", &jpeg()[..300]);
    // Told by content, not by name.
    put(dir.path(), "really-jpeg.png", &jpeg());
    let set = Dataset::open(dir.path(), Split::All).unwrap();
    for i in 0..set.len() {
        let outcome = set.decode(i);
        if set.path(i).contains("good") || set.path(i).contains("really") {
            assert!(outcome.is_ok(), "{outcome:?}");
        } else {
            let error = outcome.unwrap_err();
            assert!(error.to_string().starts_with(&set.path(i)) && error.exit_code() == 4, "{error}");
        }
    }
    assert!(read_image(dir.path().join("good.png")).is_ok());
    assert!(read_image(dir.path().join("text.png")).unwrap_err().to_string().contains("is none of PNG, JPEG"));
    #[cfg(unix)]
    assert!(read_image("/dev/zero").unwrap_err().to_string().contains("is no file"));
    assert!(read_image(dir.path().join("nothing.png")).unwrap_err().to_string().contains("cannot be read"));
    // Gone between listing and reading.
    fs::remove_file(dir.path().join("good.png")).unwrap();
    let good = (0..set.len()).find(|&i| set.path(i).contains("good")).unwrap();
    assert!(set.decode(good).unwrap_err().to_string().contains("good.png"));
}

#[cfg(unix)]
#[test]
fn links_are_followed_once() {
    use std::os::unix::fs::symlink;
    let dir = folder(&["train/cat/a.png", "elsewhere/d.png"]);
    let cat = dir.path().join("train/cat");
    symlink(dir.path().join("train"), cat.join("up")).unwrap();
    symlink(&cat, cat.join("self")).unwrap();
    symlink(dir.path().join("elsewhere"), dir.path().join("train/dog")).unwrap();
    symlink(dir.path().join("missing.png"), dir.path().join("train/dog/broken.png")).unwrap();
    let list = listing(dir.path(), Split::Train);
    let names: Vec<&str> = list.iter().map(|(name, _)| name.as_str()).collect();
    // `up` leads to train/ and through it to the dogs, which is odd but finite; nothing is found twice under one path.
    assert!(names.contains(&"train/cat/a.png") && names.contains(&"train/dog/d.png") && names.len() < 8, "{names:?}");
    let set = Dataset::open(dir.path(), Split::Train).unwrap();
    let broken = (0..set.len()).find(|&i| set.path(i).ends_with("dog/broken.png")).unwrap();
    assert!(set.decode(broken).unwrap_err().to_string().contains("broken.png"));
}
