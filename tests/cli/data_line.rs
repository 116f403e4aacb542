//! Every command that reads a set of images says what it found there, and what it passes over.

use crate::rig::Rig;
use serde_json::Value;

const FOUND: &str = "48 pictures: 36 training in 3 classes, 12 validation";

/// A set with something that is no picture.
fn rig() -> Rig {
    let rig = Rig::new();
    rig.write("data/train/blue/photo.heic", "x");
    rig.write("data/notes.txt", "x");
    rig
}

#[track_caller]
fn in_json(data: &Value, validation_used: bool) {
    assert_eq!((data["pictures"].as_u64(), data["classes"].as_u64()), (Some(48), Some(3)), "{data}");
    assert_eq!(data["passed_over"][".heic"].as_u64(), Some(1), "{data}");
    assert_eq!(data["parts"]["validation"]["used"].as_bool(), Some(validation_used), "{data}");
}

#[test]
fn a_run_says_what_was_found_on_the_terminal_in_json_report_and_events() {
    let rig = rig();
    let ran = rig.run("train --config pretrain.toml --out run --max-steps 1 --json").ok();
    let line = format!("{FOUND}; not used here: validation; passed over: 1 .heic, 1 .txt");
    assert!(ran.err.lines().any(|said| said == line), "{}", ran.err);
    in_json(&ran.json()["data"], false);
    let events = std::fs::read_to_string(rig.path("run/events.jsonl")).unwrap();
    let started: Value = serde_json::from_str(events.lines().next().unwrap()).unwrap();
    in_json(&started["data"], false);
    assert!(std::fs::read_to_string(rig.path("run/report.html")).unwrap().contains(&line));
    // What may be a mistake is said with -q too.
    let quiet = rig.run("train --config pretrain.toml --out quiet --max-steps 1 -q").ok();
    assert!(quiet.err.contains(&format!("warning: {line}")), "{}", quiet.err);
    let info = rig.run("info --config pretrain.toml --json").ok();
    assert!(info.err.contains(&line), "{}", info.err);
    in_json(&info.json()["data"], false);
    // Lines stay what they are; the gallery's folder has it.
    let clusters = rig.run("clusters --weights run --data data --out clusters --json").ok();
    assert!(clusters.err.contains(&format!("{FOUND}; passed over")), "{}", clusters.err);
    in_json(&serde_json::from_str(&std::fs::read_to_string(rig.path("clusters/data.json")).unwrap()).unwrap(), true);
    assert!(clusters.out.lines().count() > 0 && clusters.out.lines().all(|l| l.starts_with("{\"path\":")), "{}", clusters.out);
}

#[test]
fn evaluations_say_what_was_found() {
    let rig = rig();
    let line = format!("{FOUND}; passed over: 1 .heic, 1 .txt");
    let linear = rig.run("eval-linear --config linear.toml --weights random:0 --set train.epochs=1 --out linear --json").ok();
    assert!(linear.err.contains(&line), "{}", linear.err);
    in_json(&linear.json()["data"], true);
    assert!(std::fs::read_to_string(rig.path("linear/report.html")).unwrap().contains(&line));
    let knn = "eval-knn --weights random:0 --config pretrain.toml --size 32 --json";
    let one = rig.run(knn).ok();
    assert!(one.err.contains(&line), "{}", one.err);
    in_json(&one.json()["data"], true);
    assert!(one.json()["top1"].is_number() && one.json()["k"].as_u64() == Some(20));
    let several = rig.run(&format!("{knn} --k 1,5")).ok();
    let all = several.json();
    assert!(several.err.contains(&line) && all.as_array().is_some_and(|all| all.len() == 2), "{}", several.out);
    all.as_array().unwrap().iter().for_each(|one| in_json(&one["data"], true));
    // What is held out is validation, and the rest is training.
    let held = rig.run(&format!("{knn} --data data/train --val-fraction 0.3")).ok();
    let parts = &held.json()["data"]["parts"];
    let count = |part: &str| parts[part]["pictures"].as_u64().unwrap();
    assert!(count("training") + count("validation") == 36 && count("validation") > 0, "{parts}");
    let said = format!("36 pictures: {} training in 3 classes, {} validation (held out of training); ", count("training"), count("validation"));
    assert!(held.err.contains(&said), "{}", held.err);
    let features = rig.run("features --weights random:0 --config pretrain.toml --size 32 --data data --out f.safetensors --json").ok();
    assert!(features.err.contains(&format!("{FOUND}; passed over")), "{}", features.err);
    in_json(&features.json()["data"], true);
}

#[test]
fn what_is_ambiguous_is_refused_and_a_flag_decides() {
    let rig = Rig::new();
    std::fs::rename(rig.path("data/train"), rig.path("old")).unwrap();
    std::fs::remove_dir_all(rig.path("data/val")).unwrap();
    std::fs::rename(rig.path("old/red"), rig.path("data/train")).unwrap();
    std::fs::rename(rig.path("old/blue"), rig.path("data/bus")).unwrap();
    let train = "train --config pretrain.toml --max-steps 1 --json";
    rig.run(&format!("{train} --out a")).fails(4, &["ambiguous: train/", "--data-layout classes"]);
    assert!(!rig.path("a").exists());
    let classes = rig.run(&format!("{train} --out b --data-layout classes")).ok();
    assert_eq!(classes.json()["data"]["parts"]["training"]["pictures"].as_u64(), Some(24));
    let parts = rig.run(&format!("{train} --out c --set data.layout=\"parts\"")).ok();
    assert_eq!(parts.json()["data"]["passed_over_by_name"][0], "the folder bus, which is no part");
    // The run remembers it.
    rig.run("train --out b --resume --max-steps 2 --json").ok();
    rig.run(&format!("{train} --out d --data-layout some")).fails(2, &["--data-layout"]);
}

#[cfg(unix)]
#[test]
fn names_from_the_file_system_never_reach_a_terminal_raw() {
    let rig = Rig::new();
    std::fs::create_dir(rig.path("data/train/e\u{1b}[2Jl\nx")).unwrap();
    let ran = rig.run("train --config pretrain.toml --out run --max-steps 1").ok();
    assert!(ran.err.contains("1 folder without pictures (e"), "{}", ran.err);
    assert!(!ran.err.contains('\u{1b}') && !ran.err.contains("\nx)"), "{}", ran.err);
}

#[test]
fn what_is_kept_of_shards_is_told_and_deleted() {
    let rig = Rig::new();
    let kept = rig.run("data cache --json").ok().json();
    assert_eq!((kept["copies"].as_u64(), kept["cleared"].as_bool()), (Some(0), Some(false)), "{kept}");
    assert!(rig.run("data cache --clear").ok().out.contains("0 unpacked shards (0 MiB), 0 indexes (0 MiB): deleted"));
}

#[test]
fn labels_of_a_file_are_checked_before_a_run() {
    let rig = Rig::new();
    rig.write("labels.txt", "00.png sky\n01.png sea\n99.png sea\n");
    let checked = rig.run("data check data/train/red --labels labels.txt").ok();
    assert!(checked.err.contains("in 2 classes") && checked.err.contains("1 line for no picture (99.png)"), "{}", checked.err);
}
