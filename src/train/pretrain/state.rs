//! Everything that a run carries from step to step, and its form on disk.
//!
//! A checkpoint holds `model/NAME` (official names, PyTorch layout, so that every reader of SwAV weights finds the network), the momentum as
//! `optimizer/NAME`, the queue of the i-th assigned crop as `queue/I` (or what [`super::deepcluster`] has instead), in f16 the state of the loss scale as
//! `state/loss_scale`, in mid-epoch what the epoch's steps add up to ([`super::epoch`]), and in its metadata the step and the state of the
//! queue. Random choices are functions of seed and step, so there is no generator to save.

use super::bad::{self, BadRecord};
use super::data_change::Images;
use super::epoch::EpochRecord;
use super::runner::Runner;
use super::{Run, deepcluster};
use crate::data::{DECODERS, Dataset};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Choices, Pending, Store, pad_rows, unpad_rows};
use crate::nn::architecture::TensorKind;
use crate::nn::{Init, Values, initial_values};
use crate::optim::LossScaling;
use crate::swav::{SinkhornScope, StepInputs, SwavModel};
use crate::train::checkpoint::{Checkpoint, Dtype, TensorRef};
use crate::train::config::{PretrainConfig, differences};
use crate::train::event::Warning;
use crate::train::plan;
use crate::train::run_folder::RunFolder;
use crate::tune::{Identity, Repeat};
use crate::weights;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the loss scale's state in a checkpoint. A run that only now turns to f16 starts with the initial scale.
const LOSS_SCALE: &str = "state/loss_scale";

/// Name of [`Dataset::fingerprint`] there.
pub(super) const DATA: &str = "data";

/// Name of the image decoders' versions among a checkpoint's metadata.
const DECODERS_KEY: &str = "decoders";

/// Name of the last epoch's mean loss among a checkpoint's metadata.
const LAST_LOSS: &str = "last_loss";

/// Shapes and values by name.
type Floats = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub(super) struct State {
    pub(super) model: SwavModel,
    pub(super) runner: Runner,
    pub(super) step: u64,
    pub(super) store: Store,
    /// What the steps of the present epoch add up to.
    pub(super) epoch: EpochRecord,
    /// Mean loss of the last epoch that ended; not a number before.
    pub(super) last_loss: f64,
    /// Images that could not be read.
    pub(super) bad: BadRecord,
    images: usize,
    /// Of the data.
    fingerprint: String,
    /// Its files.
    pub(super) files: Images,
    /// The checkpoint that it came from.
    pub(super) restored: Option<PathBuf>,
    /// Kernel variants that the run uses, as far as its programs needed any: other variants round differently.
    pub(super) choices: Choices,
}

