//! Kills, as a power cut would end the process, at every step and at every point of writing a checkpoint: a run that is continued after
//! each ends in the same bytes as one that was never interrupted.

use crate::rig::Rig;
use serde_json::Value;
use swav_wgpu::fault::POINTS;
use swav_wgpu::train::checkpoint::Checkpoint;

const EVERY: &str = "--set checkpoint.every_steps=1 --set checkpoint.keep=2";

/// Kills a run of so many epochs by each of `faults` in turn, goes on after each, and compares its end with that of a run that nobody killed.
fn killed_by(faults: &[String], epochs: u64) {
    let rig = Rig::new();
    let line = format!("train --config pretrain.toml --out run -q {EVERY} --set train.epochs={epochs}");
    for (i, fault) in faults.iter().enumerate() {
        let ran = rig.faulty(fault, &format!("{line}{}", if i > 0 { " --resume" } else { "" }));
        assert_eq!(ran.code, None, "{fault} killed nothing: {}", ran.err);
        assert!(!ran.err.contains("error: "), "{fault}: {}", ran.err);
        let good = rig
            .checkpoints("run")
            .iter()
            .filter(|file| file.extension().is_some())
            .map(|file| Checkpoint::load(file).map(|c| c.step))
            .collect::<Vec<_>>();
        assert!(!good.is_empty() && good.iter().all(Result::is_ok), "after {fault}: {good:?}");
    }
    let last = rig.run(&format!("{line} --resume")).ok();
    assert!(last.err.is_empty(), "{}", last.err);
    rig.train("whole", &format!("{EVERY} --set train.epochs={epochs}"));
    let [run, whole] = ["run", "whole"].map(|out| {
        let files = rig.checkpoints(out);
        // Temporary files are gone.
        assert_eq!(files.len(), 2, "{files:?}");
        let bytes: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_owned()).collect();
        (names, bytes)
    });
    assert_eq!(run.0, whole.0);
    assert!(run.1 == whole.1, "the checkpoints differ");
    assert_eq!(metrics(&rig, "run"), metrics(&rig, "whole"));
}

/// Every line but for what the clock says.
fn metrics(rig: &Rig, out: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(rig.path(out).join("metrics.jsonl")).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        assert!(line.remove("images_per_second").is_some() && line.remove("data_wait_ms").is_some());
    }
    lines
}

/// The second checkpoint of each start: the one before it is good.
#[test]
fn a_run_killed_at_any_point_of_a_checkpoint_goes_on_to_the_bit() {
    let faults: Vec<String> = POINTS.iter().map(|point| format!("kill-in-checkpoint@{point}#2")).collect();
    killed_by(&faults, 4);
}

#[test]
fn a_run_killed_before_its_first_checkpoint_starts_again() {
    let rig = Rig::new();
    let line = format!("train --config pretrain.toml --out run -q {EVERY}");
    assert_eq!(rig.faulty("kill-in-checkpoint@half-written", &line).code, None);
    let again = rig.run(&format!("{line} --resume")).ok();
    assert!(
        again.err.contains("run holds no checkpoint: the run starts again; the metrics before are in run/metrics.before-1.jsonl"),
        "{}",
        again.err
    );
    rig.train("whole", EVERY);
    assert_eq!(metrics(&rig, "run"), metrics(&rig, "whole"));
}

/// A kill before each of 92 steps, and among them one at each of the 8 points of writing a checkpoint. It takes a minute or two:
///
/// `cargo test --release --test cli -- --ignored hundred_kills`
#[test]
#[ignore = "takes minutes"]
fn hundred_kills() {
    let mut points = POINTS.iter();
    let faults: Vec<String> = (1..=92)
        .flat_map(|step| {
            let point = if step % 11 == 5 { points.next() } else { None };
            point.map(|point| format!("kill-in-checkpoint@{point}")).into_iter().chain([format!("kill@step{step}")])
        })
        .collect();
    assert!(faults.len() == 100 && points.next().is_none());
    killed_by(&faults, 24);
}
