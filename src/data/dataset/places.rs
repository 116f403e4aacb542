//! Sets that lie in several places: shards and folders that a list, braces or a glob name.
//!
//! Where the names of the places stand for different parts ([`super::roles`]), each place is of its part; what has no role is there to be trained on. Where
//! all stand for the same part, or for none, each is a set as it would be alone.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;

use super::contents::PARQUET;
use super::layout::{Layout, Located, locate};
use super::roles::{self, Part};
use crate::data::folder::{Shape, is_image, shape};
use crate::data::pattern::Place;
use crate::data::shards::is_shard;
use crate::error::{Error, Result};

/// Finds the parts of a set that lies in these places.
pub(super) fn locate_all(places: &[Place], layout: Layout) -> Result<Located> {
    let mut all = Located::default();
    let mut taken = Vec::new();
    for place in places {
        let name = place.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if place.path.is_dir() || is_shard(&name) {
            taken.push((place, role(&place.path, &name)?));
        } else if place.named {
            let what = if is_image(&name) { "is a picture: name the folder that it lies in" } else { "is neither a folder nor a .tar shard" };
            return Err(Error::data(&place.path, what));
        } else if is_image(&name) {
            // A pattern of pictures would lose their classes.
            return Err(Error::data(&place.path, "is a picture, found by a pattern: name the folder that the pictures lie in"));
        } else {
            all.passed.file(&name);
        }
    }
    if taken.is_empty() && all.passed.kinds.contains_key(".parquet") {
        return Err(Error::data(&places[0].path, format!("and what lies beside it are Parquet files: {PARQUET}")));
    }
    if taken.is_empty() {
        return Err(Error::data(
            places.first().map_or(Path::new(""), |p| &p.path),
            "and what else the pattern matches is neither a folder nor a shard",
        ));
    }
    if layout != Layout::Parts && classes_by_glob(&taken, &mut all)? {
        return Ok(all);
    }
    let parted = layout != Layout::Classes && taken.iter().any(|(_, role)| *role != taken[0].1);
    for (place, role) in taken {
        let Some(part) = role.or(Some(Part::Train)).filter(|_| parted) else {
            let located = locate(&place.path, layout)?;
            for (part, found) in Part::ALL.into_iter().zip(located.places) {
                let into = all.of(part);
                into.folders.extend(found.folders);
                into.shards.extend(found.shards);
            }
            all.passed.add(located.passed);
            continue;
        };
        if place.path.is_dir() && role.is_some() {
            all.of(part).folders.push((place.path.clone(), Vec::new()));
        } else if place.path.is_dir() {
            return Err(Error::data(
                &place.path,
                "has no role in its name, while other places in the list have: name it alone, or rename it to train",
            ));
        } else {
            all.of(part).shards.push(place.path.clone());
        }
    }
    Ok(all)
}

/// Takes folders of pictures that a glob found (`photos/*`) for classes, as they are in the folder
/// above; whether it was so.
fn classes_by_glob(taken: &[(&Place, Option<Part>)], all: &mut Located) -> Result<bool> {
    let globbed: Vec<&Path> = taken.iter().filter(|(place, _)| !place.named && place.path.is_dir()).map(|(place, _)| &*place.path).collect();
    let flat = globbed.iter().filter(|path| shape(path) == Shape::Flat).count();
    if flat == 0 || globbed.len() < taken.len() || taken.iter().any(|(_, role)| role.is_some()) {
        return Ok(false);
    }
    let mut names: HashMap<&OsStr, &Path> = HashMap::new();
    for path in &globbed {
        if let Some(other) = path.file_name().and_then(|name| names.insert(name, path)) {
            let message = format!("and {} are called alike, and a pattern found both: name the folder that they lie in", other.display());
            return Err(Error::data(path, message));
        }
    }
    let filled: Vec<&&Path> = globbed.iter().filter(|path| shape(path) != Shape::Empty).collect();
    if let Some(odd) = filled.iter().find(|path| shape(path) != Shape::Flat) {
        let message = "lies beside folders of pictures that a pattern found, each of which would be a class: name the folder that they lie in";
        return Err(Error::data(odd, message));
    }
    all.of(Part::Train).classes.extend(globbed.into_iter().map(Path::to_owned));
    all.passed.notes.push("each folder that the pattern found is a class".into());
    Ok(true)
}

/// The part that a place's own name stands for.
fn role(path: &Path, name: &str) -> Result<Option<Part>> {
    if path.is_dir() {
        return Ok(roles::of_folder(name));
    }
    let both = |[a, b]: [Part; 2]| Error::data(path, format!("says both {} and {} in its name: rename it", a.name(), b.name()));
    roles::of_shard(name).map_err(both)
}
