//! The folder of a run's checkpoints: which there are, which is the newest good one, which stay.

use super::{Checkpoint, SUM_LENGTH, SUM_PREFIX, TensorRef, header, sum_of};
use crate::atomic;
use crate::error::{Error, Result};
use crate::fault;
use crate::train::event::Warning;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The `checkpoints` folder of a run.
#[derive(Debug)]
pub struct CheckpointStore {
    folder: PathBuf,
    keep: usize,
}

impl CheckpointStore {
    /// Opens or creates the folder, removes what a killed process left half-written. `keep`: how many of the newest stay, at least 1.
    pub fn open(folder: impl Into<PathBuf>, keep: usize) -> Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder).map_err(Error::output(&folder))?;
        atomic::remove_leftovers(&folder);
        Ok(Self { folder, keep: keep.max(1) })
    }

    /// Looks at a folder that another process may be writing to: nothing is created or removed. Not for saving.
    pub fn view(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), keep: usize::MAX }
    }

    /// Refuses a folder that no checkpoint can be written to: for before the first step.
    pub fn expect_writable(&self) -> Result<()> {
        atomic::can_write(&self.path(0))
    }

    /// File of the checkpoint after `step` steps.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("step-{step:09}.safetensors"))
    }

    /// Writes the state after `step` steps, then removes the oldest beyond `keep` and any of a later step (of a future that was left
    /// by resuming from an earlier one). Metadata keys `step` and `blake3` are the store's own.
    ///
    /// On a full disk older checkpoints go first, one by one, until there is room; the newest good one stays. `gone` is told which went, by their steps,
    /// whatever comes of it.
    pub fn save(
        &self,
        step: u64,
        tensors: &BTreeMap<String, TensorRef>,
        metadata: &BTreeMap<String, String>,
        gone: &mut Vec<u64>,
    ) -> Result<PathBuf> {
        let path = self.path(step);
        let (header, order) = header(step, tensors, metadata).map_err(|what| Error::Failed(format!("{}: {what}", path.display())))?;
        let sum_at = 8 + SUM_PREFIX.len();
        let mut start = (header.len() as u64).to_le_bytes().to_vec();
        start.extend(header);
        let parts: Vec<&[u8]> = [&start[sum_at + SUM_LENGTH..]].into_iter().chain(order.iter().map(|t| t.bytes)).collect();
        let sum = sum_of(&start[..sum_at], &parts);
        start[sum_at..sum_at + SUM_LENGTH].copy_from_slice(sum.as_bytes());
        let write = || {
            atomic::write_with(&path, |out| {
                out.write_all(&start)?;
                for (i, tensor) in order.iter().enumerate() {
                    if i == order.len() / 2 && fault::armed() {
                        out.flush()?;
                        fault::writing(&path, "half-written")?;
                    }
                    out.write_all(tensor.bytes)?;
                }
                Ok(())
            })
        };
        let mut written = write();
        if written.as_ref().is_err_and(Error::is_full) {
            for old in self.dispensable(step)? {
                remove(&self.path(old));
                gone.push(old);
                written = write();
                if !written.as_ref().is_err_and(Error::is_full) {
                    break;
                }
            }
        }
        written?;
        let at = |point: &str| fault::writing(&path, point).map_err(Error::output(&path));
        at("before-remove")?;
        let steps = self.list()?;
        let before = steps.iter().filter(|s| **s <= step).count();
        for old in steps.iter().enumerate().filter(|(i, s)| *i < before.saturating_sub(self.keep) || **s > step).map(|(_, s)| self.path(*s)) {
            remove(&old);
            at("between-removals")?;
        }
        at("after-remove")?;
        Ok(path)
    }

    /// Checkpoints that can go to make room for that of `step`: all but the newest good one, those of a lost future first, then the oldest.
    fn dispensable(&self, step: u64) -> Result<Vec<u64>> {
        let mut steps = self.list()?;
        let Some(good) = steps.iter().rposition(|s| Checkpoint::load(&self.path(*s)).is_ok()) else { return Ok(Vec::new()) };
        steps.remove(good);
        steps.retain(|s| *s != step);
        steps.sort_by_key(|s| (*s < step, *s));
        Ok(steps)
    }

    /// Steps of the checkpoints that are there, ascending, unverified.
    pub fn list(&self) -> Result<Vec<u64>> {
        let entries = std::fs::read_dir(&self.folder).map_err(|e| Error::weights(&self.folder, format!("cannot be read: {e}")))?;
        let step = |name: &str| name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse::<u64>().ok();
        let mut steps: Vec<u64> = entries.flatten().filter_map(|e| step(&e.file_name().to_string_lossy())).collect();
        steps.sort_unstable();
        steps.dedup();
        Ok(steps)
    }

    /// The newest good checkpoint, with a warning for each newer one that is damaged; `None` when there are no files; an error when
    /// there are, but none is good.
    pub fn latest(&self) -> Result<Option<(Checkpoint, Vec<Warning>)>> {
        let mut warnings = Vec::new();
        let mut first_error = None;
        for step in self.list()?.into_iter().rev() {
            match Checkpoint::load(&self.path(step)) {
                Ok(checkpoint) => return Ok(Some((checkpoint, warnings))),
                Err(error) => {
                    warnings.push(Warning::new("", format!("{error}; an earlier one is taken")));
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(None), Err)
    }

    /// Reads the checkpoint after `step` steps.
    pub fn load(&self, step: u64) -> Result<Checkpoint> {
        Checkpoint::load(&self.path(step))
    }
}

/// Removes a checkpoint. Somebody else may have done so in the meantime; what stays is in nobody's way.
fn remove(path: &Path) {
    if let Err(e) = std::fs::remove_file(path)
        && e.kind() != ErrorKind::NotFound
    {
        tracing::warn!("{} cannot be removed: {e}", path.display());
    }
}
