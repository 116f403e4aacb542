//! Classes that no folder names: label files, metadata beside images, members of shards, records; and sets in several places.

use super::dataset::{folder, listing, own, png, put, refused, tar};
use std::fs;
use std::path::Path;
use swav_wgpu::data::{Contents, Dataset, Places, ScanOptions, Split};

fn scan(places: &Places, labels: Option<&Path>) -> swav_wgpu::error::Result<Contents> {
    Contents::scan_all(places, &ScanOptions { labels: labels.map(Path::to_owned), ..ScanOptions::default() })
}

/// (name below the root, label) of every sample.
fn names(set: &Dataset) -> Vec<(String, Option<usize>)> {
    (0..set.len()).map(|i| (set.name(i), set.label(i))).collect()
}

#[test]
fn masks_beside_images_are_no_samples_and_numbers_stay() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/masks-beside-images");
    let contents = Contents::scan(&files, &ScanOptions::default()).unwrap();
    for split in [Split::Pretrain, Split::Train] {
        let set = contents.dataset(split).unwrap();
        assert_eq!((set.len(), set.classes().len()), (24, 12));
        for i in 0..24 {
            assert!(
                set.path(i).ends_with(&format!("train-0.tar!data/{i:03}.jpg")) && set.label(i) == Some(i % 12),
                "{} {:?}",
                set.path(i),
                set.label(i)
            );
        }
        assert!(set.summary().to_string().contains(".seg.png"), "{}", set.summary());
    }
}

#[test]
fn minus_one_is_no_class_and_numbers_stay() {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/label-minus-one");
    let set = Contents::scan(&files, &ScanOptions::default()).unwrap().into_dataset(Split::AllTrain).unwrap();
    assert_eq!(set.classes().len(), 12);
    let labels: Vec<_> = (0..set.len()).map(|i| set.label(i)).collect();
    assert!(labels.contains(&None));
    let numbers: Vec<usize> = labels.iter().flatten().copied().collect();
    assert_eq!(numbers[..4], [0, 1, 2, 3]);
    assert!(set.summary().to_string().contains("without a class"), "{}", set.summary());
    assert!(Dataset::open(&files, Split::Train).unwrap().len() < set.len());
}

