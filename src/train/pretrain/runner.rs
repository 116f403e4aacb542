//! What a step is, by method: the loop knows no more than this.

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Choices, Outputs, Pending, Store, VariableId, Variants};
use crate::swav::deepcluster::DeepCluster;
use crate::swav::{StepInputs, StepRunner, StepSettings, SwavModel};
use crate::train::config::{Method, PretrainConfig};
use crate::train::plan;

/// Runs the steps of one method.
pub(super) enum Runner {
    /// Codes, perhaps with a queue.
    Swav(Box<StepRunner>),
    /// Clusters of memory banks.
    DeepCluster(Box<DeepCluster>),
}

impl Runner {
    /// The runner of a configuration; a queue's variables join the model's.
    pub(super) fn new(model: &mut SwavModel, config: &PretrainConfig, images: usize) -> Result<Self> {
        let settings = plan::settings(config);
        match config.method {
            Method::Swav => Ok(Self::Swav(Box::new(StepRunner::new(model, settings, false)))),
            Method::DeepclusterV2 => {
                let runner = DeepCluster::new(model, settings, images);
                let (rows, clusters) = (runner.memory().rows(), model.head.prototypes);
                if clusters > rows {
                    let message = format!("has {rows} images in whole batches, fewer than the {clusters} clusters of model.prototypes");
                    return Err(Error::data(config.data.path.to_string(), message));
                }
                Ok(Self::DeepCluster(Box::new(runner)))
            }
        }
    }

    pub(super) fn settings(&self) -> &StepSettings {
        match self {
            Self::Swav(runner) => runner.settings(),
            Self::DeepCluster(runner) => runner.settings(),
        }
    }

    /// Whether the next step needs another program than the last: finish what is in flight first.
    pub(super) fn will_rebuild(&self, queue_active: bool) -> bool {
        matches!(self, Self::Swav(runner) if runner.will_rebuild(queue_active))
    }

    /// Whether the next step with the queue is the first that looks into it.
    pub(super) fn queue_is_new(&self) -> bool {
        matches!(self, Self::Swav(runner) if runner.queue_is_new())
    }

    /// Builds the next step's programs; says whether they were not built yet.
    pub(super) fn prepare(&mut self, gpu: &Gpu, model: &SwavModel, store: &Store, variants: &dyn Variants, queue_active: bool) -> Result<bool> {
        match self {
            Self::Swav(runner) => runner.prepare(gpu, model, store, variants, queue_active),
            Self::DeepCluster(runner) => runner.prepare(gpu, model, store, variants),
        }
    }

    /// Where the state of the loss scale is, in f16.
    pub(super) fn loss_scale(&self) -> Option<VariableId> {
        match self {
            Self::Swav(runner) => runner.variables().loss_scale,
            Self::DeepCluster(_) => None,
        }
    }

    /// Kernel variants that the programs use.
    pub(super) fn choices(&self) -> Choices {
        match self {
            Self::Swav(runner) => runner.choices(),
            Self::DeepCluster(runner) => runner.choices(),
        }
    }

    /// Starts a step. `place`: the first of the batch's rows in an epoch, and its images.
    pub(super) fn run(
        &mut self,
        gpu: &Gpu,
        model: &SwavModel,
        store: &Store,
        variants: &dyn Variants,
        inputs: &StepInputs<'_>,
        place: (usize, &[u32]),
    ) -> Result<Pending> {
        match self {
            Self::Swav(runner) => runner.run(gpu, model, store, variants, inputs),
            Self::DeepCluster(runner) => runner.run(gpu, model, store, variants, inputs, place),
        }
    }

    pub(super) fn finish(&mut self, gpu: &Gpu, pending: Pending) -> Result<Outputs> {
        match self {
            Self::Swav(runner) => runner.finish(gpu, pending),
            Self::DeepCluster(runner) => runner.finish(gpu, pending),
        }
    }

    /// Prototypes in use and the entropy of their use, where they are known without looking at the steps: clusters of the first head.
    pub(super) fn usage(&self) -> Option<(u64, f64)> {
        match self {
            Self::Swav(_) => None,
            Self::DeepCluster(runner) => Some(runner.labels().usage(0)),
        }
    }
}
