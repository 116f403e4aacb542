//! Images that cannot be read: what becomes of them, and which of a set they are.
//!
//! Promises: nothing is left out or replaced without being noted here; a replacement is a function of (seed, epoch, image, attempt) and of which
//! files can be read, so neither the number of workers nor a resume changes it; beyond the allowed number the data is taken to be missing, not bad.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::rng;
use crate::error::{Error, Result};

/// Part of a set that may be bad where nothing else is said.
pub const BAD_LIMIT: f64 = 0.001;

/// So many images of a small set may be bad where nothing is said, but no more than one in [`SMALL_PART`].
const SMALL_COUNT: usize = 3;
const SMALL_PART: usize = 10;

/// Replacements that are tried for one image before the run ends: that many in a row are bad only where nearly all are.
const MOST_ATTEMPTS: u32 = 100;

/// What becomes of an image that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBad {
    /// It ends the iteration.
    #[default]
    Stop,
    /// Another image takes its place, chosen by the seed, the epoch and the image.
    Replace {
        /// Seed of the choice.
        seed: u64,
    },
    /// It is left out, and its batch has one image less.
    Skip,
}

/// How many images of a set of `images` may be bad: the part `limit` of them; without one [`BAD_LIMIT`], but in small sets 3, or a tenth of them
/// where that is less.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a count of images")]
pub fn allowance(limit: Option<f64>, images: usize) -> usize {
    // Rounding must not take an image from a limit that was meant to allow it: 0.29 of 100 are 29.
    let part = |limit: f64| (limit * images as f64 + 1e-9).floor() as usize;
    limit.map_or_else(|| part(BAD_LIMIT).max(SMALL_COUNT.min(images / SMALL_PART)), part)
}

/// A bad image and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Its index in the set.
    pub index: u32,
    /// Where it comes from.
    pub path: String,
    /// Why it cannot be used.
    pub reason: String,
}

/// What to do about the bad images of a set, and those that were found; shared by all that read it.
#[derive(Debug, Default)]
pub struct BadImages {
    on: OnBad,
    most: usize,
    /// Reasons by path.
    found: Mutex<BTreeMap<String, String>>,
    /// Their number.
    count: AtomicUsize,
}

impl BadImages {
    /// At most `most` images may be bad.
    pub fn new(on: OnBad, most: usize) -> Self {
        Self { on, most, ..Self::default() }
    }

    /// What becomes of them.
    pub fn on(&self) -> OnBad {
        self.on
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those found so far, by path, each with its reason.
    pub fn found(&self) -> Vec<(String, String)> {
        self.lock().iter().map(|(path, reason)| (path.clone(), reason.clone())).collect()
    }

    /// Takes note of images that were found before, in another process.
    pub fn remember(&self, known: impl IntoIterator<Item = (String, String)>) {
        let mut found = self.lock();
        found.extend(known);
        self.count.store(found.len(), Ordering::Relaxed);
    }

    /// Whether there are any: looked up without waiting for others.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Whether an image is known to be bad.
    pub fn knows(&self, path: &str) -> bool {
        self.lock().contains_key(path)
    }

    /// Takes note of a bad image; `error` says what is wrong with it, and is the answer where it is more than that. Says whether it is new; an error
    /// where they are too many of the `images` in the set.
    pub(super) fn note(&self, path: String, error: Error, images: usize) -> Result<Option<String>> {
        let Error::Data { message, .. } = error else { return Err(error) };
        let mut found = self.lock();
        if found.contains_key(&path) {
            return Ok(None);
        }
        found.insert(path.clone(), message.clone());
        let (count, most) = (found.len(), self.most);
        self.count.store(count, Ordering::Relaxed);
        if count <= most {
            return Ok(Some(message));
        }
        let all = match (count, most) {
            (1, _) => "no image may be unreadable by data.bad_limit".to_owned(),
            _ => format!("{count} of {images} images cannot be read, and data.bad_limit allows {most}: is their disk or folder there, and whole?"),
        };
        Err(Error::data(path, format!("{message}; {all}")))
    }
}

/// The image that is tried for the `attempt`-th time in place of `image` of `images`, in an epoch.
pub(super) fn replacement(seed: u64, epoch: u64, image: u32, attempt: u32, images: usize) -> u32 {
    let n = u32::try_from(images).unwrap_or(u32::MAX);
    u32::try_from(rng::replacement(seed, epoch, u64::from(image), attempt).below(u64::from(n))).unwrap_or(0)
}

/// Numbers of the attempts.
pub(super) fn attempts() -> std::ops::Range<u32> {
    0..MOST_ATTEMPTS
}

/// What a reader of batches should hear of besides them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// An image is bad, and what became of it.
    Bad(Bad, OnBad),
    /// A read takes so long already.
    Stalled {
        /// The file, or the member of a shard.
        path: String,
        /// Since it began.
        time: Duration,
    },
}

impl Notice {
    /// The file.
    pub fn path(&self) -> &str {
        match self {
            Self::Bad(bad, _) => &bad.path,
            Self::Stalled { path, .. } => path,
        }
    }

    /// What there is to say of it.
    pub fn message(&self) -> String {
        match self {
            Self::Bad(bad, OnBad::Replace { .. }) => format!("{}; another image takes its place", bad.reason),
            Self::Bad(bad, OnBad::Skip) => format!("{}; it is left out", bad.reason),
            Self::Bad(bad, OnBad::Stop) => bad.reason.clone(),
            Self::Stalled { time, .. } => format!("has been read for {} s without an end: its disk does not answer; still waiting", time.as_secs()),
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path(), self.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_sets_may_lose_a_few_and_large_ones_a_thousandth() {
        let default = |images| allowance(None, images);
        assert_eq!([9, 10, 36, 3_000, 4_000, 1_281_167].map(default), [0, 1, 3, 3, 4, 1281]);
        assert_eq!((allowance(Some(0.0), 5000), allowance(Some(0.29), 100), allowance(Some(0.001), 999), allowance(Some(1.0), 7)), (0, 29, 0, 7));
    }

    #[test]
    fn each_is_noted_once_until_they_are_too_many() {
        let bad = BadImages::new(OnBad::Skip, 2);
        let note = |path: &str| bad.note(path.into(), Error::data(path, "is empty"), 50);
        assert_eq!(note("a").unwrap().as_deref(), Some("is empty"));
        assert_eq!((note("a").unwrap(), note("b").unwrap().is_some()), (None, true));
        let error = note("c").unwrap_err();
        assert!(error.exit_code() == 4 && error.to_string().contains("c: is empty; 3 of 50 images"), "{error}");
        assert_eq!(bad.found().len(), 3);
        // What is no fault of an image is handed on.
        assert!(matches!(bad.note("d".into(), Error::Failed("x".into()), 50), Err(Error::Failed(_))));
        let none = BadImages::new(OnBad::Skip, 0);
        assert!(none.note("a".into(), Error::data("a", "is empty"), 50).unwrap_err().to_string().contains("data.bad_limit"));
    }

    #[test]
    fn replacements_never_change() {
        let of = |epoch, image| (0..4).map(|attempt| replacement(7, epoch, image, attempt, 100)).collect::<Vec<_>>();
        assert_eq!(of(0, 3), of(0, 3));
        assert!(of(0, 3) != of(1, 3) && of(0, 3) != of(0, 4));
        let mut counts = [0; 10];
        (0..10_000).for_each(|image| counts[replacement(1, 2, image, 0, 10) as usize] += 1);
        assert!(counts.iter().all(|c| (850..1150).contains(c)), "{counts:?}");
    }
}
