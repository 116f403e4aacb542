//! Stops while there is nothing to keep: kernels are compiled, files hang. The process ends within five seconds, whatever it waits for.

use crate::rig::Rig;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// By the shell's own `kill`: there may be no program of that name.
fn send(signal: &str, child: &Child) {
    assert!(Command::new("sh").args(["-c", &format!("kill {signal} {}", child.id())]).status().unwrap().success());
}

/// Starts `line`, waits for `ready` on stderr (or a while), sends the signal, and returns exit code and seconds until the end.
fn stopped(rig: &Rig, line: &str, ready: Option<&str>, signal: &str) -> (Option<i32>, f64) {
    let mut child = rig.command(line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(|l| l.ok());
    match ready {
        Some(words) => assert!(lines.any(|l| l.contains(words)), "{line} did not say {words}"),
        None => std::thread::sleep(Duration::from_millis(500)),
    }
    // The rest must be read, or the program waits for that.
    let rest = std::thread::spawn(move || lines.collect::<Vec<_>>());
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "{line} ended by itself");
    let asked = Instant::now();
    send(signal, &child);
    let code = child.wait().unwrap().code();
    let seconds = asked.elapsed().as_secs_f64();
    let said = rest.join().unwrap();
    assert!(said.iter().any(|l| l.starts_with("error: stopped by a signal")), "{line}: {said:?}");
    (code, seconds)
}

const LARGE: &str = "--set model.depth=50 --set model.width=64 --set crops.size=[224,96] --set train.batch=4 --set optimizer.lr=1";

/// The pipelines of a ResNet-50 and its first step: seconds to minutes, by the driver.
#[test]
fn compilation() {
    let rig = Rig::new();
    let large =
        std::fs::read_to_string(rig.path("pretrain.toml")).unwrap().replace("blocks = [1, 1, 1, 1]\nblock = \"basic\"\nwidth = 8", "depth = 50");
    rig.write("large.toml", large);
    let sizes = LARGE.trim_start_matches("--set model.depth=50 --set model.width=64 ");
    for (signal, tune) in [("-INT", ""), ("-TERM", "--tune full"), ("-USR1", "")] {
        let line = format!("train --config large.toml --out run --resume {sizes} {tune}");
        let (code, seconds) = stopped(&rig, &line, Some("device"), signal);
        assert!(code == Some(130) && seconds < 5.0, "{line}: {code:?} after {seconds} s");
        assert!(rig.checkpoints("run").is_empty());
    }
}

/// What was there before is kept: a run that goes on can go on again.
#[test]
fn compilation_of_a_run_that_goes_on() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 1");
    let before = rig.checkpoints("run");
    let fifo = rig.path("fifo.toml");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let (code, seconds) = stopped(&rig, "train --config fifo.toml --out run --resume", None, "-INT");
    assert!(code == Some(75) && seconds < 5.0, "{code:?} after {seconds} s");
    assert_eq!(rig.checkpoints("run"), before);
}

/// A FIFO that nobody writes stands for a disk that hangs.
#[test]
fn files_that_hang() {
    let rig = Rig::new();
    let fifo = |name: &str| assert!(Command::new("mkfifo").arg(rig.path(name)).status().unwrap().success());
    fifo("weights.safetensors");
    fifo("fifo.toml");
    for line in [
        "train --config fifo.toml --out run",
        "train --config pretrain.toml --out run --init weights.safetensors",
        "eval-linear --config linear.toml --weights weights.safetensors",
        "finetune --config fifo.toml --weights random",
        "clusters --weights weights.safetensors --data data --out gallery",
    ] {
        let (code, seconds) = stopped(&rig, line, None, "-TERM");
        assert!(code == Some(130) && seconds < 5.0, "{line}: {code:?} after {seconds} s");
        assert!(!rig.path("run").exists() && !rig.path("gallery").exists(), "{line}");
    }
    let left: Vec<_> = std::fs::read_dir(rig.path(".")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.starts_with(".swav-wgpu-tmp-")), "{left:?}");
}

/// In the middle of a run, when the queue begins: the steps before it are kept.
#[test]
fn compilation_for_the_queue() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use swav_wgpu::train::event::{Event, Observer};
    use swav_wgpu::train::pretrain::{Run, open_data, prepare, pretrain};
    /// Asks for a stop at the end of the first epoch.
    struct Asks(Arc<AtomicBool>);
    impl Observer for Asks {
        fn event(&mut self, event: &Event) -> swav_wgpu::Result<()> {
            if let Event::Epoch(_) = event {
                self.0.store(true, Ordering::Relaxed);
            }
            Ok(())
        }
    }
    let rig = Rig::new();
    let queue = ["queue.length=16", "queue.start_epoch=1"].map(str::to_owned);
    let (config, _) = swav_wgpu::train::config::PretrainConfig::load(rig.path("pretrain.toml"), &queue).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let gpu = swav_wgpu::gpu::Gpu::open(None).unwrap().until(stop.clone());
    let folder = swav_wgpu::train::run_folder::RunFolder::open(rig.path("run"), false).unwrap();
    let run = Run { gpu: &gpu, variants: &swav_wgpu::tune::BestGuess, folder: Some(&folder), max_steps: None, allow_data_change: false, stop: &stop };
    let prepared = prepare(&config, &run, open_data(&config).unwrap(), None).unwrap();
    let finished = pretrain(&config, &run, prepared, &mut Asks(stop.clone())).unwrap();
    assert!(finished.stopped && finished.steps == 4, "{finished:?}");
    assert_eq!(finished.checkpoint.as_deref(), Some(&*rig.checkpoints("run")[0]));
}
