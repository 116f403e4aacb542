//! What a set holds: every part of it scanned once, ready to be opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::classes::Classes;
use super::doubles;
use super::found::{Class, Found, PassedOver, Source};
use super::inner;
use super::layout::{self, Layout, locate};
use super::places::locate_all;
use super::roles::{self, Part};
use super::summary::{PartSummary, Summary};
use super::{Dataset, Split};
use crate::data::folder::Walk;
use crate::data::pattern::{Place, Places};
use crate::data::records;
use crate::data::shards::{Indexing, Outer, Shard, index_all};
use crate::error::{Error, Result};

/// What to do with Parquet files.
pub(super) const PARQUET: &str = "they are not read; `python scripts/parquet_to_tar.py FILES… --out FOLDER` makes shards of them, see docs/data.md";

/// How a set is scanned.
#[derive(Clone, Debug, Default)]
pub struct ScanOptions {
    /// What names of folders and shards mean.
    pub layout: Layout,
    /// Folder in which the index of shards is kept from one run to the next, and what compressed shards hold; `None` keeps nothing.
    pub cache: Option<PathBuf>,
    /// File that says which class each image has, where no folder does.
    pub labels: Option<PathBuf>,
    /// What the class is called in JSON members of shards, in metadata and in tables, where it has no usual name.
    pub label_key: Option<String>,
    /// The splits that will be opened, all if there is none. Compressed shards of other parts are not unpacked only to be counted.
    pub only: Vec<Split>,
}

/// A set whose parts were scanned: files listed and tar headers read, but no image.
pub struct Contents {
    pub(super) root: PathBuf,
    pub(super) parts: [Scanned; 4],
    pub(super) shards: Vec<Shard>,
    pub(super) passed: PassedOver,
    /// A set of raw pixels and its class names, where it is one.
    pub(super) listed: Option<(&'static str, Vec<String>)>,
}

/// What one part holds. That it cannot be read matters to those who need it.
#[derive(Default)]
pub(super) struct Scanned {
    pub(super) found: Vec<Found>,
    shards: usize,
    uncounted: usize,
    pub(super) exists: bool,
    failed: Option<Error>,
}

impl Scanned {
    fn labelled(&self) -> usize {
        self.found.iter().filter(|f| f.class.name().is_some()).count()
    }
}

impl Contents {
    /// Scans the set at `root`, a folder or a single shard.
    pub fn scan(root: &Path, options: &ScanOptions) -> Result<Self> {
        Self::scan_all(&Places::from(root), options)
    }

    /// Scans a set that lies in one place or in several, which patterns may name.
    pub fn scan_all(places: &Places, options: &ScanOptions) -> Result<Self> {
        let places = places.find()?;
        let root = Places::root(&places);
        let mut contents = Self { root, parts: Default::default(), shards: Vec::new(), passed: PassedOver::default(), listed: None };
        let key = options.label_key.as_deref();
        if let [Place { path, .. }] = &places[..]
            && path.is_dir()
            && let Some(set) = records::open(path, key)?
        {
            contents.take_records(set);
        } else {
            let located = match &places[..] {
                [one] => locate(&one.path, options.layout)?,
                several => locate_all(several, options.layout)?,
            };
            contents.passed = located.passed;
            for (part, place) in Part::ALL.into_iter().zip(located.places) {
                contents.parts[part as usize] = contents.part(part, &place, options);
            }
        }
        contents.label(options)?;
        Ok(contents)
    }

    fn part(&mut self, part: Part, place: &layout::Place, options: &ScanOptions) -> Scanned {
        let mut scanned = Scanned { exists: !place.is_none(), ..Scanned::default() };
        let first = self.shards.len();
        match self.find(part, place, options, &mut scanned.found) {
            Ok(uncounted) => scanned.uncounted = uncounted,
            Err(error) => {
                scanned.found.clear();
                scanned.failed = Some(error);
            }
        }
        scanned.shards = self.shards.len() - first + scanned.uncounted;
        scanned
    }

