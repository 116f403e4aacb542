//! Measured times by op, shape and variant, and their file.
//!
//! Promises: a file belongs to one adapter, driver, backend, version of the program and text of the shaders; one that is damaged or
//! another's is as if it were not there; it is replaced whole; two processes that save in turn keep each other's shapes.

use crate::atomic;
use crate::error::Error;
use crate::gpu::{AdapterDescription, SHADERS};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What measurements are true for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Name of the adapter.
    pub adapter: String,
    /// Driver and version.
    pub driver: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// Version of the program.
    pub program: String,
    /// blake3 sum of the shaders.
    pub shaders: String,
}

impl Identity {
    /// This program on `adapter`.
    pub fn of(adapter: &AdapterDescription) -> Self {
        let mut hasher = blake3::Hasher::new();
        for (name, text) in SHADERS {
            hasher.update(name.as_bytes()).update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
        Self {
            adapter: adapter.name.clone(),
            driver: adapter.driver.clone(),
            backend: adapter.backend.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            shaders: hasher.finalize().to_hex().to_string(),
        }
    }

    /// What has changed on an adapter since, if anything has: the first of it.
    pub fn change(&self, now: &Self) -> Option<String> {
        let all = [
            ("its driver", &self.driver, &now.driver),
            ("its backend", &self.backend, &now.backend),
            ("the program's version", &self.program, &now.program),
            ("the sum of the program's shaders", &self.shaders, &now.shaders),
        ];
        let changed = all.into_iter().find(|(_, before, now)| before != now);
        changed.map(|(what, before, now)| format!("{what} was {before} when the checkpoint was written and is {now} now"))
    }

    /// Name of its file: each identity has its own.
    fn file_name(&self) -> String {
        let text = [&self.adapter, &self.driver, &self.backend, &self.program, &self.shaders].map(String::as_str).join("\n");
        format!("kernels-{}.json", &blake3::hash(text.as_bytes()).to_hex()[..16])
    }
}

/// Milliseconds by op and shape, then by variant.
type Shapes = BTreeMap<String, BTreeMap<String, f64>>;

#[derive(Serialize, Deserialize)]
struct File {
    #[serde(flatten)]
    identity: Identity,
    milliseconds: Shapes,
}

/// Measured times.
#[derive(Debug, Default)]
pub struct Table {
    path: Option<PathBuf>,
    identity: Identity,
    shapes: Shapes,
}

/// The part of the guess's time that a variant must save to be taken instead: less is noise.
const WORTH_IT: f64 = 0.03;

impl Table {
    /// A table without a file.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// What `folder` knows for `identity`.
    pub fn open(folder: &Path, identity: Identity) -> Self {
        let path = folder.join(identity.file_name());
        let shapes = read(&path, &identity);
        Self { path: Some(path), identity, shapes }
    }

    /// The variant to take for `key` out of `offered` (best guess first): the fastest, if it beats the guess clearly. `None` when not
    /// every variant was measured.
    pub fn best<'v>(&self, key: &str, offered: &[&'v str]) -> Option<&'v str> {
        let times = self.shapes.get(key)?;
        let timed = offered.iter().map(|v| Some((*v, *times.get(*v)?))).collect::<Option<Vec<_>>>()?;
        let (guess, first) = *timed.first()?;
        let (variant, fastest) = timed.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some(if fastest < first * (1.0 - WORTH_IT) { variant } else { guess })
    }

    /// Whether all of `offered` were measured for `key`.
    pub fn covers(&self, key: &str, offered: &[String]) -> bool {
        self.shapes.get(key).is_some_and(|times| offered.iter().all(|v| times.contains_key(v)))
    }

    /// Milliseconds by variant for `key`.
    pub fn insert(&mut self, key: &str, milliseconds: BTreeMap<String, f64>) {
        self.shapes.insert(key.to_owned(), milliseconds);
    }

    /// Writes the file, with what others put there meanwhile. A table that cannot be written costs the next run its time, no more.
    pub fn save(&mut self) {
        let Some(path) = &self.path else { return };
        for (key, times) in read(path, &self.identity) {
            self.shapes.entry(key).or_insert(times);
        }
        // What did not fit this time may fit the next.
        let whole = |times: &BTreeMap<String, f64>| times.values().all(|ms| *ms < f64::MAX);
        let milliseconds = self.shapes.iter().filter(|(_, times)| whole(times)).map(|(key, times)| (key.clone(), times.clone())).collect();
        let file = File { identity: self.identity.clone(), milliseconds };
        let write = || {
            let text = serde_json::to_vec_pretty(&file).map_err(|e| Error::Failed(e.to_string()))?;
            let folder = path.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder).map_err(Error::output(folder))?;
            atomic::write(path, &text)
        };
        write().unwrap_or_else(|error| tracing::warn!("measured kernels are not kept: {error}"));
    }
}

