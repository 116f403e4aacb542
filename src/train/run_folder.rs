//! The folder of one run: `config.toml`, `kernels.json`, `metrics.jsonl`, TensorBoard events, `checkpoints/`, `report.html`.
//!
//! Promises: one process at a time (the lock goes with the process, even if it is killed); a run that is there is never written over
//! unless it is continued; a folder that cannot be written is refused before the first step.

use super::checkpoint::CheckpointStore;
use super::metrics_log::MetricsLog;
use crate::atomic;
use crate::error::{Error, Result};
use crate::gpu::AdapterDescription;
use crate::graph::Choices;
use serde_json::json;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// An exclusively held run folder.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    holds_run: bool,
    created: bool,
    _lock: File,
}

impl RunFolder {
    /// Creates the folder if need be and takes hold of it. With `resume` a run that is there is continued (none there is no error:
    /// a batch job may always say `--resume`); without, it is refused.
    pub fn open(path: impl Into<PathBuf>, resume: bool) -> Result<Self> {
        let this = Self::hold(path.into(), &["config.toml", "checkpoints", "metrics.jsonl"])?;
        if this.holds_run && !resume {
            let message = format!("{} holds a run already: continue it with --resume, or choose another --out", this.path.display());
            return Err(Error::Usage(message));
        }
        atomic::remove_leftovers(&this.path);
        Ok(this)
    }

    /// As [`open`](Self::open) for an evaluation, which cannot be continued: one that was cut short may be repeated in its place, but a
    /// complete one or a training run is left alone.
    pub fn open_evaluation(path: impl Into<PathBuf>) -> Result<Self> {
        let this = Self::hold(path.into(), &["checkpoints", "head.safetensors"])?;
        if this.holds_run {
            return Err(Error::Usage(format!("{} holds a run already: choose another --out", this.path.display())));
        }
        atomic::remove_leftovers(&this.path);
        Ok(this)
    }

    /// Creates the folder if need be and takes hold of it; it holds a run when any of `signs` is there.
    fn hold(path: PathBuf, signs: &[&str]) -> Result<Self> {
        let created = !path.exists();
        std::fs::create_dir_all(&path).map_err(Error::output(&path))?;
        let lock = lock(&path)?;
        let holds_run = signs.iter().any(|sign| path.join(sign).exists());
        Ok(Self { path, holds_run, created, _lock: lock })
    }

    /// Gives up before the first step: removes what opening and preparing made, so that a corrected command can use the same folder.
    pub fn abandon(self) {
        if !self.holds_run {
            // What cannot be removed is not empty or not ours: it stays.
            let _ = std::fs::remove_dir(self.path.join("checkpoints"));
            let _ = std::fs::remove_file(self.path.join("lock"));
            if self.created {
                let _ = std::fs::remove_dir(&self.path);
            }
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there was a run in it when it was opened.
    pub fn holds_run(&self) -> bool {
        self.holds_run
    }

    /// `config.toml`, where the resolved configuration is.
    pub fn config_path(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// Writes `config.toml`.
    pub fn write_config(&self, toml: &str) -> Result<()> {
        atomic::write(&self.config_path(), toml.as_bytes())
    }

    /// Writes `kernels.json`: the adapter and the kernel variants that the run uses on it, by op and shape.
    pub fn write_kernels(&self, adapter: &AdapterDescription, choices: &Choices) -> Result<()> {
        let record = json!({"adapter": adapter.name, "driver": adapter.driver, "backend": adapter.backend, "kernels": choices});
        atomic::write(&self.path.join("kernels.json"), format!("{record:#}\n").as_bytes())
    }

    /// The checkpoints, of which the newest `keep` stay.
    pub fn checkpoints(&self, keep: usize) -> Result<CheckpointStore> {
        CheckpointStore::open(self.path.join("checkpoints"), keep)
    }

    /// Gives `metrics.jsonl` and `events.jsonl` of a run that cannot be continued other names, where there are any metrics; returns that of the
    /// metrics.
    pub fn set_metrics_aside(&self) -> Result<Option<PathBuf>> {
        let path = |name: &str| self.path.join(name);
        if !std::fs::metadata(path("metrics.jsonl")).is_ok_and(|about| about.len() > 0) {
            return Ok(None);
        }
        let number = (1..).find(|n| !path(&format!("metrics.before-{n}.jsonl")).exists()).unwrap_or(u32::MAX);
        for name in ["events", "metrics"].into_iter().filter(|name| path(&format!("{name}.jsonl")).exists()) {
            let aside = path(&format!("{name}.before-{number}.jsonl"));
            std::fs::rename(path(&format!("{name}.jsonl")), &aside).map_err(Error::output(&aside))?;
        }
        Ok(Some(path(&format!("metrics.before-{number}.jsonl"))))
    }

    /// `metrics.jsonl`, a line a step, going on from `start_step`.
    pub fn metrics(&self, start_step: u64) -> Result<MetricsLog> {
        MetricsLog::open(self.path.join("metrics.jsonl"), start_step)
    }

    /// `events.jsonl`: epochs, evaluations, warnings; going on from `start_step`.
    pub fn events(&self, start_step: u64) -> Result<MetricsLog> {
        MetricsLog::open(self.path.join("events.jsonl"), start_step)
    }
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(Error::output(&path))?;
    match file.try_lock() {
        Ok(()) => {
            let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "process {}", std::process::id()));
            written.map_err(Error::output(&path))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let known = (&file).take(100).read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = if known { holder.trim().to_owned() } else { "unknown process".to_owned() };
            Err(Error::Busy { path: folder.to_owned(), holder })
        }
        Err(TryLockError::Error(error)) => Err(Error::output(&path)(error)),
    }
}

#[cfg(test)]
mod tests {
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
        RunFolder::open_evaluation(&path).unwrap().write_config("").unwrap();
        drop(RunFolder::open_evaluation(&path).unwrap());
        std::fs::write(path.join("head.safetensors"), "").unwrap();
        assert_eq!(RunFolder::open_evaluation(&path).unwrap_err().exit_code(), 2);

        let run = RunFolder::open(dir.path().join("run"), false).unwrap();
        run.checkpoints(1).unwrap();
        run.abandon();
        assert!(!dir.path().join("run").exists());
        let run = RunFolder::open(&path, true).unwrap();
        run.abandon();
        assert!(path.join("config.toml").exists() && path.join("head.safetensors").exists());
    }

    #[test]
    fn resume_of_nothing_starts_afresh_and_a_file_is_no_folder() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!RunFolder::open(dir.path().join("new"), true).unwrap().holds_run());
        std::fs::write(dir.path().join("file"), "").unwrap();
        let error = RunFolder::open(dir.path().join("file"), false).unwrap_err();
        assert!(error.exit_code() == 5 && error.to_string().contains("file"), "{error}");
    }
}
