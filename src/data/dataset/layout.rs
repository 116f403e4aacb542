//! Where the parts of a set lie.
//!
//! A folder `P` has parts where its sub-folders or its shards have names that say so ([`super::roles`]): `P/train/CLASS/…`,
//! `P/val/…`, `P/unlabelled/…`, `P/train-*.tar`, `P/train/00000.tar`. Where none has, all of `P` is the training part: `P/CLASS/…`,
//! images directly in `P`, `P/*.tar`. What could be meant either way is refused with what decides it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::contents::PARQUET;
use super::found::PassedOver;
use super::roles::{self, Part};
use crate::data::folder::{Shape, list, shape};
use crate::data::shards::{holds_shard, is_shard};
use crate::error::{Error, Result};

/// What names of folders and shards mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// As the names and the content of the folders say; what is ambiguous is refused.
    #[default]
    Auto,
    /// Names like `train` and `val` stand for parts; what has none beside them is passed over.
    Parts,
    /// No name stands for a part: every folder is a class, every shard is of the training part.
    Classes,
}

impl Layout {
    /// Whether it is the usual one.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// Folders and shards of one part.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// Folders with what lies in them but belongs to other parts.
    pub folders: Vec<(PathBuf, Vec<PathBuf>)>,
    pub shards: Vec<PathBuf>,
    /// Folders each of which is a class.
    pub classes: Vec<PathBuf>,
}

impl Place {
    pub fn is_none(&self) -> bool {
        self.folders.is_empty() && self.shards.is_empty() && self.classes.is_empty()
    }
}

/// The parts of a set by [`Part`], and what lies beside them.
#[derive(Debug, Default)]
pub(super) struct Located {
    pub places: [Place; 4],
    pub passed: PassedOver,
}

impl Located {
    pub fn of(&mut self, part: Part) -> &mut Place {
        &mut self.places[part as usize]
    }
}

/// An entry of the set's folder.
struct Entry {
    path: PathBuf,
    name: String,
}

/// What decides, for the end of an error.
const DECIDES: &str = "--data-layout parts takes such names for parts and passes over what has none, --data-layout classes takes none for a part";

/// Finds the parts of the set at `root`, a folder or a single shard.
pub(super) fn locate(root: &Path, layout: Layout) -> Result<Located> {
    let meta = std::fs::metadata(root).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::data(root, "does not exist"),
        _ => Error::data(root, format!("cannot be opened: {e}")),
    })?;
    let mut located = Located::default();
    if !meta.is_dir() {
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        if !is_shard(&name) && !holds_shard(root) {
            let parquet = if name.to_lowercase().ends_with(".parquet") { format!(" but a Parquet file: {PARQUET}") } else { String::new() };
            return Err(Error::data(root, format!("is neither a folder nor a .tar shard{parquet}")));
        }
        // What is asked for by its name is wanted, whatever part it was.
        let unlabelled = layout != Layout::Classes && roles::of_shard(&name) == Ok(Some(Part::Unlabelled));
        located.of(if unlabelled { Part::Unlabelled } else { Part::Train }).shards.push(root.to_owned());
        return Ok(located);
    }
    let (mut folders, mut shards, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for (path, name, is_folder) in list(root)? {
        let shard = !is_folder && is_shard(&name);
        (if is_folder {
            &mut folders
        } else if shard {
            &mut shards
        } else {
            &mut files
        })
        .push(Entry { path, name });
    }
    if layout == Layout::Classes {
        located.of(Part::Train).folders.push((root.to_owned(), Vec::new()));
        return Ok(located);
    }
    let (mut with_role, mut without): (Vec<(Entry, Part)>, Vec<Entry>) = (Vec::new(), Vec::new());
    for folder in folders {
        match roles::of_folder(&folder.name) {
            Some(part) => with_role.push((folder, part)),
            None => without.push(folder),
        }
    }
    if layout == Layout::Auto && is_class(root, &with_role, &without)? {
        with_role.retain(|(_, part)| *part == Part::Unlabelled);
    }
    one_of_each(root, &with_role)?;
    let mut others = Vec::new();
    for shard in shards {
        let both = |[a, b]: [Part; 2]| Error::data(&shard.path, format!("says both {} and {} in its name: rename it", a.name(), b.name()));
        match roles::of_shard(&shard.name).map_err(both)? {
            Some(part) => located.of(part).shards.push(shard.path),
            None => others.push(shard),
        }
    }
    let sharded = !located.of(Part::Train).is_none() || !located.of(Part::Val).is_none();
    for (folder, part) in with_role {
        located.of(part).folders.push((folder.path, Vec::new()));
    }
    let parted = [Part::Train, Part::Val].into_iter().any(|part| !located.of(part).is_none());
    if !parted && !located.of(Part::Test).is_none() && located.of(Part::Unlabelled).is_none() && without.is_empty() && others.is_empty() {
        // There is nothing else to be meant.
        located.places.swap(Part::Train as usize, Part::Test as usize);
        located.passed.notes.push("the part called test is taken, as there is no other".into());
        return Ok(located);
    }
    if !parted {
        let names: Vec<&str> = others.iter().map(|o| o.name.as_str()).collect();
        if let Some([a, b]) = roles::hidden(&names).filter(|_| layout == Layout::Auto) {
            let message = format!("holds {a} and {b}, whose names have no role as a word of its own, like -train-: rename them; {DECIDES}");
            return Err(Error::data(root, message));
        }
        let owned = Part::ALL[1..].iter().flat_map(|part| {
            let place = &located.places[*part as usize];
            place.folders.iter().map(|(path, _)| path.clone()).chain(place.shards.iter().cloned()).collect::<Vec<_>>()
        });
        let owned = owned.collect();
        located.of(Part::Train).folders.push((root.to_owned(), owned));
        return Ok(located);
    }
    if let Some(other) = others.first().filter(|_| sharded && layout == Layout::Auto) {
        let message = format!(
            "has no role in its name, while other shards beside it have: rename it (train-…, val-…, unlabelled-…) or move it away; {DECIDES}"
        );
        return Err(Error::data(&other.path, message));
    }
    pass_over(&mut located.passed, &without, &others, &files);
    Ok(located)
}

