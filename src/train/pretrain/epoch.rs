//! What the steps of an epoch add up to. A checkpoint in mid-epoch carries it, so that the epoch's numbers are those of all its steps, wherever
//! the run was interrupted.

use crate::error::{Error, Result};
use crate::graph::Outputs;
use crate::train::checkpoint::Checkpoint;
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Where a checkpoint's metadata has it, if the epoch had begun.
const KEY: &str = "epoch";

pub(super) struct EpochRecord {
    pub(super) began: Instant,
    sums: Sums,
}

/// Floating-point numbers by their bits: decimal digits would round.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sums {
    steps: u64,
    losses: u64,
    /// Of each prototype, whether it was some image's best.
    used: Vec<bool>,
    /// Of each prototype, the sum of its shares in the codes.
    mass: Vec<u64>,
}

impl Default for EpochRecord {
    fn default() -> Self {
        Self { began: Instant::now(), sums: Sums::default() }
    }
}

impl EpochRecord {
    /// Takes note of a step: its loss, and the codes (., prototypes) among its outputs where there are any.
    pub(super) fn add(&mut self, loss: f64, outputs: &Outputs, prototypes: usize) {
        let Sums { steps, losses, used, mass } = &mut self.sums;
        *steps += 1;
        *losses = (f64::from_bits(*losses) + loss).to_bits();
        for code in outputs.get_f32("codes").unwrap_or_default().chunks_exact(prototypes) {
            used.resize(prototypes, false);
            mass.resize(prototypes, 0);
            let best = code.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(k, _)| k);
            used[best] = true;
            for (mass, share) in mass.iter_mut().zip(code) {
                *mass = (f64::from_bits(*mass) + f64::from(*share)).to_bits();
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
        let masses = || self.sums.mass.iter().map(|m| f64::from_bits(*m));
        let total: f64 = masses().sum();
        let shares = masses().map(|m| m / total).filter(|p| *p > 0.0);
        (self.sums.used.iter().filter(|u| **u).count() as u64, -shares.map(|p| p * p.ln()).sum::<f64>())
    }

    /// What a checkpoint keeps of it: nothing between epochs.
    pub(super) fn metadata(&self) -> Result<Option<(String, String)>> {
        let text = serde_json::to_string(&self.sums).map_err(|e| Error::Failed(e.to_string()))?;
        Ok((self.sums.steps > 0).then(|| (KEY.to_owned(), text)))
    }

    /// What `saved` kept of an epoch of a network with so many prototypes.
    pub(super) fn of(saved: &Checkpoint, prototypes: usize) -> Result<Self> {
        let Some(text) = saved.metadata.get(KEY) else { return Ok(Self::default()) };
        let wrong = |message: String| Error::weights(&saved.path, format!("metadata `{KEY}`: {message}"));
        let sums: Sums = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        let counts = [sums.used.len(), sums.mass.len()];
        if counts != [prototypes; 2] && counts != [0; 2] {
            return Err(wrong(format!("is of {} prototypes instead of {prototypes}", counts[0])));
        }
        Ok(Self { sums, ..Self::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was_there() {
        let (losses, mass) = ((0.1_f64 + 0.2).to_bits(), vec![(1.0_f64 / 3.0).to_bits(), 0]);
        let record = EpochRecord { sums: Sums { steps: 2, losses, used: vec![true, false], mass }, ..EpochRecord::default() };
        let (key, text) = record.metadata().unwrap().unwrap();
        let again: Sums = serde_json::from_str(&text).unwrap();
        assert_eq!((key.as_str(), again.steps, again.losses, again.used.as_slice()), ("epoch", 2, losses, [true, false].as_slice()));
        assert_eq!(record.loss(), Some((0.1 + 0.2) / 2.0));
        assert_eq!(record.codes(), (1, 0.0));
        assert_eq!((EpochRecord::default().loss(), EpochRecord::default().metadata().unwrap()), (None, None));
    }
}
