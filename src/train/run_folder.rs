//! The folder of one run: `config.toml`, `kernels.json`, `metrics.jsonl`, TensorBoard events, `checkpoints/`, `report.html`.
//!
//! Promises: one process at a time (the lock goes with the process, even if it is killed); a run that is there is never written over
//! unless it is continued, nor is a file that no run made; a folder that cannot be written is refused before the first step.

use super::checkpoint::CheckpointStore;
use super::config::{Kind, kind_of};
use super::metrics_log::MetricsLog;
use crate::atomic;
use crate::data::DECODERS;
use crate::error::{Error, Result};
use crate::gpu::AdapterDescription;
use crate::graph::Choices;
use serde_json::json;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The file that is locked while a run holds the folder. It stays, and tells a run's folder from any other.
const LOCK: &str = "lock";

/// What it says of the process that holds the folder begins so.
const HOLDER: &str = "process ";

/// What a run that begins writes over.
const WRITTEN_OVER: [&str; 7] = ["config.toml", "metrics.jsonl", "events.jsonl", "report.html", KERNELS, BAD_IMAGES, IMAGES];

/// The kernels that a run uses.
const KERNELS: &str = "kernels.json";

/// The images that could not be read: a line each, where there are any.
pub const BAD_IMAGES: &str = "bad-images.txt";

/// The images that a run was made with: a line each.
pub const IMAGES: &str = "images.tsv";

/// An exclusively held run folder.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    holds_run: bool,
    created: bool,
    lock: File,
    /// Whether it was there before, empty and of no run.
    lock_was_there: bool,
}

impl RunFolder {
    /// Creates the folder if need be and takes hold of it. With `resume` a run that is there is continued (none there is no error:
    /// a batch job may always say `--resume`); without, it is refused.
    pub fn open(path: impl Into<PathBuf>, resume: bool) -> Result<Self> {
        let path = path.into();
        Self::check(&path, resume)?;
        Self::hold(path)
    }

    /// As [`open`](Self::open) for an evaluation, which cannot be continued: one that was cut short may be repeated in its place, but a
    /// complete one or a training run is left alone.
    pub fn open_evaluation(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        Self::check_evaluation(&path)?;
        Self::hold(path)
    }

    /// What [`open`](Self::open) refuses, without touching anything: for before the work.
    pub fn check(path: &Path, resume: bool) -> Result<()> {
        expect_plain(path)?;
        let here = Contents::of(path);
        here.expect_own(path)?;
        if !here.training && (here.kind == Some(Kind::Linear) || here.evaluation) {
            return Err(Error::Usage(format!("{} holds an evaluation, which is no run to go on with: choose another --out", path.display())));
        }
        if here.run() && !resume {
            return Err(Error::Usage(format!("{} holds a run already: continue it with --resume, or choose another --out", path.display())));
        }
        Ok(())
    }

    /// What [`open_evaluation`](Self::open_evaluation) refuses, likewise.
    pub fn check_evaluation(path: &Path) -> Result<()> {
        expect_plain(path)?;
        let here = Contents::of(path);
        here.expect_own_lock(path)?;
        // An evaluation has no record of kernels.
        if here.at_stake != Some(KERNELS) {
            here.expect_own(path)?;
        }
        if here.training || here.complete || here.kind == Some(Kind::Pretrain) {
            return Err(Error::Usage(format!("{} holds a run already: choose another --out", path.display())));
        }
        Ok(())
    }

    /// Creates the folder if need be and takes hold of it.
    fn hold(path: PathBuf) -> Result<Self> {
        let created = !path.exists();
        std::fs::create_dir_all(&path).map_err(Error::output(&path))?;
        let (lock, lock_was_there) = lock(&path)?;
        // A process that held the folder until now may have left something else.
        expect_plain(&path)?;
        let holds_run = Contents::of(&path).run();
        atomic::remove_leftovers(&path);
        Ok(Self { path, holds_run, created, lock, lock_was_there })
    }

