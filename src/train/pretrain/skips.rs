//! Steps that f16 had to skip because a gradient overflowed: they change no weight, and halve the loss scale.
//!
//! One or two in a row are what a scale that grew too far costs. More are trouble: they are told as they begin and as they end, no checkpoint is written
//! meanwhile, and a run that ends among them, or that never did a step, has failed. Forty in a row end it.

use crate::train::event::Warning;

/// A run ends when so many steps in a row were skipped: the scale falls from its largest value to its least in 24, so it is not to blame.
pub(super) const MOST_SKIPPED: u32 = 40;

/// So many in a row are trouble.
const TROUBLE: u32 = 3;

/// The configuration key that warnings are about.
const KEY: &str = "train.precision";

/// What is known of the skipped steps.
pub(super) struct Skips {
    /// The present row.
    in_row: u32,
    /// Whether the run ever did a step.
    ever_clean: bool,
    /// In the present epoch.
    epoch: u64,
    /// In all, as the state of the loss scale counts them, so over resumes.
    total: u64,
}

impl Skips {
    /// Of a run that goes on after `done` steps: only steps that were done are gone on from.
    pub(super) fn new(done: u64) -> Self {
        Self { in_row: 0, ever_clean: done > 0, epoch: 0, total: 0 }
    }

    /// Takes note of a step and the state that it left the loss scale in; what is to be said about it.
    pub(super) fn note(&mut self, step: u64, state: &[f32]) -> Option<Warning> {
        let (scale, skipped) = (state[0], state[3] > 0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let total = state[2] as u64;
        self.total = total;
        if skipped {
            self.in_row += 1;
            self.epoch += 1;
            return (self.in_row == TROUBLE).then(|| {
                let message = format!(
                    "steps {} to {step} were skipped because a gradient overflowed, and the loss scale is down to {scale}; no checkpoint is written until a step is done again",
                    step + 1 - u64::from(TROUBLE)
                );
                Warning::new(KEY, message)
            });
        }
        let row = std::mem::take(&mut self.in_row);
        self.ever_clean = true;
        (row >= TROUBLE).then(|| {
            let first = step - u64::from(row);
            Warning::new(KEY, format!("step {step} is done again; {row} steps from {first} on were skipped, and the loss scale is {scale}"))
        })
    }

    /// Skipped steps in a row, the last one included.
    pub(super) fn in_row(&self) -> u32 {
        self.in_row
    }

    /// Whether the weights are none to be kept: the last steps were skipped, more than a few, or all that the run ever tried.
    pub(super) fn trouble(&self) -> bool {
        self.in_row >= TROUBLE || self.in_row > 0 && !self.ever_clean
    }

    /// What to call the steps of [`trouble`](Self::trouble) in an error.
    pub(super) fn words(&self) -> String {
        match (self.ever_clean, self.in_row) {
            (true, row) => format!("a gradient of each of the last {row} steps"),
            (false, 1) => "a gradient of the only step".into(),
            (false, row) => format!("a gradient of each of all {row} steps"),
        }
    }

    /// Skipped steps of the epoch that ends.
    pub(super) fn end_epoch(&mut self) -> u64 {
        std::mem::take(&mut self.epoch)
    }

    /// Skipped steps of the whole run.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_when_they_are_trouble_and_when_they_end() {
        let mut skips = Skips::new(0);
        let mut total = 0.0;
        let mut note = |skips: &mut Skips, step: u64, skipped: bool| {
            total += f32::from(u8::from(skipped));
            skips.note(step, &[8.0, 0.0, total, f32::from(u8::from(skipped))]).map(|w| w.message)
        };
        assert_eq!(note(&mut skips, 0, true), None);
        assert!(skips.trouble() && skips.words() == "a gradient of the only step");
        assert_eq!(note(&mut skips, 1, false), None);
        assert!(!skips.trouble());
        for step in 2..4 {
            assert_eq!(note(&mut skips, step, true), None);
            assert!(!skips.trouble() && skips.in_row() > 0);
        }
        assert!(note(&mut skips, 4, true).unwrap().starts_with("steps 2 to 4 were skipped"));
        assert_eq!(note(&mut skips, 5, true), None);
        assert!(skips.trouble() && skips.words().contains("last 4 steps"));
        assert!(note(&mut skips, 6, false).unwrap().contains("4 steps from 2 on were skipped"));
        assert_eq!((skips.in_row(), skips.end_epoch(), skips.end_epoch(), skips.total()), (0, 5, 0, 5));
    }
}
