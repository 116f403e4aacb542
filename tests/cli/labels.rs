//! Where images are and which class they have, by the command line: patterns, label files, parts, images that are held out.

use crate::rig::{CLASSES, Rig, TRAIN, VAL, repository};
use std::fs;

const KNN: &str = "eval-knn --weights random:0 --config pretrain.toml -q --json --k 5";
const FEATURES: &str = "features --weights random:0 --config pretrain.toml --out f.safetensors -q --json";

/// How many images `features` passes.
fn passed(rig: &Rig, more: &str) -> u64 {
    rig.run(&format!("{FEATURES} {more}")).ok().json()["images"].as_u64().unwrap()
}

#[test]
fn all_pictures_by_default_and_a_part_when_asked_for() {
    let rig = Rig::new();
    fs::create_dir(rig.path("data/unlabelled")).unwrap();
    for i in 0..5 {
        fs::copy(rig.path(&format!("data/train/red/0{i}.png")), rig.path(&format!("data/unlabelled/{i}.png"))).unwrap();
    }
    let (train, val) = (3 * TRAIN as u64, 3 * VAL as u64);
    let parts = ["", "--part all", "--part train", "--part val", "--part unlabelled"].map(|part| passed(&rig, &format!("--data data {part}")));
    assert_eq!(parts, [train + val + 5, train + val + 5, train, val, 5]);
    rig.run(&format!("{FEATURES} --data data/train --part val")).fails(4, &["data/train", "no image in the validation part"]);
    rig.train("run", "");
    let lines = |more: &str| rig.run(&format!("clusters --weights run --data data --out c{} --json -q {more}", more.len())).ok().out.lines().count();
    assert_eq!((lines("") as u64, lines("--part unlabelled")), (train + val + 5, 5));
}

#[test]
fn a_folder_of_classes_is_judged_by_what_it_holds_out() {
    let rig = Rig::new();
    let flat = "--data data/train";
    let both = ["--val-fraction", "--leave-one-out", "no validation part"];
    rig.run(&format!("{KNN} {flat}")).fails(4, &both);
    let linear = "eval-linear --config linear.toml --weights random:0 --json -q --set train.epochs=2";
    rig.run(&format!("{linear} {flat}")).fails(4, &both);
    // Colours are told apart by any network: what is judged is not judged by itself, and is right all the same.
    for more in ["--val-fraction 0.3", "--val-fraction 0.3 --seed 4", "--leave-one-out"] {
        let result = rig.run(&format!("{KNN} {flat} {more}")).ok().json();
        assert!(result["top1"].as_f64() > Some(60.0), "{more}: {result}");
    }
    rig.run(&format!("{linear} {flat} --val-fraction 0.3")).ok();
    rig.run(&format!("{linear} {flat} --set data.val_fraction=0.3 --out linear")).ok();
    assert!(fs::read_to_string(rig.path("linear/config.toml")).unwrap().contains("val_fraction = 0.3"));
    rig.run(&format!("finetune {} {flat} --val-fraction 0.3", linear.trim_start_matches("eval-linear"))).ok();
    let told = rig.run(&format!("{} {flat} --val-fraction 0.3", KNN.replace("-q ", ""))).ok().err;
    assert!(told.contains("labelled images are held out") && told.contains("seed 0"), "{told}");
    // Not beside a part that is there, and not in pre-training.
    rig.run(&format!("{KNN} --data data --val-fraction 0.3")).fails(4, &["has a validation part"]);
    rig.run(&format!("{linear} --data data --set data.val_fraction=1.0")).fails(2, &["data.val_fraction"]);
    rig.run("train --config pretrain.toml --out r --set data.val_fraction=0.2").fails(2, &["data.val_fraction", "pre-training"]);
    assert_eq!(rig.run(&format!("{KNN} {flat} --leave-one-out --val-fraction 0.2")).code, Some(2));
}

