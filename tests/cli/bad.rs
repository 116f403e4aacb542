//! Files that cannot be read, through the program: replaced in training and told, an end in evaluations unless they are to be left out.

use crate::rig::{Rig, finished};
use serde_json::Value;
use std::path::Path;
use swav_wgpu::train::checkpoint::Checkpoint;

/// Spoils two of the 36 training images.
fn spoil(rig: &Rig) {
    rig.write("data/train/red/03.png", "this is no image");
    let cut = rig.path("data/train/blue/07.png");
    std::fs::write(&cut, &std::fs::read(&cut).unwrap()[..50]).unwrap();
}

#[track_caller]
fn same_state(a: &Path, b: &Path) {
    let [a, b] = [a, b].map(|p| Checkpoint::load(p).unwrap());
    assert!(a.step == b.step && a.names().eq(b.names()));
    for name in a.names() {
        assert_eq!(a.tensor(name), b.tensor(name), "{name}");
    }
    assert_eq!(a.metadata.get("replaced_images"), b.metadata.get("replaced_images"));
}

fn warnings(rig: &Rig, out: &str) -> Vec<String> {
    let text = std::fs::read_to_string(rig.path(out).join("events.jsonl")).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|e| e["event"] == "warning").map(|e| e["about"].as_str().unwrap().to_owned()).collect()
}

/// With either method, whatever the number of threads and wherever the run was cut.
#[test]
fn training_replaces_tells_and_goes_on_to_the_bit() {
    let rig = Rig::new();
    spoil(&rig);
    for method in ["", "--set method=deepcluster-v2 --set loss.epsilon=0.05 --set model.prototypes=6 --set train.freeze_prototypes_steps=999"] {
        let [whole, few] = ["whole", "few"].map(|name| format!("{name}{}", method.len()));
        let more = format!("--set train.epochs=3 --set seed=1 {method}");
        let ran = rig.run(&format!("train --config pretrain.toml --out {whole} --json -q {more}")).ok();
        let said = ran.json();
        assert_eq!(ran.err.matches("another image takes its place").count(), 2, "{}", ran.err);
        assert!(said["bad_images"] == 2 && said["replaced_images"].as_u64().unwrap() >= 4, "{said}");
        let lines = std::fs::read_to_string(rig.path(&whole).join("bad-images.txt")).unwrap();
        let lines: Vec<&str> = lines.lines().collect();
        assert!(lines.len() == 2 && lines[0].contains("blue/07.png\tcannot be decoded") && lines[1].contains("red/03.png\tis none of"), "{lines:?}");
        let counts = rig.metric(&whole, "replaced_images");
        assert_eq!(counts.last().unwrap().parse::<f64>().unwrap(), said["replaced_images"].as_f64().unwrap());
        assert_eq!(warnings(&rig, &whole).len(), 2);
        let page = std::fs::read_to_string(rig.path(&whole).join("report.html")).unwrap();
        assert!(page.contains("replaced images"), "{page}");

        rig.train(&few, &format!("{more} --set data.workers=1"));
        same_state(&rig.checkpoints(&whole)[0], &rig.checkpoints(&few)[0]);
        for at in [1, 3, 4, 6] {
            let out = format!("cut{at}{}", method.len());
            rig.train(&out, &format!("{more} --max-steps {at}"));
            rig.run(&format!("train --out {out} --resume -q")).ok();
            same_state(&rig.checkpoints(&whole)[0], rig.checkpoints(&out).last().unwrap());
            assert_eq!(rig.metric(&out, "replaced_images"), counts);
            // Each is told once, in all of the run.
            let mut told = warnings(&rig, &out);
            told.sort();
            told.dedup();
            assert_eq!((told.len(), warnings(&rig, &out).len()), (2, 2), "cut at {at}");
            let after = std::fs::read_to_string(rig.path(&out).join("bad-images.txt")).unwrap();
            assert_eq!(after.lines().collect::<Vec<_>>(), lines);
        }
    }
}

/// What a lost future found is found and told again.
#[test]
fn a_run_that_goes_back_forgets_what_it_had_not_met() {
    let rig = Rig::new();
    spoil(&rig);
    rig.train("run", "--set seed=1 --set train.epochs=3 --set checkpoint.every_steps=1 --set checkpoint.keep=99 --max-steps 8");
    let files = rig.checkpoints("run");
    files[1..].iter().for_each(|file| std::fs::remove_file(file).unwrap());
    rig.run("train --out run --resume -q").ok();
    rig.train("whole", "--set seed=1 --set train.epochs=3");
    same_state(rig.checkpoints("run").last().unwrap(), &rig.checkpoints("whole")[0]);
    assert_eq!(warnings(&rig, "run"), warnings(&rig, "whole"));
}

