//! Parts that lie deeper in a set than they are looked for: the folder above a set was named, or
//! every class has parts of its own.
//!
//! Promise: training and validation pictures are never mixed in silence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::found::Found;
use super::roles::{self, Part};
use crate::data::shards::Shard;
use crate::error::{Error, Result};

/// Refuses pictures and shards below `folder` whose folders, beyond the first (it may well be a
/// class), are called like different parts.
pub(super) fn refuse<'a>(folder: &Path, found: impl Iterator<Item = &'a Found>, shards: &[Shard]) -> Result<()> {
    let mut last = PathBuf::new();
    let mut seen: BTreeMap<PathBuf, (Part, String)> = BTreeMap::new();
    for one in found {
        let Some(parent) = one.source.file(shards).0.parent().filter(|parent| *parent != last) else { continue };
        parent.clone_into(&mut last);
        let Ok(below) = parent.strip_prefix(folder) else { continue };
        let mut above = folder.to_owned();
        for (depth, name) in below.components().enumerate() {
            let name = name.as_os_str().to_string_lossy();
            let part = roles::of_folder(&name).filter(|part| depth > 0 && *part != Part::Unlabelled);
            if let Some(part) = part {
                match seen.get(&above) {
                    Some((other, first)) if *other != part => {
                        let message = format!(
                            "holds {first}/ and {name}/, which are called like parts, but lies inside of {}: name it as the data itself; \
                             --data-layout classes takes no name for a part",
                            folder.display()
                        );
                        return Err(Error::data(above, message));
                    }
                    Some(_) => {}
                    None => drop(seen.insert(above.clone(), (part, name.clone().into_owned()))),
                }
            }
            above.push(&*name);
        }
    }
    Ok(())
}
