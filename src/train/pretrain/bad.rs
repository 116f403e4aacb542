//! Bad images of a run: which they are, and how often others took their place.
//!
//! Each is warned of once, and is a line of `bad-images.txt` in the run's folder: its path, a tab, the reason. A checkpoint holds their indices as
//! `bad/images` and the number of replacements as `replaced_images` in its metadata, where there are any. In DeepCluster-v2 a replacement is the image
//! that it is: its embedding fills the row, and it gets the row's label; the bad image has none until it can be read.

use crate::atomic;
use crate::data::{Batch, Dataset, Notice, OnBad};
use crate::error::{Error, Result};
use crate::train::checkpoint::{Checkpoint, Dtype};
use crate::train::event::Warning;
use crate::train::run_folder::{BAD_IMAGES, RunFolder};
use std::collections::{BTreeMap, HashMap};

/// Name of the indices in a checkpoint.
pub(super) const IMAGES: &str = "bad/images";

/// Name of the number of replacements among its metadata.
const REPLACED: &str = "replaced_images";

#[derive(Default)]
pub(super) struct BadRecord {
    /// Path and reason by index.
    images: BTreeMap<u32, (String, String)>,
    replaced: u64,
    /// What there is to say of those that the batches of these steps met.
    untold: Vec<(u64, Warning)>,
    /// Whether `bad-images.txt` lacks something.
    behind: bool,
}

impl BadRecord {
    /// Takes note of what a batch brings that is about to be used.
    pub(super) fn add(&mut self, batch: &Batch) {
        self.replaced += batch.replaced as u64;
        for bad in &batch.bad {
            let notice = Notice::Bad(bad.clone(), OnBad::Replace { seed: 0 });
            self.untold.push((batch.step, Warning::new(notice.path(), notice.message())));
            self.behind |= self.images.insert(bad.index, (bad.path.clone(), bad.reason.clone())).is_none();
        }
    }

    /// What was not told yet of the batches up to that of `step`.
    pub(super) fn untold(&mut self, step: u64) -> Vec<Warning> {
        self.untold.extract_if(.., |(of, _)| *of <= step).map(|(_, warning)| warning).collect()
    }

    /// Images that were used in place of bad ones, in all steps.
    pub(super) fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Number of bad images.
    pub(super) fn count(&self) -> u64 {
        self.images.len() as u64
    }

    /// Writes `bad-images.txt`, if it lacks something. A failure is a warning: the next image will bring the file up to date.
    pub(super) fn write(&mut self, folder: Option<&RunFolder>) -> Option<Warning> {
        let folder = folder.filter(|_| self.behind)?;
        let path = folder.path().join(BAD_IMAGES);
        let line = |(path, reason): &(String, String)| format!("{}\t{}\n", on_one_line(path), on_one_line(reason));
        if self.images.is_empty() {
            // What is there is of a future that was lost.
            let _ = std::fs::remove_file(&path);
            self.behind = false;
            return None;
        }
        let text: String = self.images.values().map(line).collect();
        match atomic::write(&path, text.as_bytes()) {
            Ok(()) => {
                self.behind = false;
                None
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
                Some(Warning::new("data", format!("{error}{cause}; the run goes on, its bad images are in its events")))
            }
        }
    }

    /// The indices, as a checkpoint has them.
    pub(super) fn indices(&self) -> Vec<i64> {
        self.images.keys().map(|index| i64::from(*index)).collect()
    }

    /// What else a checkpoint keeps.
    pub(super) fn metadata(&self) -> Option<(String, String)> {
        (self.replaced > 0).then(|| (REPLACED.to_owned(), self.replaced.to_string()))
    }

    /// What `saved` knew. Of the bad images only where it was made with the `same` data: numbers mean others else.
    pub(super) fn of(saved: &Checkpoint, data: &Dataset, same: bool, folder: Option<&RunFolder>) -> Result<Self> {
        let wrong = |what: String| Error::weights(&saved.path, what);
        let replaced = saved.metadata.get(REPLACED).map_or(Ok(0), |text| text.parse());
        let replaced = replaced.map_err(|_| wrong(format!("metadata `{REPLACED}` is no number")))?;
        let mut images = BTreeMap::new();
        if let Some(tensor) = saved.tensor(IMAGES).filter(|_| same) {
            let indices: Vec<i64> = bytemuck::pod_collect_to_vec(saved.expect(IMAGES, Dtype::I64, tensor.shape)?);
            let known = folder.map_or_else(HashMap::new, reasons);
            for index in indices {
                let index = u32::try_from(index).ok().filter(|i| (*i as usize) < data.len());
                let index = index.ok_or_else(|| wrong(format!("tensor {IMAGES} names an image that is not there")))?;
                let path = data.path(index as usize);
                let reason = known.get(&on_one_line(&path)).map_or("could not be read before the run was resumed", String::as_str);
                images.insert(index, (path, reason.to_owned()));
            }
        }
        data.bad().remember(images.values().cloned());
        // Images that a lost future has found are found again.
        let behind = folder.is_some_and(|folder| !images.is_empty() || folder.path().join(BAD_IMAGES).exists());
        Ok(Self { images, replaced, untold: Vec::new(), behind })
    }
}

/// Reasons by path, as far as the run's file has them.
fn reasons(folder: &RunFolder) -> HashMap<String, String> {
    let text = std::fs::read(folder.path().join(BAD_IMAGES)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().filter_map(|line| line.split_once('\t')).map(|(path, reason)| (path.to_owned(), reason.to_owned())).collect()
}

/// A text without line breaks, tabs and other control characters, which names of files may hold.
pub(super) fn on_one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Bad;

    fn batch(index: u32, replaced: usize) -> Batch {
        let bad = vec![Bad { index, path: format!("a\n{index}.png"), reason: "is\tempty".into() }];
        Batch { step: 0, epoch: 0, indices: vec![], labels: vec![], groups: vec![], bad, replaced }
    }

    #[test]
    fn a_line_an_image_whatever_it_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(dir.path().join("run"), false).unwrap();
        let mut record = BadRecord::default();
        assert!(record.write(Some(&folder)).is_none() && !folder.path().join(BAD_IMAGES).exists());
        [(7, 1), (3, 2), (7, 1)].iter().for_each(|(index, replaced)| record.add(&batch(*index, *replaced)));
        assert!(record.write(Some(&folder)).is_none());
        let text = std::fs::read_to_string(folder.path().join(BAD_IMAGES)).unwrap();
        assert_eq!(text, "a\\n3.png\tis\\tempty\na\\n7.png\tis\\tempty\n");
        assert_eq!((record.replaced(), record.count(), record.indices()), (4, 2, vec![3, 7]));
        assert_eq!(record.metadata(), Some(("replaced_images".into(), "4".into())));
        assert_eq!(reasons(&folder)["a\\n7.png"], "is\\tempty");
        // What cannot be written is told, and tried again with the next.
        std::fs::remove_file(folder.path().join(BAD_IMAGES)).unwrap();
        std::fs::create_dir(folder.path().join(BAD_IMAGES)).unwrap();
        record.add(&batch(9, 1));
        assert!(record.write(Some(&folder)).unwrap().to_string().contains("bad-images.txt"));
        std::fs::remove_dir(folder.path().join(BAD_IMAGES)).unwrap();
        assert!(record.write(Some(&folder)).is_none());
        assert_eq!(std::fs::read_to_string(folder.path().join(BAD_IMAGES)).unwrap().lines().count(), 3);
    }
}