/// Says what lies beside the parts.
fn pass_over(passed: &mut PassedOver, folders: &[Entry], shards: &[Entry], files: &[Entry]) {
    for folder in folders {
        // What cannot be listed may hold anything.
        if shape(&folder.path) != Shape::Empty || list(&folder.path).is_err() {
            passed.named.push(format!("the folder {}, which is no part", folder.name));
        }
    }
    for shard in shards {
        passed.named.push(format!("the shard {}, which is no part", shard.name));
    }
    for file in files {
        if crate::data::folder::is_image(&file.name) {
            passed.count("pictures beside the parts", 1);
        } else {
            passed.path(&file.path, &file.name);
        }
    }
}

/// Whether a folder that is called like a part is a class like those beside it.
fn is_class(root: &Path, with_role: &[(Entry, Part)], without: &[Entry]) -> Result<bool> {
    let roles: Vec<(&Entry, Shape)> =
        with_role.iter().filter(|(_, part)| *part != Part::Unlabelled).map(|(folder, _)| (folder, shape(&folder.path))).collect();
    let roles: Vec<_> = roles.into_iter().filter(|(_, shape)| *shape != Shape::Empty).collect();
    if roles.is_empty() {
        // Nothing is lost by a folder without a picture.
        return Ok(!without.is_empty());
    }
    let others: Vec<(&Entry, Shape)> =
        without.iter().map(|folder| (folder, shape(&folder.path))).filter(|(_, shape)| *shape != Shape::Empty).collect();
    let flat = |all: &[(&Entry, Shape)]| all.iter().all(|(_, shape)| *shape == Shape::Flat);
    match (roles.len(), others.len()) {
        (_, 0) => Ok(false),
        // Images lie in it as in its neighbours, where a part would have classes or neighbours that are parts.
        (1, 2..) if flat(&roles) => Ok(true),
        (1, _) if !flat(&roles) && flat(&others) => Ok(false),
        (2.., _) if !flat(&roles) => Ok(false),
        _ => {
            let names = |all: &[(&Entry, Shape)]| all.iter().take(3).map(|(f, _)| format!("{}/", f.name)).collect::<Vec<_>>().join(", ");
            let message = format!(
                "is ambiguous: {} may be a part of the set, or a class like {}; rename one or move it away; {DECIDES}",
                names(&roles),
                names(&others)
            );
            Err(Error::data(root, message))
        }
    }
}

/// Refuses two folders of one part.
fn one_of_each(root: &Path, with_role: &[(Entry, Part)]) -> Result<()> {
    for (i, (one, part)) in with_role.iter().enumerate() {
        if let Some((other, _)) = with_role[i + 1..].iter().find(|(_, p)| p == part) {
            let message =
                format!("holds {}/ and {}/, which are both called the {} part: put them together, or rename one", one.name, other.name, part.name());
            return Err(Error::data(root, message));
        }
    }
    Ok(())
}