#[test]
fn lists_braces_and_globs_say_where_the_data_is() {
    let rig = Rig::new();
    assert_eq!(passed(&rig, "--data data/{train,val}/red --data data/train/b*"), (2 * TRAIN + VAL) as u64);
    rig.run(&format!("{FEATURES} --data data/{{train,other}}")).fails(4, &["data/other", "match nothing"]);
    rig.run(&format!("{FEATURES} --data shard-{{0..9999999999}}.tar")).fails(4, &["10000000000 paths"]);
    rig.run(&format!("{FEATURES} --data data/train --data data/train/../train")).fails(4, &["named twice"]);
    // A list in the configuration, kept in the run's.
    let paths = format!("data.path=['{}','{}']", rig.text("data/train/red"), rig.text("data/train/bl*"));
    rig.train("run", &format!("--set {paths} --set train.epochs=1"));
    assert_eq!(rig.metric("run", "step").len(), 2 * TRAIN / 8);
    assert!(fs::read_to_string(rig.path("run/config.toml")).unwrap().contains("path = ["));
    rig.run("train --config pretrain.toml --out x --set data.path=[]").fails(2, &["data.path", "must name"]);
}

#[test]
fn label_files_and_metadata_give_classes() {
    let rig = Rig::new();
    fs::create_dir_all(rig.path("flat/val")).unwrap();
    fs::rename(rig.path("data/train"), rig.path("flat/train")).unwrap();
    let mut lines = String::new();
    for (class, _) in CLASSES {
        for i in 0..VAL {
            fs::rename(rig.path(&format!("data/val/{class}/0{i}.png")), rig.path(&format!("flat/val/{class}{i}.png"))).unwrap();
            lines += &format!("{class}{i}.png {class}\n");
        }
    }
    rig.run(&format!("{KNN} --data flat")).fails(4, &["no image has a class", "--labels"]);
    rig.write("val.txt", &lines);
    let result = rig.run(&format!("{KNN} --data flat --labels val.txt")).ok().json();
    assert!(result["top1"].as_f64() > Some(60.0), "{result}");
    let linear = "eval-linear --config linear.toml --weights random:0 --json -q --set train.epochs=2 --data flat";
    assert_eq!(rig.run(&format!("{linear} --set data.labels=val.txt")).ok().json()["classes"][2], "red");
    rig.write("val.txt", lines.replace("red0.png red", "red0.png rot"));
    rig.run(&format!("{KNN} --data flat --labels val.txt")).fails(4, &["red0.png", "\"rot\" does not occur in training"]);
    rig.run(&format!("{KNN} --data flat --labels gone.txt")).fails(4, &["gone.txt"]);
    rig.write("flat/val/metadata.csv", format!("file_name,kind\n{}", lines.replace(' ', ",")));
    assert_eq!(rig.run(&format!("{KNN} --data flat --label-key kind")).ok().json()["top1"], result["top1"]);
}

#[test]
fn shards_with_masks_and_with_minus_one() {
    let rig = Rig::new();
    let [masks, minus] = ["masks-beside-images", "label-minus-one"].map(|name| repository(&format!("tests/files/{name}")).display().to_string());
    let knn = rig.run(&format!("{KNN} --data {masks}")).ok().json();
    assert!(knn["top1"].is_number());
    assert_eq!(passed(&rig, &format!("--data {masks} --part train")), 24);
    let linear = format!("eval-linear --config linear.toml --weights random:0 --json -q --set train.epochs=1 --data {minus}");
    let classes = rig.run(&linear).ok().json()["classes"].clone();
    assert_eq!(classes, serde_json::json!((0..12).map(|n| n.to_string()).collect::<Vec<_>>()));
}

#[test]
fn what_is_not_read_is_refused_with_the_way_out() {
    let rig = Rig::new();
    fs::create_dir_all(rig.path("hub/data")).unwrap();
    rig.write("hub/data/train-00000-of-00001.parquet", b"PAR1");
    rig.run(&format!("{FEATURES} --data hub")).fails(4, &["hub", "parquet_to_tar.py"]);
    rig.run(&format!("{FEATURES} --data hub/data/train-00000-of-00001.parquet")).fails(4, &["parquet_to_tar.py"]);
    rig.run(&format!("{FEATURES} --data hub/data/*.parquet")).fails(4, &["parquet_to_tar.py"]);
    fs::create_dir(rig.path("cifar-10-batches-py")).unwrap();
    rig.write("cifar-10-batches-py/data_batch_1", [0x80, 2]);
    rig.run(&format!("{FEATURES} --data cifar-10-batches-py")).fails(4, &["data_batch_1", "cifar-10-binary.tar.gz"]);
}
