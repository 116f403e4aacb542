//! The images that a run was made with, and what has become of them when it goes on.
//!
//! `images.tsv` in the run's folder has a line for every image: its name below the data's place, its size in bytes and its time of change in
//! milliseconds since 1970 (of a member of a shard, that of the shard, and behind it the member's place). A checkpoint has digests of the sizes and
//! of the times in its metadata, and the names' in `data`.
//!
//! What is gone, new, of another size, or written anew since is named. Times tell little where most differ, as in a copy that has not kept them:
//! then they are not spoken of.

use super::Run;
use super::state::{DATA, State, metadata};
use crate::atomic;
use crate::data::{Dataset, Stamp};
use crate::error::{Error, Result};
use crate::train::checkpoint::Checkpoint;
use crate::train::config::{Method, PretrainConfig};
use crate::train::event::Warning;
use crate::train::run_folder::{IMAGES, RunFolder};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::{BufRead, Write as _};

/// Names of the digests among a checkpoint's metadata.
const SIZES: &str = "data_sizes";
const TIMES: &str = "data_times";

/// So many names are told of each kind.
const MOST_NAMED: usize = 5;

/// The images as they are now.
pub(super) struct Images {
    listed: Vec<(String, Option<Stamp>)>,
    sizes: String,
    times: String,
}

/// What has become of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    gone: Vec<String>,
    new: Vec<String>,
    resized: Vec<String>,
    rewritten: Vec<String>,
}

impl Change {
    /// `gone: a.png; new: b.png, c.png and 7 more`; empty where names are the same.
    pub(super) fn names(&self) -> String {
        let kinds = [("gone", &self.gone), ("new", &self.new)];
        let said: Vec<String> = kinds.iter().filter(|(_, names)| !names.is_empty()).map(|(kind, names)| format!("{kind}: {}", some(names))).collect();
        said.join("; ")
    }

    /// What there is to say of images that kept their names.
    pub(super) fn contents(&self) -> Vec<String> {
        let mut said = Vec::new();
        if !self.resized.is_empty() {
            said.push(format!("{} images have another size than before: {}", self.resized.len(), some(&self.resized)));
        }
        if !self.rewritten.is_empty() {
            said.push(format!("{} images of the same size were written anew: {}", self.rewritten.len(), some(&self.rewritten)));
        }
        said
    }
}

fn some(names: &[String]) -> String {
    let mut text = names.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
    if let more @ 1.. = names.len().saturating_sub(MOST_NAMED) {
        let _ = write!(text, " and {more} more");
    }
    text
}

impl Images {
    /// Looks at every file.
    pub(super) fn of(data: &Dataset) -> Self {
        let name = |i: usize| super::bad::on_one_line(&data.name(i));
        let listed: Vec<_> = data.stamps().into_iter().enumerate().map(|(i, stamp)| (name(i), stamp)).collect();
        let digest = |of: &dyn Fn(&Stamp) -> [u64; 2]| {
            let mut hasher = blake3::Hasher::new();
            for (_, stamp) in &listed {
                stamp.as_ref().map(of).unwrap_or_default().iter().for_each(|n| _ = hasher.update(&n.to_le_bytes()));
            }
            hasher.finalize().to_hex()[..32].to_owned()
        };
        let sizes = digest(&|stamp| [stamp.length, stamp.offset]);
        let times = digest(&|stamp| [stamp.modified.cast_unsigned(), 0]);
        Self { listed, sizes, times }
    }

    /// What a checkpoint keeps.
    pub(super) fn metadata(&self) -> [(String, String); 2] {
        [(SIZES.to_owned(), self.sizes.clone()), (TIMES.to_owned(), self.times.clone())]
    }

    /// Whether sizes and times are those of a checkpoint, as far as it knows them.
    pub(super) fn same(&self, saved: &BTreeMap<String, String>) -> [bool; 2] {
        [(SIZES, &self.sizes), (TIMES, &self.times)].map(|(key, now)| saved.get(key).is_none_or(|before| before == now))
    }

    /// Writes the run's list of them.
    pub(super) fn write(&self, folder: &RunFolder) -> Result<()> {
        atomic::write_with(&folder.path().join(IMAGES), |out| {
            for (name, stamp) in &self.listed {
                match stamp {
                    Some(Stamp { length, modified, offset: 0 }) => writeln!(out, "{name}\t{length}\t{modified}")?,
                    Some(Stamp { length, modified, offset }) => writeln!(out, "{name}\t{length}\t{modified}\t{offset}")?,
                    None => writeln!(out, "{name}\t\t")?,
                }
            }
            Ok(())
        })
    }

