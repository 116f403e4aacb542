//! What the steps of an epoch add up to. A checkpoint in mid-epoch carries it, so that the epoch's numbers are those of all its steps, wherever
//! the run was interrupted: their count and losses in its metadata as `epoch`, what prototypes have of the codes as the tensors `epoch/shares` and `epoch/used`.

use crate::error::{Error, Result};
use crate::graph::Outputs;
use crate::train::checkpoint::{Checkpoint, Dtype, TensorRef};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Where a checkpoint's metadata has its sums, if the epoch had begun.
const KEY: &str = "epoch";

/// Where a checkpoint has `shares` and `used`.
const CODES: [&str; 2] = ["epoch/shares", "epoch/used"];

pub(super) struct EpochRecord {
    pub(super) began: Instant,
    sums: Sums,
    /// Of each prototype what it has of all codes; empty without codes.
    shares: Vec<f64>,
    /// Of each prototype whether it was some image's best: 1 or 0.
    used: Vec<u8>,
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
        Self { began: Instant::now(), sums: Sums::default(), shares: Vec::new(), used: Vec::new() }
    }
}

impl EpochRecord {
    /// Takes note of a step: its loss, and what its outputs say of its codes, where it has any.
    pub(super) fn add(&mut self, loss: f64, outputs: &Outputs) {
        let Sums { steps, losses } = &mut self.sums;
        *steps += 1;
        *losses = (f64::from_bits(*losses) + loss).to_bits();
        let Some(shares) = outputs.get_f32("code_shares") else { return };
        self.shares.resize(shares.len(), 0.0);
        self.used.resize(shares.len(), 0);
        self.shares.iter_mut().zip(shares).for_each(|(sum, share)| *sum += f64::from(share));
        for best in outputs.u32("best_codes") {
            // A row of what is not a number has no best.
            if let Some(used) = self.used.get_mut(best as usize) {
                *used = 1;
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
        let total: f64 = self.shares.iter().sum();
        let shares = self.shares.iter().map(|share| share / total).filter(|p| *p > 0.0);
        (self.used.iter().filter(|used| **used > 0).count() as u64, -shares.map(|p| p * p.ln()).sum::<f64>())
    }

    /// Prototypes of which it knows something: none between epochs.
    pub(super) fn prototypes(&self) -> usize {
        self.shares.len()
    }

    /// The tensors [`CODES`] of a checkpoint, whose shape is (its prototypes).
    pub(super) fn tensors<'a>(&'a self, shape: &'a [usize; 1]) -> [(String, TensorRef<'a>); 2] {
        let shares = TensorRef { dtype: Dtype::F64, shape, bytes: bytemuck::cast_slice(&self.shares) };
        let used = TensorRef { dtype: Dtype::U8, shape, bytes: &self.used };
        [(CODES[0].to_owned(), shares), (CODES[1].to_owned(), used)]
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
        let mut record = Self { sums, ..Self::default() };
        if CODES.iter().any(|name| saved.tensor(name).is_some()) {
            record.shares = bytemuck::pod_collect_to_vec(saved.expect(CODES[0], Dtype::F64, &[prototypes])?);
            record.used = saved.expect(CODES[1], Dtype::U8, &[prototypes])?.to_vec();
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_was_there() {
        let losses = (0.1_f64 + 0.2).to_bits();
        let record = EpochRecord { sums: Sums { steps: 2, losses }, shares: vec![1.0 / 3.0, 0.0], used: vec![1, 0], ..EpochRecord::default() };
        let (key, text) = record.metadata().unwrap().unwrap();
        let again: Sums = serde_json::from_str(&text).unwrap();
        assert_eq!((key.as_str(), again.steps, again.losses), ("epoch", 2, losses));
        let [(_, shares), (_, used)] = record.tensors(&[2]);
        assert_eq!((bytemuck::pod_collect_to_vec::<u8, f64>(shares.bytes), used.bytes), (vec![1.0 / 3.0, 0.0], [1, 0].as_slice()));
        assert_eq!(record.loss(), Some((0.1 + 0.2) / 2.0));
        assert_eq!(record.codes(), (1, 0.0));
        assert_eq!((EpochRecord::default().loss(), EpochRecord::default().metadata().unwrap()), (None, None));
    }
}
