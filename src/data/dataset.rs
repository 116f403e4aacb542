//! A set of images in a folder or in tar shards, with or without classes.
//!
//! Layouts of `P`: `P/train/CLASS/…`, `P/val/CLASS/…`, `P/unlabelled/…`; shards `P/*train*.tar`, `P/*val*.tar`, `P/*unlabelled*.tar`; without
//! those, `P/CLASS/…`, images directly in `P`, or any `P/*.tar`; or `P` is itself a shard. Samples are sorted by path and classes by name, so
//! indices and labels are the same on every machine; the classes of `train` are the classes of `val`. (Where all images are listed, a class of
//! `val` alone is numbered behind them.)

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::decode::{Rgb8, decode};
use super::folder::{list, scan};
use super::shards::Shard;
use crate::error::{Error, Result};

/// Decoded images are kept up to this many bytes in all.
const CACHE_BYTES: usize = 256 << 20;

/// Sets with more images than this cannot fit the cache at any useful size, and do without it.
const CACHE_IMAGES: usize = 1 << 18;

/// Largest class number a `.cls` text may hold.
const LARGEST_CLASS: usize = 1_000_000;

/// Which part of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Training images with a class.
    Train,
    /// Validation images with a class, numbered as in training.
    Val,
    /// Training images and everything unlabelled.
    Pretrain,
    /// Training, then validation images; where there is neither, the unlabelled ones.
    All,
}

/// Where a sample's bytes are.
#[derive(Clone, Debug)]
pub(super) enum Source {
    File(PathBuf),
    Member { shard: u32, name: Box<str>, offset: u64, length: u64 },
}

/// What is known of a sample's class before the classes are numbered.
#[derive(Clone, Debug)]
pub(super) enum Class {
    None,
    /// Name of the folder it lies in.
    Folder(Arc<str>),
    /// Text of its `.cls` member: a name or a number.
    Text(Arc<str>),
}

/// A sample as a scan finds it.
pub(super) struct Found {
    pub source: Source,
    pub class: Class,
}

/// An opened set. Indices run from 0 to `len() - 1`.
pub struct Dataset {
    samples: Vec<(Source, Option<u32>)>,
    classes: Arc<[String]>,
    shards: Vec<Shard>,
    cache: Vec<OnceLock<Arc<Rgb8>>>,
    cached: AtomicUsize,
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dataset({} images, {} classes, {} shards)", self.len(), self.classes.len(), self.shards.len())
    }
}

/// Folders and shards of one part. The flag says that `unlabelled` below the folder is not a class.
#[derive(Default)]
struct Place {
    folder: Option<(PathBuf, bool)>,
    shards: Vec<PathBuf>,
}

impl Place {
    fn is_none(&self) -> bool {
        self.folder.is_none() && self.shards.is_empty()
    }

    fn index(&self, shards: &mut Vec<Shard>) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        if let Some((folder, mixed)) = &self.folder {
            scan(folder, |name| *mixed && is_unlabelled(name), &mut found)?;
        }
        for path in &self.shards {
            shards.push(Shard::index(path, shards.len(), &mut found)?);
        }
        Ok(found)
    }
}

fn is_unlabelled(name: &str) -> bool {
    name == "unlabelled" || name == "unlabeled"
}

/// Finds the parts of a set: train, val, unlabelled.
fn locate(root: &Path) -> Result<[Place; 3]> {
    let meta = std::fs::metadata(root).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::data(root, "does not exist"),
        _ => Error::data(root, format!("cannot be opened: {e}")),
    })?;
    let role = |name: &str| match name.to_lowercase() {
        n if !n.ends_with(".tar") => None,
        n if n.contains("unlabelled") || n.contains("unlabeled") => Some(2),
        n if n.contains("train") => Some(0),
        n if n.contains("val") => Some(1),
        _ => Some(3),
    };
    let [mut train, mut val, mut unlabelled] = [(); 3].map(|()| Place::default());
    if !meta.is_dir() {
        match role(&root.file_name().unwrap_or_default().to_string_lossy()) {
            None => return Err(Error::data(root, "is neither a folder nor a .tar shard")),
            Some(2) => unlabelled.shards.push(root.to_owned()),
            Some(_) => train.shards.push(root.to_owned()),
        }
        return Ok([train, val, unlabelled]);
    }
    let mut others = Vec::new();
    for (path, name, is_folder) in list(root)? {
        match (is_folder, name.as_str()) {
            (true, "train") => train.folder = Some((path, false)),
            (true, "val") => val.folder = Some((path, false)),
            (true, n) if is_unlabelled(n) => unlabelled.folder = Some((path, false)),
            (true, _) => {}
            (false, n) => match role(n) {
                Some(0) => train.shards.push(path),
                Some(1) => val.shards.push(path),
                Some(2) => unlabelled.shards.push(path),
                Some(_) => others.push(path),
                None => {}
            },
        }
    }
    if train.is_none() && val.is_none() {
        train = Place { folder: Some((root.to_owned(), true)), shards: others };
    }
    Ok([train, val, unlabelled])
}

