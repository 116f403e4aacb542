//! `data.std` by number or by name, the one pixel number in which mmpretrain and the official code differ.

use crate::error::{Error, Result};
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use std::fmt;
use toml::{Table, Value};

/// mmpretrain's: 58.395, 57.12, 57.375 of 255.
pub(super) const MMPRETRAIN: [f64; 3] = [0.229, 0.224, 0.225];
/// The official code's.
pub(super) const OFFICIAL: [f64; 3] = [0.228, 0.224, 0.225];

const NAMES: &[&str] = &["mmpretrain", "official"];

/// Three numbers, or a name that stands for them. What is written back is the numbers.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<[f64; 3], D::Error> {
    struct Std;
    impl<'de> Visitor<'de> for Std {
        type Value = [f64; 3];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of 3 numbers, or \"mmpretrain\" or \"official\"")
        }

        fn visit_str<E: serde::de::Error>(self, name: &str) -> std::result::Result<Self::Value, E> {
            match name {
                "mmpretrain" => Ok(MMPRETRAIN),
                "official" => Ok(OFFICIAL),
                other => Err(E::unknown_variant(other, NAMES)),
            }
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(value) = list.next_element::<f64>()? {
                all.push(value);
            }
            <[f64; 3]>::try_from(all).map_err(|all| A::Error::invalid_length(all.len(), &self))
        }
    }
    from.deserialize_any(Std)
}

/// Gives `data.normalize_std` of a file its one name, `data.std`, so that files that extend each other may use either.
pub(super) fn rename(table: &mut Table, file: &str) -> Result<()> {
    let Some(data) = table.get_mut("data").and_then(Value::as_table_mut) else { return Ok(()) };
    let Some(value) = data.remove("normalize_std") else { return Ok(()) };
    match data.insert("std".into(), value) {
        None => Ok(()),
        Some(_) => Err(Error::config(file, "data.normalize_std", "cannot stand beside data.std: they are one key, give one of them")),
    }
}
