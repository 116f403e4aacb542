//! Range checks that all read alike: `file: key: = VALUE: must be …`.

use super::load::Origins;
use crate::error::{Error, Result};
use crate::nn::architecture::TensorSpec;
use std::fmt::Display;

/// Checks values and knows which file a key came from.
pub(super) struct Check<'a> {
    pub origins: &'a Origins,
}

impl Check<'_> {
    /// An error about a key.
    pub fn error(&self, key: &str, message: impl Into<String>) -> Error {
        Error::config(self.origins.file_of(key), key, message)
    }

    /// `ok`, or an error that says the value and what it must be.
    pub fn that(&self, key: &str, ok: bool, value: impl Display, must: impl Display) -> Result<()> {
        if ok { Ok(()) } else { Err(self.error(key, format!("is {value}: {must}"))) }
    }

    /// `low <= value <= high`; NaN is outside.
    pub fn range(&self, key: &str, value: f64, low: f64, high: f64) -> Result<()> {
        self.that(key, value >= low && value <= high, value, format!("must be from {low} to {high}"))
    }

    /// A probability.
    pub fn probability(&self, key: &str, value: f64) -> Result<()> {
        self.range(key, value, 0.0, 1.0)
    }

    /// Finite and above 0.
    pub fn positive(&self, key: &str, value: f64) -> Result<()> {
        self.that(key, value > 0.0 && value.is_finite(), value, "must be > 0 and finite")
    }

    /// Finite and at least 0.
    pub fn not_negative(&self, key: &str, value: f64) -> Result<()> {
        self.that(key, value >= 0.0 && value.is_finite(), value, "must be >= 0 and finite")
    }

    /// `low <= value <= high` for counts and sizes.
    pub fn count(&self, key: &str, value: u64, low: u64, high: u64) -> Result<()> {
        let must = if value < low { format!("must be >= {low}") } else { format!("must be <= {high}") };
        self.that(key, (low..=high).contains(&value), value, must)
    }

    /// Parameters of a network, which kernels count in 32 bits; `keys` are what decides on their number.
    pub fn parameters(&self, tensors: &[TensorSpec], keys: &str) -> Result<()> {
        let count: usize = tensors.iter().filter(|t| t.kind.is_parameter()).map(TensorSpec::elements).sum();
        let most = u32::MAX;
        if count as u64 <= u64::from(most) {
            return Ok(());
        }
        Err(self.error("model", format!("has {count} parameters by {keys}: must have at most {most}")))
    }

    /// `low <= high`, both finite, above `min` (or equal to it where `closed`) and at most `max`.
    pub fn interval(&self, key: &str, [low, high]: [f64; 2], (min, closed): (f64, bool), max: f64) -> Result<()> {
        let ok = low <= high && (low > min || closed && low == min) && high <= max && high.is_finite();
        let above = if closed { ">=" } else { ">" };
        let below = if max.is_finite() { format!(" and <= {max}") } else { String::new() };
        self.that(key, ok, format!("[{low}, {high}]"), format!("must be [low, high] with low <= high, both {above} {min}{below}"))
    }
}
