//! Linear evaluation: a linear classifier on pooled features of the frozen backbone (official `eval_linear.py`, mmpretrain's linear
//! configurations). Batch norms of the backbone use their running statistics throughout. Without augmentation features are computed once.

use super::classifier::{self, ClassSets, ClassifierResult, Learner, Tell, Trainer, trainer};
use super::config::LinearConfig;
use super::event::{Event, Observer, Warning};
use super::knn::Accuracy;
use super::plan::eval_transform;
use super::{Extracted, Extractor, Network};
use crate::data::rng::permutation;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::{DType, Graph, Tensor, Variants, pad_rows};
use crate::nn::architecture::Block;
use crate::nn::{Init, Parameters, initial_values};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use trainer::{INPUT, Rates, classifier_specs, classify};

/// Trains and evaluates a linear head on `network`'s features.
pub fn evaluate(
    gpu: &Gpu,
    variants: &dyn Variants,
    network: &Network,
    config: &LinearConfig,
    sets: &ClassSets,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<ClassifierResult> {
    let mut warning = None;
    let mut probe = Probe::new(gpu, variants, network, config, sets, stop, &mut warning)?;
    if let Some(warning) = warning {
        observer.event(&Event::Warning(warning))?;
    }
    classifier::train(gpu, config, sets, &mut probe, stop, observer)
}

/// Where training features come from.
enum Source {
    Cached { features: Vec<f32>, labels: Vec<u32> },
    Augmented(Box<Extractor>),
}

/// A linear head in training.
struct Probe<'a> {
    gpu: &'a Gpu,
    variants: &'a dyn Variants,
    config: &'a LinearConfig,
    sets: &'a ClassSets,
    stop: &'a AtomicBool,
    features: usize,
    source: Source,
    held_out: Vec<f32>,
    held_out_labels: Vec<u32>,
    trainer: Trainer,
}

/// Rows of an inference pass.
const INFERENCE_ROWS: usize = 256;

impl<'a> Probe<'a> {
    fn new(
        gpu: &'a Gpu,
        variants: &'a dyn Variants,
        network: &Network,
        config: &'a LinearConfig,
        sets: &'a ClassSets,
        stop: &'a AtomicBool,
        warning: &mut Option<Warning>,
    ) -> Result<Self> {
        let (size, features) = (config.image.size, network.backbone.features());
        let mut extractor = Extractor::new(gpu, variants, network, (sets.images, sets.batch, [size, size]), None)?;
        let mut all = |data| -> Result<(Vec<f32>, Vec<u32>)> {
            let extracted = extractor.dataset(gpu, data, eval_transform(config), config.data.workers, stop);
            let Extracted { features, labels, .. } = extracted.map_err(classifier::replaceable)?;
            Ok((features, classifier::numbers(&labels)?))
        };
        let (held_out, held_out_labels) = all(Arc::clone(&sets.val))?;
        let source = if config.augment.enabled {
            *warning = extractor.warning();
            Source::Augmented(Box::new(extractor))
        } else {
            let (features, labels) = all(Arc::clone(&sets.train))?;
            *warning = extractor.warning();
            Source::Cached { features, labels }
        };
        let specs = classifier_specs(features, sets.classes().len());
        let init = Init { seed: config.seed, zero_init_residual: false, block: Block::Basic, classifier_std: config.head.classifier_std() };
        let trainer = Trainer::new(gpu, config, &specs, &initial_values(&specs, &init))?;
        Ok(Self { gpu, variants, config, sets, stop, features, source, held_out, held_out_labels, trainer })
    }
}

/// Class scores of rows of features.
fn forward(width: usize) -> impl Fn(&Parameters, &Graph, usize) -> Tensor {
    move |parameters, graph, rows| classify(parameters, &graph.input(INPUT, &[rows, width], DType::F32))
}

impl Learner for Probe<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    fn steps_per_epoch(&self) -> u64 {
        self.sets.train.len().div_ceil(self.sets.batch) as u64
    }

    fn epoch(&mut self, epoch: u64, first: u64, tell: &mut Tell<'_>) -> Result<ControlFlow<()>> {
        let (steps, width) = (self.steps_per_epoch(), self.features);
        let Self { gpu, variants, config, sets, stop, source, trainer, .. } = self;
        let forward = forward(width);
        let mut update = |step: u64, rows: &[f32], labels: &[u32]| {
            let stored = pad_rows(rows, &[labels.len(), width]);
            let rates = Rates { backbone: 0.0, head: config.lr(config.base_lr(sets.batch), step, steps) };
            let loss = trainer.step(gpu, *variants, &forward, bytemuck::cast_slice(&stored), labels, rates)?;
            tell(step, loss)
        };
        match source {
            Source::Cached { features, labels } => {
                let order = permutation(config.seed, epoch, u32::try_from(sets.train.len()).unwrap_or(u32::MAX));
                for (step, chosen) in (first..).zip(order.chunks(sets.batch)) {
                    let rows: Vec<f32> = chosen.iter().flat_map(|&r| &features[r as usize * width..][..width]).copied().collect();
                    let targets: Vec<u32> = chosen.iter().map(|&r| labels[r as usize]).collect();
                    if update(step, &rows, &targets)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            Source::Augmented(extractor) => {
                let mut loader = sets.batches(config, epoch, steps)?;
                for step in first..first + steps {
                    let ControlFlow::Continue(images) = classifier::next_batch(&mut loader, stop)? else {
                        return Ok(ControlFlow::Break(()));
                    };
                    let Some(images) = images else { break };
                    let mut passed = Extracted::default();
                    let named = |i: usize| sets.train.path(images.indices[i] as usize);
                    extractor.pass(gpu, &images.groups[0], named, &mut passed)?;
                    if update(step, &passed.features, &classifier::numbers(&images.labels)?)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    loader.recycle(images);
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn judge(&mut self) -> Result<Accuracy> {
        let Self { gpu, variants, features, held_out, held_out_labels, trainer, .. } = self;
        let mut accuracy = Accuracy::new(self.sets.classes().len());
        for (part, (rows, labels)) in held_out.chunks(INFERENCE_ROWS * *features).zip(held_out_labels.chunks(INFERENCE_ROWS)).enumerate() {
            let stored = pad_rows(rows, &[labels.len(), *features]);
            let named = |i: usize| self.sets.val.path(part * INFERENCE_ROWS + i);
            trainer.judge(gpu, *variants, &forward(*features), (bytemuck::cast_slice(&stored), INFERENCE_ROWS), (labels, &named), &mut accuracy)?;
        }
        Ok(accuracy)
    }
}
