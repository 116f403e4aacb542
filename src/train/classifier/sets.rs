//! Labelled images of a classifier.

use crate::data::rng::permutation;
use crate::data::{Batch, Contents, Dataset, HeldOut, Loader, OnBad, Part, Split, TrainTransform, hold_out, steps_per_epoch};
use crate::error::{Error, Result};
use crate::nn::Images;
use crate::train::config::{BadFiles, LinearConfig};
use crate::train::plan::{eval_transform, images};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Training and validation images with the same classes.
#[derive(Clone, Debug)]
pub struct ClassSets {
    /// Training images.
    pub train: Arc<Dataset>,
    /// Validation images.
    pub val: Arc<Dataset>,
    /// Images of a step: the configured batch, or all training images where there are fewer.
    pub batch: usize,
    /// The form in which the loader gives them.
    pub images: Images,
    /// Classes that have less than one image by `train.fraction`, and got one.
    pub rounded_up: usize,
}

impl ClassSets {
    /// Opens the data of `config`, and of each class's training images takes the part `train.fraction`, at least one image, chosen by the seed.
    pub fn open(config: &LinearConfig) -> Result<Self> {
        let (mut train, mut val) = parts(config.data.scan(&[Split::Train, Split::Val])?, config.data.val_fraction, config.seed)?;
        let classes = train.classes().len();
        if classes < 2 {
            return Err(Error::data(train.root(), format!("holds {classes} class folders; a classifier needs at least two")));
        }
        let fraction = config.train.fraction;
        let mut rounded_up = 0;
        if fraction < 1.0 {
            let labels: Vec<usize> = (0..train.len()).filter_map(|i| train.label(i)).collect();
            let mut members = vec![0; classes];
            labels.iter().for_each(|class| members[*class] += 1);
            rounded_up = members.iter().filter(|n| share(**n, fraction) == 0).count();
            train = train.select(&balanced(&labels, classes, fraction, config.seed))?;
        }
        if config.data.bad == Some(BadFiles::Replace) {
            train = train.on_bad(OnBad::Replace { seed: config.seed }, config.data.bad_limit);
            // A replacement would count twice.
            val = val.on_bad(OnBad::Skip, config.data.bad_limit);
        }
        let batch = config.train.batch.min(train.len());
        Ok(Self { train: Arc::new(train), val: Arc::new(val), batch, images: images(&config.data), rounded_up })
    }

    /// Names of the classes.
    pub fn classes(&self) -> &[String] {
        self.train.classes()
    }

    /// Shuffled training images of an epoch of `steps` steps, of which the loader counts those of the whole run, or of this epoch: take
    /// them as they come. Cropped at random where the configuration says so, else as in validation.
    pub(crate) fn batches(&self, config: &LinearConfig, epoch: u64, steps: u64) -> Result<Loader> {
        let (data, workers) = (Arc::clone(&self.train), config.data.workers);
        let whole = steps_per_epoch(data.len(), self.batch, false);
        if config.augment.enabled {
            let ratio = [3.0 / 4.0, 4.0 / 3.0];
            let crops = TrainTransform { size: config.image.size, scale: config.augment.scale, ratio, flip: config.augment.flip };
            let range = epoch * steps..(epoch + 1) * steps;
            return Loader::supervised(data, crops, config.seed, self.batch, steps < whole, workers, range);
        }
        let images = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let mut order: Vec<usize> = permutation(config.seed, epoch, images).into_iter().map(|i| i as usize).collect();
        if steps < whole {
            order.truncate(data.len() / self.batch * self.batch);
        }
        Loader::evaluation(Arc::new(data.select(&order)?), eval_transform(config), self.batch, workers)
    }
}

/// The training and the validation part of a set; of a set that has no validation part, the images that `val_fraction` holds out.
pub fn parts(contents: Contents, val_fraction: Option<f64>, seed: u64) -> Result<(Dataset, Dataset)> {
    let Some(fraction) = val_fraction else {
        // First, so that a set without it is refused before anything else.
        let val = contents.dataset(Split::Val)?;
        let summary = Arc::new(contents.summary(&[Part::Train, Part::Val])?);
        return Ok((contents.into_dataset(Split::Train)?.with_summary(&summary), val.with_summary(&summary)));
    };
    let held = contents.has(Part::Val);
    let all = contents.into_dataset(Split::Train)?;
    if held {
        let message = format!("has a validation part: --val-fraction {fraction} (data.val_fraction) is for sets that have none");
        return Err(Error::data(all.root(), message));
    }
    let names: Vec<String> = (0..all.len()).map(|i| all.name(i)).collect();
    let labels: Vec<usize> = (0..all.len()).filter_map(|i| all.label(i)).collect();
    let HeldOut { train, val, remarks } =
        hold_out(&names, &labels, all.classes(), fraction, seed).map_err(|message| Error::data(all.root(), message))?;
    remarks.iter().for_each(|remark| tracing::warn!("{}: {remark}", all.root().display()));
    let summary = Arc::new(all.summary().holding_out(val.len()));
    Ok((all.select(&train)?.with_summary(&summary), all.select(&val)?.with_summary(&summary)))
}

/// The next batch, or a break where a stop request comes before it does.
pub(crate) fn next_batch(loader: &mut Loader, stop: &AtomicBool) -> Result<ControlFlow<(), Option<Batch>>> {
    match loader.next_until(stop).transpose() {
        Ok(batch) => Ok(ControlFlow::Continue(batch)),
        Err(Error::StoppedEmpty) => Ok(ControlFlow::Break(())),
        Err(error) => Err(replaceable(error)),
    }
}

/// Says which setting goes on without an image that cannot be read.
pub fn replaceable(error: Error) -> Error {
    match error {
        Error::Data { path, message } => Error::Data { path, message: format!("{message} (data.bad = \"replace\" goes on without it)") },
        other => other,
    }
}

/// Labels of a batch whose images all have one, as both parts of [`ClassSets`] do.
pub(crate) fn numbers(labels: &[Option<usize>]) -> Result<Vec<u32>> {
    let number = |label: &Option<usize>| label.and_then(|l| u32::try_from(l).ok()).ok_or_else(|| Error::Failed("an image has no class".into()));
    labels.iter().map(number).collect()
}

/// A part of so many images, rounded.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "counts of images")]
fn share(images: usize, fraction: f64) -> usize {
    (images as f64 * fraction).round() as usize
}

/// Indices of a part of each class, ascending; the same for the same seed.
#[expect(clippy::cast_possible_truncation, reason = "counts of images")]
fn balanced(labels: &[usize], classes: usize, fraction: f64, seed: u64) -> Vec<usize> {
    let (mut chosen, mut by_class) = (Vec::new(), vec![Vec::new(); classes]);
    for (image, &class) in labels.iter().enumerate() {
        by_class[class].push(image);
    }
    for (class, members) in by_class.iter().enumerate() {
        let count = share(members.len(), fraction).max(1);
        let order = permutation(seed, class as u64, members.len() as u32);
        chosen.extend(order.into_iter().take(count).map(|i| members[i as usize]));
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_is_balanced_and_depends_on_the_seed_alone() {
        let labels: Vec<usize> = (0..130).map(|i| usize::from(i >= 100) + usize::from(i >= 129)).collect();
        let chosen = balanced(&labels, 3, 0.1, 7);
        let of = |class: usize| chosen.iter().filter(|i| labels[**i] == class).count();
        assert_eq!([of(0), of(1), of(2)], [10, 3, 1]);
        assert!(chosen.is_sorted() && chosen == balanced(&labels, 3, 0.1, 7) && chosen != balanced(&labels, 3, 0.1, 8));
    }
}
