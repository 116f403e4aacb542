//! What commands read and write: nothing that is read is written over, what cannot be written is refused before the work, what is
//! not what it seems is said.

use crate::rig::Rig;
use std::collections::BTreeMap;
use swav_wgpu::weights::{AnyTensor, write_safetensors};

fn images(rig: &Rig, name: &str, values: &[f32]) {
    let tensor = AnyTensor::from_f32(&[values.len() / 192, 3, 8, 8], values).into_owned();
    write_safetensors(rig.path(name), &BTreeMap::from([("images".to_owned(), tensor)]), &BTreeMap::new()).unwrap();
}

#[test]
fn what_is_read_is_never_written_over() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 1");
    rig.run("convert run w.safetensors --to swav").ok();
    images(&rig, "images.safetensors", &[0.5; 192]);
    let checkpoint = rig.checkpoints("run")[0].clone();
    let spared = [rig.path("w.safetensors"), rig.path("images.safetensors"), checkpoint.clone()].map(|path| (std::fs::read(&path).unwrap(), path));
    let inside = checkpoint.display().to_string();
    rig.run("convert w.safetensors w.safetensors").fails(2, &["w.safetensors", "another name"]);
    rig.run("convert w.safetensors ./w.safetensors").fails(2, &["another name"]);
    rig.run(&format!("convert w.safetensors {inside}")).fails(2, &["checkpoints of a run"]);
    rig.run(&format!("convert run {inside}")).fails(2, &["checkpoints of a run"]);
    for out in ["images.safetensors", "w.safetensors"] {
        rig.run(&format!("features --weights w.safetensors --input images.safetensors --out {out}")).fails(2, &[out, "another name"]);
    }
    rig.run("finetune --config linear.toml --weights run --out tuned -q").ok();
    rig.run("convert tuned tuned/model.safetensors").fails(2, &["another name"]);
    rig.run("features --weights tuned --data data --out tuned/model.safetensors").fails(2, &["another name"]);
    rig.run("features --weights w.safetensors --config pretrain.toml --data data --out pretrain.toml").fails(2, &["another name"]);
    let mut here = rig.command("convert ../../w.safetensors step-000000009.safetensors");
    here.current_dir(rig.path("run/checkpoints"));
    crate::rig::finished(here).fails(2, &["checkpoints of a run"]);
    for (before, path) in spared {
        assert!(std::fs::read(&path).unwrap() == before, "{path:?}");
    }
}

/// Neither the user's own files nor those of a run of another kind.
#[test]
fn a_run_writes_only_over_its_own() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 1");
    std::fs::create_dir(rig.path("own")).unwrap();
    std::fs::copy(rig.path("linear.toml"), rig.path("own/config.toml")).unwrap();
    std::fs::create_dir(rig.path("logs")).unwrap();
    rig.write("logs/metrics.jsonl", "{\"mine\": 1}\n");
    rig.run("eval-linear --config linear.toml --weights run --out linear -q").ok();
    let kept =
        ["own/config.toml", "logs/metrics.jsonl", "linear/config.toml", "run/config.toml"].map(|name| (name, std::fs::read(rig.path(name)).unwrap()));
    for command in ["eval-linear", "finetune"] {
        // Before the weights, which are not there, are looked at.
        let refused = |config: &str, out: &str, word: &str| {
            rig.run(&format!("{command} --config {config} --weights none.pth --out {out}")).fails(2, &[out, word]);
        };
        refused("own/config.toml", "own", "config.toml");
        refused("linear.toml", "logs", "metrics.jsonl");
        refused("linear.toml", "run", "holds a run");
        refused("linear.toml", "linear", "holds a run");
    }
    for out in ["own", "logs", "linear"] {
        rig.run(&format!("train --config pretrain.toml --resume --out {out}")).fails(2, &[out, "another --out"]);
    }
    rig.run("features --weights run --data data --out run/config.toml").fails(2, &["run/config.toml", ".safetensors"]);
    rig.run("features --weights run --data data --out f.pth").fails(2, &["f.pth", ".safetensors"]);
    for (name, before) in kept {
        assert!(std::fs::read(rig.path(name)).unwrap() == before, "{name}");
    }
    assert_eq!(std::fs::read_dir(rig.path("own")).unwrap().count(), 1);
}

#[test]
fn outputs_are_judged_before_the_work() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 1");
    // A folder that is not there is made; a file in its place is none.
    rig.run("features --weights run --data data --out new/folder/f.safetensors -q").ok();
    assert!(rig.path("new/folder/f.safetensors").is_file());
    // What is refused for another reason leaves none.
    rig.run("features --weights run --data nowhere --out other/folder/f.safetensors").fails(4, &["nowhere"]);
    assert!(!rig.path("other").exists());
    rig.write("file", "");
    let refused = rig.run("features --weights run --data data --out file/f.safetensors").fails(5, &["file"]);
    assert!(!refused.err.contains("layout"), "it was refused before the weights were read: {}", refused.err);
    std::fs::create_dir(rig.path("folder.pth")).unwrap();
    rig.run("convert run folder.pth").fails(5, &["folder.pth", "is a folder"]);
}