#[test]
fn too_many_end_the_run_with_what_it_has() {
    let rig = Rig::new();
    spoil(&rig);
    let ran = rig.run("train --config pretrain.toml --out run -q --set data.bad_limit=0.03 --set train.epochs=5");
    ran.fails(4, &["2 of 36 images cannot be read", "data.bad_limit allows 1"]);
    rig.run("train --config pretrain.toml --out none -q --set data.bad_limit=0").fails(4, &["no image may be unreadable by data.bad_limit"]);
    rig.run("train --config pretrain.toml --out stop -q --set data.bad=stop").fails(4, &[".png: ", "--resume goes on"]);
    rig.run("train --config pretrain.toml --out odd -q --set data.bad_limit=2").fails(2, &["data.bad_limit", "from 0 to 1"]);
    rig.run("train --config pretrain.toml --out odd -q --set data.bad=skip").fails(2, &["data.bad", "replace, stop"]);
}

#[test]
fn an_evaluation_ends_or_leaves_out_and_says_so() {
    let rig = Rig::new();
    spoil(&rig);
    rig.write("data/val/green/01.png", "nothing");
    rig.run("eval-linear --config linear.toml --weights random:0 -q").fails(4, &["data/train", ".png", "data.bad = \"replace\""]);
    rig.run("train --config pretrain.toml --out run -q --max-steps 1").ok();
    let line = "eval-linear --config linear.toml --weights run -q --json";
    rig.run(line).fails(4, &["green/01.png", "of 12 images were done", "data.bad = \"replace\""]);
    for augmented in [false, true] {
        let ran = rig.run(&format!("{line} --set data.bad=replace --set augment.enabled={augmented}")).ok();
        let said = ran.json();
        assert_eq!(said["left_out_images"], 1, "{said}");
        assert_eq!(said["bad_images"].as_array().unwrap().len(), 3, "{said}");
        assert!(ran.err.contains("red/03.png") && ran.err.contains("green/01.png") && ran.err.contains("it is left out"), "{}", ran.err);
    }
    let tuned = "finetune --config linear.toml --weights random:0 -q --json --set train.epochs=1";
    rig.run(tuned).fails(4, &[".png", "data.bad = \"replace\""]);
    assert_eq!(rig.run(&format!("{tuned} --set data.bad=replace")).ok().json()["left_out_images"], 1);
}

#[test]
fn features_and_clusters_end_or_leave_out_and_name_what_they_did() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 1");
    rig.run("features --weights run --data data --out whole.safetensors -q").ok();
    spoil(&rig);
    for line in
        ["features --weights run --data data --out f.safetensors -q", "clusters --weights run --data data --out c -q", "eval-knn --weights run -q"]
    {
        rig.run(line).fails(4, &["blue/07.png", "images were done", "--bad skip"]);
    }
    let ran = rig.run("features --weights run --data data --out f.safetensors --json -q --bad skip").ok();
    let said = ran.json();
    assert!(said["images"] == 46 && said["bad"].as_array().unwrap().len() == 2, "{said}");
    assert!(
        said["bad"][0]["path"].as_str().unwrap().ends_with("blue/07.png") && said["bad"][1]["reason"].as_str().unwrap().contains("none of"),
        "{said}"
    );
    let [whole, some] = ["whole.safetensors", "f.safetensors"].map(|name| swav_wgpu::weights::read_safetensors(rig.path(name)).unwrap());
    let paths = |file: &swav_wgpu::weights::TensorFile| -> Vec<String> { serde_json::from_str(&file.metadata()["paths"]).unwrap() };
    let (all, left) = (paths(&whole), paths(&some));
    let (a, b) = (whole.f32("features").unwrap(), some.f32("features").unwrap());
    let width = a.shape[1];
    assert_eq!((left.len(), b.shape[0]), (46, 46));
    for (row, path) in left.iter().enumerate() {
        let same = all.iter().position(|p| p == path).unwrap();
        assert_eq!(b.data[row * width..][..width], a.data[same * width..][..width], "{path}");
    }
    let clusters = rig.run("clusters --weights run --data data --out c --json -q --bad skip").ok();
    assert_eq!(clusters.out.lines().count(), 46 + 2, "{}", clusters.out);
    assert_eq!(clusters.out.lines().filter(|line| line.contains("\"error\"")).count(), 2);
    let knn = rig.run("eval-knn --weights run --json -q --bad skip").ok().json();
    assert_eq!(knn["bad"].as_array().unwrap().len(), 2, "{knn}");
}

