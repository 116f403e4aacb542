//! Files that say which class images have, patterns that say where they lie, and records of raw pixels.

use super::harness::fuzz;
use std::path::Path;
use swav_wgpu::data::{Contents, Places, ScanOptions, Split};

/// Opens the pictures beside `path` with `path` as their labels.
fn labelled(path: &Path) -> bool {
    let folder = path.parent().unwrap().join("pictures");
    let _ = std::fs::create_dir(&folder);
    ["1.png", "2.png", "b c.png"].iter().for_each(|name| std::fs::write(folder.join(name), b"").unwrap());
    let options = ScanOptions { labels: Some(path.to_owned()), ..ScanOptions::default() };
    Contents::scan(&folder, &options).and_then(|set| set.into_dataset(Split::All)).is_ok()
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn label_files() {
    fuzz("labels.txt", &texts(&["1.png cat\n2.png dog\n", "1.png\t3\nb c.png\t12\n", "0\n-1\n2\n"]), labelled);
    fuzz("labels.csv", &texts(&["file_name,width,label\n1.png,3,cat\n\"b c.png\",4,dog\n", "2.png,3\n1.png,1\n"]), labelled);
}

/// Opens the pictures in the folder of `path`, which is their metadata.
fn beside(path: &Path) -> bool {
    let folder = path.parent().unwrap();
    ["1.png", "2.png"].iter().for_each(|name| std::fs::write(folder.join(name), b"").unwrap());
    Contents::scan(folder, &ScanOptions::default()).and_then(|set| set.into_dataset(Split::All)).is_ok()
}

#[test]
fn metadata() {
    fuzz("metadata.jsonl", &texts(&["{\"file_name\": \"1.png\", \"label\": 3}\n{\"file_name\": \"2.png\", \"label\": 4}\n"]), beside);
    fuzz("metadata.csv", &texts(&["file_name,text,label\n1.png,\"a, b\",cat\n2.png,,dog\n"]), beside);
}

#[test]
fn patterns() {
    let seeds = texts(&["no/train-{000..009}.tar", "no/{a,b{1..3}}-*.tar", "no/**/[ab]?.tar"]);
    fuzz("pattern", &seeds, |path| {
        let text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        // Below a folder that is not there: nothing of the file system is walked through.
        let _ = Places::from(format!("/nowhere-at-all/{}", text.replace("..", "").replace('/', "_"))).find();
        let _ = Places::from(format!("/nowhere-at-all/{}", text.replace('/', "_"))).find();
        true
    });
}

#[test]
fn records() {
    let record: Vec<u8> = (0..3074_usize * 2).map(|i| (i % 7) as u8).collect();
    fuzz("train.bin", &[record], |path| {
        std::fs::write(path.with_file_name("fine_label_names.txt"), (0..100).map(|i| format!("{i}\n")).collect::<String>()).unwrap();
        let set = Contents::scan(path.parent().unwrap(), &ScanOptions::default()).and_then(|set| set.into_dataset(Split::Train));
        set.is_ok_and(|set| set.decode(0).is_ok())
    });
}
