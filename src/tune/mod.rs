//! Which kernel variant runs at which shape.
//!
//! An op offers variants, its own guess from the kind of adapter first. [`Tuner`] takes what a table of measurements says, where the
//! table has the shape, and can measure what it lacks. Other kernels add in another order and so round differently; a run that must
//! repeat its bits therefore records its choices and repeats them with [`Repeat`]. So it is with nodes that may be fused ([`Fusions`]).

mod cache;
mod fusions;
mod measure;
mod table;

pub use cache::cache_folder;
pub use fusions::Fusions;
pub use table::{Identity, Table};

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Choices, Decision, FUSE, Graph, Variants, key};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Takes what the op offers first: its own guess from the kind of adapter.
#[derive(Clone, Copy, Debug, Default)]
pub struct BestGuess;

impl Variants for BestGuess {
    fn choose<'a>(&self, _op: &str, _shape: &str, offered: &[&'a str]) -> &'a str {
        offered[0]
    }
}

/// Repeats recorded choices; what was not recorded, or is not offered here, another decides.
pub struct Repeat<'a> {
    /// What to repeat.
    pub choices: &'a Choices,
    /// Who decides the rest.
    pub otherwise: &'a dyn Variants,
}

impl Repeat<'_> {
    fn recorded<'v>(&self, key: &str, offered: &[&'v str]) -> Option<&'v str> {
        let wanted = self.choices.get(key)?;
        offered.iter().copied().find(|v| v == wanted)
    }
}

impl Variants for Repeat<'_> {
    fn choose<'v>(&self, op: &str, shape: &str, offered: &[&'v str]) -> &'v str {
        self.recorded(&key(op, shape), offered).unwrap_or_else(|| self.otherwise.choose(op, shape, offered))
    }

    fn prepare(&self, gpu: &Gpu, graph: &Graph, decisions: &[Decision]) -> Result<bool> {
        let open = |d: &&Decision| self.choices.get(&d.key()).is_none_or(|wanted| !d.offered.contains(wanted));
        let open: Vec<Decision> = decisions.iter().filter(open).cloned().collect();
        self.otherwise.prepare(gpu, graph, &open)
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effort {
    /// Nothing, and no table is asked: the ops' own guesses.
    Off,
    /// Nothing, but what was measured before is used.
    #[default]
    Table,
    /// Every shape of a program that the table lacks, before the program is built.
    Full,
}

/// What a [`Tuner`] that measures has done.
#[derive(Clone, Debug)]
pub enum Progress<'a> {
    /// A shape of a program was measured.
    Measured {
        /// Shapes done.
        done: usize,
        /// Shapes that the table lacked.
        total: usize,
        /// Op and shape.
        key: &'a str,
        /// Milliseconds by variant.
        times: &'a BTreeMap<String, f64>,
        /// The op's own guess.
        guess: &'a str,
    },
    /// The time was up: so many shapes keep the op's guess.
    TimeIsUp {
        /// Shapes left.
        left: usize,
    },
}

/// While shapes are measured, the table is written this often.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// Chooses by measurement.
pub struct Tuner<'a> {
    effort: Effort,
    fusions: Fusions,
    table: RefCell<Table>,
    left: Cell<Duration>,
    stop: Arc<AtomicBool>,
    progress: Box<dyn Fn(&Progress<'_>) + 'a>,
}

