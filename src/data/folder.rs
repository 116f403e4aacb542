//! Image folders: which files are images and which class they are of.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::dataset::found::{Class, Found, PassedOver, Source};
use super::decode::EXTENSIONS;
use super::shards::is_shard;
use crate::error::{Error, Result};

/// Folders below folders that are looked into to tell what they are.
const DEEPEST_LOOK: usize = 16;

/// Whether a file name looks like an image.
pub(super) fn is_image(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, e)| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

/// A folder's visible entries, sorted by path: (path, name, is a folder). Links are followed. Hidden ones are left out, since archives from
/// a Mac carry a `._name.png` that is no image beside each image.
pub(super) fn list(folder: &Path) -> Result<Vec<(PathBuf, String, bool)>> {
    list_and_tell(folder, &mut PassedOver::default())
}

fn list_and_tell(folder: &Path, passed: &mut PassedOver) -> Result<Vec<(PathBuf, String, bool)>> {
    let failed = |e: std::io::Error| Error::data(folder, format!("cannot be listed: {e}"));
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            let path = entry.path();
            let kind = entry.file_type().map_err(failed)?;
            // A broken link counts as a file: if it is named like an image, decoding will say that it cannot be read. Pipes and devices are neither, and to
            // read them might take for ever.
            let about = if kind.is_symlink() { fs::metadata(&path).ok().map(|about| about.file_type()) } else { Some(kind) };
            let is_folder = about.is_some_and(|kind| kind.is_dir());
            if is_folder || about.is_none_or(|kind| kind.is_file()) {
                entries.push((path, name, is_folder));
            } else {
                passed.count("pipes or devices", 1);
            }
        }
    }
    entries.sort();
    Ok(entries)
}

/// What a folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// No image and no shard.
    Empty,
    /// Images directly in it, and none deeper.
    Flat,
    /// Images or shards deeper, or shards.
    Nested,
}

/// Looks into a folder until it is clear what it holds; one that cannot be listed is told of where it is read.
pub(super) fn shape(folder: &Path) -> Shape {
    let entries = list(folder).unwrap_or_default();
    let file = |wanted: fn(&str) -> bool| entries.iter().any(|(_, name, is_folder)| !is_folder && wanted(name));
    if file(is_shard) || entries.iter().any(|(path, _, is_folder)| *is_folder && holds_any(path, DEEPEST_LOOK)) {
        Shape::Nested
    } else if file(is_image) {
        Shape::Flat
    } else {
        Shape::Empty
    }
}

fn holds_any(folder: &Path, depth: usize) -> bool {
    let entries = list(folder).unwrap_or_default();
    entries.iter().any(|(_, name, is_folder)| !is_folder && (is_image(name) || is_shard(name)))
        || depth > 0 && entries.iter().any(|(path, _, is_folder)| *is_folder && holds_any(path, depth - 1))
}

/// What is being walked through.
pub(super) struct Walk<'a> {
    /// Paths that belong elsewhere.
    pub skip: &'a [PathBuf],
    pub found: &'a mut Vec<Found>,
    /// Shards on the way, with the class that a member has which has none of its own.
    pub shards: &'a mut Vec<(PathBuf, Class)>,
    pub passed: &'a mut PassedOver,
}

impl Walk<'_> {
    /// Every image and shard under `root`, sorted by path: the class is the first folder below `root`, images directly in it have none.
    pub fn scan(&mut self, root: &Path) -> Result<()> {
        let above = fs::canonicalize(root).map_err(|e| Error::data(root, format!("cannot be opened: {e}")))?;
        for (path, name, is_folder) in self.list(root)? {
            if self.skip.contains(&path) {
                continue;
            }
            if !is_folder {
                self.add(path, &name, &Class::None);
                continue;
            }
            // Names that are no UTF-8 are told apart by their bytes.
            let class = path.file_name().filter(|name| name.to_str().is_none()).map_or(name, |own| format!("{own:?}").trim_matches('"').to_owned());
            self.class(&path, class, &above)?;
        }
        Ok(())
    }

    /// Every image and shard in a folder that is itself a class.
    pub fn scan_class(&mut self, folder: &Path) -> Result<()> {
        let real = fs::canonicalize(folder).map_err(|e| Error::data(folder, format!("cannot be opened: {e}")))?;
        let name = folder.file_name().or(real.file_name()).unwrap_or_default().to_string_lossy().into_owned();
        self.class(folder, name, real.parent().unwrap_or(&real))
    }

    /// `above` is where the scan began.
    fn class(&mut self, path: &Path, class: String, above: &Path) -> Result<()> {
        let before = self.found.len() + self.shards.len();
        // Each real folder once per class, and none from above: links cannot hang the walk, nor
        // bring in what is of another class.
        self.walk(path, &Class::Folder(class.as_str().into()), (above, &mut HashSet::new()))?;
        if self.found.len() + self.shards.len() == before {
            self.passed.empty.push(class);
        }
        Ok(())
    }

    /// `above` is where the scan began.
    fn walk(&mut self, folder: &Path, class: &Class, (above, visited): (&Path, &mut HashSet<PathBuf>)) -> Result<()> {
        let real = fs::canonicalize(folder).map_err(|e| Error::data(folder, format!("cannot be opened: {e}")))?;
        if above.starts_with(&real) || !visited.insert(real) {
            self.passed.count("links back to a folder", 1);
            return Ok(());
        }
        for (path, name, is_folder) in self.list(folder)? {
            if is_folder {
                self.walk(&path, class, (above, &mut *visited))?;
            } else {
                self.add(path, &name, class);
            }
        }
        Ok(())
    }

    /// Lists a folder, and notes names that are alike.
    fn list(&mut self, folder: &Path) -> Result<Vec<(PathBuf, String, bool)>> {
        let entries = list_and_tell(folder, self.passed)?;
        let mut small = HashSet::with_capacity(entries.len());
        for (_, name, _) in &entries {
            if !small.insert(name.to_lowercase()) {
                self.passed.alike.push(name.clone());
            }
        }
        Ok(entries)
    }

    fn add(&mut self, path: PathBuf, name: &str, class: &Class) {
        if is_image(name) {
            self.found.push(Found { source: Source::File(path), class: class.clone() });
        } else if is_shard(name) {
            self.shards.push((path, class.clone()));
        } else {
            self.passed.path(&path, name);
        }
    }
}
