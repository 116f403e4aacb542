//! Linear evaluation: a linear classifier on pooled features of the frozen backbone (official `eval_linear.py`, mmpretrain's linear
//! configurations). Batch norms of the backbone use their running statistics throughout. Without augmentation features are computed once.

use super::config::{LinearConfig, LinearOptimizerKind};
use super::event::{Epoch, Evaluated, Event, Finished, Observer, RunStarted, Step, Warning};
use super::knn::Accuracy;
use super::plan::normalize;
use super::{Extracted, Extractor, Network};
use crate::data::rng::permutation;
use crate::data::{Dataset, EvalTransform, Loader, Split, TrainTransform};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{DType, Graph, Outputs, Program, Store, Variants, pad_rows};
use crate::nn::architecture::{TensorKind, TensorSpec};
use crate::nn::{Init, Parameters, Values, initial_values};
use crate::ops::gradients;
use crate::optim::{Optimizer, OptimizerKind};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Outcome of a linear evaluation, per cent.
#[derive(Clone, Debug, Serialize)]
pub struct LinearResult {
    /// Best top-1 over the epochs.
    pub top1: f64,
    /// Top-5 of that epoch.
    pub top5: f64,
    /// Mean over classes of each class's own top-1, of that epoch.
    pub mean_class: f64,
    /// That epoch, counted from 0.
    pub best_epoch: u64,
    /// Top-1 of the last epoch.
    pub last_top1: f64,
    /// Class names.
    pub classes: Vec<String>,
    /// Weight (classes, features) and bias of the best epoch, PyTorch layout.
    #[serde(skip)]
    pub head: Values,
}

/// Where training features come from.
enum Source {
    Cached(Extracted),
    Augmented { data: Arc<Dataset>, extractor: Extractor },
}

