//! Which folders and shards are parts of a set, which are classes, and that nothing is left out without a word.

use std::fs;
use std::path::Path;

use super::dataset::{folder, listing, own, png, put, refused, tar};
use swav_wgpu::data::{Contents, Dataset, Layout, ScanOptions, Split};

fn open(root: &Path, layout: Layout, split: Split) -> Dataset {
    Contents::scan(root, &ScanOptions { layout, ..ScanOptions::default() }).unwrap().into_dataset(split).unwrap()
}

/// The line that a command says of the set.
fn line(root: &Path, split: Split) -> String {
    Dataset::open(root, split).unwrap().summary().to_string()
}

/// Four images in each of these folders.
fn classes(names: &[&str]) -> tempfile::TempDir {
    let files: Vec<String> = names.iter().flat_map(|name| (0..4).map(move |i| format!("{name}/{i}.png"))).collect();
    folder(&files.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_class_may_be_called_like_a_part() {
    for name in ["train", "val", "test", "Train"] {
        let dir = classes(&["bicycle", "bus", "car", name, "truck"]);
        let set = Dataset::open(dir.path(), Split::Train).unwrap();
        assert_eq!((set.len(), set.classes().len()), (20, 5), "{name}");
        assert!(set.classes().iter().any(|class| class == name));
        assert_eq!(Dataset::open(dir.path(), Split::Pretrain).unwrap().len(), 20);
        assert_eq!(set.summary().to_string(), "20 pictures: 20 training in 5 classes");
        refused(dir.path(), Split::Val, "no validation part");
    }
}

#[test]
fn what_may_be_a_class_or_a_part_is_refused_until_it_is_decided() {
    let ambiguous: [&[&str]; 4] =
        [&["train", "bus"], &["train", "val", "bus", "car"], &["train/side", "bus/side"], &["train/side", "bus/side", "car/side"]];
    for names in ambiguous {
        let dir = classes(names);
        refused(dir.path(), Split::Pretrain, "ambiguous: train/");
        refused(dir.path(), Split::Pretrain, "--data-layout classes");
        let parts = open(dir.path(), Layout::Parts, Split::Pretrain);
        assert_eq!(parts.len(), 4, "{names:?}");
        assert!(parts.summary().to_string().contains("passed over: the folder bus, which is no part"), "{}", parts.summary());
        let all = open(dir.path(), Layout::Classes, Split::Train);
        assert_eq!((all.len(), all.classes().len()), (4 * names.len(), names.len()));
    }
    // Parts with classes, and a folder beside them, leave no doubt.
    let dir = classes(&["train/cat", "train/dog", "val/cat", "samples"]);
    let said = line(dir.path(), Split::Pretrain);
    assert_eq!(
        said,
        "12 pictures: 8 training in 2 classes, 4 validation; not used here: validation; passed over: the folder samples, which is no part"
    );
    // A folder without a picture is in nobody's way.
    let dir = classes(&["train", "val"]);
    put(dir.path(), "notes/read.me", b"x");
    assert_eq!(Dataset::open(dir.path(), Split::Pretrain).unwrap().len(), 4);
}

#[test]
fn roles_of_folders_are_words_in_any_case() {
    for (train, val) in [("Train", "Val"), ("training", "validation"), ("train2017", "val2017"), ("TRAIN", "valid"), ("train_images", "val_images")] {
        let dir = folder(&[&format!("{train}/cat/a.png"), &format!("{train}/dog/b.png"), &format!("{val}/dog/c.png")]);
        assert_eq!(listing(dir.path(), Split::Val), own(&[(&format!("{val}/dog/c.png"), Some(1))]), "{train}");
        assert_eq!(Dataset::open(dir.path(), Split::Pretrain).unwrap().len(), 2);
    }
    let dir = folder(&["train/cat/a.png", "training/cat/b.png"]);
    refused(dir.path(), Split::Train, "both called the training part");
}

#[test]
fn a_test_part_is_named_and_used_only_where_it_is_alone() {
    let dir = folder(&["train/cat/a.png", "test/x.png", "test/y.png"]);
    assert_eq!(listing(dir.path(), Split::Pretrain), own(&[("train/cat/a.png", Some(0))]));
    assert_eq!(line(dir.path(), Split::Pretrain), "3 pictures: 1 training in 1 class, 2 test without classes; not used here: test");
    let dir = folder(&["test/cat/x.png", "test/dog/y.png"]);
    assert_eq!(listing(dir.path(), Split::Train), own(&[("test/cat/x.png", Some(0)), ("test/dog/y.png", Some(1))]));
    assert!(line(dir.path(), Split::Train).ends_with("the part called test is taken, as there is no other"));
}

#[test]
fn roles_of_shards_are_whole_words() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["carnival-0.tar", "restrained-0.tar", "retrieval-000000.tar"] {
        tar(dir.path().join(name), &[("cat/a.png", &png(0)), ("dog/b.png", &png(1))]);
    }
    assert_eq!(line(dir.path(), Split::Pretrain), "6 pictures: 6 training in 2 classes");
    refused(dir.path(), Split::Val, "no validation part");
    // Beside shards that have a role, one without would be left out.
    tar(dir.path().join("train-0.tar"), &[("cat/a.png", &png(0))]);
    let error = Dataset::open(dir.path(), Split::Pretrain).unwrap_err().to_string();
    assert!(error.contains("carnival-0.tar") && error.contains("rename it") && error.contains("--data-layout"), "{error}");
    assert_eq!(open(dir.path(), Layout::Classes, Split::Train).len(), 7);
    let parts = open(dir.path(), Layout::Parts, Split::Train);
    assert!(parts.len() == 1 && parts.summary().to_string().contains("the shard retrieval-000000.tar"), "{}", parts.summary());

    for (names, said) in
        [(["train-val-0.tar", "train-1.tar"], "both training and validation"), (["mytrain-0.tar", "myval-0.tar"], "mytrain-0.tar and myval-0.tar")]
    {
        let dir = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| tar(dir.path().join(name), &[("a/a.png", &png(0))]));
        refused(dir.path(), Split::Pretrain, said);
    }
    // An archive beside parts that are folders is told of.
    let dir = folder(&["train/cat/a.png", "val/cat/b.png"]);
    tar(dir.path().join("archive.tar"), &[("x/a.png", &png(0))]);
    assert!(line(dir.path(), Split::Train).contains("passed over: the shard archive.tar, which is no part"));
}

