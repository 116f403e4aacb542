//! Classes that no folder names, given to what a scan has found: records of raw pixels, metadata beside images, a file of labels.
//!
//! Promise: what gives a class to some pictures of a part is what decides in that part: a folder's name is no class beside it, so that a picture that was
//! forgotten has no class, not a wrong one. Pictures without a line and lines without a picture are counted and named.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::contents::{Contents, ScanOptions};
use super::found::{Class, Found, Source};
use super::roles::Part;
use crate::data::labels::{LabelFile, Row, Table, metadata};
use crate::data::records::RecordSet;
use crate::error::{Error, Result};

/// Pictures and lines that are named in a note.
const NAMED: usize = 3;

impl Contents {
    /// Takes a set of raw pixels, whole.
    pub(super) fn take_records(&mut self, set: RecordSet) {
        let texts: Vec<Arc<str>> = (0..set.classes.len()).map(|n| n.to_string().into()).collect();
        for (part, files) in [Part::Train, Part::Val, Part::Unlabelled].into_iter().zip(set.parts) {
            let scanned = &mut self.parts[part as usize];
            scanned.exists = !files.is_empty();
            for file in files {
                let file = Arc::new(file);
                let class = |i: usize| file.labels.get(i).map_or(Class::None, |label| Class::Text(Arc::clone(&texts[usize::from(*label)])));
                let one = |i: usize| Found { source: Source::Record { file: Arc::clone(&file), index: i as u32 }, class: class(i) };
                scanned.found.extend((0..file.count).map(one));
            }
        }
        self.listed = Some((set.kind, set.classes));
        set.passed_over.iter().for_each(|name| self.passed.file(name));
    }

    /// Gives pictures the classes that the set's own metadata, and then the user's file of labels, say.
    pub(super) fn label(&mut self, options: &ScanOptions) -> Result<()> {
        let key = options.label_key.as_deref();
        let mut tables = Vec::new();
        for path in std::mem::take(&mut self.passed.metadata).iter().collect::<Files>().nested()? {
            match metadata::open(&path, key)? {
                Ok(table) => tables.push(table),
                Err(columns) => {
                    let name = path.strip_prefix(&self.root).unwrap_or(&path).display();
                    self.passed.named.push(format!("{name}, which has no {} ({})", key.unwrap_or("label"), short(&columns)));
                }
            }
        }
        for (at, table) in tables.iter().enumerate() {
            let nearer: Vec<&Path> = tables[at + 1..].iter().filter_map(|inner| inner.path.parent()).collect();
            self.beside(table, &nearer)?;
        }
        for scanned in &mut self.parts {
            forget_folders_of_shards(&mut scanned.found);
        }
        if let Some(path) = &options.labels {
            if let Some((kind, _)) = &self.listed {
                return Err(Error::data(path, format!("cannot be used: {kind} has labels of its own beside its pixels")));
            }
            match LabelFile::open(path, key)? {
                LabelFile::Named(table) => self.named(&table)?,
                LabelFile::Ordered(numbers) => self.ordered(path, &numbers)?,
            }
        }
        Ok(())
    }

    /// Classes of the pictures below the folder that a table of metadata lies in, but for those that have a `nearer` one.
    fn beside(&mut self, table: &Table, nearer: &[&Path]) -> Result<()> {
        let folder = table.path.parent().unwrap_or(Path::new("")).to_owned();
        let own =
            |f: &&mut Found| is_below(&f.source, &folder) && !nearer.iter().any(|inner| inner.starts_with(&folder) && is_below(&f.source, inner));
        let mut below: Vec<&mut Found> = self.parts.iter_mut().flat_map(|s| &mut s.found).filter(own).collect();
        let names: Vec<String> = below.iter().map(|f| f.source.name(&folder, &[])).collect();
        let (classes, idle) = table.assign(&names, true, |_| false)?;
        let without = names.iter().zip(&classes).filter(|(_, class)| class.is_none()).map(|(name, _)| name.clone()).collect::<Vec<_>>();
        for (found, class) in below.iter_mut().zip(classes) {
            found.class = class.map_or(Class::None, |text| Class::text(&text));
        }
        let file = table.path.strip_prefix(&self.root).unwrap_or(&table.path).display().to_string();
        let notes = unequal(&file, &without, &idle);
        self.passed.notes.extend(notes);
        Ok(())
    }

