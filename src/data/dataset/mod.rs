//! A set of images in a folder or in tar shards, with or without classes.
//!
//! Where the parts of a set lie is settled by names (`layout`, `roles`); a scan finds the samples
//! of each (`contents`) and counts what it passes over (`summary`); classes are numbered by name
//! (`classes`). Samples are sorted by path and classes by name, so indices and labels are the same
//! on every machine; the classes of
//! `train` are the classes of `val`. (Where all images are listed, a class of `val` alone is
//! numbered behind them.) What users may rely on: docs/data.md.

mod classes;
mod contents;
mod doubles;
pub(in crate::data) mod found;
mod inner;
mod labelled;
mod layout;
mod places;
mod roles;
mod stamps;
mod summary;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

pub use contents::{Contents, ScanOptions};
pub use layout::Layout;
pub use roles::Part;
pub use stamps::Stamp;
pub use summary::{PartSummary, Summary};

use super::bad::{BadImages, OnBad, allowance};
use super::decode::{Rgb8, decode};
use super::reading::Reading;
use super::shards::Shard;
use crate::error::{Error, Result};
use crate::fault;
use found::Source;

/// Decoded images are kept up to this many bytes in all.
const CACHE_BYTES: usize = 256 << 20;

/// Sets with more images than this cannot fit the cache at any useful size, and do without it.
const CACHE_IMAGES: usize = 1 << 18;

/// Which part of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Training images with a class.
    Train,
    /// Validation images with a class, numbered as in training.
    Val,
    /// Training images and everything unlabelled.
    Pretrain,
    /// Training, then validation, then unlabelled images.
    All,
    /// All images of the training part, with a class or without.
    AllTrain,
    /// All images of the validation part, with a class or without.
    AllVal,
    /// Images of the unlabelled part.
    Unlabelled,
}

/// An opened set. Indices run from 0 to `len() - 1`.
pub struct Dataset {
    samples: Vec<(Source, Option<u32>)>,
    classes: Arc<[String]>,
    shards: Arc<[Shard]>,
    /// Where the names of its samples begin.
    root: Arc<Path>,
    summary: Arc<Summary>,
    cache: Vec<OnceLock<Arc<Rgb8>>>,
    cached: AtomicUsize,
    bad: Arc<BadImages>,
}

impl Split {
    /// Whether images of a part can be in it.
    fn may_use(self, part: Part) -> bool {
        match self {
            Self::Train => part == Part::Train,
            // Classes are numbered as in training.
            Self::Val => matches!(part, Part::Train | Part::Val),
            Self::Pretrain => matches!(part, Part::Train | Part::Unlabelled),
            Self::All => part != Part::Test,
            Self::AllTrain => part == Part::Train,
            // Their classes are numbered behind those of training.
            Self::AllVal => matches!(part, Part::Train | Part::Val),
            Self::Unlabelled => part == Part::Unlabelled,
        }
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dataset({} images, {} classes, {} shards)", self.len(), self.classes.len(), self.shards.len())
    }
}

impl Dataset {
    /// Opens one part of the set at `path`: lists files and reads tar headers, but no image. Nothing is kept for the next time.
    pub fn open(path: &Path, split: Split) -> Result<Self> {
        Contents::scan(path, &ScanOptions::default())?.into_dataset(split)
    }

    /// What was found where the set lies, and which parts of it are in use.
    pub fn summary(&self) -> &Arc<Summary> {
        &self.summary
    }

    /// With another summary: where several sets of one place are in use.
    #[must_use]
    pub fn with_summary(self, summary: &Arc<Summary>) -> Self {
        Self { summary: Arc::clone(summary), ..self }
    }

    fn build(
        samples: Vec<(Source, Option<u32>)>,
        classes: Arc<[String]>,
        shards: Arc<[Shard]>,
        (root, summary): (Arc<Path>, Arc<Summary>),
    ) -> Result<Self> {
        if samples.len() > u32::MAX as usize {
            return Err(Error::data(root, "holds more than 2^32 images"));
        }
        let mut cache = Vec::new();
        if samples.len() <= CACHE_IMAGES {
            cache.resize_with(samples.len(), OnceLock::new);
        }
        Ok(Self { samples, classes, shards, root, summary, cache, cached: AtomicUsize::new(0), bad: Arc::default() })
    }

    /// The samples at `indices`, in that order, with the same classes (for training on a fraction of the labels).
    ///
    /// # Panics
    /// When an index is not below `len()`.
    pub fn select(&self, indices: &[usize]) -> Result<Self> {
        let samples = indices.iter().map(|&i| self.samples[i].clone()).collect();
        let about = (Arc::clone(&self.root), Arc::clone(&self.summary));
        let selected = Self::build(samples, Arc::clone(&self.classes), Arc::clone(&self.shards), about)?;
        Ok(Self { bad: Arc::clone(&self.bad), ..selected })
    }