#[test]
fn odd_labels_and_twins_in_shards_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let shard = dir.path().join("train-0.tar");
    let image = png(1);
    tar(shard.clone(), &[("0.png", &image), ("0.cls", b"2"), ("1.png", &image), ("1.cls", b"10"), ("2.png", &image), ("2.cls", b"data")]);
    refused(dir.path(), Split::Train, "train-0.tar!2.png has \"data\"");
    // One without a class text has none, whatever folder it lies in.
    tar(shard.clone(), &[("d/0.png", &image), ("d/0.cls", b"2"), ("d/1.png", &image)]);
    assert_eq!(listing(dir.path(), Split::AllTrain), own(&[("train-0.tar!d/0.png", Some(2)), ("train-0.tar!d/1.png", None)]));
    tar(shard.clone(), &[("0.png", &image), ("0.cls", b"2"), ("0.PNG", &image)]);
    refused(dir.path(), Split::Train, "holds 0.png twice, as 0.PNG too");
    tar(
        shard.clone(),
        &[("0.png", &image), ("0.CLS", b"2"), ("0.json", br#"{"label": 2, "caption": "x"}"#), ("1.jpg", &image), ("1.json", b"{\"cls\": 3}")],
    );
    assert_eq!(listing(dir.path(), Split::Train), own(&[("train-0.tar!0.png", Some(2)), ("train-0.tar!1.jpg", Some(3))]));
    tar(shard, &[("0.png", &image), ("0.cls", &[b'7'; 5000])]);
    refused(dir.path(), Split::Train, "0.cls has 5000 bytes");
}

#[test]
fn a_named_key_of_json_members_counts_more_than_class_texts() {
    let dir = tempfile::tempdir().unwrap();
    let image = png(1);
    tar(dir.path().join("a.tar"), &[("0.png", &image), ("0.cls", b"2"), ("0.json", br#"{"breed": "pug"}"#), ("1.png", &image), ("1.json", b"{}")]);
    let options = ScanOptions { label_key: Some("breed".into()), ..ScanOptions::default() };
    let set = Contents::scan(dir.path(), &options).unwrap().into_dataset(Split::AllTrain).unwrap();
    assert_eq!((set.classes(), set.label(0), set.label(1)), (&["pug".to_owned()][..], Some(0), None));
    tar(dir.path().join("a.tar"), &[("0.png", &image), ("0.json", br#"{"breed": ["pug"]}"#)]);
    let error = Contents::scan(dir.path(), &options).unwrap().into_dataset(Split::Train).unwrap_err().to_string();
    assert!(error.contains("a.tar") && error.contains("0.json") && error.contains("is a list"), "{error}");
}

#[test]
fn a_file_of_labels_for_a_flat_folder() {
    let dir = folder(&["train/n1/a.png", "train/n2/b.png", "val/V_1.png", "val/V_2.png", "val/V_3.png"]);
    let (root, labels) = (Places::from(dir.path()), dir.path().join("labels.txt"));
    let val = |text: &str| {
        fs::write(&labels, text).unwrap();
        scan(&root, Some(&labels)).and_then(|contents| contents.into_dataset(Split::Val))
    };
    let set = val("V_3.png n2\nV_1.png n1\nV_9.png n1\n").unwrap();
    assert_eq!(names(&set), own(&[("val/V_1.png", Some(0)), ("val/V_3.png", Some(1))]));
    let summary = set.summary().to_string();
    assert!(summary.contains("labels.txt has no line for 1 picture (val/V_2.png)"), "{summary}");
    assert!(summary.contains("labels.txt has 1 line for no picture (V_9.png)"), "{summary}");
    assert_eq!(set.classes(), ["n1", "n2"], "folders of training stay classes");
    // Numbers do not say which of the names they mean.
    let error = |text: &str| val(text).unwrap_err().to_string();
    assert!(error("V_1.png 0\nV_2.png 1\nV_3.png 1\n").contains("whose classes are names"));
    assert!(error("V_1.png n1\nV_2.png n3\nV_3.png n2\n").contains("class \"n3\" does not occur in training"));
    assert!(error("X_1.png n1\n").contains("none of its 1 lines names a picture"));
    assert!(error("1\n2\n").contains("holds 2 class numbers, the validation part 3 pictures"));
}

#[test]
fn a_class_number_a_line_goes_by_the_sorted_names() {
    let dir = folder(&["b.png", "a.png", "c.png"]);
    let labels = dir.path().parent().unwrap().join(format!("{}.txt", dir.path().file_name().unwrap().display()));
    fs::write(&labels, "3\n-1\n12\n").unwrap();
    let set = scan(&Places::from(dir.path()), Some(&labels)).unwrap().into_dataset(Split::AllTrain).unwrap();
    assert_eq!(names(&set), own(&[("a.png", Some(3)), ("b.png", None), ("c.png", Some(12))]));
    // Where folders name classes, nobody knows what the numbers are for.
    put(dir.path(), "cat/d.png", &png(0));
    let error = scan(&Places::from(dir.path()), Some(&labels)).err().unwrap().to_string();
    assert!(error.contains("no part of the set is without"), "{error}");
    fs::remove_file(labels).unwrap();
}

#[test]
fn metadata_beside_images() {
    let dir = folder(&["train/1.png", "train/in/2.png", "train/3.png", "val/1.png"]);
    put(
        dir.path(),
        "train/metadata.jsonl",
        b"{\"file_name\": \"1.png\", \"label\": 2}\n{\"file_name\": \"in/2.png\", \"label\": 10}\n{\"file_name\": \"9.png\", \"label\": 1}",
    );
    put(dir.path(), "val/metadata.csv", b"file_name,label,text\n1.png,10,\"a, b\"\n");
    assert_eq!(listing(dir.path(), Split::AllTrain), own(&[("train/1.png", Some(2)), ("train/3.png", None), ("train/in/2.png", Some(10))]));
    assert_eq!(listing(dir.path(), Split::Val), own(&[("val/1.png", Some(10))]));
    let summary = Dataset::open(dir.path(), Split::All).unwrap().summary().to_string();
    for what in ["has no line for 1 picture (3.png)", "has 1 line for no picture (9.png)"] {
        assert!(summary.contains(what), "{summary}");
    }
    // Captions are no classes, and are named.
    put(dir.path(), "val/metadata.csv", b"file_name,text\n1.png,x\n");
    let summary = Dataset::open(dir.path(), Split::All).unwrap().summary().to_string();
    assert!(summary.contains("metadata.csv, which has no label (file_name, text)"), "{summary}");
    put(dir.path(), "val/metadata.jsonl", b"");
    refused(dir.path(), Split::All, "both metadata.csv and metadata.jsonl");
    // At the top, for all parts.
    let dir = folder(&["train/1.png", "val/2.png"]);
    put(dir.path(), "metadata.csv", b"file_name,label\ntrain/1.png,cat\nval/2.png,cat\n");
    assert_eq!(listing(dir.path(), Split::All), own(&[("train/1.png", Some(0)), ("val/2.png", Some(0))]));
}

#[test]
fn records_of_raw_pixels() {
    let dir = tempfile::tempdir().unwrap();
    let record = |label: u8| [vec![label], vec![label + 100; 3072]].concat();
    for n in 1..=5 {
        put(dir.path(), &format!("cifar-10-batches-bin/data_batch_{n}.bin"), &[record(n), record(0)].concat());
    }
    put(dir.path(), "cifar-10-batches-bin/test_batch.bin", &record(9));
    put(dir.path(), "cifar-10-batches-bin/readme.html", b"");
    let train = Dataset::open(dir.path(), Split::Train).unwrap();
    assert_eq!((train.len(), train.classes().len(), train.label(2), train.label(3)), (10, 10, Some(2), Some(0)));
    assert!(train.path(3).ends_with("data_batch_2.bin!000001") && train.decode(2).unwrap().pixels[7] == 102);
    assert!(train.summary().to_string().contains("1 .html"), "{}", train.summary());
    let all = Dataset::open(dir.path(), Split::All).unwrap();
    assert_eq!((all.len(), all.label(10), all.decode(10).unwrap().width), (11, Some(9), 32));
    assert_ne!(all.fingerprint(all.root()), train.fingerprint(train.root()));
    put(dir.path(), "cifar-10-batches-bin/data_batch_3.bin", &record(1)[..3000]);
    assert!(Dataset::open(dir.path(), Split::Val).unwrap_err().to_string().contains("data_batch_3.bin"));
}

#[test]
fn sets_in_several_places() {
    let dir = tempfile::tempdir().unwrap();
    for (name, key) in [("train-0", "a"), ("train-1", "b"), ("extra-0", "c"), ("val-0", "d"), ("unlabelled-0", "e")] {
        tar(dir.path().join(format!("{name}.tar")), &[(&format!("cat/{key}.png"), &png(1))]);
    }
    let open = |patterns: &[&str], split| -> Vec<(String, Option<usize>)> {
        let places = Places::new(patterns.iter().map(|p| dir.path().join(p)));
        names(&scan(&places, None).unwrap().into_dataset(split).unwrap())
    };
    let train = own(&[("train-0.tar/cat/a.png", Some(0)), ("train-1.tar/cat/b.png", Some(0))]);
    assert_eq!(open(&["train-{0..1}.tar"], Split::Train), train);
    assert_eq!(open(&["{train,val}-*.tar"], Split::Train), train);
    assert_eq!(open(&["{train,val}-*.tar"], Split::Val), own(&[("val-0.tar/cat/d.png", Some(0))]));
    // What has no role is there to be trained on, and the list's own order is no matter.
    assert_eq!(
        open(&["train-0.tar", "extra-*.tar", "unlabelled-0.tar"], Split::Train),
        open(&["unlabelled-0.tar", "{extra,train}-0.tar"], Split::Train)
    );
    assert_eq!(open(&["*.tar"], Split::Pretrain).len(), 4);
    // As alone: what is asked for by its name is wanted.
    assert_eq!(open(&["val-0.tar"], Split::Train), own(&[("cat/d.png", Some(0))]));
    let set = |places: Places| scan(&places, None).unwrap().into_dataset(Split::Train).unwrap();
    let (whole, listed) = (set(Places::from(dir.path().join("train-0.tar"))), set(Places::new([dir.path().join("train-[0].tar")])));
    assert_eq!(whole.fingerprint(whole.root()), listed.fingerprint(listed.root()));
    let folders = folder(&["one/train/cat/a.png", "two/train/dog/b.png", "two/val/dog/c.png", "x/cat.png"]);
    let places = Places::new(["one", "two"].map(|name| folders.path().join(name)));
    assert_eq!(names(&scan(&places, None).unwrap().into_dataset(Split::All).unwrap()).len(), 3);
    let places = Places::new(["two/train", "two/val"].map(|name| folders.path().join(name)));
    assert_eq!(names(&scan(&places, None).unwrap().into_dataset(Split::Val).unwrap()), own(&[("val/dog/c.png", Some(0))]));
    let error = scan(&Places::from(folders.path().join("x/*.png")), None).err().unwrap().to_string();
    assert!(error.contains("neither a folder nor a .tar shard") || error.contains("name the folder"), "{error}");
}

#[test]
fn folders_that_a_glob_finds_are_classes_as_in_the_folder_above() {
    let dir = folder(&["photos/cat/1.png", "photos/cat/2.png", "photos/dog/1.png", "photos/eel/deep/1.png"]);
    let open = |pattern: &str| scan(&Places::from(format!("{}/{pattern}", dir.path().display())), None);
    let set = open("photos/[cd]*").unwrap().into_dataset(Split::Train).unwrap();
    let wanted = [("cat/1.png", 0), ("cat/2.png", 0), ("dog/1.png", 1)].map(|(name, label)| (name.to_owned(), Some(label)));
    assert_eq!((names(&set), set.classes()), (wanted.to_vec(), &["cat".to_owned(), "dog".to_owned()][..]));
    assert!(set.summary().to_string().contains("each folder that the pattern found is a class"), "{}", set.summary());
    // What could be a set with classes is none of them.
    let error = |pattern: &str| open(pattern).err().unwrap().to_string();
    assert!(error("photos/*").contains("photos/eel: lies beside folders of pictures that a pattern found"), "{}", error("photos/*"));
    // Parts are not mixed.
    let dir = folder(&["train/cat/1.png", "train/dog/1.png", "val/cat/2.png"]);
    let all = scan(&Places::from(format!("{}/*/*", dir.path().display())), None).err().unwrap().to_string();
    assert!(all.contains("val/cat: and ") && all.contains("are called alike"), "{all}");
}

#[test]
fn metadata_from_programs_of_windows_is_read() {
    for (name, text) in [
        ("metadata.csv", "\"file_name\",\"label\"\r\n\"1.png\",\"cat\"\r\n2.png,dog\r\n"),
        ("metadata.csv", "\u{feff}file_name,label\r\n1.png,cat\r\n2.png,dog\r\n"),
        ("metadata.csv", "\u{feff}\"file_name\",\"label\"\n1.png,cat\n2.png,dog\n"),
        ("metadata.jsonl", "\u{feff}{\"file_name\":\"1.png\",\"label\":\"cat\"}\r\n{\"file_name\":\"2.png\",\"label\":\"dog\"}\r\n"),
    ] {
        let dir = folder(&["1.png", "2.png"]);
        put(dir.path(), name, text.as_bytes());
        assert_eq!(listing(dir.path(), Split::Train), own(&[("1.png", Some(0)), ("2.png", Some(1))]), "{text:?}");
    }
    // A mark is no letter of a name in a file of labels either.
    let dir = folder(&["1.png", "2.png"]);
    let labels = tempfile::tempdir().unwrap();
    put(labels.path(), "l.txt", "\u{feff}1.png cat\r\n2.png dog\r\n".as_bytes());
    let set = scan(&Places::from(dir.path()), Some(&labels.path().join("l.txt"))).unwrap().into_dataset(Split::Train).unwrap();
    assert_eq!((set.len(), set.classes().len()), (2, 2));
}