impl State {
    /// From the newest checkpoint of the run's folder, from given weights, or from scratch.
    pub(super) fn new(
        config: &PretrainConfig,
        run: &Run<'_>,
        from: Option<(&Path, weights::Checkpoint)>,
        data: &Dataset,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self> {
        let (images, fingerprint, files) = (data.len(), data.fingerprint(data.root()), Images::of(data));
        let gpu = run.gpu;
        let mut model = plan::model(config, gpu.caps().max_binding_bytes);
        let runner = Runner::new(&mut model, config, images)?;
        let store = model.parameters.allocate(gpu)?;
        let (epoch, last_loss, choices) = (EpochRecord::default(), f64::NAN, Choices::new());
        let bad = BadRecord::default();
        let mut state = Self { model, runner, step: 0, store, epoch, last_loss, bad, images, fingerprint, files, restored: None, choices };
        let saved = match run.folder {
            Some(folder) => {
                let checkpoints = folder.checkpoints(config.checkpoint.keep)?;
                checkpoints.expect_writable()?;
                checkpoints.latest()?
            }
            None => None,
        };
        if let Some((checkpoint, more)) = saved {
            warnings.extend(more);
            state.restore(config, run, &checkpoint, data, warnings)?;
        } else {
            let specs = SwavModel::specs(&state.model.backbone, &state.model.head);
            let block = state.model.backbone.block;
            let init = Init { seed: config.seed, zero_init_residual: config.model.zero_init_residual, block, classifier_std: Some(0.01) };
            state.model.parameters.write(gpu, &state.store, &initial_values(&specs, &init))?;
            if let Some((path, weights)) = from {
                state.initialize_from(gpu, path, weights, warnings)?;
            }
        }
        Ok(state)
    }

    /// Takes the backbone, and the head where it fits, of a weight file.
    fn initialize_from(&self, gpu: &Gpu, path: &Path, loaded: weights::Checkpoint, warnings: &mut Vec<Warning>) -> Result<()> {
        loaded.expect_backbone(path, &self.model.backbone)?;
        let parameters = &self.model.parameters;
        let fits = |name: &str, shape: &[usize]| parameters.names().any(|n| n == name) && parameters.spec(name).shape == shape;
        let (fitting, others): (Vec<_>, Vec<_>) = loaded.tensors.into_iter().partition(|(name, tensor)| fits(name, &tensor.shape));
        let values: Values = fitting.into_iter().map(|(name, tensor)| (name, tensor.data)).collect();
        let random: Vec<&str> = parameters.names().filter(|name| !values.contains_key(*name)).collect();
        if !random.is_empty() {
            let lacking = if others.is_empty() { "has no head".to_owned() } else { format!("{} tensors of its head do not fit", others.len()) };
            warnings.push(Warning::new(path.display(), format!("{lacking}, so these of the network start at random: {}", random.join(", "))));
        }
        self.model.parameters.write(gpu, &self.store, &values)
    }

    /// Builds the next step's program, where it is not built yet. Shapes that the run has met keep their kernels.
    pub(super) fn prepare(&mut self, run: &Run<'_>, queue: bool) -> Result<()> {
        let variants = Repeat { choices: &self.choices, otherwise: run.variants };
        if !self.runner.prepare(run.gpu, &self.model, &self.store, &variants, queue)? {
            return Ok(());
        }
        note_kernels(&mut self.choices, run, self.runner.choices())
    }

    /// Starts a step with the images numbered `images`.
    pub(super) fn run(&mut self, run: &Run<'_>, inputs: &StepInputs<'_>, images: &[u32]) -> Result<Pending> {
        self.prepare(run, inputs.queue_active)?;
        let batch = self.runner.settings().batch;
        let row = usize::try_from(self.step % (self.images / batch) as u64).unwrap_or(0) * batch;
        let variants = Repeat { choices: &self.choices, otherwise: run.variants };
        self.runner.run(run.gpu, &self.model, &self.store, &variants, inputs, (row, images))
    }

    /// Images of the data.
    pub(super) fn images(&self) -> usize {
        self.images
    }

    /// What tells their names from others.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The first of the network's tensors that is not finite.
    pub(super) fn spoilt_weight(&self, gpu: &Gpu) -> Result<Option<String>> {
        let values = self.model.parameters.read(gpu, &self.store)?;
        let spoilt = |name: &str| self.model.parameters.spec(name).kind.is_parameter() && values[name].iter().any(|v| !v.is_finite());
        Ok(self.model.parameters.names().find(|name| spoilt(name)).map(str::to_owned))
    }

    /// Writes a checkpoint and returns its path. `keep`: how many stay; `gone` is told which went because the disk is full.
    pub(super) fn save(&self, config: &PretrainConfig, gpu: &Gpu, folder: &RunFolder, keep: usize, gone: &mut Vec<u64>) -> Result<PathBuf> {
        let floats = self.floats(gpu)?;
        // A loss is computed before its update: weights can be spoiled while every loss so far is fine. Such a state must not push out good
        // ones. A number whose square overflows has no finite norm, so no step can follow.
        if let Some((name, _)) = floats.iter().find(|(_, (_, data))| data.iter().any(|v| !(v * v).is_finite())) {
            return Err(Error::NonFinite { what: name.clone(), step: self.step.saturating_sub(1) });
        }
        let counters = self.counters();
        let mut tensors: BTreeMap<String, TensorRef<'_>> =
            floats.iter().map(|(name, (shape, data))| (name.clone(), TensorRef::f32(shape, bytemuck::cast_slice(data)))).collect();
        for (name, count) in &counters {
            tensors.insert(name.clone(), TensorRef { dtype: Dtype::I64, shape: &[], bytes: bytemuck::bytes_of(count) });
        }
        let prototypes = [self.epoch.prototypes()];
        if prototypes[0] > 0 {
            tensors.extend(self.epoch.tensors(&prototypes));
        }
        let (images, of_images) = (self.bad.indices(), [self.bad.indices().len()]);
        if !images.is_empty() {
            tensors.insert(bad::IMAGES.to_owned(), TensorRef { dtype: Dtype::I64, shape: &of_images, bytes: bytemuck::cast_slice(&images) });
        }
        let banks = match &self.runner {
            Runner::DeepCluster(runner) => Some((runner, deepcluster::saved_images(runner), deepcluster::shapes(runner))),
            Runner::Swav(_) => None,
        };
        if let Some((runner, images, shapes)) = &banks {
            deepcluster::save(runner, images, shapes, &mut tensors);
        }
        let metadata = self.metadata(config, gpu)?;
        folder.checkpoints(keep)?.save(self.step, &tensors, &metadata, gone)
    }

    /// What a checkpoint holds in floats, but for the epoch's sums and banks.
    fn floats(&self, gpu: &Gpu) -> Result<Floats> {
        let parameters = &self.model.parameters;
        let mut floats = Floats::new();
        let mut add = |prefix: &str, values: Values| {
            for (name, value) in values {
                let shape = parameters.spec(&name).shape.clone();
                floats.insert(format!("{prefix}/{name}"), (shape, value));
            }
        };
        add("model", parameters.read(gpu, &self.store)?);
        add("optimizer", parameters.read_momentum(gpu, &self.store)?);
        if let Runner::Swav(runner) = &self.runner {
            let shape = [runner.settings().queue_rows, self.model.head.feat_dim];
            for (i, queue) in runner.queue().0.iter().enumerate() {
                let rows = unpad_rows(&self.store.read(gpu, *queue)?, &shape);
                floats.insert(format!("queue/{i}"), (shape.to_vec(), rows));
            }
        }
        if let Some(id) = self.runner.loss_scale() {
            let mut state = self.store.read(gpu, id)?;
            // What the last step found is forgotten before the next.
            state[3] = 0.0;
            floats.insert(LOSS_SCALE.to_owned(), (vec![4], state));
        }
        Ok(floats)
    }

    fn metadata(&self, config: &PretrainConfig, gpu: &Gpu) -> Result<BTreeMap<String, String>> {
        let pushed = if let Runner::Swav(runner) = &self.runner { runner.queue().1 } else { 0 };
        let mut metadata = BTreeMap::from([
            ("format".to_owned(), "swav-wgpu 1".to_owned()),
            ("config".to_owned(), config.to_toml()?),
            ("images".to_owned(), self.images.to_string()),
            (DATA.to_owned(), self.fingerprint.clone()),
            (DECODERS_KEY.to_owned(), DECODERS.to_owned()),
            ("queue_pushed".to_owned(), pushed.to_string()),
            (LAST_LOSS.to_owned(), format!("{:?}", self.last_loss)),
            ("adapter".to_owned(), gpu.description().name.clone()),
            ("device".to_owned(), serde_json::to_string(&Identity::of(gpu.description())).map_err(|e| Error::Failed(e.to_string()))?),
            ("kernels".to_owned(), serde_json::to_string(&self.choices).map_err(|e| Error::Failed(e.to_string()))?),
        ]);
        metadata.extend(self.epoch.metadata()?);
        metadata.extend(self.bad.metadata());
        metadata.extend(self.files.metadata());
        Ok(metadata)
    }

    /// `num_batches_tracked`: the backbone's batch norms see every group of crops, the head's sees all of them at once; in DeepCluster's first pass both
    /// see the assigned crops one by one.
    fn counters(&self) -> Vec<(String, i64)> {
        let settings = self.runner.settings();
        let first_pass = match self.runner {
            Runner::DeepCluster(_) => self.images / settings.batch * settings.crops_for_assign.len(),
            Runner::Swav(_) => 0,
        };
        let of_step = |name: &str| if name.starts_with("projection_head") { settings.micro_batches } else { settings.passes() };
        let count = |name: &str| self.step.saturating_mul(of_step(name) as u64).saturating_add(first_pass as u64);
        SwavModel::specs(&self.model.backbone, &self.model.head)
            .iter()
            .filter(|s| s.kind == TensorKind::NumBatchesTracked)
            .map(|s| (format!("model/{}", s.name), i64::try_from(count(&s.name)).unwrap_or(i64::MAX)))
            .collect()
    }

    fn restore(&mut self, config: &PretrainConfig, run: &Run<'_>, saved: &Checkpoint, data: &Dataset, warnings: &mut Vec<Warning>) -> Result<()> {
        let gpu = run.gpu;
        let (same, same_length) = self.compare_data(config, run, saved, warnings)?;
        // Checkpoints of before it was recorded say nothing.
        if let Some(before) = saved.metadata.get(DECODERS_KEY).filter(|before| *before != DECODERS) {
            let message = format!(
                "images were decoded by {before} when the checkpoint was written and are by {DECODERS} now: pixels may differ by a few levels"
            );
            warnings.push(Warning::new("data.path", message));
        }
        let mut changed = differences(metadata(saved, "config")?, &config.to_toml()?);
        // What does not change the trajectory may change silently.
        changed.retain(|(key, ..)| !["data.workers", "checkpoint.", "data.path", "data.bad"].iter().any(|free| key.starts_with(free)));
        for (key, before, now) in &changed {
            let jump = if key == "train.batch" { ": epochs have another length, so epoch and learning rate jump" } else { "" };
            warnings.push(Warning::new(key, format!("was {before} when the checkpoint was written and is {now} now{jump}")));
        }
        self.restore_kernels(gpu, saved, warnings)?;
        if let Some(loss) = saved.metadata.get(LAST_LOSS) {
            self.last_loss = loss.parse().map_err(|_| Error::weights(&saved.path, format!("metadata `{LAST_LOSS}` is no number")))?;
        }
        self.restore_tensors(gpu, saved, same).map_err(|error| match error {
            // The tensors fit the configuration that they were written under.
            Error::Weights { path, message } if !changed.is_empty() => {
                let keys: Vec<String> =
                    changed.iter().map(|(key, before, now)| format!("{key} was {before} when it was written and is now {now}")).collect();
                Error::weights(path, format!("{message}; {}", keys.join(", ")))
            }
            other => other,
        })?;
        // Which rows a batch overwrites follows from these; the rows that are there were written in another order.
        // What another version wrote and this cannot read is taken to be as now.
        let before: PretrainConfig = toml::from_str(metadata(saved, "config")?).unwrap_or_else(|_| config.clone());
        let parts = |c: &PretrainConfig| if c.loss.sinkhorn == SinkhornScope::Local { c.train.accumulate } else { 1 };
        if let Runner::Swav(runner) = &mut self.runner
            && runner.queue().1 > 0
            && (before.train.batch, parts(&before)) != (config.train.batch, parts(config))
        {
            runner.restore_queue(0);
            let message = "the queue fills anew: with another train.batch, or in other parts of it, the order of its rows is another";
            warnings.push(Warning::new("queue.length", message));
        }
        // Sums of an epoch of another length are of no use.
        if same_length && !changed.iter().any(|(key, ..)| key == "train.batch") {
            self.epoch = EpochRecord::of(saved, config.model.prototypes)?;
        }
        self.bad = BadRecord::of(saved, data, same, run.folder)?;
        self.step = saved.step;
        self.restored = Some(saved.path.clone());
        Ok(())
    }

    /// Takes everything that a step reads.
    fn restore_tensors(&mut self, gpu: &Gpu, saved: &Checkpoint, same: bool) -> Result<()> {
        let parameters = &self.model.parameters;
        let read = |prefix: &str| -> Result<Values> {
            let one = |name: &str| {
                let bytes = saved.expect(&format!("{prefix}/{name}"), Dtype::F32, &parameters.spec(name).shape)?;
                Ok((name.to_owned(), bytemuck::pod_collect_to_vec(bytes)))
            };
            let wanted = parameters.names().filter(|name| prefix == "model" || parameters.spec(name).kind.is_parameter());
            wanted.map(one).collect()
        };
        parameters.write(gpu, &self.store, &read("model")?)?;
        parameters.write_momentum(gpu, &self.store, &read("optimizer")?)?;
        match &mut self.runner {
            Runner::Swav(runner) => {
                let shape = [runner.settings().queue_rows, self.model.head.feat_dim];
                for (i, queue) in runner.queue().0.iter().enumerate() {
                    let rows: Vec<f32> = bytemuck::pod_collect_to_vec(saved.expect(&format!("queue/{i}"), Dtype::F32, &shape)?);
                    self.store.write(gpu, *queue, &pad_rows(&rows, &shape))?;
                }
                let pushed = metadata(saved, "queue_pushed")?.parse();
                runner.restore_queue(pushed.map_err(|_| Error::weights(&saved.path, "metadata `queue_pushed` is no number"))?);
            }
            // Rows and labels go by the numbers of images: those of other data are filled in anew.
            Runner::DeepCluster(runner) if same => deepcluster::restore(runner, saved)?,
            Runner::DeepCluster(_) => {}
        }
        if let Some(id) = self.runner.loss_scale().filter(|_| saved.tensor(LOSS_SCALE).is_some()) {
            let state: Vec<f32> = bytemuck::pod_collect_to_vec(saved.expect(LOSS_SCALE, Dtype::F32, &[4])?);
            if !LossScaling::is_valid(&state) {
                return Err(Error::weights(&saved.path, format!("tensor {LOSS_SCALE} is {state:?}, no state of a loss scale")));
            }
            self.store.write(gpu, id, &state)?;
        }
        Ok(())
    }

    /// Takes the kernels of the checkpoint, on the adapter that it was written on.
    fn restore_kernels(&mut self, gpu: &Gpu, saved: &Checkpoint, warnings: &mut Vec<Warning>) -> Result<()> {
        let (before, now) = (saved.metadata.get("adapter"), &gpu.description().name);
        if let Some(before) = before.filter(|before| *before != now) {
            let message = format!("was {before} when the checkpoint was written and is {now} now: the run goes on, but rounds differently");
            warnings.push(Warning::new("adapter", message));
        } else if let Some(text) = saved.metadata.get("kernels") {
            self.choices = serde_json::from_str(text).map_err(|e| Error::weights(&saved.path, format!("metadata `kernels`: {e}")))?;
            if let Some(text) = saved.metadata.get("device") {
                let before: Identity = serde_json::from_str(text).map_err(|e| Error::weights(&saved.path, format!("metadata `device`: {e}")))?;
                if let Some(change) = before.change(&Identity::of(gpu.description())) {
                    warnings.push(Warning::new("adapter", format!("{change}: the run goes on, but may round differently")));
                }
            }
        }
        Ok(())
    }
}

/// Takes note of the kernels that something uses, in the run's folder too.
pub(super) fn note_kernels(known: &mut Choices, run: &Run<'_>, used: Choices) -> Result<()> {
    let new: Vec<_> = used.into_iter().filter(|(key, variant)| known.get(key) != Some(variant)).collect();
    if let Some((key, variant)) = new.iter().find(|(key, _)| known.contains_key(key)) {
        tracing::warn!("kernel {} of the checkpoint cannot be had for {key}: {variant} takes its place and rounds differently", known[key]);
    }
    let nothing = new.is_empty();
    known.extend(new);
    match run.folder {
        Some(folder) if !nothing || !folder.has_kernels() => match folder.write_kernels(run.gpu.description(), known) {
            // Checkpoints know them too.
            Err(error) if error.is_full() => {
                tracing::warn!("{error}: the disk is full; the run goes on, and that file is not up to date");
                Ok(())
            }
            other => other,
        },
        _ => Ok(()),
    }
}

pub(super) fn metadata<'a>(saved: &'a Checkpoint, key: &str) -> Result<&'a String> {
    saved.metadata.get(key).ok_or_else(|| Error::weights(&saved.path, format!("metadata `{key}` is missing")))
}
