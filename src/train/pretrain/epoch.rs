//! What the steps of an epoch add up to. A checkpoint in mid-epoch carries it, so that the epoch's numbers are those of all its steps, wherever
//! the run was interrupted: their count and losses in its metadata as `epoch`, what prototypes have of the codes as the tensor `epoch/codes`.

use crate::error::{Error, Result};
use crate::graph::Outputs;
use crate::train::checkpoint::{Checkpoint, Dtype};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Where a checkpoint's metadata has its sums, if the epoch had begun.
const KEY: &str = "epoch";

/// Where a checkpoint has `codes`.
pub(super) const CODES: &str = "epoch/codes";

pub(super) struct EpochRecord {
    pub(super) began: Instant,
    sums: Sums,
    /// Of each prototype the sum of its shares in the codes, by the bits of an f64, then of each 1 if it was some image's best. Empty without codes.
    codes: Vec<i64>,
}

/// Floating-point numbers by their bits: decimal digits would round.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sums {
    steps: u64,
    losses: u64,
}

impl Default for EpochRecord {
    fn default() -> Self {
        Self { began: Instant::now(), sums: Sums::default(), codes: Vec::new() }
    }
}

impl EpochRecord {
    /// Takes note of a step: its loss, and the codes (., prototypes) among its outputs where there are any.
    pub(super) fn add(&mut self, loss: f64, outputs: &Outputs, prototypes: usize) {
        let Sums { steps, losses } = &mut self.sums;
        *steps += 1;
        *losses = (f64::from_bits(*losses) + loss).to_bits();
        for code in outputs.get_f32("codes").unwrap_or_default().chunks_exact(prototypes) {
            self.codes.resize(2 * prototypes, 0);
            let (masses, used) = self.codes.split_at_mut(prototypes);
            let best = code.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(k, _)| k);
            used[best] = 1;
            for (mass, share) in masses.iter_mut().zip(code) {
                *mass = (f64::from_bits(mass.cast_unsigned()) + f64::from(*share)).to_bits().cast_signed();
            }
        }
    }

    /// Mean loss of its steps, if it had any.
    #[expect(clippy::cast_precision_loss, reason = "a count of steps")]
    pub(super) fn loss(&self) -> Option<f64> {
        (self.sums.steps > 0).then(|| f64::from_bits(self.sums.losses) / self.sums.steps as f64)
    }

    /// Prototypes that were some image's best, and the entropy of the mean code in nats.
    pub(super) fn codes(&self) -> (u64, f64) {
        let (masses, used) = self.codes.split_at(self.codes.len() / 2);
        let masses = || masses.iter().map(|m| f64::from_bits(m.cast_unsigned()));
        let total: f64 = masses().sum();
        let shares = masses().map(|m| m / total).filter(|p| *p > 0.0);
        (used.iter().filter(|u| **u > 0).count() as u64, -shares.map(|p| p * p.ln()).sum::<f64>())
    }

    /// The tensor [`CODES`] of a checkpoint, (2, prototypes); nothing between epochs.
    pub(super) fn tensor(&self) -> Option<(&[i64], [usize; 2])> {
        (!self.codes.is_empty()).then_some((self.codes.as_slice(), [2, self.codes.len() / 2]))
    }

    /// What else a checkpoint keeps of it: nothing between epochs.
    pub(super) fn metadata(&self) -> Result<Option<(String, String)>> {
        let text = serde_json::to_string(&self.sums).map_err(|e| Error::Failed(e.to_string()))?;
        Ok((self.sums.steps > 0).then(|| (KEY.to_owned(), text)))
    }

    /// What `saved` kept of an epoch of a network with so many prototypes.
    pub(super) fn of(saved: &Checkpoint, prototypes: usize) -> Result<Self> {
        let Some(text) = saved.metadata.get(KEY) else { return Ok(Self::default()) };
        let wrong = |message: String| Error::weights(&saved.path, format!("metadata `{KEY}`: {message}"));
        let sums: Sums = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        let codes = match saved.tensor(CODES) {
            Some(_) => bytemuck::pod_collect_to_vec(saved.expect(CODES, Dtype::I64, &[2, prototypes])?),
            None => Vec::new(),
        };
        Ok(Self { sums, codes, ..Self::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was_there() {
        let losses = (0.1_f64 + 0.2).to_bits();
        let codes = vec![(1.0_f64 / 3.0).to_bits().cast_signed(), 0, 1, 0];
        let record = EpochRecord { sums: Sums { steps: 2, losses }, codes: codes.clone(), ..EpochRecord::default() };
        let (key, text) = record.metadata().unwrap().unwrap();
        let again: Sums = serde_json::from_str(&text).unwrap();
        assert_eq!((key.as_str(), again.steps, again.losses), ("epoch", 2, losses));
        assert_eq!(record.tensor(), Some((codes.as_slice(), [2, 2])));
        assert_eq!(record.loss(), Some((0.1 + 0.2) / 2.0));
        assert_eq!(record.codes(), (1, 0.0));
        assert_eq!((EpochRecord::default().loss(), EpochRecord::default().metadata().unwrap()), (None, None));
    }
}
