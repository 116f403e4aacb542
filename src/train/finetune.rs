//! Fine-tuning of all layers on a part of the labels (official `eval_semisup.py`): batch norms in training mode, a fresh classifier with a
//! learning rate of its own.

use super::Network;
use super::classifier::{self, ClassSets, ClassifierResult, Learner, Tell, Trainer, trainer};
use super::config::LinearConfig;
use super::event::Observer;
use super::knn::Accuracy;
use super::plan::eval_transform;
use crate::data::Loader;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{DType, Graph, Tensor, Variants};
use crate::nn::architecture::Backbone;
use crate::nn::{Images, Init, Parameters, Recompute, ResNet, initial_values};
use crate::ops::BatchNormMode;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use trainer::{INPUT, Rates, classifier_specs, classify};

/// Trains all of `network`'s backbone and a new classifier.
pub fn finetune(
    gpu: &Gpu,
    variants: &dyn Variants,
    network: Network,
    config: &LinearConfig,
    sets: &ClassSets,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<ClassifierResult> {
    if sets.train.len() < 2 {
        return Err(Error::data(config.data.path.to_string(), "leaves a single image to train on: batch norm needs two; raise --fraction"));
    }
    if sets.batch < 2 {
        return Err(Error::Usage("train.batch = 1: batch norm needs two images a step".into()));
    }
    network.check_images(sets.batch, [config.image.size; 2])?;
    let specs = classifier_specs(network.backbone.features(), sets.classes().len());
    let init = Init { seed: config.seed, zero_init_residual: false, block: network.backbone.block, classifier_std: config.head.classifier_std() };
    let mut values = initial_values(&specs, &init);
    values.extend(network.parameters.read(gpu, &network.store)?);
    // Only the backbone goes on: a SwAV head has no part in this, and its device memory goes with the network.
    let specs: Vec<_> = network.backbone.tensors().into_iter().chain(specs).collect();
    let backbone = network.backbone.clone();
    drop(network);
    values.retain(|name, _| specs.iter().any(|s| s.name == *name));
    let trainer = Trainer::new(gpu, config, &specs, &values)?;
    let mut tuned = Tuned { gpu, variants, config, sets, stop, backbone, trainer };
    classifier::train(gpu, config, sets, &mut tuned, stop, observer)
}

/// A network in fine-tuning.
struct Tuned<'a> {
    gpu: &'a Gpu,
    variants: &'a dyn Variants,
    config: &'a LinearConfig,
    sets: &'a ClassSets,
    stop: &'a AtomicBool,
    backbone: Backbone,
    trainer: Trainer,
}

/// Class scores of images of `size` by `size` pixels.
fn forward(backbone: &Backbone, form: Images, size: usize, mode: BatchNormMode) -> impl Fn(&Parameters, &Graph, usize) -> Tensor {
    move |parameters, graph, images| {
        let images = form.input(graph, INPUT, images, [size; 2], DType::F32);
        classify(parameters, &ResNet { backbone, parameters, mode, recompute: Recompute::None }.forward(&images).global_avg_pool2d())
    }
}

/// Steps of an epoch of fine-tuning. A last batch of a single image is left out: it has no variance for batch norms over 1x1 maps.
pub fn steps_per_epoch(images: usize, batch: usize) -> u64 {
    crate::data::steps_per_epoch(images, batch, images % batch == 1)
}

impl Learner for Tuned<'_> {
    fn name(&self) -> &'static str {
        "finetune"
    }

    fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    fn steps_per_epoch(&self) -> u64 {
        steps_per_epoch(self.sets.train.len(), self.sets.batch)
    }

    fn epoch(&mut self, epoch: u64, first: u64, tell: &mut Tell<'_>) -> Result<ControlFlow<()>> {
        let (steps, size) = (self.steps_per_epoch(), self.config.image.size);
        let Self { gpu, variants, config, sets, stop, backbone, trainer } = self;
        let forward = forward(backbone, sets.images, size, BatchNormMode::Training { momentum: 0.1 });
        let mut loader = sets.batches(config, epoch, steps)?;
        for step in first..first + steps {
            let ControlFlow::Continue(images) = classifier::next_batch(&mut loader, stop)? else {
                return Ok(ControlFlow::Break(()));
            };
            let Some(images) = images else { break };
            let labels = classifier::numbers(&images.labels)?;
            let rate = |base: f64| config.lr(base, step, steps);
            let rates = Rates { backbone: rate(config.backbone_lr(sets.batch)), head: rate(config.base_lr(sets.batch)) };
            let loss = trainer.step(gpu, *variants, &forward, &images.groups[0], &labels, rates)?;
            if tell(step, loss)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            loader.recycle(images);
        }
        Ok(ControlFlow::Continue(()))
    }

    fn judge(&mut self) -> Result<Accuracy> {
        let Self { gpu, variants, config, sets, stop, backbone, trainer } = self;
        let (batch, size) = (sets.batch.min(sets.val.len()), config.image.size);
        let forward = forward(backbone, sets.images, size, BatchNormMode::Evaluation);
        let mut accuracy = Accuracy::new(sets.classes().len());
        let (val, workers) = (Arc::clone(&sets.val), config.data.workers);
        let mut loader = Loader::evaluation(val, eval_transform(config), batch, workers)?;
        while let Some(images) = loader.next_until(stop).transpose().map_err(classifier::replaceable)? {
            if images.indices.is_empty() {
                continue;
            }
            let labels = classifier::numbers(&images.labels)?;
            let named = |i: usize| sets.val.path(images.indices[i] as usize);
            trainer.judge(gpu, *variants, &forward, (&images.groups[0], batch), (&labels, &named), &mut accuracy)?;
            loader.recycle(images);
        }
        Ok(accuracy)
    }
}