    /// What differs from the run's list; `None` where there is none that can be read.
    pub(super) fn change(&self, folder: &RunFolder) -> Option<Change> {
        let mut before = HashMap::new();
        let file = std::fs::File::open(folder.path().join(IMAGES)).ok()?;
        for line in std::io::BufReader::new(file).lines() {
            let line = line.ok()?;
            let mut fields = line.split('\t');
            let name = fields.next()?.to_owned();
            let number = |field: Option<&str>| field.unwrap_or_default().parse::<i64>().ok();
            let (length, modified, offset) = (number(fields.next()), number(fields.next()), number(fields.next()));
            let stamp = length.zip(modified);
            let stamp =
                stamp.map(|(length, modified)| Stamp { length: length.cast_unsigned(), modified, offset: offset.unwrap_or(0).cast_unsigned() });
            before.insert(name, stamp);
        }
        let (mut change, mut common) = (Change::default(), 0);
        for (name, now) in &self.listed {
            match before.remove(name) {
                None => change.new.push(name.clone()),
                Some(then) => {
                    common += 1;
                    let Some((then, now)) = then.zip(*now) else { continue };
                    if then.length != now.length {
                        change.resized.push(name.clone());
                    } else if then.modified != now.modified {
                        change.rewritten.push(name.clone());
                    }
                }
            }
        }
        if 2 * change.rewritten.len() > common {
            change.rewritten.clear();
        }
        change.gone = before.into_keys().collect();
        change.gone.sort_unstable();
        Some(change)
    }
}

impl State {
    /// Whether the data has the same images as when `saved` was written, and epochs the same length; an error where it may not differ so.
    pub(super) fn compare_data(
        &self,
        config: &PretrainConfig,
        run: &Run<'_>,
        saved: &Checkpoint,
        warnings: &mut Vec<Warning>,
    ) -> Result<(bool, bool)> {
        let mut warn = |message: String| warnings.push(Warning::new("data.path", message));
        let before = metadata(saved, "images")?;
        // An earlier version kept no names.
        let same = *before == self.images().to_string() && saved.metadata.get(DATA).is_none_or(|names| *names == self.fingerprint());
        let unchanged = same && self.files.same(&saved.metadata) == [true; 2];
        let change = run.folder.filter(|_| !unchanged).and_then(|folder| self.files.change(folder));
        let names = change.as_ref().map(Change::names).filter(|names| !names.is_empty()).map_or_else(String::new, |names| format!(" ({names})"));
        let batch = config.train.batch;
        let epoch = |images: usize| images / batch;
        let same_length = before.parse().is_ok_and(|before| epoch(before) == epoch(self.images()));
        if *before != self.images().to_string() {
            let counts = format!("made with {before} images, the data has {} now{names}", self.images());
            if !run.allow_data_change {
                let way =
                    "a run goes on with the same data only; restore it, take --allow-data-change, or begin a new run from these weights with --init";
                return Err(Error::weights(&saved.path, format!("was {counts}: {way}")));
            }
            let epochs = if same_length {
                "epochs are as long as before, but the rest of this one is of another shuffle".to_owned()
            } else {
                format!("epochs have {} steps now, so epoch and learning rate jump", epoch(self.images()))
            };
            warn(format!("the run was {counts}: it goes on as told; {epochs}"));
        } else if !same {
            warn(format!(
                "has images of other names, or in another order, than when the checkpoint was written{names}: the run goes on, but not as it would have"
            ));
        }
        if !same && config.method == Method::DeepclusterV2 {
            warn("the memory of the images is filled and clustered anew".to_owned());
        }
        for said in change.iter().flat_map(Change::contents) {
            warn(format!("{said}: the run goes on, but perhaps not as it would have"));
        }
        if change.is_none() && same && !self.files.same(&saved.metadata)[0] {
            warn("has images of another size than when the checkpoint was written: the run goes on, but not as it would have".to_owned());
        }
        Ok((same, same_length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(list: &[(&str, u64, i64)]) -> Images {
        let listed =
            list.iter().map(|(name, length, modified)| ((*name).to_owned(), Some(Stamp { length: *length, modified: *modified, offset: 0 })));
        Images { listed: listed.collect(), sizes: String::new(), times: String::new() }
    }

    #[test]
    fn what_became_of_each_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(dir.path().join("run"), false).unwrap();
        let before = images(&[("a", 1, 1), ("b", 2, 2), ("c", 3, 3), ("d", 4, 4), ("e", 5, 5)]);
        assert_eq!(before.change(&folder), None);
        before.write(&folder).unwrap();
        assert_eq!(before.change(&folder), Some(Change::default()));
        let change = images(&[("b", 2, 9), ("c", 9, 9), ("d", 4, 4), ("e", 5, 5), ("f", 6, 6)]).change(&folder).unwrap();
        assert_eq!((change.names().as_str(), change.contents().len()), ("gone: a; new: f", 2));
        assert!(change.contents()[0].contains("1 images have another size than before: c") && change.contents()[1].contains("written anew: b"));
        // A copy that has not kept the times.
        let copy = images(&[("a", 1, 11), ("b", 2, 12), ("c", 3, 13), ("d", 4, 14), ("e", 5, 15)]);
        assert_eq!(copy.change(&folder), Some(Change::default()));
        assert_eq!(some(&(0..8).map(|i| i.to_string()).collect::<Vec<_>>()), "0, 1, 2, 3, 4 and 3 more");
    }
}