/// Numbers the classes of a set.
struct Classes {
    names: Vec<String>,
    /// Whether names are numbers 0, 1, … from `.cls` texts, which then are the labels themselves.
    numbered: bool,
}

impl Classes {
    fn of(found: &[Found], root: &Path) -> Result<Self> {
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
        let names: BTreeSet<&str> = found.iter().filter_map(|f| name(&f.class)).collect();
        Ok(Self { names: names.into_iter().map(str::to_owned).collect(), numbered })
    }

    /// Adds the classes of `other` that are not here, behind those that are.
    fn extend(&mut self, other: Self) {
        if self.numbered != other.numbered && !other.names.is_empty() {
            // Names beside numbers: labelling says which image is wrong.
            return;
        }
        let known: HashSet<String> = self.names.iter().cloned().collect();
        self.names.extend(other.names.into_iter().filter(|name| !known.contains(name)));
    }

    /// Appends `found` to `samples`, each with its label.
    fn label(&self, found: Vec<Found>, shards: &[Shard], samples: &mut Vec<(Source, Option<u32>)>) -> Result<()> {
        let numbers: HashMap<&str, u32> = self.names.iter().map(String::as_str).zip(0..).collect();
        for Found { source, class } in found {
            let label = match name(&class) {
                None => None,
                Some(text) => {
                    let number = if self.numbered { text.parse().ok().filter(|&n: &u32| (n as usize) < self.names.len()) } else { None };
                    let known = number.or_else(|| numbers.get(text).copied());
                    Some(known.ok_or_else(|| Error::data(path_of(&source, shards), format!("class {text:?} does not occur in training")))?)
                }
            };
            samples.push((source, label));
        }
        Ok(())
    }
}

fn name(class: &Class) -> Option<&str> {
    match class {
        Class::None => None,
        Class::Folder(name) | Class::Text(name) => Some(name),
    }
}

fn path_of(source: &Source, shards: &[Shard]) -> String {
    match source {
        Source::File(path) => path.display().to_string(),
        Source::Member { shard, name, .. } => format!("{}!{name}", shards[*shard as usize].path.display()),
    }
}

impl Dataset {
    /// Opens one part of the set at `path`: lists files and reads tar headers, but no image.
    pub fn open(path: &Path, split: Split) -> Result<Self> {
        let [train, val, unlabelled] = locate(path)?;
        if split == Split::Val && val.is_none() {
            return Err(Error::data(path, "has no validation part: looked for the folder val/ and for .tar shards with `val` in the name"));
        }
        let mut shards = Vec::new();
        let train = train.index(&mut shards)?;
        let val = if matches!(split, Split::Val | Split::All) { val.index(&mut shards)? } else { Vec::new() };
        let mut classes = Classes::of(&train, path)?;
        if classes.names.is_empty() {
            classes = Classes::of(&val, path)?;
        } else if split == Split::All {
            // Nobody compares the parts: a class that training lacks is one more.
            classes.extend(Classes::of(&val, path)?);
        }
        let mut samples = Vec::new();
        match split {
            Split::Train | Split::Pretrain => classes.label(train, &shards, &mut samples)?,
            Split::Val => classes.label(val, &shards, &mut samples)?,
            Split::All => {
                classes.label(train, &shards, &mut samples)?;
                classes.label(val, &shards, &mut samples)?;
            }
        }
        if split == Split::Pretrain || (split == Split::All && samples.is_empty()) {
            // Their folder is no class, whatever it is called.
            samples.extend(unlabelled.index(&mut shards)?.into_iter().map(|f| (f.source, None)));
        }
        let looked = "looked for *.png, *.jpg and *.jpeg in folders, and for .tar shards";
        if samples.is_empty() {
            let part = match split {
                Split::Train => "no training image",
                Split::Val => "no validation image",
                Split::Pretrain => "no image to train on",
                Split::All => "no image",
            };
            return Err(Error::data(path, format!("holds {part}: {looked}")));
        }
        if matches!(split, Split::Train | Split::Val) {
            let all = samples.len();
            samples.retain(|(_, label)| label.is_some());
            if samples.len() < all {
                tracing::warn!("{}: {} of {all} images have no class and are left out", path.display(), all - samples.len());
            }
            if samples.is_empty() {
                return Err(Error::data(path, "no image has a class: looked for CLASS/name.png and, in shards, for .cls members"));
            }
        }
        Self::build(samples, classes.names.into(), shards, path)
    }

