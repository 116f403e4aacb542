//! What a run tells the outside while it goes on.
//!
//! Promise: training code says everything through [`Event`]s to one [`Observer`] and never prints; the command line decides what is
//! drawn, written or sent. An observer's error ends the run (a full disk, for example).

use crate::data::Summary;
use crate::error::{Error, Result};
use std::{fmt, path::PathBuf};

/// Something the user should know that does not stop the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is about: a dotted configuration key or a path; may be empty.
    pub about: String,
    /// One sentence, no full stop.
    pub message: String,
}

impl Warning {
    /// A warning about a key or path.
    pub fn new(about: impl fmt::Display, message: impl Into<String>) -> Self {
        Self { about: about.to_string(), message: message.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.about.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.about, self.message) }
    }
}

/// Facts known before the first step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunStarted {
    /// Adapter name as the driver gives it.
    pub adapter: String,
    /// Number of trained parameters.
    pub parameters: u64,
    /// Images in one epoch.
    pub images: u64,
    /// Images in one step.
    pub batch: u64,
    /// Epochs of the whole run.
    pub epochs: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// First step to be run, counted from 0; more than 0 on resume.
    pub start_step: u64,
    /// Loss of a model that knows nothing: ln K for K prototypes in pre-training (a collapsed run stays there), ln C for C classes.
    pub chance_loss: f64,
    /// Name of [`chance_loss`](Self::chance_loss), for example `ln K`.
    pub chance_name: String,
    /// The resolved configuration, TOML.
    pub config: String,
    /// What is unwise about it, which was said before.
    pub warnings: Vec<Warning>,
    /// What was found where the images lie.
    pub data: Summary,
}

/// Numbers of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// The step just done, counted from 0 over the whole run.
    pub step: u64,
    /// Its epoch, counted from 0.
    pub epoch: u64,
    /// Training loss (natural logarithm).
    pub loss: f64,
    /// Learning rate used.
    pub lr: f64,
    /// Images (not crops) per second of this step.
    pub images_per_second: f64,
    /// Milliseconds the step waited for data.
    pub data_wait_ms: f64,
    /// Anything else worth recording, by name.
    pub extra: Vec<(&'static str, f64)>,
}

/// Numbers of one epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Epoch {
    /// The epoch just done, counted from 0.
    pub epoch: u64,
    /// Its last step, counted from 0.
    pub step: u64,
    /// Mean loss of its steps.
    pub loss: f64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Prototypes that were some image's best code in this epoch (pre-training).
    pub prototypes_used: Option<u64>,
    /// Entropy of the mean code in nats, at most ln K (pre-training).
    pub code_entropy: Option<f64>,
    /// Steps that changed nothing because a gradient overflowed (f16), in this epoch since the start or resume.
    pub skipped_steps: u64,
}

/// Result of an evaluation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluated {
    /// What was evaluated, for example `linear` or `knn`.
    pub name: String,
    /// Last step done before it, counted from 0.
    pub step: u64,
    /// Epoch, counted from 0, where there are epochs.
    pub epoch: Option<u64>,
    /// Per cent of images whose first prediction is right.
    pub top1: f64,
    /// Per cent of images whose first five predictions hold the right one.
    pub top5: f64,
    /// Validation loss where there is one.
    pub loss: Option<f64>,
}

