//! The images of a run: the set, and batch after batch of it, with what there is to say of bad files and of disks that do not answer.

use super::Training;
use crate::data::{Batch, Dataset, Loader, Notice, OnBad, Split};
use crate::error::{Error, Result};
use crate::train::config::{BadFiles, PretrainConfig};
use crate::train::event::{Event, Observer, Step, Warning};
use crate::train::run_folder::RunFolder;
use std::sync::Arc;

/// The images that a run learns from.
pub fn open_data(config: &PretrainConfig) -> Result<Arc<Dataset>> {
    let on = match config.data.bad {
        None | Some(BadFiles::Replace) => OnBad::Replace { seed: config.seed },
        Some(BadFiles::Stop) => OnBad::Stop,
    };
    Ok(Arc::new(config.data.scan(&[Split::Pretrain])?.into_dataset(Split::Pretrain)?.on_bad(on, config.data.bad_limit)))
}

/// Hands on what there is to say of the data at once; bad images are told with their step.
pub(super) fn tell(observer: &mut dyn Observer, notice: &Notice) -> Result<()> {
    match notice {
        Notice::Bad(..) => Ok(()),
        Notice::Stalled { .. } => observer.event(&Event::Warning(Warning::new(notice.path(), notice.message()))),
    }
}

/// What can be done about an image that cannot be read: a run goes on with as many images only.
fn replaceable(error: Error) -> Error {
    match error {
        Error::Data { path, message } => Error::Data { path, message: format!("{message} (with readable images of these names --resume goes on)") },
        other => other,
    }
}

impl Training<'_> {
    /// The next batch; `None` where a stop request comes before it does, as it may while a disk does not answer.
    pub(super) fn batch(&mut self, loader: &mut Loader) -> Result<Option<Batch>> {
        let Self { run, observer, state, .. } = self;
        let next = loader.next_or_stop(run.stop, &mut |notice| tell(*observer, notice));
        match next.ok_or_else(|| Error::Failed("the data ended before the run".into()))? {
            Ok(batch) => {
                state.bad.add(&batch);
                state.bad.write(run.folder).map_or(Ok(()), |warning| observer.event(&Event::Warning(warning)))?;
                Ok(Some(batch))
            }
            Err(Error::StoppedEmpty) => Ok(None),
            Err(error) => Err(replaceable(error)),
        }
    }

    /// Tells a step, and behind it the bad images that its batch met: a run that goes back to an earlier step forgets both.
    pub(super) fn tell_step(&mut self, step: Step) -> Result<()> {
        let number = step.step;
        self.observer.event(&Event::Step(step))?;
        self.state.bad.untold(number).into_iter().try_for_each(|warning| self.observer.event(&Event::Warning(warning)))
    }

    /// Writes down which images the run has from now on. It can do without.
    pub(super) fn note_images(&mut self, folder: &RunFolder) -> Result<()> {
        match self.state.files.write(folder) {
            Err(error @ Error::Output { .. }) => {
                let message = format!("{error}: what a later change of the data is about cannot be named");
                self.observer.event(&Event::Warning(Warning::new("data", message)))
            }
            outcome => outcome,
        }
    }
}
