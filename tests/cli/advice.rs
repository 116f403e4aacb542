//! Settings that cannot work are said before anything is spent; keys that reach nothing are refused.

use crate::rig::{Rig, repository};
use serde_json::Value;
use std::collections::BTreeMap;
use swav_wgpu::weights::{AnyTensor, write_safetensors};

/// The keys that `info` warns of.
fn about(info: &Value) -> Vec<&str> {
    info["warnings"].as_array().unwrap().iter().map(|w| w["about"].as_str().unwrap()).collect()
}

#[test]
fn info_and_train_say_what_cannot_work() {
    let rig = Rig::new();
    assert_eq!(about(&rig.run("info --config pretrain.toml --json").ok().json()), [""; 0]);
    for (set, key) in [
        ("train.freeze_prototypes_steps=8", "train.freeze_prototypes_steps: is 8, and the run has 8 steps"),
        ("queue.length=16 --set queue.start_epoch=2", "queue.start_epoch: is 2"),
        ("queue.length=7", "queue.length: is 7, less than train.batch = 8"),
        ("queue.length=32 --set queue.start_epoch=1", "queue.length: is 32, 4 steps to fill, and 4 are left"),
        ("model.prototypes=9", "model.prototypes: is 9"),
        ("train.batch=20 --set optimizer.lr=1 --set train.freeze_prototypes_steps=1", "train.batch: is 20: an epoch is 20 of the 36 images"),
        ("train.batch=16", "train.batch: is 16 in the place of the 8 of pretrain.toml, and optimizer.lr = 1 is not scaled with it"),
        ("schedule.min_lr=2", "schedule.min_lr: is 2, above optimizer.lr = 1"),
        ("queue.start_epoch=1", "queue.start_epoch: has no part: queue.length is 0"),
    ] {
        let info = rig.run(&format!("info --config pretrain.toml --json --set {set}")).ok();
        assert_eq!(about(&info.json()), [key.split(':').next().unwrap()], "{set}");
        assert!(info.err.contains(&format!("warning: {key}")), "{set}: {}", info.err);
        let out = set.replace([' ', '=', '.'], "-");
        let ran = rig.run(&format!("train --config pretrain.toml --out {out} -q --max-steps 1 --set {set}")).ok();
        assert_eq!(ran.err.matches("warning: ").count(), 1, "{set}: {}", ran.err);
        assert!(ran.err.starts_with(&format!("warning: {key}")), "{set}: {}", ran.err);
        let name = key.split(':').next().unwrap();
        for log in ["report.html", "events.jsonl"] {
            let text = std::fs::read_to_string(rig.path(&out).join(log)).unwrap();
            assert!(text.contains(&format!("{name}: ")), "{set}: {log}: {text}");
        }
    }
    // Also to find out what another batch needs.
    assert_eq!(about(&rig.run("info --config pretrain.toml --json --batch 16 -q").ok().json()), [""; 0]);
    let linear = rig.run("info --config linear.toml --json --set train.batch=500 --set optimizer.lr=0.3").ok();
    assert!(about(&linear.json()) == ["train.batch"] && linear.err.contains("is 500, more than the 36 training images"), "{}", linear.err);
}

/// On the images that they are for: ImageNet's, or the demos' own.
#[test]
fn no_recipe_is_warned_of() {
    let rig = Rig::new();
    for file in std::fs::read_dir(repository("configs")).unwrap().map(|e| e.unwrap().path()) {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let set = ["digits", "sprites"].into_iter().find(|set| name.starts_with(set));
        let data = set.map_or("--images 1281167".to_owned(), |set| format!("--data {}", repository("data").join(set).display()));
        let info = rig.run(&format!("info --config {} {data} --json -q", file.display())).ok().json();
        // Which device is here is not the recipe's fault; that the batch is all of the digits is what that recipe is there to show.
        let mut said = about(&info);
        said.retain(|key| !key.is_empty());
        let expected: &[&str] = if name == "digits-linear-lars" { &["train.batch"] } else { &[] };
        assert_eq!(said, expected, "{name}: {}", info["warnings"]);
    }
}