    /// Classes by the names of a label file, in all parts.
    fn named(&mut self, table: &Table) -> Result<()> {
        let Self { parts, shards, root, passed, .. } = self;
        let places: Vec<(usize, usize)> = parts.iter().enumerate().flat_map(|(p, s)| (0..s.found.len()).map(move |i| (p, i))).collect();
        let names: Vec<String> = places.iter().map(|&(p, i)| parts[p].found[i].source.name(root, shards)).collect();
        let has_class = |at: usize| parts[places[at].0].found[places[at].1].class.name().is_some();
        let (classes, idle) = table.assign(&names, false, has_class)?;
        if classes.iter().all(Option::is_none) {
            let first = names.first().map_or("none", String::as_str);
            let row = idle.first().map_or("", |row| &row.name);
            let message = format!("none of its {} lines names a picture of the set: its first is {row}, the set's {first}", table.len());
            return Err(Error::data(&table.path, message));
        }
        let mut told: Vec<bool> = vec![false; parts.len()];
        places.iter().zip(&classes).for_each(|(&(part, _), class)| told[part] |= class.is_some());
        let mut without = Vec::new();
        for ((&(part, i), class), name) in places.iter().zip(classes).zip(&names) {
            if !told[part] {
                continue;
            }
            if class.is_none() {
                without.push(name.clone());
            }
            parts[part].found[i].class = class.map_or(Class::None, |text| Class::text(&text));
        }
        passed.notes.extend(unequal(&table.path.display().to_string(), &without, &idle));
        Ok(())
    }

    /// Class numbers in the order of the sorted names, for the one part whose pictures have no class.
    fn ordered(&mut self, path: &Path, numbers: &[Arc<str>]) -> Result<()> {
        let bare = |part: &Part| {
            let found = &self.parts[*part as usize].found;
            !found.is_empty() && found.iter().all(|f| f.class.name().is_none())
        };
        let parts: Vec<Part> = [Part::Train, Part::Val, Part::Test].into_iter().filter(bare).collect();
        let [part] = parts[..] else {
            let which = if parts.is_empty() { "no part of the set is" } else { "several parts of the set are" };
            return Err(Error::data(
                path,
                format!("holds class numbers without names, which are for a part without classes: {which} without; write names"),
            ));
        };
        let (root, shards) = (&self.root, &self.shards);
        let found = &mut self.parts[part as usize].found;
        if found.len() != numbers.len() {
            let message = format!("holds {} class numbers, the {} part {} pictures", numbers.len(), part.name(), found.len());
            return Err(Error::data(path, format!("{message}: a number a line goes by the order of the sorted names, so there must be as many")));
        }
        let mut order: Vec<usize> = (0..found.len()).collect();
        order.sort_by_cached_key(|&i| found[i].source.name(root, shards));
        for (&i, number) in order.iter().zip(numbers) {
            found[i].class = Class::text(number);
        }
        Ok(())
    }
}

/// Where samples of shards have class texts, the folders of others are none: they were forgotten.
fn forget_folders_of_shards(found: &mut [Found]) {
    let member = |f: &Found| matches!(f.source, Source::Member { .. });
    if found.iter().any(|f| member(f) && matches!(f.class, Class::Text(_))) {
        for one in found.iter_mut().filter(|f| member(f) && matches!(f.class, Class::Folder(_))) {
            one.class = Class::None;
        }
    }
}

fn is_below(source: &Source, folder: &Path) -> bool {
    matches!(source, Source::File(path) if path.starts_with(folder))
}

fn short(names: &[String]) -> String {
    format!("{}{}", names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", "), if names.len() > NAMED { ", …" } else { "" })
}

/// What there is to say of pictures without a line and lines without a picture.
fn unequal(file: &str, without: &[String], idle: &[&Row]) -> Vec<String> {
    let mut notes = Vec::new();
    let counted = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    if !without.is_empty() {
        notes.push(format!("{file} has no line for {} ({})", counted(without.len(), "picture"), short(without)));
    }
    if !idle.is_empty() {
        let names: Vec<String> = idle.iter().take(NAMED + 1).map(|row| row.name.clone()).collect();
        notes.push(format!("{file} has {} for no picture ({})", counted(idle.len(), "line"), short(&names)));
    }
    notes
}

/// Files of metadata by their folder.
#[derive(Default)]
struct Files(HashMap<PathBuf, Vec<PathBuf>>);

impl<'a> FromIterator<&'a PathBuf> for Files {
    fn from_iter<I: IntoIterator<Item = &'a PathBuf>>(paths: I) -> Self {
        let mut all = Self::default();
        for path in paths {
            all.0.entry(path.parent().unwrap_or(Path::new("")).to_owned()).or_default().push(path.clone());
        }
        all
    }
}

impl Files {
    /// The files, outer folders first. Two in a folder are one too many.
    fn nested(self) -> Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        for (folder, files) in self.0 {
            let [one] = &files[..] else {
                return Err(Error::data(folder, "holds both metadata.csv and metadata.jsonl: keep one"));
            };
            all.push(one.clone());
        }
        all.sort_by_key(|path| (path.components().count(), path.clone()));
        Ok(all)
    }
}