    fn find(&mut self, part: Part, place: &layout::Place, options: &ScanOptions, found: &mut Vec<Found>) -> Result<usize> {
        let mut shards: Vec<Outer> = Vec::new();
        let passed = &mut self.passed;
        for (folder, skip) in &place.folders {
            Walk { skip, found: &mut *found, shards: &mut shards, passed: &mut *passed }.scan(folder)?;
        }
        for folder in &place.classes {
            Walk { skip: &[], found: &mut *found, shards: &mut shards, passed: &mut *passed }.scan_class(folder)?;
        }
        // Names decide at the top; below, the folder does.
        if options.layout == Layout::Auto
            && let Some((path, other)) = shards.iter().find_map(|(path, _)| Some((path, named(path).filter(|other| *other != part)?)))
        {
            let message = format!(
                "is called {}, and lies in the folder of the {} part: rename it, or move it to the top of the set",
                other.name(),
                part.name()
            );
            return Err(Error::data(path, message));
        }
        shards.extend(place.shards.iter().map(|path| (path.clone(), Class::None)));
        let files = found.len();
        let how = Indexing {
            cache: options.cache.as_deref(),
            label_key: options.label_key.as_deref(),
            count_only: !options.only.is_empty() && !options.only.iter().any(|split| split.may_use(part)),
        };
        let uncounted = index_all(&shards, &how, (&mut self.shards, found, passed))?;
        let (files, members) = found.split_at(files);
        doubles::refuse(files, members, &self.shards)?;
        if options.layout == Layout::Auto {
            for (folder, _) in &place.folders {
                inner::refuse(folder, found.iter(), &self.shards)?;
            }
        }
        Ok(uncounted)
    }

    /// Whether the set has this part, though it may hold nothing.
    pub fn has(&self, part: Part) -> bool {
        self.parts[part as usize].exists
    }

    /// What was found, where `used` are the parts in use.
    pub fn summary(&self, used: &[Part]) -> Result<Summary> {
        let classes = self.classes(false)?;
        let mut summary = Summary { classes: classes.names.len(), ..Summary::default() };
        for part in Part::ALL {
            let scanned = &self.parts[part as usize];
            if scanned.exists {
                let labelled = if part == Part::Unlabelled { 0 } else { scanned.labelled() };
                summary.parts.push(PartSummary {
                    part,
                    pictures: scanned.found.len(),
                    labelled,
                    shards: scanned.shards,
                    uncounted: scanned.uncounted,
                    used: used.contains(&part),
                    held_out: false,
                    unreadable: scanned.failed.as_ref().map(ToString::to_string),
                });
            }
        }
        summary.pass_over(&self.passed);
        summary.notes.extend(classes.note);
        Ok(summary)
    }

    /// Classes of training, or of validation where training has none; or of both.
    fn classes(&self, all: bool) -> Result<Classes> {
        if let Some((_, names)) = &self.listed {
            return Ok(Classes::listed(names));
        }
        let of = |part: Part| Classes::of(&self.parts[part as usize].found, &self.shards, &self.root);
        let mut classes = of(Part::Train)?;
        if classes.names.is_empty() {
            return of(Part::Val);
        }
        if all {
            // Nobody compares the parts: a class that training lacks is one more.
            classes.extend(of(Part::Val)?);
        }
        Ok(classes)
    }

    /// The parts that a split consists of, in order.
    fn used(&self, split: Split) -> Vec<Part> {
        let filled = |part: &Part| !self.parts[*part as usize].found.is_empty() || self.parts[*part as usize].failed.is_some();
        match split {
            Split::Train => vec![Part::Train],
            Split::Val => vec![Part::Val],
            Split::Pretrain => vec![Part::Train, Part::Unlabelled],
            Split::All => {
                let some: Vec<Part> = [Part::Train, Part::Val, Part::Unlabelled].into_iter().filter(filled).collect();
                if some.is_empty() { vec![Part::Train] } else { some }
            }
            Split::Unlabelled => vec![Part::Unlabelled],
            Split::AllTrain => vec![Part::Train],
            Split::AllVal => vec![Part::Val],
        }
    }

