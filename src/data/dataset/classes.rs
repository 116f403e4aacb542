//! Numbering of classes: by name, or the numbers that `.cls` texts hold.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use super::found::{Class, Found, Source};
use crate::data::shards::Shard;
use crate::error::{Error, Result};

/// Largest class number a `.cls` text may hold.
const LARGEST_CLASS: usize = 1_000_000;

/// Names of the classes of a set; a label is an index into them.
#[derive(Clone, Debug, Default)]
pub(super) struct Classes {
    pub names: Vec<String>,
    /// Whether names are numbers 0, 1, … from `.cls` texts, which then are the labels themselves.
    numbered: bool,
}

impl Classes {
    /// Those of `found`. `root` is named in errors.
    pub fn of(found: &[Found], root: &Path) -> Result<Self> {
        let number = |f: &Found| match &f.class {
            Class::None => Some(0),
            Class::Text(text) => text.parse::<usize>().ok(),
            Class::Folder(_) => None,
        };
        let labelled = || found.iter().filter(|f| !matches!(f.class, Class::None));
        let numbered = labelled().next().is_some() && labelled().all(|f| number(f).is_some());
        if numbered {
            let largest = labelled().filter_map(number).max().unwrap_or(0);
            if largest > LARGEST_CLASS {
                return Err(Error::data(root, format!("class number {largest} is larger than {LARGEST_CLASS}")));
            }
            return Ok(Self { names: (0..=largest).map(|n| n.to_string()).collect(), numbered });
        }
        let names: BTreeSet<&str> = found.iter().filter_map(|f| f.class.name()).collect();
        Ok(Self { names: names.into_iter().map(str::to_owned).collect(), numbered })
    }

    /// Adds the classes of `other` that are not here, behind those that are.
    pub fn extend(&mut self, other: Self) {
        if self.numbered != other.numbered && !other.names.is_empty() {
            // Names beside numbers: labelling says which image is wrong.
            return;
        }
        let known: HashSet<String> = self.names.iter().cloned().collect();
        self.names.extend(other.names.into_iter().filter(|name| !known.contains(name)));
    }

    /// Appends `found` to `samples`, each with its label.
    pub fn label(&self, found: Vec<Found>, shards: &[Shard], samples: &mut Vec<(Source, Option<u32>)>) -> Result<()> {
        let numbers: HashMap<&str, u32> = self.names.iter().map(String::as_str).zip(0..).collect();
        for Found { source, class } in found {
            let label = match class.name() {
                None => None,
                Some(text) => {
                    let number = if self.numbered { text.parse().ok().filter(|&n: &u32| (n as usize) < self.names.len()) } else { None };
                    let known = number.or_else(|| numbers.get(text).copied());
                    Some(known.ok_or_else(|| Error::data(source.path(shards), format!("class {text:?} does not occur in training")))?)
                }
            };
            samples.push((source, label));
        }
        Ok(())
    }
}