#[test]
fn numbers_that_are_none_are_refused() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 1");
    let mut values = vec![0.5; 3 * 192];
    values[200] = f32::NAN;
    images(&rig, "images.safetensors", &values);
    rig.run("features --weights run --input images.safetensors --out f.safetensors").fails(2, &["images.safetensors", "NaN in image 1"]);
    assert!(!rig.path("f.safetensors").exists());
}

#[test]
fn a_damaged_newest_checkpoint_is_told_even_quietly() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 4 --set checkpoint.every_steps=2");
    let newest = rig.checkpoints("run").pop().unwrap();
    let whole = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &whole[..whole.len() - 9]).unwrap();
    for line in ["eval-knn --weights run --json -q", "convert run c.safetensors --json -q"] {
        let ran = rig.run(line).ok();
        assert!(ran.err.contains("warning: ") && ran.err.contains("step-000000004") && ran.err.contains("an earlier one is taken"), "{}", ran.err);
        ran.json();
    }
}

#[test]
fn heads_know_their_backbone_and_folders_of_fine_tunings_are_weights() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 2");
    rig.run("eval-linear --config linear.toml --weights run --out linear -q").ok();
    rig.run("finetune --config linear.toml --weights run --out tuned -q --set optimizer.backbone_lr=0.05").ok();
    let predict = |weights: &str, head: &str| rig.run(&format!("predict --weights {weights} --head {head} data/val/red/00.png -q")).ok().err;
    assert_eq!(predict("run", "linear"), "");
    assert_eq!(predict("tuned", "tuned"), "");
    for (weights, head) in [("run", "tuned"), ("tuned", "linear")] {
        let said = predict(weights, head);
        assert!(said.contains("warning: ") && said.contains("another backbone"), "{said}");
    }
    rig.run("eval-knn --weights tuned --data data -q").ok();
}

/// Names that are no Unicode, as Linux allows.
#[cfg(target_os = "linux")]
#[test]
fn names_that_are_no_unicode_are_taken() {
    use std::os::unix::ffi::OsStrExt;
    let rig = Rig::new();
    rig.train("run", "--max-steps 1");
    rig.run("eval-linear --config linear.toml --weights run --out linear -q").ok();
    let name = std::ffi::OsStr::from_bytes(b"im\xffage.png");
    std::fs::copy(rig.path("data/val/red/00.png"), rig.path("").join(name)).unwrap();
    for json in ["--json", "-q"] {
        let mut command = rig.command(&format!("predict --weights run --head linear {json}"));
        command.arg(name);
        assert!(crate::rig::finished(command).ok().out.contains("im\u{fffd}age.png"));
    }
    let mut command = rig.command("finetune --config linear.toml --weights run --json -q --out");
    command.arg(std::ffi::OsStr::from_bytes(b"out\xff"));
    assert_eq!(crate::rig::finished(command).ok().json()["weights"], "out\u{fffd}/model.safetensors");

    // Where a configuration keeps the name, it is refused for what it is.
    let data = std::ffi::OsStr::from_bytes(b"data\xff");
    std::fs::rename(rig.path("data"), rig.path("").join(data)).unwrap();
    let with = |line: &str| {
        let mut command = rig.command(line);
        command.args([std::ffi::OsStr::new("--data"), data]);
        crate::rig::finished(command)
    };
    with("eval-knn --weights run -q").ok();
    for line in ["train --config pretrain.toml", "eval-linear --config linear.toml --weights run", "info --config pretrain.toml"] {
        with(line).fails(2, &["--data data\u{fffd}: the name is not UTF-8"]);
    }
}

#[test]
fn images_without_a_class_are_counted() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 1");
    let pixels = std::fs::read(rig.path("data/val/red/00.png")).unwrap();
    std::fs::create_dir(rig.path("shards")).unwrap();
    for part in ["train", "val"] {
        let mut tar = tar::Builder::new(std::fs::File::create(rig.path(&format!("shards/{part}-0.tar"))).unwrap());
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, bytes).unwrap();
        };
        for i in 0..4 {
            add(&format!("{i}.png"), &pixels);
            if i != 2 {
                add(&format!("{i}.cls"), format!("{}", i % 2).as_bytes());
            }
        }
        tar.finish().unwrap();
    }
    let ran = rig.run("eval-knn --weights run --data shards -q --k 1").ok();
    assert_eq!(ran.err.matches("1 of 4 images have no class and are left out").count(), 2, "{}", ran.err);
}

#[test]
fn json_of_bench_is_json() {
    let rig = Rig::new();
    let names = rig.run("bench --list --json --filter ^matmul_256$").ok().json();
    assert_eq!(names, serde_json::json!(["matmul_256"]));
    let profile = rig.run("bench --profile --json -q --filter ^matmul_256$").ok().json();
    let kernel = &profile["kernels"][0];
    assert!(profile["name"] == "matmul_256" && kernel["launches"] == 1 && kernel["ms"].as_f64().unwrap() > 0.0, "{profile}");
}