#[test]
fn shards_in_the_folders_of_parts() {
    let dir = folder(&["train/dog/z.png", "val/notes.txt"]);
    tar(dir.path().join("train/00001.tar"), &[("cat/a.png", &png(7))]);
    tar(dir.path().join("train/dog/more.tar"), &[("plain.png", &png(8))]);
    tar(dir.path().join("val/00000.tar"), &[("0.png", &png(9)), ("0.cls", b"dog")]);
    let train = [("train/dog/z.png", Some(1)), ("train/00001.tar!cat/a.png", Some(0)), ("train/dog/more.tar!plain.png", Some(1))];
    assert_eq!(listing(dir.path(), Split::Train), own(&train));
    assert_eq!(listing(dir.path(), Split::Val), own(&[("val/00000.tar!0.png", Some(1))]));
    assert_eq!(
        line(dir.path(), Split::Pretrain),
        "4 pictures: 3 training in 2 classes, 1 validation; not used here: validation; passed over: 1 .txt"
    );
    tar(dir.path().join("train/val-7.tar"), &[("cat/a.png", &png(7))]);
    refused(dir.path(), Split::Train, "lies in the folder of the training part");
}

#[test]
fn what_is_no_picture_is_counted_by_kind() {
    let dir = folder(&["train/cat/a.png"]);
    for name in ["cat/1.heic", "cat/2.HEIC", "cat/3.txt", "cat/README", "cat/.hidden.png", "eel/x.csv"] {
        put(dir.path(), &format!("train/{name}"), b"x");
    }
    put(dir.path(), "beside.png", &png(0));
    put(dir.path(), "labels.csv", b"x");
    let said = line(dir.path(), Split::Train);
    assert_eq!(
        said,
        "1 picture: 1 training in 1 class; passed over: 2 .csv, 2 .heic, 1 .txt, files without extension (1), pictures beside the parts (1); \
         1 folder without pictures (eel)"
    );
    // An error that there is nothing says what was there.
    let dir = folder(&[]);
    put(dir.path(), "a/1.heic", b"x");
    refused(dir.path(), Split::All, "passed over: 1 .heic");
}