    /// What tells the images' names and order from others: blake3 of the names below `root`, 32 hexadecimal digits, the same on every system.
    pub fn fingerprint(&self, root: &Path) -> String {
        let mut hasher = blake3::Hasher::new();
        for (source, _) in &self.samples {
            let (file, inside) = source.file(&self.shards);
            for part in file.strip_prefix(root).unwrap_or(file).components() {
                hasher.update(part.as_os_str().as_encoded_bytes()).update(b"/");
            }
            hasher.update(b"\n");
            if let Some(name) = inside {
                hasher.update(name.as_bytes()).update(b"\n");
            }
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// The same set, of which images that cannot be read are treated so; `limit`: the part of them that may be bad ([`allowance`]).
    #[must_use]
    pub fn on_bad(mut self, on: OnBad, limit: Option<f64>) -> Self {
        self.bad = Arc::new(BadImages::new(on, allowance(limit, self.len())));
        self
    }

    /// What becomes of its bad images, and those that were found.
    pub fn bad(&self) -> &BadImages {
        &self.bad
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
        self.samples[i].0.path(&self.shards)
    }

    /// The name of image `i` below the set's root, the same on every system: `val/a.png`, `train-0.tar/CLASS/name.png`.
    pub fn name(&self, i: usize) -> String {
        self.samples[i].0.name(&self.root, &self.shards)
    }

    /// Where the names of the images begin: the set's folder, or the one that all of its places lie in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Reads and decodes image `i`.
    pub fn decode(&self, i: usize) -> Result<Rgb8> {
        self.decode_by(i, &Reading::default())
    }

    fn decode_by(&self, i: usize, reading: &Reading) -> Result<Rgb8> {
        match &self.samples[i].0 {
            Source::Record { file, index } => {
                let read = fault::read(|| self.path(i)).and_then(|()| file.read(*index as usize));
                read.map_err(|e| self.unread(i, &e))
            }
            _ => decode(&self.bytes_by(i, reading)?).map_err(|message| Error::data(self.path(i), message)),
        }
    }

    fn unread(&self, i: usize, error: &std::io::Error) -> Error {
        Error::data(self.path(i), format!("cannot be read: {error}"))
    }

    /// Image `i` as it lies in its file, or its pixels where those lie there, for a thread whose reads are watched.
    fn bytes_by(&self, i: usize, reading: &Reading) -> Result<Vec<u8>> {
        let read = || {
            fault::read(|| self.path(i))?;
            match &self.samples[i].0 {
                Source::File(path) => std::fs::read(path),
                Source::Member { shard, offset, length, .. } => self.shards[*shard as usize].read(*offset, *length),
                Source::Record { file, index } => file.read(*index as usize).map(|image| image.pixels),
            }
        };
        // What failed for good before is not waited for again.
        let known = self.bad.any() && self.bad.knows(&self.path(i));
        reading.read(i as u32, known, read).map_err(|e| self.unread(i, &e))
    }

    /// Width and height of image `i`, once all of it has been decoded, and its file.
    pub(super) fn examine(&self, i: usize, reading: &Reading) -> Result<([usize; 2], Vec<u8>)> {
        if let Source::Record { .. } = &self.samples[i].0 {
            let image = self.decode_by(i, reading)?;
            return Ok(([image.width, image.height], image.pixels));
        }
        let bytes = self.bytes_by(i, reading)?;
        let image = decode(&bytes).map_err(|message| Error::data(self.path(i), message))?;
        Ok(([image.width, image.height], bytes))
    }

    /// Image `i`, decoded once and kept while all kept images fit into 256 MiB.
    pub fn image(&self, i: usize) -> Result<Arc<Rgb8>> {
        self.image_by(i, &Reading::default())
    }

    /// The same for a thread whose reads are watched.
    pub(super) fn image_by(&self, i: usize, reading: &Reading) -> Result<Arc<Rgb8>> {
        let Some(slot) = self.cache.get(i) else { return self.decode_by(i, reading).map(Arc::new) };
        if let Some(image) = slot.get() {
            return Ok(Arc::clone(image));
        }
        let image = Arc::new(self.decode_by(i, reading)?);
        let size = image.pixels.len() + size_of::<Rgb8>();
        let fits = |used: usize| used.checked_add(size).filter(|&sum| sum <= CACHE_BYTES);
        if self.cached.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok() {
            // Two threads may decode the same image at once; the first one's stays.
            let _ = slot.set(Arc::clone(&image));
        }
        Ok(image)
    }
}