impl<'a> Tuner<'a> {
    /// Chooses from `table`; measures for at most `limit` in all; tells `progress` of it.
    pub fn new(effort: Effort, table: Table, limit: Duration, progress: impl Fn(&Progress<'_>) + 'a) -> Self {
        Self {
            effort,
            fusions: Fusions::Usual,
            table: RefCell::new(table),
            left: Cell::new(limit),
            stop: Arc::default(),
            progress: Box::new(progress),
        }
    }

    /// The same, making these rewrites.
    #[must_use]
    pub fn fusing(self, fusions: Fusions) -> Self {
        Self { fusions, ..self }
    }

    /// The same, measuring nothing more once `stop` is set: what is left keeps the op's guess.
    #[must_use]
    pub fn until(self, stop: Arc<AtomicBool>) -> Self {
        Self { stop, ..self }
    }

    /// Measures the choice `decision` of `graph` under every variant offered. `None` when the time was up, or a stop asked for, before all had run.
    fn measure(&self, gpu: &Gpu, graph: &Graph, decision: &Decision) -> Result<Option<BTreeMap<String, f64>>> {
        let (started, limit) = (Instant::now(), self.left.get());
        let times = measure::variants(gpu, graph, decision, self, &|| started.elapsed() >= limit || self.stopped());
        self.left.set(limit.saturating_sub(started.elapsed()));
        match times {
            // The device builds no more kernels then: what was measured is kept.
            Err(Error::StoppedEmpty) => Ok(None),
            times => times,
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Variants for Tuner<'_> {
    fn choose<'v>(&self, op: &str, shape: &str, offered: &[&'v str]) -> &'v str {
        if op == FUSE {
            return self.fusions.choose_rewrite(shape, offered);
        }
        let known = if self.effort == Effort::Off { None } else { self.table.borrow().best(&key(op, shape), offered) };
        known.unwrap_or(offered[0])
    }

    fn prepare(&self, gpu: &Gpu, graph: &Graph, decisions: &[Decision]) -> Result<bool> {
        if self.effort != Effort::Full {
            return Ok(false);
        }
        let mut missing: BTreeMap<String, &Decision> = BTreeMap::new();
        for decision in decisions.iter().filter(|d| !self.table.borrow().covers(&d.key(), &d.offered)) {
            missing.entry(decision.key()).or_insert(decision);
        }
        let (total, mut measured, mut saved) = (missing.len(), 0, Instant::now());
        for (done, (key, decision)) in missing.iter().enumerate() {
            let Some(times) = self.measure(gpu, graph, decision)? else {
                if !self.stopped() {
                    (self.progress)(&Progress::TimeIsUp { left: total - done });
                }
                break;
            };
            (self.progress)(&Progress::Measured { done: done + 1, total, key, times: &times, guess: &decision.offered[0] });
            self.table.borrow_mut().insert(key, times);
            measured = done + 1;
            // Who stops the program loses no more than this.
            if saved.elapsed() > SAVE_EVERY {
                self.table.borrow_mut().save();
                saved = Instant::now();
            }
        }
        if measured > 0 {
            self.table.borrow_mut().save();
        }
        Ok(measured > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERED: [&str; 3] = ["tile", "plain", "broadcast"];

    fn tuner(effort: Effort) -> Tuner<'static> {
        let mut table = Table::in_memory();
        table.insert("conv2d 9x9", BTreeMap::from([("tile", 4.0), ("plain", 2.0), ("broadcast", 1.0)].map(|(v, ms)| (v.to_owned(), ms))));
        Tuner::new(effort, table, Duration::ZERO, |_| ())
    }

    #[test]
    fn the_table_decides_where_it_knows_and_may() {
        for (effort, known) in [(Effort::Off, "tile"), (Effort::Table, "broadcast"), (Effort::Full, "broadcast")] {
            assert_eq!(tuner(effort).choose("conv2d", "9x9", &OFFERED), known, "{effort:?}");
            assert_eq!(tuner(effort).choose("conv2d", "8x8", &OFFERED), "tile", "{effort:?}");
        }
    }

    #[test]
    fn recorded_choices_come_first_while_they_are_offered() {
        let (choices, otherwise) = (Choices::from([("conv2d 9x9".to_owned(), "plain".to_owned())]), tuner(Effort::Table));
        let repeat = Repeat { choices: &choices, otherwise: &otherwise };
        assert_eq!(repeat.choose("conv2d", "9x9", &OFFERED), "plain");
        assert_eq!(repeat.choose("conv2d", "9x9", &["tile", "broadcast"]), "broadcast");
        assert_eq!(repeat.choose("conv2d", "8x8", &OFFERED), "tile");
    }
}
