//! What goes wrong in the world, with the exit code and the words a user gets.

use crate::rig::{Rig, finished, repository};
use std::collections::BTreeMap;
use swav_wgpu::train::checkpoint::CheckpointStore;
use swav_wgpu::weights::{AnyTensor, write_safetensors};

const TRAIN: &str = "train --config pretrain.toml --out run -q";

#[test]
fn data() {
    let rig = Rig::new();
    rig.run(&format!("{TRAIN} --data nowhere")).fails(4, &["nowhere", "does not exist"]);
    std::fs::create_dir(rig.path("empty")).unwrap();
    rig.run(&format!("{TRAIN} --data empty")).fails(4, &["empty", "no image"]);
    rig.run(&format!("{TRAIN} --set train.batch=37")).fails(4, &["36", "37"]);
    assert!(!rig.path("run").exists(), "a mistake must leave nothing behind");
    rig.run("eval-knn --weights random:0 --config pretrain.toml --data data/train").fails(4, &["validation"]);
    rig.write("data/train/red/03.png", "this is no image");
    rig.run(&format!("{TRAIN} --set data.bad=stop")).fails(4, &["red/03.png"]);
    // With the file put right the same run can go on, and is told where names have changed.
    std::fs::copy(rig.path("data/train/red/04.png"), rig.path("data/train/red/03.png")).unwrap();
    assert!(!rig.run(&format!("{TRAIN} --resume --max-steps 1")).ok().err.contains("warning"));
    std::fs::rename(rig.path("data/train/red"), rig.path("data/train/crimson")).unwrap();
    let ran = rig.run(&format!("{TRAIN} --resume --max-steps 2")).ok();
    assert!(ran.err.contains("warning: data.path: has images of other names, or in another order"), "{}", ran.err);
}

#[test]
fn configuration() {
    let rig = Rig::new();
    let text = std::fs::read_to_string(rig.path("pretrain.toml")).unwrap();
    rig.write("typo.toml", text.replace("lr = 1.0", "lrr = 1.0"));
    rig.run("train --config typo.toml --out run").fails(2, &["typo.toml", "optimizer.lrr", "did you mean lr?"]);
    rig.run(&format!("{TRAIN} --set optimizer.momentum=2")).fails(2, &["optimizer.momentum", "2"]);
    rig.run(&format!("{TRAIN} --set train.batch=many")).fails(2, &["train.batch", "many"]);
    rig.run(&format!("{TRAIN} --set optimizer.kind=adam")).fails(2, &["optimizer.kind", "larc"]);
    rig.run("train --config linear.toml --out run").fails(2, &["kind", "linear", "pretrain"]);
    rig.run("eval-linear --config pretrain.toml --weights random").fails(2, &["kind"]);
    rig.run("train --config none.toml --out run").fails(2, &["none.toml"]);
    rig.run("train --out run --resume").fails(2, &["run", "--config"]);
    rig.run("train --config pretrain.toml --bogus").fails(2, &["--bogus"]);
    assert!(!rig.path("run").exists());
}

#[test]
fn adapters() {
    let rig = Rig::new();
    rig.run("eval-knn --weights random:0 --config pretrain.toml --adapter nonsense").fails(3, &["nonsense", "0: "]);
    for wanted in ["", "5", "15"] {
        let mut command = rig.command("info --config pretrain.toml --adapter");
        command.arg(wanted);
        finished(command).fails(3, &["no such adapter", &format!("--adapter `{wanted}` is none of 0: ")]);
    }
    for line in [TRAIN, "devices"] {
        let mut command = rig.command(line);
        command.env("VK_DRIVER_FILES", "/nonexistent/x.json").env("VK_ICD_FILENAMES", "/nonexistent/x.json");
        if cfg!(target_os = "linux") {
            finished(command).fails(3, &["no usable GPU adapter", "hint: install a Vulkan driver"]);
        }
    }
    assert!(!rig.path("run").exists());
}

