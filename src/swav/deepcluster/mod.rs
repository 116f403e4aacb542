//! DeepCluster-v2 (Caron et al. 2020, appendix; the official code's `main_deepclusterv2.py`): the images' clusters of the epoch before
//! are the classes of this one.
//!
//! With H prototype heads of K prototypes, B images and V crops each, D features, and assigned crops c_0, c_1, …:
//! 1. Before training, one pass without gradient, in training mode, stores the embeddings z of the assigned crops in memory banks, one per
//!    assigned crop, and with them the images' numbers. Only whole batches count.
//! 2. At the start of every epoch each head h clusters bank h mod (number of banks) anew: K random rows are the first centroids, a few
//!    iterations of spherical k-means follow. The centroids become the head's prototypes, the clusters the images' labels. An image that is
//!    not in the bank has no label.
//! 3. A step predicts the labels from all crops: `loss = mean over heads of the mean cross-entropy of s_h / τ`, over the rows that have a
//!    label. The embeddings of the assigned crops overwrite the banks row by row, in the order of the batches.
//! 4. The optimiser moves everything but the frozen prototypes, which are frozen for the whole run in the official recipes.

mod kmeans;
mod memory;
mod step;

pub use kmeans::{Assigner, Clusters, spherical_kmeans};
pub use memory::{IGNORED, Labels, Memory};
pub use step::{ClusterStep, FirstPass};

use super::record::crops_name;
use super::{StepInputs, StepSettings, SwavModel};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Choices, Outputs, Pending, Program, Store, Variants, pad_rows};
use crate::nn::Values;
use std::collections::VecDeque;

/// Runs training steps and clusters between them: owns the program, the memory banks and the labels.
pub struct DeepCluster {
    settings: StepSettings,
    clusters: usize,
    memory: Memory,
    labels: Labels,
    program: Option<Program>,
    /// Where the embeddings of the steps that are running belong.
    running: VecDeque<Place>,
}

/// Rows of the banks that a batch fills: the first of them, and whose they are.
struct Place {
    row: usize,
    images: Vec<u32>,
}

impl DeepCluster {
    /// For a set of `images`, of which every epoch visits as many as whole batches hold. Queue, codes and ε of `settings` have no part in it.
    pub fn new(model: &SwavModel, settings: StepSettings, images: usize) -> Self {
        let rows = images / settings.batch * settings.batch;
        let memory = Memory::new(settings.crops_for_assign.len(), rows, model.head.feat_dim);
        let labels = Labels::none(model.head.prototype_heads(), images);
        Self { settings, clusters: model.head.prototypes, memory, labels, program: None, running: VecDeque::new() }
    }

    /// What a step computes.
    pub fn settings(&self) -> &StepSettings {
        &self.settings
    }

    /// K, clusters of each head.
    pub fn clusters(&self) -> usize {
        self.clusters
    }

    /// The memory banks.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The images' labels.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// Goes on with the banks and labels of an earlier run.
    ///
    /// # Panics
    /// When their shapes are others.
    pub fn restore(&mut self, memory: Memory, labels: Labels) {
        assert!(self.memory.same_shape(&memory) && self.labels.same_shape(&labels), "banks or labels of another run");
        (self.memory, self.labels) = (memory, labels);
    }

    /// Builds the step's program, where it is not built yet; says whether it did.
    pub fn prepare(&mut self, gpu: &Gpu, model: &SwavModel, store: &Store, variants: &dyn Variants) -> Result<bool> {
        let missing = self.program.is_none();
        if missing {
            let step = ClusterStep::record(model, &self.settings);
            self.program = Some(step.program(gpu, store, variants)?);
        }
        Ok(missing)
    }

    /// Kernel variants that the step's program uses, where there was a choice.
    pub fn choices(&self) -> Choices {
        self.program.as_ref().map(Program::choices).unwrap_or_default()
    }

