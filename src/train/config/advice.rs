//! Values that are allowed, each by itself, and cannot do what they are there for: what `info` and `train` say before anything is spent.
//!
//! Promise: each warning names its key and value, what will come of it, and what to do. The recipes of `configs/` have none on ImageNet, nor the demos
//! on their sets.

use super::{LinearConfig, Method, Origins, PretrainConfig, ScheduleKind};
use crate::data::steps_per_epoch;
use crate::swav::SinkhornScope;
use crate::train::event::Warning;

/// Below and above this an entropy regularisation or a temperature makes codes or predictions that are one-hot, or all alike. (Scores are cosines.)
const SENSIBLE: std::ops::RangeInclusive<f64> = 1e-3..=10.0;
/// A part of the images that epochs may leave out without a word: what is over, drawn anew each time.
const LEFT_OUT: f64 = 0.2;

impl PretrainConfig {
    /// What the values say by themselves.
    pub(super) fn advice(&self) -> Vec<Warning> {
        let Self { model, loss, queue, optimizer, schedule, train, .. } = self;
        let mut all = Vec::new();
        let mut say = |key: &str, message: String| all.push(Warning::new(key, message));
        let (rows, swav) = (self.queue_rows(), self.method == Method::Swav);
        if rows > 0 && queue.start_epoch >= train.epochs {
            let (start, epochs) = (queue.start_epoch, train.epochs);
            say(
                "queue.start_epoch",
                format!(
                    "is {start}, counted from 0, and the run has {epochs} epochs: the queue never takes part; give an earlier one, or queue.length = 0"
                ),
            );
        }
        let parts = if loss.sinkhorn == SinkhornScope::Local { train.accumulate } else { 1 };
        let shared = (train.batch + rows) / parts.max(1);
        if swav && model.prototypes > shared {
            let with = if rows > 0 { " and queue" } else { "" };
            let parted = if parts > 1 { " in a micro-batch" } else { "" };
            let k = model.prototypes;
            say(
                "model.prototypes",
                format!(
                    "is {k}, and the codes give all of them equal shares of the {shared} rows of batch{with}{parted}: there are not enough for each to have one; give fewer prototypes, a larger train.batch or a longer queue.length"
                ),
            );
        }
        if swav && !SENSIBLE.contains(&loss.epsilon) {
            let e = loss.epsilon;
            let what =
                if e < 1.0 { "single prototypes, chosen by rounding" } else { "the same for every image, and nothing can be learned from them" };
            say("loss.epsilon", format!("is {e}, and scores are at most 1: codes are {what}; 0.05 is usual, 0.03 for small sets"));
        }
        if !SENSIBLE.contains(&loss.temperature) {
            let t = loss.temperature;
            let what = if t < 1.0 { "certain, whatever the network says" } else { "all alike" };
            say("loss.temperature", format!("is {t}, and scores are at most 1: predictions are {what}; 0.1 is usual"));
        }
        if schedule.warmup_epochs > 0 && schedule.warmup_epochs == train.epochs {
            let epochs = train.epochs;
            say(
                "schedule.warmup_epochs",
                format!("is {epochs}, the whole run: the learning rate never comes down from optimizer.lr; give fewer, or more train.epochs"),
            );
        }
        if schedule.min_lr > self.base_lr() {
            let (least, lr) = (schedule.min_lr, self.base_lr());
            say("schedule.min_lr", format!("is {least}, above optimizer.lr = {lr}: the learning rate will rise; give less, 0 for none"));
        }
        if optimizer.lr == 0.0 {
            say("optimizer.lr", "is 0: nothing is learned".into());
        }
        all
    }

    /// What they say beside the number of training images. None where there are fewer than a batch: that is an error elsewhere.
    pub fn advice_for(&self, images: usize) -> Vec<Warning> {
        let Self { model, queue, train, .. } = self;
        let mut all = Vec::new();
        let mut say = |key: &str, message: String| all.push(Warning::new(key, message));
        let per_epoch = steps_per_epoch(images, train.batch, true);
        if per_epoch == 0 {
            return all;
        }
        let (total, swav) = (per_epoch * train.epochs, self.method == Method::Swav);
        let frozen = train.freeze_prototypes_steps;
        if swav && frozen >= total {
            say(
                "train.freeze_prototypes_steps",
                format!("is {frozen}, and the run has {total} steps: the prototypes are never trained; one epoch, {per_epoch} steps, is usual"),
            );
        }
        let fills = (self.queue_rows() / train.batch) as u64;
        let left = train.epochs.saturating_sub(queue.start_epoch) * per_epoch;
        if fills > 0 && left > 0 && left <= fills {
            let (length, start) = (self.queue_rows(), queue.start_epoch);
            say(
                "queue.length",
                format!(
                    "is {length}, {fills} steps to fill, and {left} are left from queue.start_epoch = {start} on: the queue never takes part; give a shorter or an earlier one"
                ),
            );
        }
        if swav && model.prototypes > images {
            let k = model.prototypes;
            say("model.prototypes", format!("is {k}, more than the {images} images: most can stand for none; give fewer"));
        }
        let over = images - usize::try_from(per_epoch).unwrap_or(usize::MAX) * train.batch;
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        if over as f64 > LEFT_OUT * images as f64 {
            let (batch, used) = (train.batch, images - over);
            say(
                "train.batch",
                format!(
                    "is {batch}: an epoch is {used} of the {images} images, drawn anew each time, for only whole batches are used; a smaller batch leaves out fewer"
                ),
            );
        }
        all
    }
}

