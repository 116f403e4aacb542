//! Faults on purpose (src/fault.rs): full disks, lost devices, no memory, spoiled numbers, disks that cannot be read.

use crate::rig::Rig;

const TRAIN: &str = "train --config pretrain.toml --out run --json -q";
const EVERY: &str = "--set checkpoint.every_steps=1 --set checkpoint.keep=9";

fn count(text: &str, words: &str) -> usize {
    text.matches(words).count()
}

/// The steps of the run's checkpoints, from their names.
fn kept(rig: &Rig) -> Vec<u64> {
    let step = |path: &std::path::PathBuf| path.file_stem()?.to_str()?.strip_prefix("step-")?.parse().ok();
    rig.checkpoints("run").iter().map(|path| step(path).unwrap_or_else(|| panic!("{path:?}"))).collect()
}

/// The losses of the run are those of one to which nothing happened.
#[track_caller]
fn as_if_nothing_had_happened(rig: &Rig, more: &str) {
    rig.train("whole", more);
    assert_eq!(rig.metric("run", "step"), (0..8).map(|s| s.to_string()).collect::<Vec<_>>());
    assert_eq!(rig.metric("run", "loss"), rig.metric("whole", "loss"));
}

#[test]
fn a_log_on_a_full_disk_goes_on_when_there_is_room() {
    let rig = Rig::new();
    let ran = rig.faulty("disk-full@step2-4=metrics.jsonl", TRAIN).ok();
    assert_eq!(count(&ran.err, "metrics.jsonl: the disk is full; the run goes on"), 1, "{}", ran.err);
    assert_eq!(count(&ran.err, "there is room on the disk again, and the log goes on: nothing is missing"), 1, "{}", ran.err);
    as_if_nothing_had_happened(&rig, "");
    // The other log tells of it too.
    let events = std::fs::read_to_string(rig.path("run/events.jsonl")).unwrap();
    assert_eq!(count(&events, "the disk is full; the run goes on"), 1, "{events}");
}

#[test]
fn a_log_that_stays_full_loses_its_end_and_says_so() {
    let rig = Rig::new();
    let ran = rig.faulty("disk-full@step6-=metrics.jsonl", TRAIN).ok();
    assert!(ran.err.contains("metrics.jsonl: what was last to be added to this log cannot be written, and is lost: "), "{}", ran.err);
    // Whole lines are left, and the state of the run is whole.
    let steps = rig.metric("run", "step");
    assert!(steps == (0..steps.len()).map(|s| s.to_string()).collect::<Vec<_>>() && (4..8).contains(&steps.len()), "{steps:?}");
    assert_eq!(kept(&rig), [8]);
}

#[test]
fn a_log_that_cannot_be_written_ends_the_run_with_its_state_kept() {
    let rig = Rig::new();
    rig.faulty("write-error@step3=metrics.jsonl", TRAIN).fails(5, &["run/metrics.jsonl", "write-error on purpose", "is lost: "]);
    assert_eq!(kept(&rig), [4]);
}

#[test]
fn a_checkpoint_on_a_full_disk_takes_the_room_of_older_ones() {
    let rig = Rig::new();
    let ran = rig.faulty("disk-full@step3=step-*1", &format!("{TRAIN} {EVERY}")).ok();
    assert_eq!(count(&ran.err, "the disk is full: step-000000001 removed to make room"), 1, "{}", ran.err);
    assert!(!ran.err.contains("without this checkpoint"), "{}", ran.err);
    assert_eq!(kept(&rig), [2, 3, 4, 5, 6, 7, 8]);
    as_if_nothing_had_happened(&rig, EVERY);
}

#[test]
fn a_run_goes_on_past_a_full_disk_and_keeps_a_good_checkpoint() {
    let rig = Rig::new();
    let ran = rig.faulty("disk-full@step3-4=step-", &format!("{TRAIN} {EVERY}")).ok();
    // All but the last good one go before the run goes on without.
    assert_eq!(count(&ran.err, "step-000000001, step-000000002 removed to make room"), 1, "{}", ran.err);
    for step in [4, 5] {
        let words = format!("cannot write run/checkpoints/step-00000000{step}.safetensors");
        assert_eq!(count(&ran.err, &words), 1, "{}", ran.err);
    }
    assert_eq!(count(&ran.err, "goes on without this checkpoint, the last is run/checkpoints/step-000000003.safetensors"), 2, "{}", ran.err);
    assert_eq!(kept(&rig), [3, 6, 7, 8]);
    as_if_nothing_had_happened(&rig, EVERY);
}

