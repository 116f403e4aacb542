//! Measured kernels: kept, used, recorded by runs and repeated when they go on.

use crate::rig::Rig;
use serde_json::Value;
use std::path::PathBuf;
use swav_wgpu::train::checkpoint::Checkpoint;

/// The table's file and its contents.
fn table(rig: &Rig) -> (PathBuf, Value) {
    let mut files: Vec<PathBuf> = std::fs::read_dir(rig.path("cache")).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "json"));
    assert_eq!(files.len(), 1, "{files:?}");
    let text = std::fs::read_to_string(&files[0]).unwrap();
    (files.remove(0), serde_json::from_str(&text).unwrap())
}

fn kernels(rig: &Rig, run: &str) -> Value {
    let text = std::fs::read_to_string(rig.path(run).join("kernels.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["kernels"].clone()
}

const BENCH: &str = "bench --filter ^conv_dgrad_c3s2_512_512_6_b4$ --seconds 0.01 --json";

#[test]
fn full_measures_once_and_the_table_is_used() {
    let rig = Rig::new();
    let first = rig.run(&format!("{BENCH} --tune full")).ok();
    assert!(first.err.contains("tuning 1/"), "{}", first.err);
    let (path, measured) = table(&rig);
    let shapes = measured["milliseconds"].as_object().unwrap();
    assert!(!shapes.is_empty() && shapes.keys().all(|key| key.starts_with("conv2d_input_gradient ") && key.ends_with(" f32,f32")), "{measured}");
    for times in shapes.values() {
        assert!(times.as_object().unwrap().len() > 1 && times.as_object().unwrap().values().all(|ms| ms.as_f64().unwrap() > 0.0), "{times}");
    }
    let again = rig.run(&format!("{BENCH} --tune full")).ok();
    assert!(!again.err.contains("tuning"), "{}", again.err);

    // A table that is not one is told, and measured anew.
    std::fs::write(&path, "{").unwrap();
    let damaged = rig.run(BENCH).ok();
    assert!(damaged.err.contains("damaged") && damaged.err.contains("kernels-"), "{}", damaged.err);
    assert!(!rig.run(&format!("{BENCH} --tune off")).ok().err.contains("damaged"));
    rig.run(&format!("{BENCH} --tune full")).ok();
    assert!(table(&rig).1["milliseconds"].as_object().unwrap().keys().eq(shapes.keys()));

    let hurried = rig.run(&format!("{} --tune full --tune-seconds 0", BENCH.replace("_512_512_6", "_256_256_12"))).ok();
    assert!(hurried.err.contains("the time is up"), "{}", hurried.err);
}

/// The table decides a run's kernels; a run that goes on keeps those it began with, whatever the table says by then.
#[test]
fn a_resumed_run_keeps_its_kernels() {
    let rig = Rig::new();
    rig.train("measured", "--tune full --tune-seconds 30");
    let (path, measured) = table(&rig);
    let shapes = measured["milliseconds"].as_object().unwrap();
    // The first or the last variant of every shape, as if it had been the fastest.
    let prefer = |last: bool| {
        let mut edited = measured.clone();
        for times in edited["milliseconds"].as_object_mut().unwrap().values_mut() {
            let count = times.as_object().unwrap().len();
            for (i, ms) in times.as_object_mut().unwrap().values_mut().enumerate() {
                *ms = if i == (if last { count - 1 } else { 0 }) { 1.0 } else { 2.0 }.into();
            }
        }
        std::fs::write(&path, edited.to_string()).unwrap();
    };
    prefer(false);
    rig.train("first", "");
    rig.train("cut", "--max-steps 3");
    let first = kernels(&rig, "cut");
    let names = |times: &Value| times.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert!(!shapes.is_empty() && shapes.iter().all(|(key, times)| first[key] == names(times)[0].as_str()), "{first}");

    prefer(true);
    rig.run("train --out cut --resume -q").ok();
    assert_eq!(kernels(&rig, "cut"), first);
    assert_eq!(rig.metric("first", "loss"), rig.metric("cut", "loss"));
    let saved = Checkpoint::load(rig.checkpoints("cut").last().unwrap()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&saved.metadata["kernels"]).unwrap(), first);
    rig.train("last", "");
    assert!(shapes.iter().all(|(key, times)| kernels(&rig, "last")[key] == names(times).last().unwrap().as_str()));
    assert_ne!(rig.metric("last", "loss"), rig.metric("first", "loss"), "variants are expected to round differently");
}

/// What is fused is part of a run's record too, and stays as it was.
#[test]
fn a_resumed_run_fuses_what_it_fused() {
    let rig = Rig::new();
    rig.train("plain", "--fuse none");
    rig.train("cut", "--fuse none --max-steps 3");
    // A record that was deleted is written again; who asks for other kernels is told that there will be none.
    std::fs::remove_file(rig.path("cut/kernels.json")).unwrap();
    let resumed = rig.run("train --out cut --resume -q --fuse all").ok();
    assert!(resumed.err.contains("a run that goes on keeps the kernels"), "{}", resumed.err);
    let kernels = kernels(&rig, "cut");
    let rewrites: Vec<&Value> = kernels.as_object().unwrap().iter().filter(|(key, _)| key.starts_with("fuse ")).map(|(_, choice)| choice).collect();
    assert!(rewrites.len() >= 4 && rewrites.iter().all(|choice| *choice == "separate"), "{kernels}");
    assert_eq!(rig.metric("plain", "loss"), rig.metric("cut", "loss"));
    rig.train("fused", "--fuse all");
    assert_ne!(rig.metric("plain", "loss"), rig.metric("fused", "loss"), "sums of other chunks are expected to round differently");
}

#[test]
fn a_damaged_file_of_pipelines_is_told_and_replaced() {
    let rig = Rig::new();
    rig.run(BENCH).ok();
    let mut files = std::fs::read_dir(rig.path("cache")).unwrap().map(|e| e.unwrap().path());
    let kept = files.find(|path| path.extension().is_some_and(|e| e == "bin"));
    let vulkan = rig.run("devices --json").ok().json()[0]["backend"] == "vulkan";
    assert_eq!(kept.is_some(), vulkan);
    if let Some(path) = kept {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[40] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let ran = rig.run(BENCH).ok();
        assert!(ran.err.contains("damaged") && ran.err.contains(".bin"), "{}", ran.err);
        assert_ne!(std::fs::read(&path).unwrap(), bytes);
        assert!(!rig.run(BENCH).ok().err.contains("damaged"));
    }
}
