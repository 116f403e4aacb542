//! What lies in a run's folder, or happens to it, that is not of the run: locks, links, FIFOs; a folder that goes away.

use crate::rig::Rig;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use swav_wgpu::train::checkpoint::Checkpoint;

const TRAIN: &str = "train --config pretrain.toml --out run -q";

#[test]
fn another_programs_lock_is_left_alone() {
    let rig = Rig::new();
    std::fs::create_dir(rig.path("run")).unwrap();
    rig.write("run/lock", "mine\n");
    for more in ["", " --resume"] {
        rig.run(&format!("{TRAIN}{more}")).fails(2, &["run/lock", "is of no run", "--out"]);
        assert_eq!(std::fs::read_to_string(rig.path("run/lock")).unwrap(), "mine\n");
        assert_eq!(std::fs::read_dir(rig.path("run")).unwrap().count(), 1);
    }
}

#[test]
fn links_are_not_followed() {
    let rig = Rig::new();
    rig.write("own", "mine\n");
    for name in ["metrics.jsonl", "config.toml", "events.jsonl", "lock"] {
        std::fs::create_dir(rig.path("run")).unwrap();
        symlink("../own", rig.path("run").join(name)).unwrap();
        for more in ["", " --resume"] {
            rig.run(&format!("{TRAIN}{more}")).fails(2, &[&format!("run/{name} is a link"), "--out"]);
        }
        assert_eq!(std::fs::read_to_string(rig.path("own")).unwrap(), "mine\n", "{name}");
        std::fs::remove_dir_all(rig.path("run")).unwrap();
    }
    // --out itself may be one.
    std::fs::create_dir(rig.path("elsewhere")).unwrap();
    symlink("elsewhere", rig.path("run")).unwrap();
    rig.run(&format!("{TRAIN} --max-steps 1")).ok();
    assert!(rig.path("elsewhere/metrics.jsonl").is_file());
}

#[test]
fn nobody_waits_for_a_fifo() {
    let rig = Rig::new();
    for name in ["metrics.jsonl", "config.toml", "lock"] {
        std::fs::create_dir(rig.path("run")).unwrap();
        assert!(Command::new("mkfifo").arg(rig.path("run").join(name)).status().unwrap().success());
        let began = Instant::now();
        for more in ["", " --resume"] {
            rig.run(&format!("{TRAIN}{more}")).fails(2, &[&format!("run/{name} is no regular file")]);
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        std::fs::remove_dir_all(rig.path("run")).unwrap();
    }
}

/// What was done is kept in a folder made anew; the one that was taken away is not touched.
#[test]
fn a_folder_that_goes_away_under_a_run_is_told_at_once() {
    let rig = Rig::new();
    let line = format!("{TRAIN} --set train.epochs=5000 --set checkpoint.every_steps=1");
    let mut child = rig.command(&line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while rig.checkpoints("run").is_empty() {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < end, "no checkpoint");
        std::thread::sleep(Duration::from_millis(10));
    }
    // In one step, as the run goes on writing there.
    std::fs::rename(rig.path("run"), rig.path("taken")).unwrap();
    let taken = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(taken.elapsed() < Duration::from_secs(5), "{:?}", taken.elapsed());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("error: cannot write run") && said.contains("it was removed or renamed while the run went on"), "{said}");
    assert!(said.contains("run was made anew, and holds the state after "), "{said}");
    let [file] = &rig.checkpoints("run")[..] else { panic!("one checkpoint: {said}") };
    let steps = Checkpoint::load(file).unwrap().step;
    rig.run(&format!("train --out run --resume -q --max-steps {}", steps + 1)).ok();
    assert!(!rig.checkpoints("taken").is_empty());
}