    /// Stores what the first pass says of a batch, whose rows start at `row`.
    pub fn remember(&mut self, row: usize, images: &[u32], embeddings: &[Vec<f32>]) -> Result<()> {
        if embeddings.iter().flatten().all(|v| v.is_finite()) {
            self.memory.store(row, images, embeddings);
            Ok(())
        } else {
            Err(Error::NonFinite { what: "an embedding".into(), step: 0 })
        }
    }

    /// Clusters the banks for an epoch: new prototypes and labels for every head. `first` draws the rows that head `h` starts from. Returns
    /// the kernel variants that it used, where there was a choice.
    pub fn cluster(
        &mut self,
        gpu: &Gpu,
        model: &SwavModel,
        store: &Store,
        variants: &dyn Variants,
        iterations: u32,
        mut first: impl FnMut(usize) -> Vec<u32>,
    ) -> Result<Choices> {
        let prototypes = model.head.prototypes;
        let mut assigner = Assigner::new(gpu, variants, self.memory.rows(), self.memory.dim(), prototypes)?;
        for head in 0..model.head.prototype_heads() {
            let bank = self.memory.bank(head % self.memory.banks());
            let chosen = first(head);
            assert_eq!(chosen.len(), prototypes, "a first centroid for every prototype");
            let centroids = chosen.iter().flat_map(|&row| self.memory.row(head % self.memory.banks(), row as usize)).copied().collect();
            let clusters = spherical_kmeans(bank, self.memory.dim(), centroids, iterations, |c| assigner.assign(gpu, bank, c))?;
            self.labels.set(head, self.memory.images(), &clusters.labels);
            model.parameters.write(gpu, store, &Values::from([(model.head.prototypes_name(head), clusters.centroids)]))?;
        }
        Ok(assigner.choices())
    }

    /// Starts a step with the images numbered `images`, whose rows start at `row`. Does not wait.
    pub fn run(
        &mut self,
        gpu: &Gpu,
        model: &SwavModel,
        store: &Store,
        variants: &dyn Variants,
        inputs: &StepInputs<'_>,
        (row, images): (usize, &[u32]),
    ) -> Result<Pending> {
        self.prepare(gpu, model, store, variants)?;
        let views = self.settings.views();
        let rows = [views * images.len()];
        let weights = pad_rows(&self.labels.weights(images, views), &rows);
        let labels: Vec<Vec<u32>> = (0..self.labels.heads()).map(|head| pad_rows(&self.labels.of(head, images, views), &rows)).collect();
        #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
        let scalars = [inputs.lr as f32, if inputs.frozen { 1.0 } else { 0.0 }, 0.0, 0.0];
        let names: Vec<String> = (0..inputs.crops.len()).map(crops_name).chain((0..labels.len()).map(step::labels_name)).collect();
        let data = inputs.crops.iter().copied().chain(labels.iter().map(|l| bytemuck::cast_slice(l)));
        let mut uploads: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(data).collect();
        uploads.extend([("weights", bytemuck::cast_slice(&weights)), ("step", bytemuck::cast_slice(&scalars))]);
        let pending = self.program.as_mut().expect("built above").run(gpu, &uploads)?;
        self.running.push_back(Place { row, images: images.to_vec() });
        Ok(pending)
    }

    /// Waits for the oldest running step, whose embeddings enter the banks.
    ///
    /// # Panics
    /// When no step was started.
    pub fn finish(&mut self, gpu: &Gpu, pending: Pending) -> Result<Outputs> {
        let outputs = self.program.as_mut().expect("a step was started").finish(gpu, pending)?;
        let Place { row, images } = self.running.pop_front().expect("a step was started");
        let embeddings: Vec<Vec<f32>> = (0..self.memory.banks()).map(|bank| outputs.f32(&step::embeddings_name(bank))).collect();
        self.memory.store(row, &images, &embeddings);
        Ok(outputs)
    }

    /// The program in use, for reports.
    pub fn program(&self) -> Option<&Program> {
        self.program.as_ref()
    }
}