#[cfg(target_os = "linux")]
#[test]
fn links_back_and_names_that_differ_by_case_are_named() {
    let dir = folder(&["train/cat/a.png", "train/cat/A.png", "train/dog/b.png", "val/cat/c.png"]);
    std::os::unix::fs::symlink(dir.path(), dir.path().join("train/cat/up")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("train"), dir.path().join("train/cat/up2")).unwrap();
    let list = listing(dir.path(), Split::Train);
    assert_eq!(list, own(&[("train/cat/A.png", Some(0)), ("train/cat/a.png", Some(0)), ("train/dog/b.png", Some(1))]));
    let said = line(dir.path(), Split::Train);
    assert!(said.contains("passed over: links back to a folder (2); 1 name differs from another by case only (a.png)"), "{said}");
}

#[test]
fn an_archive_of_the_folders_beside_it_is_not_taken_twice() {
    let dir = folder(&["cat/a.png", "dog/b.png"]);
    tar(dir.path().join("animals.tar"), &[("animals/cat/a.png", &png(0)), ("animals/dog/b.png", &png(1))]);
    let error = Dataset::open(dir.path(), Split::Train).unwrap_err().to_string();
    assert!(error.contains("animals.tar: holds the pictures of the folders beside it once more"), "{error}");
    // Other pictures are more of them.
    tar(dir.path().join("animals.tar"), &[("cat/a.png", &png(0)), ("dog/c.png", &png(1))]);
    assert_eq!(Dataset::open(dir.path(), Split::Train).unwrap().len(), 4);
}

#[test]
fn a_part_that_nobody_needs_may_be_damaged() {
    let dir = tempfile::tempdir().unwrap();
    tar(dir.path().join("train.tar"), &[("cat/a.png", &png(0))]);
    fs::write(dir.path().join("val.tar"), [7; 2048]).unwrap();
    let said = line(dir.path(), Split::Pretrain);
    assert!(said.starts_with("1 picture: 1 training in 1 class, 0 validation; validation cannot be read:"), "{said}");
    let error = Dataset::open(dir.path(), Split::Val).unwrap_err().to_string();
    assert!(error.contains("val.tar: is not a readable tar file"), "{error}");
}

/// Recorded before sets were scanned as a whole: a run that began then goes on.
#[test]
fn the_demo_sets_keep_their_fingerprints() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    for (name, images, recorded) in [("digits", 1198, "b9fee6856c3d927c97c19ceb9ba8d0e0"), ("sprites", 4099, "1fc6a9b688a104d729222cfa1c593aa7")] {
        let root = data.join(name);
        let set = Dataset::open(&root, Split::Pretrain).unwrap();
        assert_eq!((set.len(), set.fingerprint(&root).as_str()), (images, recorded), "{name}");
    }
}

#[test]
fn parts_that_lie_deeper_are_not_mixed() {
    for (names, inner) in [
        (&["imagenet/train/cat", "imagenet/val/cat"][..], "imagenet"),
        (&["cat/Train", "cat/Validation", "dog/Train"], "cat"),
        (&["a/b/c/train/cat", "a/b/c/test/cat"], "a/b/c"),
    ] {
        let dir = classes(names);
        refused(dir.path(), Split::Pretrain, &format!("{inner}: holds "));
        refused(dir.path(), Split::Pretrain, "name it as the data itself");
        assert_eq!(open(dir.path(), Layout::Classes, Split::Pretrain).len(), 4 * names.len());
        Dataset::open(&dir.path().join(inner), Split::Pretrain).unwrap();
    }
    // One such name is a name.
    let dir = classes(&["cat/train", "dog/train", "dog/other"]);
    assert_eq!(Dataset::open(dir.path(), Split::Train).unwrap().len(), 12);
    // Shards, in folders and by their own names.
    let dir = tempfile::tempdir().unwrap();
    for name in ["deep/er/train", "deep/er/val"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
        tar(dir.path().join(name).join("0.tar"), &[("cat/a.png", &png(1))]);
    }
    refused(dir.path(), Split::Pretrain, "deep/er: holds train/ and val/");
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("deep/er")).unwrap();
    for name in ["train-0.tar", "val-0.tar"] {
        tar(dir.path().join("deep/er").join(name), &[("cat/a.png", &png(1))]);
    }
    refused(dir.path(), Split::Pretrain, "val-0.tar: is called validation, and lies in the folder of the training part");
}