/// Trains and evaluates a linear head on `network`'s features.
pub fn evaluate(
    gpu: &Gpu,
    variants: &dyn Variants,
    network: &Network,
    config: &LinearConfig,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<LinearResult> {
    let path = Path::new(&config.data.path);
    let train = Arc::new(Dataset::open(path, Split::Train)?);
    let val = Arc::new(Dataset::open(path, Split::Val)?);
    let classes = train.classes().to_vec();
    if classes.len() < 2 {
        return Err(Error::data(path, format!("holds {} class folders; a classifier needs at least two", classes.len())));
    }
    let batch = config.train.batch.min(train.len());
    let size = config.image.size;
    let transform = EvalTransform { resize: (config.image.resize > 0).then_some(config.image.resize), crop: size };
    let mut extractor = Extractor::new(gpu, variants, network, batch, [size, size], false)?;
    let (pixels, workers) = (normalize(&config.data), config.data.workers);
    let held_out = extractor.dataset(gpu, Arc::clone(&val), transform, pixels, workers)?;
    let labels = |e: &Extracted, data: &Dataset| -> Result<Vec<u32>> {
        let of = |(i, label): (usize, &Option<usize>)| {
            let label = label.ok_or_else(|| Error::data(data.path(i), "has no class"))?;
            Ok(u32::try_from(label).unwrap_or(u32::MAX))
        };
        e.labels.iter().enumerate().map(of).collect()
    };
    let val_labels = labels(&held_out, &val)?;
    let (mut source, train_labels) = if config.augment.enabled {
        (Source::Augmented { data: Arc::clone(&train), extractor }, Vec::new())
    } else {
        let all = extractor.dataset(gpu, Arc::clone(&train), transform, pixels, workers)?;
        let labels = labels(&all, &train)?;
        (Source::Cached(all), labels)
    };

    let mut head = Head::new(gpu, variants, config, network.backbone.features(), classes.len())?;
    let steps_per_epoch = train.len().div_ceil(batch) as u64;
    let total = steps_per_epoch * config.train.epochs;
    #[expect(clippy::cast_precision_loss, reason = "a count of classes")]
    observer.event(&Event::RunStarted(RunStarted {
        adapter: gpu.description().name.clone(),
        parameters: head.parameters.count(),
        images: train.len() as u64,
        batch: batch as u64,
        epochs: config.train.epochs,
        steps: total,
        start_step: 0,
        chance_loss: (classes.len() as f64).ln(),
        chance_name: "ln C".into(),
        config: config.to_toml()?,
    }))?;
    if batch < config.train.batch {
        let message = format!("is {}, more than the {} training images: batches have {batch}", config.train.batch, train.len());
        observer.event(&Event::Warning(Warning::new("train.batch", message)))?;
    }
    let mut best: Option<LinearResult> = None;
    let mut last = 0.0;
    let began = std::time::Instant::now();
    for epoch in 0..config.train.epochs {
        let started = std::time::Instant::now();
        let lr = |step: u64| config.lr(config.base_lr(), step, steps_per_epoch);
        let first = epoch * steps_per_epoch;
        let mut losses = Vec::new();
        let mut told = |step: u64, loss: f64, observer: &mut dyn Observer| -> Result<()> {
            if !loss.is_finite() {
                return Err(Error::NonFinite { what: "the loss of the linear head".into(), step });
            }
            losses.push(loss);
            let mut event = Step { step, epoch, loss, lr: lr(step), ..Step::default() };
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let rate = (losses.len() * batch) as f64 / started.elapsed().as_secs_f64().max(1e-9);
            event.images_per_second = rate;
            observer.event(&Event::Step(event))
        };
        match &mut source {
            Source::Cached(all) => {
                let order = permutation(config.seed, epoch, u32::try_from(train.len()).unwrap_or(u32::MAX));
                let width = head.features;
                for (i, chosen) in order.chunks(batch).enumerate() {
                    let rows: Vec<f32> = chosen.iter().flat_map(|&r| &all.features[r as usize * width..][..width]).copied().collect();
                    let targets: Vec<u32> = chosen.iter().map(|&r| train_labels[r as usize]).collect();
                    let step = first + i as u64;
                    let loss = head.step(gpu, variants, &rows, &targets, lr(step))?;
                    told(step, loss, observer)?;
                }
            }
            Source::Augmented { data, extractor } => {
                let crops = TrainTransform { size, scale: config.augment.scale, ratio: [0.75, 4.0 / 3.0], flip: config.augment.flip };
                let steps = first..first + steps_per_epoch;
                let mut loader = Loader::supervised(Arc::clone(data), crops, pixels, config.seed, batch, false, workers, steps)?;
                while let Some(next) = loader.next() {
                    let next = next?;
                    let mut passed = Extracted::default();
                    extractor.pass(gpu, &next.groups[0], &mut passed)?;
                    passed.labels.clone_from(&next.labels);
                    let targets = labels(&passed, data)?;
                    let loss = head.step(gpu, variants, &passed.features, &targets, lr(next.step))?;
                    told(next.step, loss, observer)?;
                    loader.recycle(next);
                }
            }
        }
        let accuracy = head.accuracy(gpu, variants, &held_out.features, &val_labels, classes.len())?;
        last = accuracy.top1();
        #[expect(clippy::cast_precision_loss, reason = "a count of steps")]
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        let (step, seconds) = (first + steps_per_epoch - 1, started.elapsed().as_secs_f64());
        observer.event(&Event::Epoch(Epoch { epoch, step, loss: mean, seconds, prototypes_used: None, code_entropy: None }))?;
        let evaluated = Evaluated { name: "linear".into(), step, epoch: Some(epoch), top1: last, top5: accuracy.top5(), loss: None };
        observer.event(&Event::Evaluated(evaluated))?;
        if best.as_ref().is_none_or(|b| last > b.top1) {
            best = Some(LinearResult {
                top1: last,
                top5: accuracy.top5(),
                mean_class: accuracy.mean_class(),
                best_epoch: epoch,
                last_top1: last,
                classes: classes.clone(),
                head: head.parameters.read(gpu, &head.store)?,
            });
        }
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Failed("stopped by a signal before the evaluation was complete".into()));
        }
        if epoch + 1 == config.train.epochs {
            let seconds = began.elapsed().as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let rate = (train.len() as u64 * config.train.epochs) as f64 / seconds.max(1e-9);
            let end = Finished { steps: total, epochs: epoch + 1, loss: mean, images_per_second: rate, seconds, checkpoint: None };
            observer.event(&Event::Finished(end))?;
        }
    }
    let best = best.ok_or_else(|| Error::config("train", "train.epochs", "is 0: nothing was trained"))?;
    Ok(LinearResult { last_top1: last, ..best })
}

/// A linear classifier in training.
struct Head {
    features: usize,
    parameters: Parameters,
    store: Store,
    optimizer: Optimizer,
    /// Training programs by number of rows: whole batches and the last one of an epoch.
    training: Vec<(usize, Program)>,
    inference: Option<Program>,
}

/// Rows of an inference pass.
const INFERENCE_ROWS: usize = 256;

