//! Learning-rate schedules as pure functions of the step.
//!
//! Promise: the values equal those of the official SwAV code (`main_swav.py`), of mmengine's `CosineAnnealingLR`/`LinearLR` and of
//! PyTorch's `CosineAnnealingLR` in closed form, to 1e-14 of the largest value (`tests/golden/schedule.safetensors`). A function of
//! the step alone has no state to save, so a resumed run continues with the same values.

use std::f64::consts::PI;

/// Linear warm-up, then half a cosine: `final + (base - final) / 2 * (1 + cos(pi t / (T - W)))`.
///
/// A "step" is an iteration in pre-training (official SwAV and mmpretrain) and may be an epoch in linear evaluation.
/// Warm-up is `linspace(warmup_start, base_lr, warmup_steps)` *including its end*, as in the official code (and in mmengine's `LinearLR`
/// followed by a cosine), so `base_lr` occurs twice in a row: at the last warm-up step and at the first cosine step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosine {
    /// Highest learning rate.
    pub base_lr: f64,
    /// Value the cosine tends to; it would be reached at `total_steps`, one step after the last.
    pub final_lr: f64,
    /// Learning rate of step 0 when there is a warm-up.
    pub warmup_start: f64,
    /// W, number of warm-up steps; 0 for none.
    pub warmup_steps: u64,
    /// T, number of all steps, warm-up included.
    pub total_steps: u64,
}

impl Cosine {
    /// Learning rate of `step`, counted from 0. Steps at or after `total_steps` keep `final_lr`.
    pub fn lr(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            // As numpy.linspace: one value is the start; the last is the end exactly.
            if self.warmup_steps == 1 {
                return self.warmup_start;
            }
            if step + 1 == self.warmup_steps {
                return self.base_lr;
            }
            let fraction = (self.base_lr - self.warmup_start) / (self.warmup_steps - 1) as f64;
            return self.warmup_start + step as f64 * fraction;
        }
        if step >= self.total_steps {
            return self.final_lr;
        }
        let t = (step - self.warmup_steps) as f64;
        let span = (self.total_steps - self.warmup_steps) as f64;
        self.final_lr + 0.5 * (self.base_lr - self.final_lr) * (1.0 + (PI * t / span).cos())
    }
}

/// The learning rate falls by a factor at given steps: `base_lr * gamma^(milestones passed)` (PyTorch's `MultiStepLR`; official
/// `eval_linear.py --scheduler_type step`, epochs 60 and 80, and `eval_semisup.py`, epochs 12 and 16).
#[derive(Clone, Debug, PartialEq)]
pub struct MultiStep {
    /// Learning rate before the first milestone.
    pub base_lr: f64,
    /// Factor at each milestone.
    pub gamma: f64,
    /// Steps (or epochs) from which the factor holds, counted from 0, in any order.
    pub milestones: Vec<u64>,
}

impl MultiStep {
    /// Learning rate of `step`, counted from 0.
    pub fn lr(&self, step: u64) -> f64 {
        let passed = self.milestones.iter().filter(|&&m| step >= m).count();
        self.base_lr * self.gamma.powi(passed as i32)
    }
}

/// Any of the schedules.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// See [`Cosine`].
    Cosine(Cosine),
    /// See [`MultiStep`].
    MultiStep(MultiStep),
}

impl Schedule {
    /// Learning rate of `step`, counted from 0.
    pub fn lr(&self, step: u64) -> f64 {
        match self {
            Self::Cosine(s) => s.lr(step),
            Self::MultiStep(s) => s.lr(step),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    /// Golden values: learning rates recorded from the official SwAV code, mmengine and PyTorch, float64 (see tests/golden/README.md).
    fn golden() -> (serde_json::Value, Vec<u8>) {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/");
        let cases = std::fs::read_to_string(format!("{dir}schedule.json")).unwrap();
        (serde_json::from_str(&cases).unwrap(), std::fs::read(format!("{dir}schedule.safetensors")).unwrap())
    }

    #[test]
    fn equals_every_recorded_schedule() {
        let (cases, bytes) = golden();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut checked = 0;
        for (name, case) in cases.as_object().unwrap() {
            let p = |key: &str| case["params"][key].as_f64();
            let count = |key: &str| p(key).map(|v| v as u64);
            let base_lr = p("base_lr").unwrap();
            let per_epoch = count("iters_per_epoch").unwrap_or(1);
            let total = count("steps").or(count("epochs").map(|e| e * per_epoch)).unwrap();
            // The mmengine cases carry their numbers in their names: eta_min 6e-4, or LinearLR from factor 1e-4 over 5 steps.
            let (final_lr, warmup_start, warmup) = match name.as_str() {
                "mmengine/mm_swav_cosine_T20_eta6e-4" | "mmengine/mm_swav_by_epoch_converted" => (6e-4, 0.0, 0),
                "mmengine/mm_lars_warmup_cosine" => (0.0, base_lr * 1e-4, 5),
                "mmengine/mm_linear_probe_epochwise" => (0.0, 0.0, 0),
                _ => (p("final_lr").unwrap(), p("start_warmup").unwrap_or(0.0), count("warmup_epochs").unwrap_or(0) * per_epoch),
            };
            let schedule = Cosine { base_lr, final_lr, warmup_start, warmup_steps: warmup, total_steps: total };
            let expected: Vec<f64> =
                file.tensor(&format!("{name}/lr")).unwrap().data().chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
            assert_eq!(expected.len() as u64, total, "{name}");
            for (step, want) in expected.iter().enumerate() {
                let got = schedule.lr(step as u64);
                assert!((got - want).abs() <= 1e-14 * base_lr.max(1.0), "{name} step {step}: {got} instead of {want}");
            }
            checked += 1;
        }
        assert_eq!(checked, 9);
    }

    #[test]
    fn base_lr_occurs_twice_and_the_end_is_kept() {
        let s = Cosine { base_lr: 4.8, final_lr: 0.0048, warmup_start: 0.3, warmup_steps: 10, total_steps: 40 };
        assert_eq!((s.lr(9), s.lr(10)), (4.8, 4.8));
        assert!(s.lr(8) < 4.8 && s.lr(11) < 4.8);
        assert_eq!((s.lr(40), s.lr(u64::MAX)), (0.0048, 0.0048));
        let only_warmup = Cosine { warmup_steps: 40, ..s };
        assert_eq!((only_warmup.lr(39), only_warmup.lr(40)), (4.8, 0.0048));
    }

    #[test]
    fn milestones() {
        let s = Schedule::MultiStep(MultiStep { base_lr: 0.3, gamma: 0.1, milestones: vec![60, 80] });
        for (step, want) in [(0, 0.3), (59, 0.3), (60, 0.03), (79, 0.03), (80, 0.003), (99, 0.003)] {
            assert!((s.lr(step) - want).abs() < 1e-15, "{step}");
        }
    }
}
