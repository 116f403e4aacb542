//! Networks that overflow: whoever uses features ends with exit code 6 and the name of the first
//! layer whose output is not finite; features that say nothing are said.

use crate::rig::Rig;
use std::path::Path;
use swav_wgpu::weights::{Target, load, save};

/// A run of a step, and its network with other values under `name`.
fn changed(rig: &Rig, name: &str, change: impl Fn(&str, &mut [f32])) {
    let mut network = load(&rig.checkpoints("run")[0]).unwrap();
    network.tensors.iter_mut().for_each(|(tensor, values)| change(tensor, &mut values.data));
    save(rig.path(name), &network, Target::Swav).unwrap();
}

fn trained() -> Rig {
    let rig = Rig::new();
    rig.train("run", "--set train.epochs=1 --max-steps 1");
    assert!(Path::new(&rig.checkpoints("run")[0]).is_file());
    rig
}

#[test]
fn a_network_that_overflows_has_no_features() {
    let rig = trained();
    // Finite, but not what comes of it; ReLUs and poolings must not hide it.
    changed(&rig, "huge.safetensors", |name, values| {
        if name == "layer2.0.conv1.weight" {
            values.fill(3e38);
        }
    });
    rig.run("eval-linear --config linear.toml --weights run --out linear -q --set train.epochs=1").ok();
    let layer = "the output of layer2.0.conv1 (conv2d) is not finite";
    let image = "data/val/red/00.png";
    for line in [
        "eval-knn --config linear.toml --weights huge.safetensors --k 3",
        "eval-linear --config linear.toml --weights huge.safetensors",
        "eval-linear --config linear.toml --weights huge.safetensors --set augment.enabled=true",
        "finetune --config linear.toml --weights huge.safetensors",
        "features --weights huge.safetensors --data data --config linear.toml --out features.safetensors",
        "clusters --weights huge.safetensors --data data --size 32 --out gallery",
        &format!("predict --weights huge.safetensors --head linear {image}"),
    ] {
        let ran = rig.run(&format!("{line} -q"));
        let ran = ran.fails(6, &[layer]);
        assert!(ran.out.is_empty(), "{line}: {}", ran.out);
        // An evaluation has no steps; it has images.
        let finetune = line.starts_with("finetune");
        assert_eq!(ran.err.contains("at step 0"), finetune, "{line}: {}", ran.err);
        assert_eq!(ran.err.contains(".png"), !finetune, "{line}: {}", ran.err);
    }
    assert!(!rig.path("features.safetensors").exists() && !rig.path("gallery").exists());
}

#[test]
fn features_that_say_nothing_are_said() {
    let rig = trained();
    changed(&rig, "dead.safetensors", |name, values| {
        if name.starts_with("layer4.0.") && (name.ends_with(".bias") || name.ends_with(".weight")) {
            values.fill(0.0);
        }
    });
    changed(&rig, "blind.safetensors", |name, values| {
        if name == "conv1.weight" {
            values.fill(0.0);
        }
    });
    for (weights, said) in [("dead", "are 0"), ("blind", "are the same")] {
        for line in [
            format!("eval-knn --config linear.toml --weights {weights}.safetensors --k 3"),
            format!("eval-linear --config linear.toml --weights {weights}.safetensors --set train.epochs=1"),
            format!("features --weights {weights}.safetensors --data data --config linear.toml --out {weights}-features.safetensors"),
            format!("clusters --weights {weights}.safetensors --data data --size 32 --out {weights}"),
        ] {
            let ran = rig.run(&format!("{line} -q")).ok();
            assert!(ran.err.contains("warning: ") && ran.err.contains(said), "{line}: {}", ran.err);
        }
    }
    let fine = rig.run("eval-knn --config linear.toml --weights run --k 3 -q").ok();
    assert!(!fine.err.contains("warning: "), "{}", fine.err);
}

/// The loss names no cause; the layer that spoilt it does.
#[test]
fn training_names_the_layer() {
    let rig = trained();
    changed(&rig, "huge.safetensors", |name, values| {
        if name == "layer3.0.conv2.weight" {
            values[5] = 3e38;
        }
    });
    let line = "train -q --config pretrain.toml --init huge.safetensors --out spoilt";
    for more in ["", "--set train.accumulate=2", "--set train.epochs=12 --set train.precision=\"f16\""] {
        let ran = rig.run(&format!("{line}{} {more}", more.len())).fails(6, &["the output of layer3.0."]);
        assert!(ran.err.contains("(conv2d)") || ran.err.contains("(cast)"), "{}", ran.err);
    }
}