#[test]
fn a_key_in_the_wrong_place_is_an_error_that_names_the_right_one() {
    let rig = Rig::new();
    for (set, words) in [
        ("lr=3", "--set: lr: unknown key; did you mean optimizer.lr?"),
        ("batch=64", "--set: batch: unknown key; did you mean train.batch?"),
        ("epochs=3", "did you mean train.epochs?"),
        ("train.lr=3", "--set: train.lr: unknown key; did you mean optimizer.lr?"),
        ("learning_rate=3", "did you mean optimizer.lr?"),
        ("batch_size=3", "did you mean train.batch?"),
        ("num_workers=3", "did you mean data.workers?"),
        ("optimizer.scale_lr=3", "unknown key; allowed: "),
        ("every_steps=3", "did you mean checkpoint.every_steps?"),
        ("model.temperature=3", "did you mean loss.temperature?"),
        ("depth=18", "did you mean model.depth?"),
        ("optimizer.lrr=3", "(did you mean lr?)"),
    ] {
        rig.run(&format!("train --config pretrain.toml --out run --set {set}")).fails(2, &[words]);
    }
    rig.run("eval-linear --config linear.toml --weights random --set backbone_lr=3").fails(2, &["did you mean optimizer.backbone_lr?"]);
    assert!(!rig.path("run").exists());
}

#[test]
fn what_is_said_twice_is_refused_and_what_is_said_in_vain_is_told() {
    let rig = Rig::new();
    for line in [
        "train --config pretrain.toml --out run --data data --set data.path=elsewhere",
        "info --config pretrain.toml --batch 8 --set train.batch=16",
        "info --config linear.toml --data data --set data.path=elsewhere",
        "eval-linear --config linear.toml --weights random --data data --set data.path=elsewhere",
        "finetune --config linear.toml --weights random --fraction 0.5 --set train.fraction=1.0",
    ] {
        rig.run(line).fails(2, &["say the same: give one of them"]);
    }
    rig.train("run", "--max-steps 1");
    let ran =
        rig.run("eval-linear --config linear.toml --weights run -q --set train.epochs=1 --set model.width=16 --set optimizer.backbone_lr=1").ok();
    assert!(ran.err.contains("warning: model.width: has no part: run brings its own architecture"), "{}", ran.err);
    assert!(ran.err.contains("warning: optimizer.backbone_lr: has no part: eval-linear leaves the backbone"), "{}", ran.err);
}

/// A network for 32 pixels sees images of 48: known from the run, from a checkpoint on its own, and of a fine-tuned network.
#[test]
fn images_of_another_size_than_the_networks_are_told() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 1");
    let alone = rig.path("alone.safetensors");
    std::fs::copy(&rig.checkpoints("run")[0], &alone).unwrap();
    for weights in ["run", "alone.safetensors"] {
        let linear = format!("eval-linear --config linear.toml --weights {weights} -q --set train.epochs=1");
        assert_eq!(rig.run(&linear).ok().err, "");
        let ran = rig.run(&format!("{linear} --set image.size=48")).ok();
        assert!(ran.err.contains("warning: image.size: is 48, and the network was trained on 32 pixels (crops.size[0] of "), "{}", ran.err);
        assert!(ran.err.contains("--set image.size=32 --set image.resize=32"), "{}", ran.err);
        let normalised = rig.run(&format!("{linear} --set data.mean=[0.5,0.5,0.5]")).ok();
        assert!(
            normalised.err.contains("warning: data.mean: is [0.5, 0.5, 0.5], and the network was trained on images normalised by"),
            "{}",
            normalised.err
        );
        // A thousandth, as between mmpretrain and the official code, is none.
        assert_eq!(rig.run(&format!("{linear} --set data.std=official")).ok().err, "");
        let knn = rig.run(&format!("eval-knn --weights {weights} --data data -q --size 48")).ok();
        assert!(knn.err.contains("warning: --size: is 48") && knn.err.contains("--size 32 gives"), "{}", knn.err);
        let features = rig.run(&format!("features --weights {weights} --data data --size 64 --out {weights}.f.safetensors -q")).ok();
        assert!(features.err.contains("--size: is 64"), "{}", features.err);
    }
    assert_eq!(rig.run("eval-knn --weights run --data data -q").ok().err, "");
    rig.run("finetune --config linear.toml --weights run -q --set train.epochs=1 --out tuned").ok();
    let ran = rig.run("eval-knn --weights tuned --data data -q --size 40").ok();
    assert!(ran.err.contains("trained on 32 pixels (image.size of "), "{}", ran.err);
}