impl LinearConfig {
    /// What the values say by themselves.
    pub(super) fn advice(&self) -> Vec<Warning> {
        let Self { optimizer, schedule, train, .. } = self;
        let mut all = Vec::new();
        let mut say = |key: &str, message: String| all.push(Warning::new(key, message));
        if schedule.kind == ScheduleKind::Step && !schedule.milestones.is_empty() && schedule.milestones.iter().all(|m| *m >= train.epochs) {
            let (milestones, epochs) = (&schedule.milestones, train.epochs);
            say(
                "schedule.milestones",
                format!("is {milestones:?}, and the run has {epochs} epochs, counted from 0: the learning rate never falls; give earlier ones"),
            );
        }
        if schedule.kind == ScheduleKind::Cosine && schedule.min_lr > self.base_lr(train.batch) {
            let (least, lr) = (schedule.min_lr, self.base_lr(train.batch));
            say("schedule.min_lr", format!("is {least}, above optimizer.lr = {lr}: the learning rate will rise; give less, 0 for none"));
        }
        if optimizer.lr == 0.0 {
            say("optimizer.lr", "is 0: the head learns nothing".into());
        }
        all
    }

    /// What they say beside the number of training images.
    pub fn advice_for(&self, images: usize) -> Vec<Warning> {
        let batch = self.train.batch;
        let scaled = if self.optimizer.scale_lr_by_batch.is_some() { ", and the learning rate is scaled to that" } else { "" };
        let message = || format!("is {batch}, more than the {images} training images: a batch is all of them{scaled}");
        (batch > images).then(|| Warning::new("train.batch", message())).into_iter().collect()
    }
}

