//! Runs that end before they should: signals, kills, spoiled numbers.

use crate::rig::Rig;
use swav_wgpu::train::checkpoint::Checkpoint;

#[cfg(unix)]
#[test]
fn a_signal_stops_after_a_checkpoint() {
    let rig = Rig::new();
    let mut child = rig.start("run", 3, "");
    let sent = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(75));
    let [file] = &rig.checkpoints("run")[..] else { panic!("one checkpoint") };
    let steps = Checkpoint::load(file).unwrap().step;
    assert_eq!(rig.metric("run", "step").len() as u64, steps);
    rig.run(&format!("train --out run --resume -q --max-steps {}", steps + 2)).ok();
    let expected: Vec<String> = (0..steps + 2).map(|s| s.to_string()).collect();
    assert_eq!(rig.metric("run", "step"), expected);
}

#[test]
fn a_killed_run_goes_on_as_if_nothing_had_happened() {
    let rig = Rig::new();
    let every = "--set checkpoint.every_steps=1 --set checkpoint.keep=2";
    let mut child = rig.start("run", 6, every);
    // On Unix this is SIGKILL: nothing is cleaned up.
    child.kill().unwrap();
    child.wait().unwrap();
    let done = Checkpoint::load(rig.checkpoints("run").iter().rev().find(|f| f.extension().is_some_and(|e| e == "safetensors")).unwrap());
    let end = done.unwrap().step + 3;
    rig.run(&format!("train --out run --resume -q --max-steps {end}")).ok();
    rig.train("whole", &format!("--set train.epochs=5000 --max-steps {end}"));
    assert_eq!(rig.metric("run", "loss"), rig.metric("whole", "loss"));
    assert_eq!(rig.metric("run", "loss").len() as u64, end);
}

#[test]
fn spoiled_numbers_end_the_run_and_spare_the_checkpoint() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 2");
    let before = std::fs::read(&rig.checkpoints("run")[0]).unwrap();
    // A checkpoint after every step: none may hold what the first wrong update makes.
    let spoil = "--set optimizer.lr=1e30 --set schedule.min_lr=1e30 --set checkpoint.every_steps=1 --set checkpoint.keep=1";
    rig.run(&format!("train --config pretrain.toml --out run --resume -q {spoil}")).fails(6, &["not finite", "hint: "]);
    for file in rig.checkpoints("run") {
        let checkpoint = Checkpoint::load(&file).unwrap();
        let finite = |name: &str| {
            let tensor = checkpoint.tensor(name).unwrap();
            !tensor.bytes.len().is_multiple_of(4) || tensor.bytes.chunks_exact(4).all(|b| f32::from_le_bytes(b.try_into().unwrap()).is_finite())
        };
        assert!(checkpoint.names().filter(|n| !n.ends_with("tracked")).all(finite), "{file:?}");
    }
    assert!(std::fs::read(&rig.checkpoints("run")[0]).unwrap() == before);
    rig.run("eval-knn --weights run --json -q").ok();
    rig.train("run", "--resume");
    rig.train("whole", "");
    assert_eq!(rig.metric("run", "loss"), rig.metric("whole", "loss"));
}

#[cfg(unix)]
#[test]
fn an_evaluation_that_is_stopped_can_be_repeated_in_its_place() {
    let rig = Rig::new();
    let line = "eval-linear --config linear.toml --weights random:0 --out linear -q";
    let mut child = rig.command(&format!("{line} --set train.epochs=100000")).stderr(std::process::Stdio::null()).spawn().unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while rig.metric("linear", "step").len() < 5 {
        assert!(std::time::Instant::now() < end && child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    rig.run(line).ok();
    assert!(rig.path("linear/head.safetensors").is_file());
    rig.run(line).fails(2, &["linear", "--out"]);
}
