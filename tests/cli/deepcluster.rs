//! DeepCluster-v2 through the program: it trains, goes on from any step as if nothing had happened, and its weights serve every command.

use crate::rig::Rig;
use std::path::Path;
use swav_wgpu::train::checkpoint::{Checkpoint, Dtype};

/// 36 images, batches of 8: 32 rows an epoch, so that every epoch has images without a label.
const METHOD: &str =
    "--set method=deepcluster-v2 --set loss.epsilon=0.05 --set model.prototypes=6 --set deepcluster.heads=3 --set train.freeze_prototypes_steps=999";

/// Every tensor equal to the last bit.
#[track_caller]
fn same_state(a: &Path, b: &Path) {
    let [a, b] = [a, b].map(|p| Checkpoint::load(p).unwrap());
    assert!(a.step == b.step && a.names().eq(b.names()));
    for name in a.names() {
        assert_eq!(a.tensor(name), b.tensor(name), "{name}");
    }
}

fn integers(checkpoint: &Checkpoint, name: &str) -> Vec<i64> {
    let tensor = checkpoint.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(tensor.dtype, Dtype::I64);
    bytemuck::pod_collect_to_vec(tensor.bytes)
}

fn floats(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(checkpoint.tensor(name).unwrap_or_else(|| panic!("no {name}")).bytes)
}

#[test]
fn an_interrupted_run_takes_the_same_course() {
    let rig = Rig::new();
    rig.train("whole", &format!("{METHOD} --set train.epochs=3"));
    // In the first epoch, at the border of two, and in the middle of the second.
    for at in [2, 4, 6] {
        let out = format!("cut{at}");
        rig.train(&out, &format!("{METHOD} --set train.epochs=3 --max-steps {at}"));
        assert_eq!(rig.metric(&out, "loss").len(), at);
        rig.run(&format!("train --out {out} --resume -q")).ok();
        assert_eq!(rig.metric("whole", "loss"), rig.metric(&out, "loss"), "cut after {at}");
        same_state(&rig.checkpoints("whole")[0], rig.checkpoints(&out).last().unwrap());
    }
}

#[test]
fn the_checkpoint_holds_banks_labels_and_centroids() {
    let rig = Rig::new();
    rig.train("run", &format!("{METHOD} --max-steps 6"));
    let saved = Checkpoint::load(&rig.checkpoints("run")[0]).unwrap();
    let images = integers(&saved, "memory/images");
    // The second epoch has overwritten half of the rows.
    assert!(images.len() == 32 && images.iter().all(|i| (0..36).contains(i)));
    for bank in ["memory/0", "memory/1"] {
        let lengths = floats(&saved, bank).chunks_exact(16).map(|row| row.iter().map(|v| v * v).sum::<f32>()).collect::<Vec<_>>();
        assert!(lengths.len() == 32 && lengths.iter().all(|l| (l - 1.0).abs() < 1e-5), "{lengths:?}");
    }
    assert_ne!(floats(&saved, "memory/0"), floats(&saved, "memory/1"));
    for head in 0..3 {
        let labels = integers(&saved, &format!("labels/{head}"));
        assert_eq!((labels.len(), labels.iter().filter(|l| **l == -100).count()), (36, 4));
        assert!(labels.iter().all(|l| *l == -100 || (0..6).contains(l)));
        // The prototypes are centroids: of unit length, and the optimiser has not moved them.
        let prototypes = floats(&saved, &format!("model/prototypes.prototypes{head}.weight"));
        assert!(prototypes.chunks_exact(16).all(|row| (row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5));
        assert!(floats(&saved, &format!("optimizer/prototypes.prototypes{head}.weight")).iter().all(|v| *v == 0.0));
    }
    // Six steps, each of two resolutions; and the four of the first pass, which no optimiser sees, each of two crops by themselves.
    assert_eq!(
        (integers(&saved, "model/bn1.num_batches_tracked"), integers(&saved, "model/projection_head.1.num_batches_tracked")),
        (vec![20], vec![14])
    );
}

#[test]
fn it_learns_and_its_weights_serve_every_command() {
    let rig = Rig::new();
    rig.train("run", &format!("{METHOD} --set train.epochs=12 --set optimizer.lr=2.4"));
    let losses: Vec<f64> = rig.metric("run", "loss").iter().map(|l| l.parse().unwrap()).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&losses[..4]), mean(&losses[44..]));
    assert!(last < first - 0.5 && last < 1.2, "{first} to {last}; ln 6 is 1.79");
    let events = std::fs::read_to_string(rig.path("run/events.jsonl")).unwrap();
    let clustered = events.lines().filter(|l| l.contains("\"clustered\"")).count();
    assert!(clustered == 12 && events.contains("\"first_pass\"") && events.contains("\"prototypes_used\":6"), "{events}");

    let top1 = rig.run("eval-knn --weights run --json -q --k 5").ok().json()["top1"].as_f64().unwrap();
    assert!(top1 > 60.0, "{top1}");
    let clusters = |head: &str| {
        let ran = rig.run(&format!("clusters --weights run --data data --out clusters{head} --head {head} --json -q")).ok();
        ran.out.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["prototype"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let (zero, two) = (clusters("0"), clusters("2"));
    assert!(zero.len() == 48 && zero != two && zero.iter().chain(&two).all(|p| *p < 6));
    rig.run("clusters --weights run --data data --out clusters3 --head 3 -q").fails(2, &["--head 3", "3 prototype heads"]);
    rig.run("features --weights run --data data --out features.safetensors -q").ok();
    for (to, file) in [("swav", "a.pth"), ("swav", "a.safetensors"), ("mmpretrain", "m.pth"), ("torchvision", "t.pth")] {
        let summary = rig.run(&format!("convert run {file} --to {to} --json -q")).ok().json();
        assert_eq!(summary["unmatched"].as_array().unwrap().len(), 0, "{summary}");
    }
    // There and back: heads and all.
    for file in ["a.pth", "m.pth"] {
        rig.run(&format!("convert {file} back.safetensors --to swav -q")).ok();
        assert!(std::fs::read(rig.path("a.safetensors")).unwrap() == std::fs::read(rig.path("back.safetensors")).unwrap(), "{file}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let rig = Rig::new();
    let run = |set: &str| rig.run(&format!("train --config pretrain.toml --out x -q {METHOD} {set}"));
    run("--set queue.length=16").fails(2, &["queue.length", "memory banks"]);
    run("--set deepcluster.heads=0").fails(2, &["deepcluster.heads", "must be >= 1"]);
    run("--set method=deepcluster").fails(2, &["method", "swav, deepcluster-v2"]);
    // 32 rows an epoch.
    run("--set model.prototypes=33").fails(4, &["32 images", "33 clusters"]);
    assert!(!rig.path("x").exists());
    let ran = rig.run("train --config pretrain.toml --out y --max-steps 1 --set method=deepcluster-v2 --set model.prototypes=6").ok();
    assert!(ran.err.contains("loss.epsilon: has no part in method") && !ran.err.contains("queue"), "{}", ran.err);
    // A run does not change its method on the way.
    rig.run("train --out y --resume -q --set method=swav").fails(2, &["prototypes.weight", "missing"]);
}