#[test]
fn predictions_go_on_past_bad_images() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 1");
    rig.run("eval-linear --config linear.toml --weights run --out linear -q").ok();
    rig.write("bad.png", "this is no image");
    let line = "predict --weights run --head linear data/val/red/00.png bad.png gone.png data/val/blue/01.png data/val";
    let ran = rig.run(&format!("{line} --json")).fails(4, &["3 of 5 images could not be read", "bad.png", "gone.png"]);
    let said = ran.json();
    let said = said.as_array().unwrap();
    assert_eq!(said.len(), 5);
    assert!(said[0]["pred_label"].is_u64() && said[3]["pred_label"].is_u64() && said[0].get("error").is_none(), "{said:?}");
    for i in [1, 2, 4] {
        assert!(said[i]["error"].is_string() && said[i].get("pred_label").is_none(), "{said:?}");
    }
    let alone = rig.run("predict --weights run --head linear data/val/blue/01.png --json").ok().json();
    assert_eq!(alone[0], said[3]);
    let ran = rig.run(&format!("{line} -q")).fails(4, &["bad.png: is none of"]);
    assert_eq!(ran.out.lines().count(), 2, "{}", ran.out);
    rig.run("predict --weights run --head linear bad.png gone.png").fails(4, &["2 of 2 images"]);
}

/// What `train --resume` says of data that changed.
#[test]
fn changed_data_is_named_and_goes_on_when_told_so() {
    let rig = Rig::new();
    rig.train("run", "--set train.epochs=3 --max-steps 5");
    let list = std::fs::read_to_string(rig.path("run/images.tsv")).unwrap();
    assert!(list.lines().count() == 36 && list.lines().all(|line| line.split('\t').count() == 3), "{list}");
    let resume = |more: &str| rig.run(&format!("train --out run --resume -q --max-steps 6 {more}"));
    // A copy that did not keep its times, elsewhere, is the same data.
    std::fs::create_dir(rig.path("copy")).unwrap();
    assert!(std::process::Command::new("cp").args(["-r", &rig.text("data"), &rig.text("copy")]).status().unwrap().success());
    let ran = resume("--data copy/data").ok();
    assert!(!ran.err.contains("warning"), "{}", ran.err);
    // Another content under the same name: of another size, and of the same.
    let bytes = std::fs::read(rig.path("data/train/red/03.png")).unwrap();
    rig.write("data/train/red/04.png", [&bytes[..], b"more"].concat());
    let same = std::fs::read(rig.path("data/train/red/05.png")).unwrap();
    let run = |end: u32, more: &str| rig.run(&format!("train --out run --resume -q --max-steps {end} {more}"));
    std::thread::sleep(std::time::Duration::from_millis(20));
    rig.write("data/train/red/05.png", &same);
    // The last to go on was with the copy, whose times are others throughout.
    let said = run(7, "--data data").ok().err;
    assert!(said.contains("1 images have another size than before: train/red/04.png"), "{said}");
    assert!(!run(8, "").ok().err.contains("warning"), "what was told is known now");
    rig.write("data/train/red/06.png", std::fs::read(rig.path("data/train/red/06.png")).unwrap());
    let said = run(9, "").ok().err;
    assert!(said.contains("1 images of the same size were written anew: train/red/06.png"), "{said}");
    // One is gone, another is new.
    std::fs::remove_file(rig.path("data/train/blue/01.png")).unwrap();
    run(10, "").fails(2, &["made with 36 images, the data has 35 now (gone: train/blue/01.png)", "--allow-data-change", "--init"]);
    let ran = run(10, "--allow-data-change").ok();
    assert!(ran.err.contains("35 now (gone: train/blue/01.png): it goes on as told; epochs are as long as before"), "{}", ran.err);
    for i in 0..9 {
        rig.write(&format!("data/train/blue/more{i}.png"), &same);
    }
    let ran = run(11, "--allow-data-change").ok();
    assert!(ran.err.contains("44 now (new: train/blue/more0.png") && ran.err.contains("and 4 more"), "{}", ran.err);
    assert!(ran.err.contains("epochs have 5 steps now, so epoch and learning rate jump"), "{}", ran.err);
    assert_eq!(rig.metric("run", "epoch").last().unwrap(), "2");
    run(15, "").ok();
    assert_eq!(rig.metric("run", "step").len(), 15);
    rig.run("train --config pretrain.toml --out x --allow-data-change").fails(2, &["--resume"]);
}