impl Head {
    #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
    fn new(gpu: &Gpu, _variants: &dyn Variants, config: &LinearConfig, features: usize, classes: usize) -> Result<Self> {
        let spec = |name: &str, shape: Vec<usize>, kind| TensorSpec { name: name.into(), shape, kind };
        let specs = [spec("fc.weight", vec![classes, features], TensorKind::LinearWeight), spec("fc.bias", vec![classes], TensorKind::LinearBias)];
        let parameters = Parameters::new(&specs, |_| true, gpu.caps().max_binding_bytes);
        let store = parameters.allocate(gpu)?;
        let block = crate::nn::architecture::Block::Basic;
        let init = Init { seed: config.seed, zero_init_residual: false, block, classifier_std: config.head.init_std };
        parameters.write(gpu, &store, &initial_values(&specs, &init))?;
        let o = &config.optimizer;
        let kind = match o.kind {
            LinearOptimizerKind::Sgd => OptimizerKind::Sgd,
            LinearOptimizerKind::Lars => OptimizerKind::Lars,
        };
        let optimizer = Optimizer { kind, momentum: o.momentum as f32, weight_decay: o.weight_decay as f32, trust: 0.001, eps: 1e-8 };
        Ok(Self { features, parameters, store, optimizer, training: Vec::new(), inference: None })
    }

    /// One update on `rows` of features; returns the loss before it.
    #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
    fn step(&mut self, gpu: &Gpu, variants: &dyn Variants, rows: &[f32], labels: &[u32], lr: f64) -> Result<f64> {
        let n = labels.len();
        if !self.training.iter().any(|(rows, _)| *rows == n) {
            let graph = Graph::new();
            let x = graph.input("x", &[n, self.features], DType::F32);
            let targets = graph.input("labels", &[n], DType::U32);
            let tensor = |name| self.parameters.tensor(&graph, name);
            let loss = x.linear(&tensor("fc.weight"), Some(&tensor("fc.bias"))).cross_entropy(&targets);
            let trained = self.parameters.trained(&graph);
            let wrt: Vec<_> = trained.iter().map(|(t, _)| t.clone()).collect();
            for (gradient, (_, place)) in gradients(&loss, &wrt).into_iter().flatten().zip(&trained) {
                graph.place(&gradient, self.parameters.variables(), *place);
            }
            let step = graph.input("step", &[4], DType::F32);
            self.optimizer.record(&graph, &self.parameters, &step, |_| false);
            self.training.push((n, Program::new(gpu, &self.store, &graph, &[("loss", &loss)], variants)?));
        }
        let (_, program) = self.training.iter_mut().find(|(rows, _)| *rows == n).expect("built above");
        let (x, targets) = (pad_rows(rows, &[n, self.features]), pad_rows(labels, &[n]));
        let step = [lr as f32, 0.0, 0.0, 0.0];
        let inputs: [(&str, &[u8]); 3] =
            [("x", bytemuck::cast_slice(&x)), ("labels", bytemuck::cast_slice(&targets)), ("step", bytemuck::cast_slice(&step))];
        Ok(f64::from(program.call(gpu, &inputs)?.scalar("loss")))
    }

    fn accuracy(&mut self, gpu: &Gpu, variants: &dyn Variants, rows: &[f32], labels: &[u32], classes: usize) -> Result<Accuracy> {
        let program = match &mut self.inference {
            Some(program) => program,
            empty => {
                let graph = Graph::new();
                let x = graph.input("x", &[INFERENCE_ROWS, self.features], DType::F32);
                let logits = x.linear(&self.parameters.tensor(&graph, "fc.weight"), Some(&self.parameters.tensor(&graph, "fc.bias")));
                empty.insert(Program::new(gpu, &self.store, &graph, &[("logits", &logits)], variants)?)
            }
        };
        let mut accuracy = Accuracy::new(classes);
        for (rows, labels) in rows.chunks(INFERENCE_ROWS * self.features).zip(labels.chunks(INFERENCE_ROWS)) {
            let mut block = rows.to_vec();
            block.resize(INFERENCE_ROWS * self.features, 0.0);
            let block = pad_rows(&block, &[INFERENCE_ROWS, self.features]);
            let outputs: Outputs = program.call(gpu, &[("x", bytemuck::cast_slice(&block))])?;
            for (scores, label) in outputs.f32("logits").chunks_exact(classes).zip(labels) {
                accuracy.add(&scores.iter().map(|s| f64::from(*s)).collect::<Vec<_>>(), *label as usize);
            }
        }
        Ok(accuracy)
    }
}