#[test]
fn what_cannot_be_flushed_or_named_is_no_checkpoint() {
    let rig = Rig::new();
    let ran = rig.faulty("fsync-error@step2=step-,rename-error@step4=step-", &format!("{TRAIN} {EVERY}")).ok();
    assert_eq!(count(&ran.err, "fsync-error on purpose; the run goes on without this checkpoint"), 1, "{}", ran.err);
    assert_eq!(count(&ran.err, "rename-error on purpose; the run goes on without this checkpoint"), 1, "{}", ran.err);
    // Nor is anything left of them.
    assert_eq!(kept(&rig), [1, 2, 4, 6, 7, 8]);
    assert_eq!(std::fs::read_dir(rig.path("run/checkpoints")).unwrap().count(), 6);
}

#[test]
fn a_last_checkpoint_that_cannot_be_written_is_an_error() {
    let rig = Rig::new();
    let words = ["cannot write run/checkpoints/step-000000008.safetensors", "no storage space"];
    rig.faulty("disk-full@step7=step-", TRAIN).fails(5, &words);
    assert!(kept(&rig).is_empty());
}

#[test]
fn the_loss_of_what_was_to_be_rescued_is_told() {
    let rig = Rig::new();
    // The run ends for one reason, and cannot be kept for another: both are told.
    let fault = "read-error@read=red/00.png,disk-full@step1-=step-";
    let ran = rig.faulty(fault, &format!("{TRAIN} --set data.bad=stop")).fails(4, &["red/00.png", "read-error on purpose (tried 3 times)"]);
    assert!(ran.err.contains("warning: checkpoint: the state after "), "{}", ran.err);
    assert!(ran.err.contains(" steps cannot be kept: cannot write run/checkpoints/step-"), "{}", ran.err);
    assert!(ran.err.contains("there is none yet") && kept(&rig).is_empty(), "{}", ran.err);
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_before_the_first_step() {
    let rig = Rig::new();
    rig.faulty("rename-error@start", TRAIN).fails(5, &["cannot write run/", "rename-error on purpose"]);
    assert!(!rig.path("run").exists(), "nothing is left of it");
    rig.run(&format!("{TRAIN} --max-steps 1")).ok();
}

/// A run that `fault` ends at step 3 with exit code `code` keeps its three checkpoints as they were, and goes on to the bit.
#[track_caller]
fn ends_at_step_3(fault: &str, code: i32, words: &[&str]) {
    let rig = Rig::new();
    rig.faulty(fault, &format!("{TRAIN} {EVERY}")).fails(code, words);
    assert_eq!(kept(&rig), [1, 2, 3]);
    let broken = rig.checkpoints("run").iter().map(|file| std::fs::read(file).unwrap()).collect::<Vec<_>>();
    rig.run("train --out run --resume -q").ok();
    as_if_nothing_had_happened(&rig, EVERY);
    let whole = rig.checkpoints("whole");
    assert!(broken.iter().zip(&whole).all(|(bytes, file)| *bytes == std::fs::read(file).unwrap()), "a checkpoint was spoiled");
    assert!(std::fs::read(&rig.checkpoints("run")[7]).unwrap() == std::fs::read(&whole[7]).unwrap());
}

#[test]
fn a_lost_device_ends_the_run_with_exit_code_8() {
    ends_at_step_3("device-lost@step3", 8, &["the GPU device was lost", "--resume"]);
}

#[test]
fn a_device_without_memory_ends_the_run_with_exit_code_7() {
    ends_at_step_3("out-of-memory@step3", 7, &["out of GPU memory", "batch 8 needs ", "hint: "]);
    // Before the first step nothing is left.
    let rig = Rig::new();
    rig.faulty("out-of-memory@buffer", TRAIN).fails(7, &["out of GPU memory"]);
    assert!(!rig.path("run").exists());
}

#[test]
fn a_weight_that_is_no_number_ends_the_run_in_its_step() {
    ends_at_step_3("nan@step3=layer2", 6, &["not finite at step 3", "what was saved before is untouched"]);
}

#[test]
fn a_panic_ends_the_run_and_frees_the_folder() {
    let rig = Rig::new();
    let ran = rig.faulty("panic@step3", &format!("{TRAIN} {EVERY}"));
    assert!(ran.code == Some(101) && ran.err.contains("panic at step 3"), "{:?} {}", ran.code, ran.err);
    assert_eq!(kept(&rig), [1, 2, 3]);
    rig.run("train --out run --resume -q").ok();
    as_if_nothing_had_happened(&rig, EVERY);
}

const HALVES: &str = "--set train.precision=f16 --set train.epochs=4";

#[test]
fn steps_that_overflow_are_told_as_they_begin_and_as_they_end() {
    let rig = Rig::new();
    let ran = rig.faulty("overflow@step6-9", &format!("{TRAIN} {EVERY} {HALVES}")).ok();
    assert_eq!(count(&ran.err, "were skipped because a gradient overflowed"), 1, "{}", ran.err);
    assert_eq!(count(&ran.err, " is done again; "), 1, "{}", ran.err);
    let told: Vec<f64> = rig.metric("run", "skipped_steps").iter().map(|s| s.parse().unwrap()).collect();
    assert!(told[9] - told[5] == 4.0 && ran.json()["skipped_steps"].as_f64() == told.last().copied(), "{told:?}");
    // No checkpoint is of a state that only skips led to.
    assert!(kept(&rig).iter().all(|step| !(7..=10).contains(step)), "{:?}", kept(&rig));
}

#[test]
fn a_run_that_overflows_to_its_end_has_failed_and_spares_what_is_good() {
    let rig = Rig::new();
    rig.train("run", &format!("{EVERY} {HALVES} --max-steps 6"));
    let good: Vec<(std::path::PathBuf, Vec<u8>)> =
        rig.checkpoints("run").into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect();
    assert!(!good.is_empty());
    rig.faulty("overflow@step6-", "train --out run --resume --json -q").fails(6, &["a gradient of each of the last ", "is not finite at step 15"]);
    let left: Vec<(std::path::PathBuf, Vec<u8>)> =
        rig.checkpoints("run").into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect();
    assert!(left == good, "checkpoints were touched: {:?}", kept(&rig));
}

#[test]
fn a_disk_that_fails_once_is_asked_again() {
    let rig = Rig::new();
    let ran = rig.faulty("read-error@read=red/00.png#1", TRAIN).ok();
    assert!(ran.json()["bad_images"] == 0 && !ran.err.contains("red/00.png: cannot be read"), "{}", ran.err);
    as_if_nothing_had_happened(&rig, "");
}

#[test]
fn a_file_that_cannot_be_read_is_a_bad_image_and_is_told() {
    let rig = Rig::new();
    let ran = rig.faulty("read-error@read=red/00.png", TRAIN).ok();
    assert_eq!(count(&ran.err, "red/00.png: cannot be read: read-error on purpose (tried 3 times); another image takes its place"), 1, "{}", ran.err);
    assert_eq!(ran.json()["bad_images"], 1);
    assert!(std::fs::read_to_string(rig.path("run/bad-images.txt")).unwrap().contains("red/00.png"));
}

#[test]
fn a_worker_that_panics_is_a_bad_image_and_is_told() {
    let rig = Rig::new();
    let ran = rig.faulty("panic@read=red/03.png", TRAIN).ok();
    assert_eq!(count(&ran.err, "red/03.png: a worker thread panicked over it; another image takes its place"), 1, "{}", ran.err);
    assert_eq!(ran.json()["bad_images"], 1);
}

#[test]
fn faults_are_announced_and_unknown_ones_refused() {
    let rig = Rig::new();
    for fault in ["fire@step1", "disk-full", "", "kill-in-checkpoint@noon"] {
        rig.faulty(fault, TRAIN).fails(2, &["SWAV_FAULT"]);
    }
    assert!(!rig.path("run").exists());
    let ran = rig.faulty("kill@step100", &format!("{TRAIN} --max-steps 1")).ok();
    assert_eq!(count(&ran.err, "warning: SWAV_FAULT is set, so things go wrong on purpose: kill@step100"), 1, "{}", ran.err);
}