/// Banks and labels go by the numbers of images.
#[test]
fn memory_banks_are_filled_anew_for_other_data() {
    let rig = Rig::new();
    let method = "--set method=deepcluster-v2 --set loss.epsilon=0.05 --set model.prototypes=6 --set train.freeze_prototypes_steps=999";
    rig.train("run", &format!("{method} --set train.epochs=3 --max-steps 6"));
    std::fs::remove_file(rig.path("data/train/blue/01.png")).unwrap();
    let ran = rig.run("train --out run --resume -q --allow-data-change").ok();
    assert!(ran.err.contains("the memory of the images is filled and clustered anew"), "{}", ran.err);
    let losses = rig.metric("run", "loss");
    assert!(losses.len() == 12 && losses[6..].iter().all(|loss| loss.parse::<f64>().unwrap() > 0.1), "{losses:?}");
    let saved = Checkpoint::load(rig.checkpoints("run").last().unwrap()).unwrap();
    assert_eq!((saved.tensor("labels/0").unwrap().shape, saved.tensor("memory/images").unwrap().shape), (&[35][..], &[32][..]));
}

#[test]
fn a_set_is_looked_at_before_the_run() {
    let rig = Rig::new();
    let said = rig.run("data check data --json -q").ok().json();
    assert!(said["images"] == 48 && said["classes"][2]["class"] == "red" && said["classes"][2]["images"] == 16, "{said}");
    assert!(said["bad"].as_array().unwrap().is_empty() && said["width"].is_null(), "{said}");
    std::fs::copy(rig.path("data/val/red/00.png"), rig.path("data/train/red/again.png")).unwrap();
    let said = rig.run("data check data --json -q --decode --workers 3").ok().json();
    assert_eq!((&said["width"]["min"], &said["height"]["median"], &said["width"]["max"]), (&32.into(), &32.into(), &32.into()));
    assert!(said["duplicates"].as_array().unwrap().len() == 1 && said["duplicates"][0].as_array().unwrap().len() == 2, "{said}");
    spoil(&rig);
    rig.write("data/val/green/01.png", "");
    let ran = rig.run("data check data --json -q").fails(4, &["green/01.png: is empty; 1 of 49 images cannot be used"]);
    assert_eq!(ran.json()["bad"].as_array().unwrap().len(), 1);
    let ran = rig.run("data check data --decode").fails(4, &["3 of 49 images cannot be used", "warning: ", "red/03.png: is none of"]);
    assert!(ran.out.contains("bad: 3\n") && ran.out.contains("same content: ") && ran.out.contains("49 images in 3 classes"), "{}", ran.out);
    rig.run("data check nowhere").fails(4, &["nowhere", "does not exist"]);
}

/// A pipe stands for a network disk that hangs.
#[cfg(unix)]
#[test]
fn a_disk_that_hangs_is_told_and_a_stop_keeps_what_is_done() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};
    let rig = Rig::new();
    // A link to nowhere is a bad image; once a pipe is there, whoever reads it waits for ever.
    std::os::unix::fs::symlink("../../../pipe", rig.path("data/train/red/hangs.png")).unwrap();
    let line = "train --config pretrain.toml --out run -q --set train.epochs=100000";
    let mut child = rig.command(line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let first = lines.next().unwrap();
    assert!(first.contains("hangs.png: cannot be read") && first.contains("another image takes its place"), "{first}");
    assert!(Command::new("mkfifo").arg(rig.path("pipe")).status().unwrap().success());
    let began = Instant::now();
    let told = lines.next().unwrap();
    assert!(told.contains("hangs.png: has been read for 30 s"), "{told}");
    assert!((28..60).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    let steps = rig.steps("run");
    let asked = Instant::now();
    assert!(Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status().unwrap().success());
    let ended = child.wait().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(ended.code(), Some(75));
    let kept = Checkpoint::load(rig.checkpoints("run").last().unwrap()).unwrap().step;
    assert!(kept >= steps as u64 && kept == rig.steps("run") as u64, "{kept} {steps}");
    std::fs::remove_file(rig.path("pipe")).unwrap();
    finished(rig.command(&format!("train --out run --resume -q --max-steps {}", kept + 2))).ok();
}