/// A batch that `--set` gave in the place of the recipe's, whose learning rate stays what it is.
pub(super) fn of_another_batch(origins: &Origins, lr: f64, batch: usize, scaled_by: Option<usize>) -> Option<Warning> {
    let (recipe, file) = origins.replaced("train.batch")?;
    let recipe = usize::try_from(recipe.as_integer()?).ok()?;
    // Less is within what a learning rate bears, and what one that was given too is meant for is the user's to know.
    let like = batch < 2 * recipe && recipe < 2 * batch;
    if like || recipe == 0 || scaled_by.is_some() || origins.sets("optimizer.lr") || !origins.gives("optimizer.lr") {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let in_proportion = lr * batch as f64 / recipe as f64;
    let message = format!(
        "is {batch} in the place of the {recipe} of {file}, and optimizer.lr = {lr} is not scaled with it: give optimizer.lr too, in proportion {in_proportion}, or optimizer.scale_lr_by_batch = {recipe}"
    );
    Some(Warning::new("train.batch", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(warnings: &[Warning]) -> Vec<&str> {
        warnings.iter().map(|w| w.about.as_str()).collect()
    }

    /// Loads `[table] key = value` lines.
    fn pretrain(text: &str, sets: &[&str]) -> (PretrainConfig, Vec<Warning>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        PretrainConfig::load(&path, &sets.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    /// Each at its edge: one step less is fine.
    #[test]
    fn what_the_values_say_by_themselves() {
        let base = "[train]\nbatch = 64\n[queue]\nlength = 0\n[model]\nprototypes = 64";
        let of = |more: &[&str]| pretrain(base, more).1;
        assert_eq!(of(&[]), []);
        for (wrong, right, key) in [
            ("model.prototypes=65", "model.prototypes=64", "model.prototypes"),
            ("queue.length=63", "queue.length=64", "queue.length"),
            ("queue.length=65", "queue.length=128", "queue.length"),
            ("loss.epsilon=1e-4", "loss.epsilon=0.001", "loss.epsilon"),
            ("loss.epsilon=11", "loss.epsilon=1", "loss.epsilon"),
            ("loss.temperature=1e-4", "loss.temperature=0.01", "loss.temperature"),
            ("loss.temperature=100", "loss.temperature=1", "loss.temperature"),
            ("schedule.warmup_epochs=200", "schedule.warmup_epochs=199", "schedule.warmup_epochs"),
            ("schedule.min_lr=0.7", "schedule.min_lr=0.6", "schedule.min_lr"),
            ("data.workers=1024", "data.workers=32", "data.workers"),
        ] {
            let said = of(&[wrong]);
            let value = wrong.split_once('=').unwrap().1.parse::<f64>().unwrap();
            assert!(keys(&said) == [key] && said[0].message.starts_with(&format!("is {value}")), "{wrong}: {said:?}");
            assert_eq!(of(&[right]), [], "{right}");
        }
        assert_eq!(keys(&of(&["optimizer.lr=0", "schedule.min_lr=0"])), ["optimizer.lr"]);
        assert_eq!(keys(&of(&["queue.length=64", "queue.start_epoch=200"])), ["queue.start_epoch"]);
        assert_eq!(of(&["queue.length=64", "queue.start_epoch=199"]), []);
        // With the queue there are rows for each.
        assert_eq!(of(&["model.prototypes=128", "queue.length=64"]), []);
        let parted = ["model.prototypes=128", "queue.length=64", "train.accumulate=2"];
        assert_eq!(of(&parted), []);
        assert_eq!(keys(&of(&[&parted[..], &["loss.sinkhorn=local"]].concat())), ["model.prototypes"]);
        // Clusters are of all images.
        assert_eq!(of(&["method=deepcluster-v2", "model.prototypes=1000"]), []);
    }

    #[test]
    fn what_they_say_beside_the_number_of_images() {
        let of = |sets: &[&str], images: usize| {
            let base = "[train]\nbatch = 64\nepochs = 10\nfreeze_prototypes_steps = 5\n[queue]\nlength = 0\n[model]\nprototypes = 60";
            pretrain(base, sets).0.advice_for(images)
        };
        assert_eq!(of(&[], 1280), []);
        assert_eq!(keys(&of(&["train.freeze_prototypes_steps=200"], 1280)), ["train.freeze_prototypes_steps"]);
        assert_eq!(of(&["train.freeze_prototypes_steps=199"], 1280), []);
        assert_eq!(of(&["train.freeze_prototypes_steps=200", "method=deepcluster-v2"], 1280), []);
        // Two steps fill it: there must be a third.
        let queue = ["train.epochs=3", "queue.start_epoch=2", "queue.length=128"];
        assert_eq!(keys(&of(&queue, 128)), ["queue.length"]);
        assert_eq!(of(&queue, 192), []);
        assert_eq!(keys(&of(&["model.prototypes=65", "queue.length=64", "queue.start_epoch=0"], 64)), ["model.prototypes"]);
        assert_eq!(keys(&of(&[], 100)), ["train.batch"]);
        assert!(of(&[], 100)[0].message.contains("64 of the 100 images"), "{:?}", of(&[], 100));
        assert_eq!(of(&[], 79), []);
        assert_eq!(of(&[], 63), [], "that is an error");
    }

    #[test]
    fn a_batch_in_the_place_of_the_recipes() {
        let recipe = "[optimizer]\nlr = 2.4\n[train]\nbatch = 64\n[queue]\nlength = 0\n[model]\nprototypes = 8";
        let of = |sets: &[&str]| pretrain(recipe, sets).1;
        let said = of(&["train.batch=16"]);
        assert_eq!(keys(&said), ["train.batch"]);
        assert!(said[0].message.contains("is 16 in the place of the 64") && said[0].message.contains("in proportion 0.6,"), "{said:?}");
        assert_eq!(keys(&of(&["train.batch=128"])), ["train.batch"]);
        for fine in [
            &["train.batch=33"][..],
            &["train.batch=64"],
            &["train.batch=16", "optimizer.lr=2.4"],
            &["train.batch=16", "optimizer.scale_lr_by_batch=64"],
        ] {
            assert_eq!(of(fine), [], "{fine:?}");
        }
        // Of a later `--set` the file's value is still what was replaced.
        let said = of(&["train.batch=32", "train.batch=16"]);
        assert!(said.iter().any(|w| w.message.contains("is 16 in the place of the 64")), "{said:?}");
    }

    #[test]
    fn classifiers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "kind = 'linear'").unwrap();
        let of = |sets: &[&str]| LinearConfig::load(&path, &sets.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).unwrap();
        assert_eq!(of(&[]).1, []);
        let step = ["schedule.kind=step", "train.epochs=60"];
        assert_eq!(keys(&of(&step).1), ["schedule.milestones"]);
        assert_eq!(of(&["schedule.kind=step", "train.epochs=61"]).1, []);
        assert_eq!(keys(&of(&["schedule.min_lr=0.4"]).1), ["schedule.min_lr"]);
        assert_eq!(keys(&of(&["optimizer.lr=0"]).1), ["optimizer.lr"]);
        assert_eq!((keys(&of(&[]).0.advice_for(31)), of(&[]).0.advice_for(32)), (vec!["train.batch"], vec![]));
    }
}
