use super::*;

#[test]
fn one_holder_and_no_overwriting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runs/a");
    let run = RunFolder::open(&path, false).unwrap();
    assert!(!run.holds_run());
    let busy = RunFolder::open(&path, true).unwrap_err();
    assert_eq!(busy.exit_code(), 9);
    assert!(busy.to_string().contains(&format!("process {}", std::process::id())), "{busy}");
    run.write_config("seed = 1\n").unwrap();
    let left = path.join(format!("{}x", atomic::TEMPORARY));
    std::fs::create_dir(&left).unwrap();
    drop(run);
    let taken = RunFolder::open(&path, false).unwrap_err();
    assert!(taken.exit_code() == 2 && taken.to_string().contains("--resume"), "{taken}");
    let run = RunFolder::open(&path, true).unwrap();
    assert!(run.holds_run() && !left.exists());
    assert_eq!(std::fs::read_to_string(run.config_path()).unwrap(), "seed = 1\n");
    assert!(run.checkpoints(2).unwrap().latest().unwrap().is_none());
}

#[test]
fn an_evaluation_may_be_repeated_until_it_is_complete_and_a_failed_start_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("linear");
    RunFolder::open_evaluation(&path).unwrap().write_config("kind = 'linear'").unwrap();
    drop(RunFolder::open_evaluation(&path).unwrap());
    std::fs::write(path.join("head.safetensors"), "").unwrap();
    assert_eq!(RunFolder::open_evaluation(&path).unwrap_err().exit_code(), 2);

    let run = RunFolder::open(dir.path().join("run"), false).unwrap();
    run.checkpoints(1).unwrap();
    run.abandon();
    assert!(!dir.path().join("run").exists());
    let run = RunFolder::open_evaluation(dir.path().join("other")).unwrap();
    run.write_config("kind = 'linear'").unwrap();
    drop(run);
    RunFolder::open_evaluation(dir.path().join("other")).unwrap().abandon();
    assert!(dir.path().join("other/config.toml").exists() && dir.path().join("other/lock").exists());
}

#[test]
fn what_is_not_of_a_run_of_this_kind_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |error: Error, words: &str| assert!(error.exit_code() == 2 && error.to_string().contains(words), "{error}");
    for name in WRITTEN_OVER {
        let path = dir.path().join(name.replace('.', "-"));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join(name), "kind = 'linear'").unwrap();
        if name != KERNELS {
            refused(RunFolder::open_evaluation(&path).unwrap_err(), name);
        }
        refused(RunFolder::open(&path, false).unwrap_err(), "is of no run");
        refused(RunFolder::open(&path, true).unwrap_err(), name);
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1, "a refusal leaves nothing");
        // Locks and checkpoints of other programs make it no run's.
        std::fs::write(path.join(LOCK), "4711").unwrap();
        std::fs::create_dir(path.join("checkpoints")).unwrap();
        std::fs::write(path.join("checkpoints/last.pt"), "").unwrap();
        refused(RunFolder::open(&path, true).unwrap_err(), "is of no run");
        // A copy of a run without its lock is one.
        std::fs::write(path.join("checkpoints/step-000000004.safetensors"), "").unwrap();
        std::fs::remove_file(path.join(LOCK)).unwrap();
        assert!(RunFolder::open(&path, true).unwrap().holds_run());
    }
    let path = dir.path().join("linear");
    RunFolder::open_evaluation(&path).unwrap().write_config("kind = 'linear'").unwrap();
    refused(RunFolder::open(&path, true).unwrap_err(), "holds an evaluation");
    let path = dir.path().join("run");
    RunFolder::open(&path, false).unwrap().write_config("seed = 1").unwrap();
    refused(RunFolder::open_evaluation(&path).unwrap_err(), "holds a run");
    drop(RunFolder::open(&path, true).unwrap());
}

#[test]
fn resume_of_nothing_starts_afresh_and_a_file_is_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!RunFolder::open(dir.path().join("new"), true).unwrap().holds_run());
    std::fs::write(dir.path().join("file"), "").unwrap();
    let error = RunFolder::open(dir.path().join("file"), false).unwrap_err();
    assert!(error.exit_code() == 5 && error.to_string().contains("file"), "{error}");
}
