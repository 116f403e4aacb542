//! Image folders: which files are images and which class they are of.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::dataset::{Class, Found, Source};
use crate::error::{Error, Result};

/// Extensions that are taken for images, in any case.
const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// Whether a file name looks like an image.
pub(super) fn is_image(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, e)| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

/// A folder's visible entries, sorted by path: (path, name, is a folder). Links are followed. Hidden ones are left out, since archives from
/// a Mac carry a `._name.png` that is no image beside each image.
pub(super) fn list(folder: &Path) -> Result<Vec<(PathBuf, String, bool)>> {
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
            }
        }
    }
    entries.sort();
    Ok(entries)
}

/// Every image under `root`, sorted by path: the class is the first folder below `root`, images directly in it have none. Sub-folders of
/// `root` for which `skip` holds are left out.
pub(super) fn scan(root: &Path, skip: impl Fn(&str) -> bool, found: &mut Vec<Found>) -> Result<()> {
    for (path, name, is_folder) in list(root)? {
        if !is_folder {
            add(path, &name, &Class::None, found);
        } else if !skip(&name) {
            // Names that are no UTF-8 are told apart by their bytes.
            let class = path.file_name().filter(|name| name.to_str().is_none()).map_or(name, |own| format!("{own:?}").trim_matches('"').to_owned());
            // Each real folder once per class: links that lead back up, or to each other, cannot hang the walk.
            walk(&path, &Class::Folder(class.into()), &mut HashSet::new(), found)?;
        }
    }
    Ok(())
}

fn walk(folder: &Path, class: &Class, visited: &mut HashSet<PathBuf>, found: &mut Vec<Found>) -> Result<()> {
    let real = fs::canonicalize(folder).map_err(|e| Error::data(folder, format!("cannot be opened: {e}")))?;
    if visited.insert(real) {
        for (path, name, is_folder) in list(folder)? {
            if is_folder {
                walk(&path, class, visited, found)?;
            } else {
                add(path, &name, class, found);
            }
        }
    }
    Ok(())
}

fn add(path: PathBuf, name: &str, class: &Class, found: &mut Vec<Found>) {
    if is_image(name) {
        found.push(Found { source: Source::File(path), class: class.clone() });
    }
}
