//! The graphs of DeepCluster-v2: a training step, and a batch of the pass that fills the memory before training.

use super::super::{StepSettings, SwavModel};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::{Choices, DType, Graph, Program, Store, Tensor, Variants};
use crate::swav::record::{crops_name, forward, groups};

pub(super) fn labels_name(head: usize) -> String {
    format!("labels{head}")
}

pub(super) fn embeddings_name(bank: usize) -> String {
    format!("embeddings{bank}")
}

/// Images (B, S, S, 3) of crop number `crop`, of groups of several.
fn one_crop(groups: &[Tensor], settings: &StepSettings, mut crop: usize) -> Tensor {
    for (group, of) in groups.iter().zip(&settings.crops) {
        if crop < of.count {
            return group.slice_rows(crop * settings.batch, settings.batch);
        }
        crop -= of.count;
    }
    panic!("there are not so many crops");
}

fn build(gpu: &Gpu, store: &Store, graph: &Graph, outputs: &[(String, &Tensor)], variants: &dyn Variants) -> Result<Program> {
    let outputs: Vec<(&str, &Tensor)> = outputs.iter().map(|(name, t)| (name.as_str(), *t)).collect();
    Program::new(gpu, store, graph, &outputs, variants)
}

/// A recorded training step. Its inputs: `crops{i}` per group; `labels{h}` (V·B) per head and `weights` (V·B), see [`super::Labels`];
/// `step`, see [`crate::optim::Optimizer::record`].
pub struct ClusterStep {
    graph: Graph,
    loss: Tensor,
    norms: Option<Tensor>,
    embeddings: Vec<Tensor>,
}

impl ClusterStep {
    /// Records the step.
    pub fn record(model: &SwavModel, settings: &StepSettings) -> Self {
        let graph = Graph::new();
        let forward = forward(&graph, model, settings, settings.batch_norm);
        let assigned = settings.crops_for_assign.iter().map(|crop| forward.embeddings.slice_rows(crop * settings.batch, settings.batch));
        let embeddings = assigned.collect();
        let rows = settings.views() * settings.batch;
        let weights = graph.input("weights", &[rows], DType::F32);
        let losses: Vec<Tensor> = (0..model.head.prototype_heads())
            .map(|head| {
                let labels = graph.input(&labels_name(head), &[rows], DType::U32);
                graph.scope(&format!("head{head}"), || {
                    let scores = if head == 0 { forward.scores.clone() } else { model.scores(&forward.embeddings, head) };
                    scores.weighted_cross_entropy(&labels, &weights, settings.temperature)
                })
            })
            .collect();
        let loss = losses.iter().skip(1).fold(losses[0].clone(), |sum, loss| sum.add(loss));
        model.parameters.record_gradients(&loss, None);
        let step = graph.input("step", &[4], DType::F32);
        let norms = settings.optimizer.record(&graph, &model.parameters, &step, |name| name.starts_with("prototypes"));
        Self { graph, loss, norms, embeddings }
    }

    /// The graph, for planning.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What is read back of every step: the loss, the optimiser's norms (see [`crate::optim::overflowed`]), and the embeddings for the memory.
    pub fn outputs(&self) -> Vec<(String, &Tensor)> {
        let embeddings = self.embeddings.iter().enumerate().map(|(bank, t)| (embeddings_name(bank), t));
        let norms = self.norms.iter().map(|norms| ("norms".to_owned(), norms));
        std::iter::once(("loss".to_owned(), &self.loss)).chain(norms).chain(embeddings).collect()
    }

    /// The step on a device.
    pub fn program(&self, gpu: &Gpu, store: &Store, variants: &dyn Variants) -> Result<Program> {
        build(gpu, store, &self.graph, &self.outputs(), variants)
    }
}

/// The pass that fills the memory: forward in training mode, so that the running statistics move, without gradient. Each assigned crop passes by itself, and
/// no other does, as in the official `init_memory`.
pub struct FirstPass {
    program: Program,
    banks: usize,
}

impl FirstPass {
    /// Prepares batches of `settings.batch` images.
    pub fn new(gpu: &Gpu, model: &SwavModel, store: &Store, variants: &dyn Variants, settings: &StepSettings) -> Result<Self> {
        let graph = Graph::new();
        let groups = groups(&graph, settings);
        let embed = |crop: &usize| {
            let images = one_crop(&groups, settings, *crop);
            model.forward(&[images], settings.precision.dtype(), settings.batch_norm, settings.recompute).embeddings
        };
        let embeddings: Vec<Tensor> = settings.crops_for_assign.iter().map(embed).collect();
        let outputs: Vec<_> = embeddings.iter().enumerate().map(|(bank, t)| (embeddings_name(bank), t)).collect();
        Ok(Self { program: build(gpu, store, &graph, &outputs, variants)?, banks: embeddings.len() })
    }

    /// Kernel variants that the pass uses, where there was a choice.
    pub fn choices(&self) -> Choices {
        self.program.choices()
    }

    /// Embeddings (B, D) of the assigned crops of a batch; `crops` as in [`crate::swav::StepInputs`], of which groups without an assigned crop may be left
    /// out at the end.
    pub fn run(&mut self, gpu: &Gpu, crops: &[&[u8]]) -> Result<Vec<Vec<f32>>> {
        let names: Vec<String> = (0..crops.len()).map(crops_name).collect();
        let inputs: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(crops.iter().copied()).collect();
        let outputs = self.program.call(gpu, &inputs)?;
        Ok((0..self.banks).map(|bank| outputs.f32(&embeddings_name(bank))).collect())
    }
}