/// Numbers at the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finished {
    /// Steps done in all, those before a resume included.
    pub steps: u64,
    /// Epochs done in all.
    pub epochs: u64,
    /// Mean loss of the last epoch, as far as it went.
    pub loss: f64,
    /// Mean since the start or resume.
    pub images_per_second: f64,
    /// Wall time in seconds since the start or resume.
    pub seconds: f64,
    /// The last checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Whether a signal ended it before its last step.
    pub stopped: bool,
    /// Images that could not be read (pre-training).
    pub bad_images: u64,
    /// How often others took their place.
    pub replaced_images: u64,
    /// Steps that changed nothing because a gradient overflowed (f16), those before a resume included.
    pub skipped_steps: u64,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The run is about to do its first step.
    RunStarted(RunStarted),
    /// A step is done.
    Step(Step),
    /// An epoch is done.
    Epoch(Epoch),
    /// The memory banks are about to be filled: one pass over the data without training (DeepCluster-v2).
    FirstPass {
        /// Images it visits.
        images: u64,
    },
    /// The memory banks were clustered for the epoch that begins (DeepCluster-v2).
    Clustered {
        /// The epoch, counted from 0.
        epoch: u64,
        /// Its first step, counted from 0.
        step: u64,
        /// Clusters of each head that have images.
        used: Vec<u64>,
        /// Wall time.
        seconds: f64,
    },
    /// The queue is full and takes part in the codes from this step on.
    QueueUsed {
        /// Step, counted from 0.
        step: u64,
    },
    /// A checkpoint is safely on disk.
    CheckpointWritten {
        /// Steps done, so the step a resumed run starts with.
        step: u64,
        /// The file.
        path: PathBuf,
    },
    /// Something to know.
    Warning(Warning),
    /// An evaluation is done.
    Evaluated(Evaluated),
    /// A signal stopped the run; what it keeps is written.
    Stopped {
        /// Steps done.
        step: u64,
        /// Whether it can be continued from there.
        resumable: bool,
    },
    /// An error ended the run, perhaps with something kept.
    Failed {
        /// What the run ends with.
        message: String,
    },
    /// The run is complete.
    Finished(Finished),
}

/// Someone who is told what happens.
pub trait Observer {
    /// Takes note of one event; an error ends the run.
    fn event(&mut self, event: &Event) -> Result<()>;

    /// What there is to say of the observer itself since the last event, as that its disk is full: nothing that ends a run. `end`: the event was the last.
    fn notices(&mut self, end: bool) -> Vec<Warning> {
        let _ = end;
        Vec::new()
    }
}

/// Tells the observer of the error that `outcome` is, if it is one; that it cannot be told everywhere changes nothing. A stop is no failure.
pub fn noted<T>(observer: &mut dyn Observer, outcome: Result<T>) -> Result<T> {
    if let Err(e) = &outcome
        && !matches!(e, Error::StoppedEmpty)
    {
        let _ = observer.event(&Event::Failed { message: e.to_string() });
    }
    outcome
}

/// Several observers as one, told in order; the first error is returned after all were told. What one has to say of itself all are told as warnings.
#[derive(Default)]
pub struct Observers(pub Vec<Box<dyn Observer>>);

impl Observers {
    fn tell(&mut self, event: &Event) -> Result<()> {
        let mut first = Ok(());
        for observer in &mut self.0 {
            first = first.and(observer.event(event));
        }
        first
    }
}

impl Observer for Observers {
    fn event(&mut self, event: &Event) -> Result<()> {
        let mut first = self.tell(event);
        // What is said of one log can be too much for another. At the end what comes of that is not told again.
        let ends = matches!(event, Event::Finished(_) | Event::Stopped { .. } | Event::Failed { .. });
        for end in [false, true].into_iter().take(1 + usize::from(ends)) {
            loop {
                let notices: Vec<Warning> = self.0.iter_mut().flat_map(|observer| observer.notices(end)).collect();
                for notice in &notices {
                    first = first.and(self.tell(&Event::Warning(notice.clone())));
                }
                if notices.is_empty() || end {
                    break;
                }
            }
        }
        first
    }
}

/// Keeps every event in memory: for tests and for callers that want the numbers.
#[derive(Debug, Default)]
pub struct Recorder(pub Vec<Event>);

impl Observer for Recorder {
    fn event(&mut self, event: &Event) -> Result<()> {
        self.0.push(event.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, rc::Rc};

    struct Counting(Rc<Cell<u32>>, bool);
    impl Observer for Counting {
        fn event(&mut self, _: &Event) -> Result<()> {
            self.0.set(self.0.get() + 1);
            if self.1 { Err(Error::Failed("full".into())) } else { Ok(()) }
        }
    }

    #[test]
    fn all_are_told_even_after_an_error() {
        let n = Rc::new(Cell::new(0));
        let mut all = Observers(vec![Box::new(Counting(n.clone(), true)), Box::new(Counting(n.clone(), false))]);
        assert!(all.event(&Event::QueueUsed { step: 1 }).is_err());
        assert_eq!(n.get(), 2);
    }

    #[test]
    fn warnings_read_well() {
        assert_eq!(Warning::new("queue.length", "floored").to_string(), "queue.length: floored");
        assert_eq!(Warning::new("", "slow").to_string(), "slow");
    }
}