    /// Gives up before the first step: removes what opening and preparing made, so that a corrected command can use the same folder.
    pub fn abandon(self) {
        if !self.holds_run {
            // What cannot be removed is not empty or not ours: it stays.
            let _ = std::fs::remove_dir(self.path.join("checkpoints"));
            for name in WRITTEN_OVER {
                let _ = std::fs::remove_file(self.path.join(name));
            }
            // One that was there before it was a run's stays, empty as it was.
            let _ = if self.lock_was_there { self.lock.set_len(0) } else { std::fs::remove_file(self.path.join(LOCK)) };
            if self.created {
                let _ = std::fs::remove_dir(&self.path);
            }
        }
    }

    /// Errors when the folder was removed, renamed or replaced since it was opened: what is written to its name is not of this run any more.
    pub fn expect_here(&self) -> Result<()> {
        if atomic::is_at(&self.lock, &self.path.join(LOCK)) {
            return Ok(());
        }
        let what = if self.path.join(LOCK).exists() { "another run took its place" } else { "it was removed or renamed while the run went on" };
        Err(Error::output(&self.path)(std::io::Error::other(what)))
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

    /// Whether there is a `kernels.json`.
    pub fn has_kernels(&self) -> bool {
        self.path.join(KERNELS).exists()
    }

    /// Writes `kernels.json`: the adapter, the kernel variants that the run uses on it by op and shape, and what decodes its images.
    pub fn write_kernels(&self, adapter: &AdapterDescription, choices: &Choices) -> Result<()> {
        let record = json!({"adapter": adapter.name, "driver": adapter.driver, "backend": adapter.backend, "kernels": choices, "decoders": DECODERS});
        atomic::write(&self.path.join(KERNELS), format!("{record:#}\n").as_bytes())
    }

    /// The checkpoints, of which the newest `keep` stay.
    pub fn checkpoints(&self, keep: usize) -> Result<CheckpointStore> {
        CheckpointStore::open(self.path.join("checkpoints"), keep)
    }

    /// Gives `metrics.jsonl` and `events.jsonl` of a run that cannot be continued other names, and the files `besides` too, where there are any metrics;
    /// returns that of the metrics.
    pub fn set_aside(&self, besides: &[&str]) -> Result<Option<PathBuf>> {
        let path = |name: &str| self.path.join(name);
        if !std::fs::metadata(path("metrics.jsonl")).is_ok_and(|about| about.len() > 0) {
            return Ok(None);
        }
        let aside = |name: &str, number: u32| {
            let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
            path(&format!("{stem}.before-{number}.{ending}"))
        };
        // The metrics go last: as long as they are there, what is left is of the earlier run.
        let all = || besides.iter().chain(&["events.jsonl", "metrics.jsonl"]);
        let number = (1..).find(|n| !all().any(|name| aside(name, *n).exists())).unwrap_or(u32::MAX);
        for name in all().filter(|name| path(name).exists()) {
            let to = aside(name, number);
            std::fs::rename(path(name), &to).map_err(Error::output(&to))?;
        }
        Ok(Some(aside("metrics.jsonl", number)))
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

/// What is in a folder before it is used.
struct Contents {
    /// Checkpoints.
    training: bool,
    /// The head of a complete evaluation.
    complete: bool,
    /// That, or what one that was cut short has kept.
    evaluation: bool,
    /// What its configuration is for, where there is one that can be read.
    kind: Option<Kind>,
    /// Which file a run would write over, where there is one.
    at_stake: Option<&'static str>,
    locked_once: bool,
    /// A `lock` that no run has made. One that is empty serves a run as well.
    foreign_lock: bool,
}

impl Contents {
    fn of(folder: &Path) -> Self {
        let has = |name: &&str| folder.join(name).exists();
        let complete = has(&"head.safetensors");
        // Other programs have locks and checkpoints too. What cannot be read is locked, which only runs do.
        let lock = holder(folder).filter(|_| has(&LOCK));
        let locked_once = lock.as_ref().is_some_and(|text| text.as_ref().is_ok_and(|text| text.starts_with(HOLDER)) || text.is_err());
        let checkpoints = CheckpointStore::view(folder.join("checkpoints"));
        Self {
            training: has(&"checkpoints") && (locked_once || checkpoints.list().is_ok_and(|steps| !steps.is_empty())),
            complete,
            evaluation: complete || has(&"partial-head.safetensors"),
            kind: kind_of(&folder.join("config.toml"), &[]).ok(),
            at_stake: WRITTEN_OVER.into_iter().find(|name| has(name)),
            locked_once,
            foreign_lock: !locked_once && lock.is_some_and(|text| text.is_ok_and(|text| !text.is_empty())),
        }
    }

    /// Whether there is a run of either kind, or the beginning of one.
    fn run(&self) -> bool {
        self.training || self.evaluation || self.at_stake.is_some()
    }

    /// Refuses a folder whose `lock` is not of a run.
    fn expect_own_lock(&self, folder: &Path) -> Result<()> {
        if self.foreign_lock {
            return Err(written_over(&folder.join(LOCK)));
        }
        Ok(())
    }

    /// Refuses a folder in which a run would write over what is not of a run.
    fn expect_own(&self, folder: &Path) -> Result<()> {
        self.expect_own_lock(folder)?;
        match self.at_stake {
            Some(name) if !self.training && !self.locked_once => Err(written_over(&folder.join(name))),
            _ => Ok(()),
        }
    }
}

fn written_over(path: &Path) -> Error {
    Error::Usage(format!("{} would be written over, and is of no run: choose another --out", path.display()))
}

/// Refuses a folder in which something that a run writes is no file of its own: no link is followed, no FIFO waited for.
fn expect_plain(folder: &Path) -> Result<()> {
    // What else is wrong with it is told when it is opened.
    if !folder.is_dir() {
        return Ok(());
    }
    let refused = |path: PathBuf, what: &str| Error::Usage(format!("{} {what}: a run does not write there; choose another --out", path.display()));
    for path in WRITTEN_OVER.iter().chain(&[LOCK]).map(|name| folder.join(name)) {
        atomic::expect_own_file(&path).map_err(|e| refused(path, &e.to_string()))?;
    }
    let checkpoints = folder.join("checkpoints");
    if checkpoints.is_symlink() {
        return Err(refused(checkpoints, "is a link, and none is followed (--out itself may be one)"));
    }
    Ok(())
}

/// What the folder's `lock` says, as far as it matters; an error where it cannot be read, since it is locked on systems where that keeps readers out.
fn holder(folder: &Path) -> Option<std::io::Result<String>> {
    let path = folder.join(LOCK);
    let mut bytes = Vec::new();
    let file = match atomic::open_own(&path, OpenOptions::new().read(true)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        other => other,
    };
    let read = file.and_then(|file| file.take(100).read_to_end(&mut bytes));
    Some(read.map(|_| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The locked file, and whether it was there before, empty.
fn lock(folder: &Path) -> Result<(File, bool)> {
    let path = folder.join(LOCK);
    let failed = || Error::output(&path);
    let text = format!("{HOLDER}{}\n", std::process::id());
    loop {
        if let Some(file) = atomic::create_locked(&path, text.as_bytes()).map_err(failed())? {
            return Ok((file, false));
        }
        let mut file = match atomic::open_own(&path, OpenOptions::new().read(true).write(true)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(failed())?,
        };
        match file.try_lock() {
            // The last holder may have given it up, and its name with it.
            Ok(()) if !atomic::is_at(&file, &path) => {}
            Ok(()) => {
                Contents::of(folder).expect_own_lock(folder)?;
                let empty = file.metadata().map_err(failed())?.len() == 0;
                // Never empty in between.
                let written = file.write_all(text.as_bytes()).and_then(|()| file.set_len(text.len() as u64));
                written.map_err(failed())?;
                return Ok((file, empty));
            }
            Err(TryLockError::WouldBlock) => {
                let known = holder(folder).and_then(std::io::Result::ok).filter(|text| !text.trim().is_empty());
                let holder = known.map_or("unknown process".to_owned(), |text| text.trim().to_owned());
                return Err(Error::Busy { path: folder.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(failed()(error)),
        }
    }
}

#[cfg(test)]
mod tests;