#[test]
fn weights() {
    let rig = Rig::new();
    let knn = "eval-knn --config pretrain.toml --data data --weights";
    let truncated = repository("tests/golden/ckpt/truncated.tiny.mm.pth").display().to_string();
    rig.run(&format!("{knn} {truncated}")).fails(2, &["truncated.tiny.mm.pth"]);
    rig.run(&format!("{knn} nothing.pth")).fails(2, &["nothing.pth"]);
    rig.run(&format!("{knn} data")).fails(2, &["data", "run folder"]);
    rig.train("run", "--max-steps 1");
    let file = &rig.checkpoints("run")[0];
    let mut bytes = std::fs::read(file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(file, &bytes).unwrap();
    rig.run("train --out run --resume").fails(2, &["step-000000001.safetensors", "damaged"]);
    std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    rig.run(&format!("{knn} run")).fails(2, &["step-000000001.safetensors"]);
}

/// Whoever names one file wants that one: its run's settings with it, and no other in its place.
#[test]
fn a_checkpoint_named_itself_is_verified_and_brings_its_runs_settings() {
    let rig = Rig::new();
    rig.run("train --config pretrain.toml --out run").ok();
    let newest = rig.checkpoints("run").pop().unwrap();
    let knn = |weights: &str| rig.run(&format!("eval-knn --weights {weights} --data data"));
    let named = newest.display().to_string();
    let settings = "images are scaled to 32 pixels and cut to 32";
    assert!(knn(&named).ok().err.contains(settings) && knn("run").ok().err.contains(settings));
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    knn(&named).fails(2, &[newest.file_name().unwrap().to_str().unwrap(), "damaged"]);
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let rig = Rig::new();
    rig.train("whole", "");
    rig.train("run", "--max-steps 4 --set checkpoint.every_steps=2");
    let files = rig.checkpoints("run");
    assert_eq!(files.len(), 2);
    std::fs::write(&files[1], "half").unwrap();
    let ran = rig.run("train --out run --resume").ok();
    assert!(ran.err.contains("step-000000004.safetensors") && ran.err.contains("damaged"), "{}", ran.err);
    assert_eq!(rig.metric("run", "loss"), rig.metric("whole", "loss"));
}

#[test]
fn output() {
    let rig = Rig::new();
    rig.write("file", "");
    rig.run("train --config pretrain.toml --out file/below").fails(5, &["file/below", "caused by: "]);
    rig.run("features --weights random:0 --config pretrain.toml --data data --out file/f.safetensors").fails(5, &["file/f.safetensors"]);
    rig.run("clusters --weights random --data data --out file/g").fails(5, &["file/g"]);
    rig.run("eval-linear --config linear.toml --weights random:0 --out file/below").fails(5, &["file/below"]);
    // Before anything else is looked at.
    rig.run("clusters --weights none.pth --data nowhere --out file").fails(5, &["file", "is no folder"]);
}

#[test]
fn a_run_folder_in_use() {
    let rig = Rig::new();
    std::fs::create_dir(rig.path("run")).unwrap();
    let lock = std::fs::File::create(rig.path("run/lock")).unwrap();
    lock.try_lock().unwrap();
    rig.run(TRAIN).fails(9, &["run", "in use", "hint: "]);
    rig.run(&format!("{TRAIN} --resume")).fails(9, &["in use"]);
    drop(lock);
    rig.run(&format!("{TRAIN} --max-steps 1")).ok();
}

#[test]
fn a_batch_that_does_not_fit() {
    let rig = Rig::new();
    let config = repository("configs/swav_resnet50_8xb32-mcrop-coslr-200e_in1k-224px-96px.toml").display().to_string();
    // 18 times the pixels of the recipe: too much for all but the largest cards.
    let large = "--set crops.size=[960,96] --set queue.length=0 --set train.batch=32";
    let info = rig.run(&format!("info --config {config} {large} --json -q")).ok().json();
    if info["fits"].as_bool() == Some(true) {
        return;
    }
    let (fits, parts) = (info["largest_batch"].as_u64().unwrap(), info["micro_batches_that_fit"].as_u64().unwrap());
    assert!((2..32).contains(&fits) && 32 / parts <= fits, "{info}");
    let (fits, parts) = (format!("the largest batch that fits is {fits}"), format!("train.accumulate = {parts}"));
    let big = format!("train --config {config} --data data --out run -q {large}");
    rig.run(&big).fails(7, &["out of GPU memory", "batch 32", &fits, &parts, "hint: smaller batches"]);
    assert!(!rig.path("run").exists());
    rig.run(&format!("{TRAIN} --max-steps 1")).ok();
}

#[test]
fn a_batch_of_deepcluster_that_does_not_fit() {
    let rig = Rig::new();
    let huge = "--set method=deepcluster-v2 --set crops.size=[4096,16] --set train.batch=36 --set model.prototypes=4";
    rig.run(&format!("{TRAIN} {huge}")).fails(7, &["out of GPU memory", "batch 36"]);
}

/// Before anything is computed or written.
#[test]
fn images_that_kernels_cannot_count() {
    let rig = Rig::new();
    let config = std::fs::read_to_string(rig.path("pretrain.toml")).unwrap();
    rig.write("small.toml", config.replace("width = 8", "width = 8\nstem = \"small\""));
    let most = "1952x1952 are the most";
    rig.run("eval-knn --weights random:0 --config small.toml --data data --size 1953").fails(2, &["1953x1953", most]);
    let linear = std::fs::read_to_string(rig.path("linear.toml")).unwrap();
    rig.write("small-linear.toml", linear.replace("width = 8", "width = 8\nstem = \"small\""));
    for command in ["eval-linear", "finetune"] {
        let line = format!("{command} --config small-linear.toml --weights random:0 --out out --set image.size=1953");
        rig.run(&line).fails(2, &["1953x1953", most]);
        assert!(!rig.path("out").exists());
    }
    let long = AnyTensor::from_f32(&[1, 3, 1, 480_008], &vec![0.5; 3 * 480_008]).into_owned();
    write_safetensors(rig.path("long.safetensors"), &BTreeMap::from([("images".to_owned(), long)]), &BTreeMap::new()).unwrap();
    rig.run("features --weights random:0 --config small.toml --input long.safetensors --out f.safetensors").fails(2, &["480008x1", most]);

    // 256 images of 4096 pixels squared are as many pixels as 32 bits have numbers.
    for i in 0..110 {
        for class in ["red", "green", "blue"] {
            std::fs::copy(rig.path("data/train/red/00.png"), rig.path(&format!("data/train/{class}/more-{i}.png"))).unwrap();
        }
    }
    let line = "eval-linear --config linear.toml --weights random:0 --out out --set image.size=4096 --set train.batch=256";
    rig.run(line).fails(7, &["256 images of 4096x4096", "255 of them are the most"]);
    assert!(!rig.path("out").exists());
}

/// A run whose pictures were decoded by something else is told when it goes on; one with the same
/// decoders is not.
#[test]
fn other_decoders() {
    let rig = Rig::new();
    rig.run(&format!("{TRAIN} --max-steps 1")).ok();
    assert!(!rig.run("train --out run --resume --max-steps 2").ok().err.contains("decoded by"));
    let record = std::fs::read_to_string(rig.path("run/kernels.json")).unwrap();
    assert!(record.contains("libjpeg-turbo-rs"), "{record}");
    let store = CheckpointStore::open(rig.path("run/checkpoints"), 3).unwrap();
    let saved = store.load(2).unwrap();
    let tensors = saved.names().map(|name| (name.to_owned(), saved.tensor(name).unwrap())).collect();
    let mut metadata = saved.metadata.clone();
    let decoders = metadata.insert("decoders".into(), "zune-jpeg 0.4.0".into()).expect("the decoders are in the checkpoint");
    store.save(2, &tensors, &metadata, &mut Vec::new()).unwrap();
    let ran = rig.run("train --out run --resume --max-steps 3").ok();
    let warning = format!("images were decoded by zune-jpeg 0.4.0 when the checkpoint was written and are by {decoders} now");
    assert!(ran.err.contains(&warning), "{}", ran.err);
}