    /// Opens one split; others can be opened afterwards.
    pub fn dataset(&self, split: Split) -> Result<Dataset> {
        let ready = self.ready(split)?;
        let found = ready.used.iter().map(|part| (*part, self.parts[*part as usize].found.clone())).collect();
        ready.open(split, found, self.shards.clone().into(), &self.root)
    }

    /// Opens one split.
    pub fn into_dataset(mut self, split: Split) -> Result<Dataset> {
        let ready = self.ready(split)?;
        let found = ready.used.iter().map(|part| (*part, std::mem::take(&mut self.parts[*part as usize].found))).collect();
        ready.open(split, found, self.shards.into(), &self.root)
    }

    fn ready(&self, split: Split) -> Result<Ready> {
        if split == Split::Val && !self.has(Part::Val) {
            return Err(Error::data(
                &self.root,
                "has no validation part: looked for the folder val/ and for .tar shards with `val` in the name; \
                 --val-fraction 0.2 holds a part of the training images out, eval-knn --leave-one-out judges each of them by the others",
            ));
        }
        let used = self.used(split);
        for part in &used {
            let Scanned { failed, uncounted, .. } = &self.parts[*part as usize];
            if let Some(error) = failed {
                return Err(again(error));
            }
            if *uncounted > 0 {
                return Err(Error::Failed(format!("the {} part of {} was scanned to be counted only", part.name(), self.root.display())));
            }
        }
        Ok(Ready { classes: self.classes(matches!(split, Split::All | Split::AllVal))?, summary: self.summary(&used)?, used })
    }
}

/// What is settled of a split before its samples are labelled.
struct Ready {
    used: Vec<Part>,
    classes: Classes,
    summary: Summary,
}

impl Ready {
    fn open(self, split: Split, found: Vec<(Part, Vec<Found>)>, shards: Arc<[Shard]>, path: &Path) -> Result<Dataset> {
        let Self { classes, summary, .. } = self;
        let mut samples: Vec<(Source, Option<u32>)> = Vec::new();
        for (part, found) in found {
            match part {
                // Their folder is no class, whatever it is called.
                Part::Unlabelled => samples.extend(found.into_iter().map(|f| (f.source, None))),
                _ => classes.label(found, &shards, &mut samples)?,
            }
        }
        if samples.is_empty() {
            let part = match split {
                Split::Train => "no training image",
                Split::Val => "no validation image",
                Split::Pretrain => "no image to train on",
                Split::All => "no image",
                Split::AllTrain => "no image in the training part",
                Split::AllVal => "no image in the validation part",
                Split::Unlabelled => "no unlabelled image",
            };
            if summary.passed_over.iter().any(|(kind, _)| kind == ".parquet") {
                return Err(Error::data(path, format!("holds {part}, but Parquet files: {PARQUET}; found {summary}")));
            }
            return Err(Error::data(
                path,
                format!("holds {part}: looked for images (*.png, *.jpg and others) in folders, and for .tar shards; found {summary}"),
            ));
        }
        if matches!(split, Split::Train | Split::Val) {
            let all = samples.len();
            samples.retain(|(_, label)| label.is_some());
            if samples.len() < all {
                tracing::warn!("{}: {} of {all} images have no class and are left out", path.display(), all - samples.len());
            }
            if samples.is_empty() {
                return Err(Error::data(
                    path,
                    "no image has a class: looked for CLASS/name.png, for metadata.jsonl and .csv, and, in shards, for .cls and .json members; --labels names a file of classes",
                ));
            }
        }
        Dataset::build(samples, classes.names.into(), shards, (path.into(), Arc::new(summary)))
    }
}

/// The part that a shard's name stands for, where it stands for one.
fn named(path: &Path) -> Option<Part> {
    roles::of_shard(&path.file_name()?.to_string_lossy()).ok()?
}

/// The same error once more.
fn again(error: &Error) -> Error {
    match error {
        Error::Data { path, message } => Error::data(path, message.clone()),
        other => Error::Failed(other.to_string()),
    }
}
