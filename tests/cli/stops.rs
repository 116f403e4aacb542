//! Runs that end before they should: signals, kills, spoiled numbers.

use crate::rig::Rig;
use swav_wgpu::train::checkpoint::Checkpoint;

#[cfg(unix)]
#[test]
fn a_signal_stops_after_a_checkpoint() {
    let rig = Rig::new();
    let line = "train --config pretrain.toml --out run -q --json --set train.epochs=5000";
    let stopped = interrupted(&rig, line, "run", 3);
    assert_eq!(stopped.status.code(), Some(75));
    let [file] = &rig.checkpoints("run")[..] else { panic!("one checkpoint") };
    let steps = Checkpoint::load(file).unwrap().step;
    assert_eq!(rig.metric("run", "step").len() as u64, steps);
    let said: serde_json::Value = serde_json::from_slice(&stopped.stdout).unwrap();
    assert!(said["stopped"] == true && said["steps"] == steps && said["epochs"] == steps / 4, "{said}");
    assert!(rig.path(said["checkpoint"].as_str().unwrap()) == *file && said["loss"].as_f64().unwrap() > 0.0, "{said}");
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

/// A ReLU makes 0 of what is not a number, so that losses stay finite: the gradients tell at once, not the next checkpoint.
#[test]
fn spoiled_gradients_end_the_run_in_their_step() {
    let rig = Rig::new();
    let spoil = "--set optimizer.lr=1e30 --set schedule.min_lr=1e30 --set train.epochs=12";
    rig.run(&format!("train --config pretrain.toml --out run -q {spoil}")).fails(6, &["not finite at step 1\n", "hint: "]);
    // The logs say so too.
    for (file, words) in [("report.html", "failed: "), ("events.jsonl", "\"failed\"")] {
        let text = std::fs::read_to_string(rig.path(&format!("run/{file}"))).unwrap();
        assert!(text.contains(words) && text.contains("is not finite at step 1"), "{file}: {text}");
    }
    let deepcluster = "--set method=deepcluster-v2";
    rig.run(&format!("train --config pretrain.toml --out other -q {spoil} {deepcluster}")).fails(6, &["not finite at step 1\n"]);
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
            name.starts_with("epoch/")
                || !tensor.bytes.len().is_multiple_of(4)
                || tensor.bytes.chunks_exact(4).all(|b| f32::from_le_bytes(b.try_into().unwrap()).is_finite())
        };
        assert!(checkpoint.names().filter(|n| !n.ends_with("tracked")).all(finite), "{file:?}");
    }
    assert!(std::fs::read(&rig.checkpoints("run")[0]).unwrap() == before);
    rig.run("eval-knn --weights run --json -q").ok();
    rig.train("run", "--resume");
    rig.train("whole", "");
    assert_eq!(rig.metric("run", "loss"), rig.metric("whole", "loss"));
}

/// By the shell's own `kill`: there may be no program of that name.
#[cfg(unix)]
fn send(signal: &str, child: &std::process::Child) {
    assert!(std::process::Command::new("sh").args(["-c", &format!("kill {signal} {}", child.id())]).status().unwrap().success());
}