/// The shapes of a file, none when it is not there or of no use.
fn read(path: &Path, identity: &Identity) -> Shapes {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!("{}: not used: {error}", path.display());
            }
            return Shapes::new();
        }
    };
    match serde_json::from_slice::<File>(&bytes) {
        Ok(file) if file.identity == *identity => file.milliseconds,
        Ok(_) => {
            tracing::warn!("{}: not used: made for another adapter, driver or version", path.display());
            Shapes::new()
        }
        Err(error) => {
            tracing::warn!("{}: damaged, not used: {error}", path.display());
            Shapes::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(all: &[(&str, f64)]) -> BTreeMap<String, f64> {
        all.iter().map(|(v, ms)| ((*v).to_owned(), *ms)).collect()
    }

    fn identity(driver: &str) -> Identity {
        Identity { adapter: "card".into(), driver: driver.into(), ..Default::default() }
    }

    #[test]
    fn says_what_changed_on_the_same_adapter() {
        let [before, now] = ["1.0", "1.1"].map(identity);
        assert_eq!(before.change(&now).as_deref(), Some("its driver was 1.0 when the checkpoint was written and is 1.1 now"));
        assert_eq!(before.change(&before), None);
        let shaders = Identity { shaders: "0123456789".into(), ..identity("1.0") };
        assert!(before.change(&shaders).unwrap().contains("shaders was  when the checkpoint was written and is 0123456789 now"));
    }

    #[test]
    fn the_fastest_is_taken_when_it_is_clearly_faster() {
        let mut table = Table::in_memory();
        table.insert("a", times(&[("x", 1.0), ("y", 0.98), ("z", 2.0)]));
        table.insert("b", times(&[("x", 1.0), ("y", 0.5), ("z", 0.5)]));
        assert_eq!(table.best("a", &["x", "y", "z"]), Some("x"), "two per cent are noise");
        assert_eq!(table.best("a", &["z", "y"]), Some("y"));
        assert_eq!(table.best("b", &["x", "z", "y"]), Some("z"), "equals in the order offered");
        assert_eq!(table.best("b", &["x", "new"]), None);
        assert_eq!(table.best("c", &["x"]), None);
        assert!(table.covers("b", &["x".into()]) && !table.covers("b", &["new".into()]) && !table.covers("c", &[]));
    }

    #[test]
    fn a_file_is_for_one_identity_and_two_writers_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new");
        let (mut one, mut two) = (Table::open(&folder, identity("1")), Table::open(&folder, identity("1")));
        one.insert("a", times(&[("x", 1.0)]));
        two.insert("b", times(&[("x", 2.0)]));
        one.save();
        two.save();
        let read = Table::open(&folder, identity("1"));
        assert!(read.covers("a", &["x".into()]) && read.covers("b", &["x".into()]));
        assert!(!Table::open(&folder, identity("2")).covers("a", &["x".into()]));
    }

    #[test]
    fn a_damaged_file_is_ignored_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let mut table = Table::open(dir.path(), identity("1"));
        table.insert("a", times(&[("x", 1.0)]));
        table.save();
        let path = table.path.clone().unwrap();
        let whole = std::fs::read(&path).unwrap();
        let other = serde_json::to_vec(&File { identity: identity("2"), milliseconds: table.shapes.clone() }).unwrap();
        for bytes in [&whole[..whole.len() / 2], b"", b"[1]", &other[..]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(!Table::open(dir.path(), identity("1")).covers("a", &[]));
        }
        table.save();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
}
