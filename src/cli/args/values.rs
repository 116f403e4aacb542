//! Values of flags that are more than text.

use clap::ValueEnum;
use serde::de::{DeserializeOwned, IntoDeserializer};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a backbone's weights come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    /// `random` or `random:SEED`: untrained, the baseline of every evaluation.
    Random {
        /// Seed of the initialisation; 0 when not given.
        seed: u64,
    },
    /// A checkpoint of a run, a run folder, a safetensors file or a PyTorch file. A file named `random` is `./random`.
    File(PathBuf),
}

impl FromStr for Weights {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("random") {
            Some("") => Ok(Self::Random { seed: 0 }),
            Some(rest) if rest.starts_with(':') => {
                let seed = rest[1..].parse().map_err(|_| format!("{:?} is no seed; it must read like random:7", &rest[1..]))?;
                Ok(Self::Random { seed })
            }
            _ if text.is_empty() => Err("must be a file, or random, or random:SEED".into()),
            _ => Ok(Self::File(text.into())),
        }
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random { seed } => write!(f, "random:{seed}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Names that tensors of a weight file bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// conv1.weight, layer1.0.…: the backbone alone
    Torchvision,
    /// The official code: module.conv1.weight, …, module.prototypes.weight
    Swav,
    /// backbone.*, neck.*, head.*, as mmpretrain and mmselfsup
    Mmpretrain,
}

/// How kernel variants are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Tune {
    /// By the kind of adapter alone
    Off,
    /// By what an earlier run measured on this adapter, where there is such a thing
    #[default]
    Table,
    /// Measure every shape that was not measured before, first
    Full,
}

/// What becomes of an image that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnBadImage {
    /// It ends the command
    #[default]
    Stop,
    /// It is left out of the result, which names it
    Skip,
}

/// Shells with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Shell {
    Bash,
    Elvish,
    Fish,
    #[value(name = "powershell")]
    PowerShell,
    Zsh,
}

/// A part of the whole: above 0, at most 1.
pub(super) fn fraction(text: &str) -> Result<f64, String> {
    number(text, |v| v > 0.0 && v <= 1.0, "must be a number above 0 and at most 1")
}

/// A part that leaves something over: above 0 and below 1.
pub(super) fn part(text: &str) -> Result<f64, String> {
    number(text, |v| v > 0.0 && v < 1.0, "must be a number above 0 and below 1")
}

/// A finite number above 0.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    number(text, |v| v > 0.0 && v.is_finite(), "must be a number above 0")
}

/// About a year: clocks can count it.
const MOST_SECONDS: f64 = 3.2e7;

/// A time of at most a year, 0 included.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    number(text, |v| (0.0..=MOST_SECONDS).contains(&v), "must be a number of seconds, at most 3.2e7")
}

/// The same above 0.
pub(super) fn some_seconds(text: &str) -> Result<f64, String> {
    number(text, |v| v > 0.0 && v <= MOST_SECONDS, "must be a number of seconds above 0, at most 3.2e7")
}

/// A count of at least 1.
pub(super) fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|v| *v >= 1).ok_or_else(|| "must be a whole number, at least 1".into())
}

/// A side of an image in pixels.
pub(super) fn pixels(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|v| (1..=4_096).contains(v)).ok_or_else(|| "must be a whole number of pixels, 1 to 4096".into())
}

/// A value by the name that configurations know it by.
pub(super) fn named<T: DeserializeOwned>(text: &str) -> Result<T, serde::de::value::Error> {
    T::deserialize(text.into_deserializer())
}

fn number(text: &str, ok: impl Fn(f64) -> bool, must: &str) -> Result<f64, String> {
    text.parse().ok().filter(|v| ok(*v)).ok_or_else(|| must.into())
}
