//! A long run takes no more memory and keeps no more files open than a short one.

use crate::rig::Rig;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Steps in all, and those before the first look: pools and caches have filled by then.
const STEPS: usize = 10_000;
const BEFORE: usize = 2_000;

/// Kibibytes that a process has in memory, and its open files.
fn size(process: u32) -> Option<(u64, usize)> {
    let of = Path::new("/proc").join(process.to_string());
    let status = std::fs::read_to_string(of.join("status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some((resident, std::fs::read_dir(of.join("fd")).ok()?.count()))
}

/// `cargo test --release --test cli -- --ignored --nocapture soak`
#[test]
#[ignore = "takes minutes"]
#[expect(clippy::print_stdout, reason = "what was seen")]
fn a_long_run_does_not_grow() {
    let rig = Rig::new();
    let line = format!("train --config pretrain.toml --out run -q --set train.epochs={} --set checkpoint.every_epochs=250", STEPS / 4);
    let mut child = rig.command(&line).stdout(Stdio::null()).spawn().unwrap();
    let (mut early, mut late, mut looked) = (None, None, 0);
    let end = Instant::now() + Duration::from_secs(1800);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "it takes too long");
        let seen = size(child.id());
        let log = std::fs::read(rig.path("run/metrics.jsonl")).unwrap_or_default();
        let steps = log.iter().filter(|byte| **byte == b'\n').count();
        if let Some(seen) = seen.filter(|_| steps >= BEFORE) {
            early.get_or_insert(seen);
            // The report at the end is none of a step's.
            if steps < STEPS - 50 {
                late = Some(seen);
                looked += 1;
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(child.wait().unwrap().success() && looked > 9);
    let ((before, files_before), (after, files_after)) = (early.unwrap(), late.unwrap());
    println!("{before} KiB and {files_before} files after {BEFORE} steps, {after} KiB and {files_after} files after {STEPS}");
    assert!(files_after <= files_before && after <= before + before / 100, "{early:?} {late:?}");
}