/// Starts `line`, interrupts it once `out` has its configuration and the metrics of `steps` steps, and waits for its end.
#[cfg(unix)]
fn interrupted(rig: &Rig, line: &str, out: &str, steps: usize) -> std::process::Output {
    let mut child = rig.command(line).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !rig.path(out).join("config.toml").is_file() || rig.steps(out) < steps {
        if std::time::Instant::now() > end || child.try_wait().unwrap().is_some() {
            child.kill().unwrap();
            panic!("{line} ended before step {steps}: {}", String::from_utf8_lossy(&child.wait_with_output().unwrap().stderr));
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    send("-INT", &child);
    child.wait_with_output().unwrap()
}

#[cfg(unix)]
#[test]
fn an_evaluation_that_is_stopped_keeps_what_it_has_and_can_be_repeated_in_its_place() {
    let rig = Rig::new();
    for (command, files) in [("eval-linear", &["head"][..]), ("finetune", &["head", "model"])] {
        let line = format!("{command} --config linear.toml --weights random:0 --out {command} -q");
        let stopped = interrupted(&rig, &format!("{line} --json --set train.epochs=100000"), command, 12);
        assert_eq!(stopped.status.code(), Some(75), "{}", String::from_utf8_lossy(&stopped.stderr));
        let result: serde_json::Value = serde_json::from_slice(&stopped.stdout).unwrap();
        assert!(result["stopped"] == true && result["epochs"].as_u64().unwrap() >= 1, "{result}");
        assert_eq!(result["head"], format!("{command}/partial-head.safetensors"));
        assert!(files.iter().all(|name| rig.path(&format!("{command}/partial-{name}.safetensors")).is_file()));
        let image = std::fs::read_dir(rig.path("data/val/red")).unwrap().next().unwrap().unwrap().path();
        let predict = format!("predict --weights random-is-not-read --head {command} {}", image.display());
        rig.run(&predict).fails(2, &[command, "holds no finished head", "partial-head.safetensors"]);
        let before = ["metrics.jsonl", "config.toml"].map(|name| std::fs::read(rig.path(&format!("{command}/{name}"))).unwrap());
        rig.run(&format!("train --config pretrain.toml --resume --out {command}")).fails(2, &[command, "holds an evaluation"]);
        let again = rig.run(&line).ok();
        assert!(again.err.contains(&format!("{command} holds an evaluation that was cut short")), "{}", again.err);
        let aside = ["metrics.before-1.jsonl", "config.before-1.toml"].map(|name| std::fs::read(rig.path(&format!("{command}/{name}"))).unwrap());
        assert_eq!(aside, before);
        for name in files {
            assert!(!rig.path(&format!("{command}/partial-{name}.safetensors")).exists(), "a whole one has taken its place");
            assert!(rig.path(&format!("{command}/partial-{name}.before-1.safetensors")).is_file());
            assert!(rig.path(&format!("{command}/{name}.safetensors")).is_file());
        }
        rig.run(&line).fails(2, &[command, "--out"]);
    }
}

/// Between the epochs too, where each is a single step.
#[cfg(unix)]
#[test]
fn an_evaluation_of_single_steps_is_stopped() {
    let rig = Rig::new();
    let line = "eval-linear --config linear.toml --weights random:0 --out linear -q --set train.batch=1000 --set train.epochs=100000";
    let stopped = interrupted(&rig, line, "linear", 3);
    assert_eq!(stopped.status.code(), Some(75), "{}", String::from_utf8_lossy(&stopped.stderr));
}

/// What is measured before the first step may take minutes: a signal ends that too, and what was measured is kept.
#[cfg(unix)]
#[test]
fn a_signal_ends_the_measuring_of_kernels() {
    use std::io::{BufRead, BufReader};
    let rig = Rig::new();
    let line = "train --config pretrain.toml --out run --tune full --tune-seconds 1000 --set train.epochs=5000";
    let mut child = rig.command(line).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(|l| l.ok());
    let first = lines.find(|l| l.starts_with("tuning 1/")).unwrap();
    send("-INT", &child);
    let measured = 1 + lines.filter(|l| l.starts_with("tuning ")).count();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let all: usize = first["tuning 1/".len()..].split(':').next().unwrap().parse().unwrap();
    assert!(measured < all, "{measured} of {all} shapes");
    // Nothing was done yet: the kernels are not settled, and nothing is left behind.
    assert!(!rig.path("run").exists());
    let again = rig.run("train --config pretrain.toml --out run --resume --max-steps 1 --tune full --tune-seconds 0").ok();
    assert!(again.err.contains(&format!("{} shapes keep the best guess", all - measured)), "{}", again.err);
}

#[cfg(unix)]
#[test]
fn an_evaluation_that_is_stopped_in_its_first_epoch_has_nothing_to_keep() {
    let rig = Rig::new();
    // An epoch of 36 steps with augmentation, and features before it: longer than the signal takes.
    let slow = "--set train.batch=1 --set augment.enabled=true --set image.size=96 --set train.epochs=1000";
    let stopped = interrupted(&rig, &format!("eval-linear --config linear.toml --weights random:0 --out linear -q {slow}"), "linear", 0);
    assert_eq!(stopped.status.code(), Some(130), "{}", String::from_utf8_lossy(&stopped.stderr));
    assert!(stopped.stdout.is_empty() && !rig.path("linear/partial-head.safetensors").exists());
    // Nor are all features computed first, which could take hours.
    let slow = "--set augment.enabled=false --set image.size=224";
    let stopped = interrupted(&rig, &format!("eval-linear --config linear.toml --weights random:0 --out other -q {slow}"), "other", 0);
    assert_eq!(stopped.status.code(), Some(130), "{}", String::from_utf8_lossy(&stopped.stderr));
    let told = std::fs::read_to_string(rig.path("other/events.jsonl")).unwrap_or_default();
    assert!(!told.contains("\"started\""), "{told}");
}

/// Starts `clusters` into the run's folder and waits until its own temporary folder is there.
#[cfg(unix)]
fn clusters(rig: &Rig) -> (std::process::Child, std::path::PathBuf) {
    let mut child = rig.command("clusters --weights run --data data --out run/gallery -q").spawn().unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        if let Some(temporary) = temporary(rig) {
            return (child, temporary);
        }
        assert!(std::time::Instant::now() < end && child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

#[cfg(unix)]
fn temporary(rig: &Rig) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(rig.path("run")).unwrap().map(|e| e.unwrap());
    entries.into_iter().find(|e| e.file_name().to_string_lossy().starts_with(".swav-wgpu-tmp-")).map(|e| e.path())
}

#[cfg(unix)]
#[test]
fn clusters_that_are_stopped_leave_nothing_and_killed_ones_are_in_nobodys_way() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 1");
    for signal in ["-INT", "-TERM"] {
        let (mut child, _) = clusters(&rig);
        send(signal, &child);
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!(temporary(&rig).is_none() && !rig.path("run/gallery").exists());
    }
    let (mut child, left) = clusters(&rig);
    child.kill().unwrap();
    child.wait().unwrap();
    rig.write("run/.tmp-notes", "the user's own");
    // What a living process makes, here this one, stays.
    let making = swav_wgpu::atomic::NewFolder::begin(&rig.path("run/other")).unwrap();
    rig.train("run", "--resume --max-steps 2");
    assert!(!left.exists() && making.path().is_dir() && rig.path("run/.tmp-notes").is_file());
}

#[test]
fn a_run_with_nothing_left_to_do_says_where_it_stands() {
    let rig = Rig::new();
    let first = rig.train("run", "--max-steps 3");
    let config = std::fs::read(rig.path("run/config.toml")).unwrap();
    let again = rig.run("train --out run --resume --json --max-steps 2 --set optimizer.lr=1.0").ok();
    assert!(again.err.contains("nothing to do: 3 steps"), "{}", again.err);
    let again = again.json();
    assert!(again["steps"] == 3 && again["checkpoint"] == first["checkpoint"] && !first["checkpoint"].is_null(), "{again}");
    assert!(std::fs::read(rig.path("run/config.toml")).unwrap() == config, "no step ran with the new rate");
    // The end of an epoch leaves no step of which to tell: the epoch's loss it is.
    let (whole, again) = (rig.train("whole", ""), rig.train("whole", "--resume"));
    assert!(again["loss"] == whole["loss"] && whole["loss"].as_f64().unwrap() > 0.0, "{again}");
}

#[test]
fn a_run_that_lost_its_checkpoints_starts_again_and_keeps_its_metrics() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 3");
    std::fs::remove_dir_all(rig.path("run/checkpoints")).unwrap();
    let again = rig.run("train --out run --resume -q --max-steps 2").ok();
    assert!(again.err.contains("warning: run holds no checkpoint"), "{}", again.err);
    assert_eq!(rig.metric("run", "step").len(), 2);
    let before = std::fs::read_to_string(rig.path("run/metrics.before-1.jsonl")).unwrap();
    assert_eq!(before.lines().count(), 3);
}

/// Numbers of an epoch are those of all its steps, wherever it was interrupted.
#[test]
fn an_interrupted_epoch_counts_as_a_whole() {
    let rig = Rig::new();
    let cut = rig.train("cut", "--max-steps 1");
    assert_eq!(cut["loss"].to_string(), rig.metric("cut", "loss")[0]);
    let [resumed, whole] = [rig.train("cut", "--resume"), rig.train("whole", "")];
    assert_eq!(resumed["loss"], whole["loss"]);
    assert_eq!((ends(&rig, "cut"), ends(&rig, "cut").len()), (ends(&rig, "whole"), 2));
}

/// What a run told of its epochs.
fn ends(rig: &Rig, out: &str) -> Vec<[String; 3]> {
    let text = std::fs::read_to_string(rig.path(out).join("events.jsonl")).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    events.filter(|e| e["event"] == "epoch").map(|e| ["loss", "prototypes_used", "code_entropy"].map(|key| e[key].to_string())).collect()
}

/// What spoils an input or an output is no reason to lose steps.
#[test]
fn steps_are_kept_when_an_image_or_a_log_fails() {
    use swav_wgpu::error::{Error, Result};
    use swav_wgpu::train::event::{Event, Observer};
    let rig = Rig::new();
    let data = rig.path("data/train/red/00.png");
    let image = std::fs::read(&data).unwrap();
    std::fs::write(&data, &image[..image.len() / 2]).unwrap();
    rig.run("train --config pretrain.toml --out run -q --set checkpoint.every_epochs=0 --set seed=3 --set data.bad=stop").fails(4, &["00.png"]);
    let steps = rig.steps("run") as u64;
    let kept: Vec<u64> = rig.checkpoints("run").iter().map(|file| Checkpoint::load(file).unwrap().step).collect();
    assert!(steps > 0 && kept == [steps], "{steps} steps, kept {kept:?}");
    std::fs::write(&data, &image).unwrap();
    rig.run("train --out run --resume -q").ok();

    struct Full;
    impl Observer for Full {
        fn event(&mut self, event: &Event) -> Result<()> {
            let full = matches!(event, Event::Step(step) if step.step >= 2);
            if full { Err(Error::output("metrics.jsonl")(std::io::ErrorKind::StorageFull.into())) } else { Ok(()) }
        }
    }
    pretrain_observed(&rig, "pretrain.toml", "full", &mut Full);
    // The step after the one whose log failed was under way. It ended an epoch, of which the next knows nothing.
    assert_eq!(rig.checkpoints("full").iter().map(|file| Checkpoint::load(file).unwrap().step).collect::<Vec<_>>(), [4]);
    let config = rig.text("pretrain.toml");
    rig.run(&format!("train --config {config} --out full --resume -q")).ok();
    rig.train("whole", "");
    assert_eq!(ends(&rig, "full"), ends(&rig, "whole")[1..]);
}

/// A checkpoint in mid-run that cannot be written is warned of, and the next one is tried again.
#[test]
fn a_run_goes_on_where_a_checkpoint_cannot_be_written() {
    use swav_wgpu::error::{Error, Result};
    use swav_wgpu::train::event::{Event, Observer};
    let rig = Rig::new();
    /// Puts the folder of checkpoints away after step 1 and back after step 3, and fails at step 6.
    struct Away(std::path::PathBuf, Vec<String>);
    impl Observer for Away {
        fn event(&mut self, event: &Event) -> Result<()> {
            let (here, away) = (self.0.join("checkpoints"), self.0.join("away"));
            match event {
                Event::Step(step) if step.step == 1 => {
                    std::fs::rename(&here, &away).unwrap();
                    std::fs::write(&here, "").unwrap();
                }
                Event::Step(step) if step.step == 3 => {
                    std::fs::remove_file(&here).unwrap();
                    std::fs::rename(&away, &here).unwrap();
                }
                Event::Step(step) if step.step == 6 => return Err(Error::output("metrics.jsonl")(std::io::ErrorKind::StorageFull.into())),
                Event::Warning(warning) => self.1.push(warning.to_string()),
                _ => {}
            }
            Ok(())
        }
    }
    let mut away = Away(rig.path("run"), Vec::new());
    rig.write("often.toml", format!("{}\n[checkpoint]\nevery_steps = 1\nkeep = 9\n", std::fs::read_to_string(rig.path("pretrain.toml")).unwrap()));
    pretrain_observed(&rig, "often.toml", "run", &mut away);
    let steps: Vec<u64> = rig.checkpoints("run").iter().map(|file| Checkpoint::load(file).unwrap().step).collect();
    assert_eq!(steps, [1, 4, 5, 6, 7], "{:?}", away.1);
    assert!(away.1.len() == 2 && away.1[0].contains("cannot write") && away.1[0].contains("step-000000001.safetensors"), "{:?}", away.1);
}

/// An epoch whose end could not be written down is not told again without what it added up to.
#[test]
fn an_epoch_is_told_once() {
    use swav_wgpu::error::{Error, Result};
    use swav_wgpu::train::event::{Event, Observer};
    let rig = Rig::new();
    struct Full(Vec<Option<u64>>);
    impl Observer for Full {
        fn event(&mut self, event: &Event) -> Result<()> {
            let Event::Epoch(epoch) = event else { return Ok(()) };
            self.0.push(epoch.prototypes_used);
            Err(Error::output("events.jsonl")(std::io::ErrorKind::StorageFull.into()))
        }
    }
    let mut full = Full(Vec::new());
    pretrain_observed(&rig, "pretrain.toml", "full", &mut full);
    assert!(full.0.len() == 1 && full.0[0] > Some(0), "{:?}", full.0);
    assert_eq!(rig.checkpoints("full").iter().map(|file| Checkpoint::load(file).unwrap().step).collect::<Vec<_>>(), [4]);
}

/// Runs a configuration into `out` with an observer that ends it.
fn pretrain_observed(rig: &Rig, config: &str, out: &str, observer: &mut dyn swav_wgpu::train::event::Observer) {
    use swav_wgpu::train::pretrain::{Run, open_data, prepare, pretrain};
    let (config, _) = swav_wgpu::train::config::PretrainConfig::load(rig.path(config), &[]).unwrap();
    let gpu = swav_wgpu::gpu::Gpu::open(None).unwrap();
    let folder = swav_wgpu::train::run_folder::RunFolder::open(rig.path(out), false).unwrap();
    let run = Run {
        gpu: &gpu,
        variants: &swav_wgpu::tune::BestGuess,
        folder: Some(&folder),
        max_steps: None,
        allow_data_change: false,
        stop: &false.into(),
    };
    let prepared = prepare(&config, &run, open_data(&config).unwrap(), None).unwrap();
    let failed = pretrain(&config, &run, prepared, observer).unwrap_err();
    assert!(matches!(failed, swav_wgpu::error::Error::Output { .. }), "{failed}");
}

/// What an evaluation has is told and kept, whatever becomes of a later epoch.
#[test]
fn an_evaluation_that_fails_keeps_its_best_epoch() {
    let rig = Rig::new();
    // Weights grow a millionfold in each step: a few epochs later the loss is no number.
    let spoil = "--set optimizer.lr=1000 --set optimizer.weight_decay=1000 --set train.epochs=50";
    let ran = rig.run(&format!("eval-linear --config linear.toml --weights random:0 --out linear --json -q {spoil}"));
    let result: serde_json::Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {} {}", ran.out, ran.err));
    assert!(result["stopped"] == true && result["epochs"].as_u64().unwrap() >= 1, "{result}");
    let head = std::fs::read(rig.path("linear/partial-head.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&head).unwrap();
    let values = tensors.tensor("fc.weight").unwrap();
    assert!(values.data().chunks_exact(4).all(|b| f32::from_le_bytes(b.try_into().unwrap()).is_finite()));
    ran.fails(6, &["of linear is not finite", "hint: "]);
    // The logs say what ended it, and so they do where it never came to an epoch: each once.
    let failures = |folder: &str| std::fs::read_to_string(rig.path(&format!("{folder}/events.jsonl"))).unwrap().matches("\"failed\"").count();
    assert_eq!(failures("linear"), 1);
    std::fs::write(rig.path("data/val/red/00.png"), b"no image").unwrap();
    rig.run("eval-linear --config linear.toml --weights random:0 --out spoilt -q").fails(4, &["data/val/red/00.png"]);
    assert_eq!(failures("spoilt"), 1);
    assert!(std::fs::read_to_string(rig.path("spoilt/report.html")).unwrap().contains("failed: "));
}