/// What is asked for and cannot be had is told: more neighbours or steps than there are, a part of a class that is no image, a resume of nothing.
#[test]
fn what_is_less_than_was_asked_for_is_told() {
    let rig = Rig::new();
    let ran = rig.run("train --config pretrain.toml --out run --resume --max-steps 9").ok();
    assert!(ran.err.contains("warning: --max-steps: is 9, and the run has 8 steps"), "{}", ran.err);
    assert!(ran.err.contains("run holds no checkpoint to go on from: the run begins with step 0"), "{}", ran.err);
    let knn = rig.run("eval-knn --weights run --data data -q --k 36,37").ok();
    assert_eq!(knn.err, "warning: --k: is 37, more than the 36 training images that an image can have beside it: all of them vote\n");
    let linear = "eval-linear --config linear.toml --weights run --out linear -q --set train.epochs=1 --set train.batch=3 --set optimizer.lr=0.3";
    let part = rig.run(&format!("{linear} --set train.fraction=0.04")).ok();
    assert!(part.err.contains("warning: train.fraction: is 0.04, less than half an image of 3 of the classes"), "{}", part.err);
    let predict = rig.run("predict --weights run --head linear data/val/red/00.png -q --size 48").ok();
    assert!(predict.err.contains("warning: --size: is 48, and linear/head.safetensors was trained on images of 32 pixels"), "{}", predict.err);
    let twice = rig.run("info --config pretrain.toml --json --set seed=1 --set seed=2").ok();
    assert!(
        twice.err.contains("warning: seed: is --set more than once: the last, 2, counts") && twice.json()["recipe"]["seed"] == 2,
        "{}",
        twice.err
    );
}

#[test]
fn tensors_that_are_no_normalised_images_are_told() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 1");
    let write = |name: &str, scale: f32, shift: f32, more: &[&str]| {
        let values: Vec<f32> = (0..3 * 32 * 32).map(|i| (i % 97) as f32 / 96.0 * scale + shift).collect();
        let images = AnyTensor::from_f32(&[1, 3, 32, 32], &values).into_owned();
        let others = more.iter().map(|name| ((*name).to_owned(), AnyTensor::from_i64(&[1], &[0]).into_owned()));
        let tensors: BTreeMap<_, _> = others.chain([("images".to_owned(), images)]).collect();
        write_safetensors(rig.path(name), &tensors, &BTreeMap::new()).unwrap();
    };
    let features = |name: &str, more: &str| rig.run(&format!("features --weights run --input {name} --out f.safetensors -q {more}")).ok().err;
    write("bytes", 255.0, 0.0, &[]);
    assert!(features("bytes", "").contains("warning: bytes: tensor images holds values from 0 to 255, as of bytes, and must be normalised"));
    write("fractions", 1.0, 0.0, &[]);
    assert!(features("fractions", "").contains("values from 0 to 1, as of fractions"));
    write("fine", 4.0, -2.0, &[]);
    assert_eq!(features("fine", ""), "");
    assert!(features("fine", "--size 48").contains("warning: --size: has no part: the images of --input are taken as they are"));
    write("labelled", 4.0, -2.0, &["labels"]);
    assert!(features("labelled", "").contains("warning: labelled: only the tensor images is read, not labels"));
}
