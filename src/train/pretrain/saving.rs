//! When a run writes checkpoints, and what it says when it cannot.
//!
//! Promises: no checkpoint is written while steps are being skipped in a row, but for the last one of a run that skipped only a few, which pushes no other
//! out; in mid-run one that cannot be written ends nothing; whatever is lost in the end is told; a folder that went away under the run is not written to.

use super::Training;
use crate::error::{Error, Result};
use crate::train::event::{Event, Warning};
use crate::train::run_folder::RunFolder;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// An error with its causes, on one line.
fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

impl Training<'_> {
    /// Whether the configuration asks for a checkpoint after `done` steps.
    pub(super) fn due(&self, done: u64) -> bool {
        let c = &self.config.checkpoint;
        let every = |n: u64| n > 0 && done.is_multiple_of(n);
        every(c.every_steps) || every(c.every_epochs * self.steps_per_epoch)
    }

    /// Writes a checkpoint in the middle of a run, once the last step was not skipped. One that cannot be written, as on a full disk, is no reason to end
    /// the run: the next may.
    pub(super) fn save_or_warn(&mut self) -> Result<()> {
        if self.skips.in_row() > 0 {
            return Ok(());
        }
        self.postponed = false;
        // That the folder went away is another matter.
        self.run.folder.map_or(Ok(()), RunFolder::expect_here)?;
        match self.save() {
            Err(error @ Error::Output { .. }) => {
                let message = format!("{}; the run goes on without this checkpoint, {}", whole(&error), self.last());
                self.warn(message)
            }
            other => other,
        }
    }

    /// Writes the checkpoint that a run ends with. Where the steps before were being skipped there is none: an error at the run's end, a warning where
    /// it is only `stopped`.
    pub(super) fn save_last(&mut self, stopped: bool) -> Result<()> {
        if self.skips.trouble() {
            let what = self.skips.words();
            if stopped {
                return self.warn(format!("{what} overflowed, so none is written; {}", self.last()));
            }
            return Err(Error::NonFinite { what, step: self.state.step - 1 });
        }
        self.run.folder.map_or(Ok(()), RunFolder::expect_here)?;
        self.save()
    }

    /// Keeps the steps done so far, for a stop before the next one.
    pub(super) fn keep(&mut self) -> Result<ControlFlow<()>> {
        self.settle()?;
        if self.state.step > self.started_at {
            self.save_last(true)?;
        }
        Ok(ControlFlow::Break(()))
    }

    /// Keeps the steps done so far when something ends the run that left the network as it was, and says what became of them.
    pub(super) fn rescue(&mut self) {
        let kept = self.try_rescue();
        if let Err(error) = kept {
            let message = format!("the state after {} steps cannot be kept: {}; {}", self.state.step, whole(&error), self.last());
            // Whether anybody listens or not.
            let _ = self.warn(message);
        }
    }

    fn try_rescue(&mut self) -> Result<()> {
        if let Some(step) = self.running.take().map(|running| self.read(running)).transpose()? {
            let _ = self.tell_step(step);
        }
        // An epoch that was told has no sums any more.
        if self.state.step.is_multiple_of(self.steps_per_epoch) && self.state.epoch.loss().is_some() {
            let _ = self.end_epoch(self.state.step);
        }
        if self.skips.trouble() {
            return self.save_last(false);
        }
        let Some(folder) = self.run.folder else { return Ok(()) };
        if folder.expect_here().is_ok() {
            // The disk may have been full at the end of an epoch that has its checkpoint.
            return if self.saved_at == Some(self.state.step) { Ok(()) } else { self.save() };
        }
        if folder.path().symlink_metadata().is_ok() {
            return Err(Error::Failed(format!("{} is another folder now", folder.path().display())));
        }
        // Nothing is there that could be written over.
        let anew = RunFolder::open(folder.path(), false)?;
        anew.write_config(&self.config.to_toml()?)?;
        let path = self.state.save(self.config, self.run.gpu, &anew, usize::MAX, &mut Vec::new())?;
        let message =
            format!("{} was made anew, and holds the state after {} steps: --resume goes on from there", folder.path().display(), self.state.step);
        self.warn(message)?;
        self.saved(path)
    }

    fn save(&mut self) -> Result<()> {
        let Some(folder) = self.run.folder else { return Ok(()) };
        // What is written after skipped steps is no better than what is there.
        let keep = if self.skips.in_row() > 0 { usize::MAX } else { self.config.checkpoint.keep };
        let mut gone = Vec::new();
        let outcome = self.state.save(self.config, self.run.gpu, folder, keep, &mut gone);
        if !gone.is_empty() {
            let names: Vec<String> = gone.iter().map(|step| format!("step-{step:09}")).collect();
            self.warn(format!("the disk is full: {} removed to make room", names.join(", ")))?;
        }
        self.saved(outcome?)
    }

    fn saved(&mut self, path: PathBuf) -> Result<()> {
        self.checkpoint = Some(path.clone());
        self.saved_at = Some(self.state.step);
        self.observer.event(&Event::CheckpointWritten { step: self.state.step, path })
    }

    /// Where the run could go on from, as words.
    fn last(&self) -> String {
        self.checkpoint.as_ref().map_or("there is none yet".into(), |path| format!("the last is {}", path.display()))
    }

    fn warn(&mut self, message: String) -> Result<()> {
        self.observer.event(&Event::Warning(Warning::new("checkpoint", message)))
    }
}