    fn build(samples: Vec<(Source, Option<u32>)>, classes: Arc<[String]>, shards: Vec<Shard>, path: &Path) -> Result<Self> {
        if samples.len() > u32::MAX as usize {
            return Err(Error::data(path, "holds more than 2^32 images"));
        }
        let mut cache = Vec::new();
        if samples.len() <= CACHE_IMAGES {
            cache.resize_with(samples.len(), OnceLock::new);
        }
        Ok(Self { samples, classes, shards, cache, cached: AtomicUsize::new(0) })
    }

    /// The samples at `indices`, in that order, with the same classes (for training on a fraction of the labels).
    ///
    /// # Panics
    /// When an index is not below `len()`.
    pub fn select(&self, indices: &[usize]) -> Result<Self> {
        let samples = indices.iter().map(|&i| self.samples[i].clone()).collect();
        Self::build(samples, Arc::clone(&self.classes), self.shards.clone(), Path::new("selection"))
    }

    /// What tells the images' names and order from others: blake3 of the names below `root`, 32 hexadecimal digits, the same on every system.
    pub fn fingerprint(&self, root: &Path) -> String {
        let mut hasher = blake3::Hasher::new();
        for (source, _) in &self.samples {
            let file = match source {
                Source::File(path) => path,
                Source::Member { shard, .. } => &self.shards[*shard as usize].path,
            };
            for part in file.strip_prefix(root).unwrap_or(file).components() {
                hasher.update(part.as_os_str().as_encoded_bytes()).update(b"/");
            }
            hasher.update(b"\n");
            if let Source::Member { name, .. } = source {
                hasher.update(name.as_bytes()).update(b"\n");
            }
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is no image; an opened set has at least one.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Names of the classes; a label is an index into it.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Class of image `i`, if it has one.
    pub fn label(&self, i: usize) -> Option<usize> {
        self.samples[i].1.map(|label| label as usize)
    }

    /// Where image `i` comes from: a file's path, or `shard.tar!CLASS/name.png`.
    pub fn path(&self, i: usize) -> String {
        path_of(&self.samples[i].0, &self.shards)
    }

    /// Reads and decodes image `i`.
    pub fn decode(&self, i: usize) -> Result<Rgb8> {
        let bytes = match &self.samples[i].0 {
            Source::File(path) => std::fs::read(path),
            Source::Member { shard, offset, length, .. } => self.shards[*shard as usize].read(*offset, *length),
        };
        let bytes = bytes.map_err(|e| Error::data(self.path(i), format!("cannot be read: {e}")))?;
        decode(&bytes).map_err(|message| Error::data(self.path(i), message))
    }

    /// Image `i`, decoded once and kept while all kept images fit into 256 MiB.
    pub fn image(&self, i: usize) -> Result<Arc<Rgb8>> {
        let Some(slot) = self.cache.get(i) else { return self.decode(i).map(Arc::new) };
        if let Some(image) = slot.get() {
            return Ok(Arc::clone(image));
        }
        let image = Arc::new(self.decode(i)?);
        let size = image.pixels.len() + size_of::<Rgb8>();
        let fits = |used: usize| used.checked_add(size).filter(|&sum| sum <= CACHE_BYTES);
        if self.cached.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok() {
            // Two threads may decode the same image at once; the first one's stays.
            let _ = slot.set(Arc::clone(&image));
        }
        Ok(image)
    }
}
