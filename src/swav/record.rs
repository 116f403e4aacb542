//! A training step as graphs.
//!
//! A batch that is computed at once is one graph, [`Part::Whole`]. A batch in micro-batches is several, run in this order:
//! `Start`; for every micro-batch `Embed`, then once `Codes` (only where Sinkhorn sees the whole batch); for every micro-batch `Learn`;
//! `Finish`. Gradients, loss and codes are collected in variables. `Embed` and `Learn` pass the same images through the same network, so
//! the codes belong to the predictions; only `Learn` updates running statistics.

use super::step::{Crops, Precision, QueueUse, StepSettings};
use super::{Forward, SwavModel};
use crate::graph::{DType, Graph, Tensor, VariableId};
use crate::ops::{BatchNormMode, concat_rows};
use crate::optim::{LossScale, LossScaling, Treatment};

/// Which part of a step a graph is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Everything.
    Whole,
    /// Scales the prototypes to unit length, clears what is collected.
    Start,
    /// Embeddings of a micro-batch.
    Embed,
    /// Codes of all micro-batches.
    Codes,
    /// Loss and gradients of a micro-batch.
    Learn,
    /// The update.
    Finish,
}

/// A part as a graph, and what is read back of it.
pub struct StepPart {
    /// Which.
    pub part: Part,
    /// What it computes.
    pub graph: Graph,
    /// Of the last part: `loss`, of the codes `code_shares` (K), what each prototype has of all of them, and `best_codes` (A·B), each row's prototype of the
    /// largest share, and the optimiser's `norms` (see [`crate::optim::overflowed`]), in f16 the state of the `loss_scale` instead. When asked for, `codes`
    /// (A·B, K) themselves in place of what is told of them, and the `scores` of a whole step.
    pub outputs: Vec<(&'static str, Tensor)>,
}

impl StepPart {
    /// The outputs as a program takes them.
    pub fn named_outputs(&self) -> Vec<(&'static str, &Tensor)> {
        self.outputs.iter().map(|(name, tensor)| (*name, tensor)).collect()
    }
}

/// Variables of a step besides the network's.
#[derive(Clone, Debug, Default)]
pub struct StepVariables {
    /// The feature queue of each assigned crop.
    pub queues: Vec<VariableId>,
    /// Embeddings (B, D) of each assigned crop, collected from the micro-batches.
    embeddings: Vec<VariableId>,
    /// Codes (B, K) of each assigned crop.
    codes: Vec<VariableId>,
    loss: Option<VariableId>,
    /// State of the scale of the loss, in f16 (see [`LossScale::state`]).
    pub loss_scale: Option<VariableId>,
}

impl StepVariables {
    /// Adds the variables that `settings` need to the model's.
    pub fn new(model: &mut SwavModel, settings: &StepSettings) -> Self {
        let head = model.head;
        let variables = model.parameters.variables_mut();
        let mut each = |what: &str, rows: usize, columns: usize| -> Vec<VariableId> {
            let name = |crop: &usize| format!("{what} of crop {crop}");
            settings.crops_for_assign.iter().map(|crop| variables.add(&name(crop), &[rows, columns], DType::F32)).collect()
        };
        let mut this = Self::default();
        if settings.queue_rows > 0 {
            this.queues = each("queue", settings.queue_rows, head.feat_dim);
        }
        if settings.micro_batches > 1 {
            this.codes = each("codes", settings.batch, head.prototypes);
            if settings.codes_first() {
                this.embeddings = each("embeddings", settings.batch, head.feat_dim);
            }
            this.loss = Some(variables.add("loss", &[1], DType::F32));
        }
        if settings.precision == Precision::F16 {
            this.loss_scale = Some(LossScaling::variable(variables));
        }
        this
    }
}

/// Records the parts of a step, in the order in which they first run. Codes and scores are outputs when `keep_codes`.
pub fn record(model: &SwavModel, settings: &StepSettings, variables: &StepVariables, queue: QueueUse, keep_codes: bool) -> Vec<StepPart> {
    let recorder = Recorder { model, settings, variables, queue, keep_codes };
    if settings.micro_batches == 1 {
        return vec![recorder.whole()];
    }
    let mut parts = vec![recorder.start()];
    if settings.codes_first() {
        parts.extend([recorder.embed(), recorder.codes()]);
    }
    parts.extend([recorder.learn(), recorder.finish()]);
    parts
}

/// Name of the input that holds a group of crops.
pub fn crops_name(group: usize) -> String {
    format!("crops{group}")
}

/// The groups of crops of a micro-batch, which are the inputs `crops{i}`: (n·B, S, S, 3) each.
pub(super) fn groups(graph: &Graph, settings: &StepSettings) -> Vec<Tensor> {
    let batch = settings.micro_batch();
    let input = |(i, c): (usize, &Crops)| settings.images.input(graph, &crops_name(i), c.count * batch, [c.size; 2], settings.precision.dtype());
    settings.crops.iter().enumerate().map(input).collect()
}

/// The forward pass of a micro-batch.
pub(super) fn forward(graph: &Graph, model: &SwavModel, settings: &StepSettings, mode: BatchNormMode) -> Forward {
    let groups = groups(graph, settings);
    // Neighbouring groups of one size share the statistics of their batch norms.
    let same = groups.chunk_by(|a, b| a.shape()[1] == b.shape()[1]);
    let passes: Vec<Tensor> = same.map(|run| concat_rows(&run.iter().collect::<Vec<_>>())).collect();
    model.forward(&passes, settings.precision.dtype(), mode, settings.recompute)
}

/// The forward pass of a micro-batch alone, for who looks into it; its inputs are [`crops_name`]s.
pub fn forward_pass(model: &SwavModel, settings: &StepSettings) -> Graph {
    let graph = Graph::new();
    forward(&graph, model, settings, settings.batch_norm);
    graph
}

struct Recorder<'a> {
    model: &'a SwavModel,
    settings: &'a StepSettings,
    variables: &'a StepVariables,
    queue: QueueUse,
    keep_codes: bool,
}

impl Recorder<'_> {
    fn whole(&self) -> StepPart {
        let graph = Graph::new();
        self.begin(&graph);
        let forward = self.forward(&graph, self.settings.batch_norm);
        let codes = self.own_codes(&graph, &forward);
        let codes = concat_rows(&codes.iter().collect::<Vec<_>>());
        let loss = self.loss(&forward, &codes);
        self.model.parameters.record_gradients(&loss, self.scale(&graph).as_ref());
        let norms = self.update(&graph);
        let mut outputs = self.outputs(loss, codes, norms);
        if self.keep_codes {
            outputs.push(("scores", forward.scores));
        }
        StepPart { part: Part::Whole, graph, outputs }
    }

    fn start(&self) -> StepPart {
        let graph = Graph::new();
        self.begin(&graph);
        for arena in self.model.parameters.arenas() {
            self.variable(&graph, arena.gradients).clear();
        }
        self.total_loss(&graph).clear();
        StepPart { part: Part::Start, graph, outputs: Vec::new() }
    }

    fn embed(&self) -> StepPart {
        let graph = Graph::new();
        let mode = match self.settings.batch_norm {
            // The running statistics take nothing of this pass.
            BatchNormMode::Training { .. } => BatchNormMode::Training { momentum: 0.0 },
            BatchNormMode::Evaluation => BatchNormMode::Evaluation,
        };
        let embeddings = self.forward(&graph, mode).embeddings;
        let position = graph.input("batch_position", &[1], DType::U32);
        for (&crop, &bank) in self.settings.crops_for_assign.iter().zip(&self.variables.embeddings) {
            self.push(&embeddings, crop, &position, &self.variable(&graph, bank));
        }
        StepPart { part: Part::Embed, graph, outputs: Vec::new() }
    }

    fn codes(&self) -> StepPart {
        let graph = Graph::new();
        let prototypes = self.prototypes(&graph);
        for (i, &bank) in self.variables.embeddings.iter().enumerate() {
            let embeddings = self.variable(&graph, bank);
            let queue = self.variables.queues.get(i).map(|&q| self.variable(&graph, q));
            let codes = self.sinkhorn(embeddings.linear(&prototypes, None), queue.as_ref(), &prototypes);
            graph.place(&codes, self.model.parameters.variables(), self.variables.codes[i]);
            if let Some(queue) = queue.filter(|_| self.queue != QueueUse::Absent) {
                embeddings.queue_push(0, self.settings.batch, &graph.input("queue_position", &[1], DType::U32), &queue);
            }
        }
        StepPart { part: Part::Codes, graph, outputs: Vec::new() }
    }

    fn learn(&self) -> StepPart {
        let graph = Graph::new();
        let rows = self.settings.micro_batch();
        let forward = self.forward(&graph, self.settings.batch_norm);
        let position = graph.input("batch_position", &[1], DType::U32);
        let stored: Vec<Tensor> = self.variables.codes.iter().map(|&c| self.variable(&graph, c)).collect();
        let codes: Vec<Tensor> = if self.settings.codes_first() {
            stored.iter().map(|codes| codes.rows_at(&position, rows)).collect()
        } else {
            let codes = self.own_codes(&graph, &forward);
            codes.iter().zip(&stored).for_each(|(codes, stored)| codes.queue_push(0, rows, &position, stored));
            codes
        };
        let loss = self.loss(&forward, &concat_rows(&codes.iter().collect::<Vec<_>>()));
        self.model.parameters.accumulate_gradients(&loss, self.scale(&graph).as_ref());
        loss.accumulate_into(&self.total_loss(&graph));
        StepPart { part: Part::Learn, graph, outputs: Vec::new() }
    }

    fn finish(&self) -> StepPart {
        let graph = Graph::new();
        let norms = self.update(&graph);
        let codes: Vec<Tensor> = self.variables.codes.iter().map(|&c| self.variable(&graph, c)).collect();
        let outputs = self.outputs(self.total_loss(&graph), concat_rows(&codes.iter().collect::<Vec<_>>()), norms);
        StepPart { part: Part::Finish, graph, outputs }
    }

    /// What comes first in a step.
    fn begin(&self, graph: &Graph) {
        self.prototypes(graph).normalize_columns();
        if let Some(scale) = self.loss_scale(graph) {
            scale.begin();
        }
    }

    fn outputs(&self, loss: Tensor, codes: Tensor, norms: Option<Tensor>) -> Vec<(&'static str, Tensor)> {
        let scale = self.scale(loss.graph()).map(|state| ("loss_scale", state));
        let update = scale.or_else(|| norms.map(|norms| ("norms", norms)));
        let codes =
            if self.keep_codes { vec![("codes", codes)] } else { vec![("code_shares", codes.sum_columns()), ("best_codes", codes.argmax_rows())] };
        [("loss", loss)].into_iter().chain(codes).chain(update).collect()
    }

    fn loss_scale(&self, graph: &Graph) -> Option<LossScale> {
        let id = self.variables.loss_scale?;
        Some(self.settings.loss_scaling.in_graph(graph, self.model.parameters.variables(), id))
    }

    /// What the reverse pass starts with, where that is not 1.
    fn scale(&self, graph: &Graph) -> Option<Tensor> {
        self.loss_scale(graph).map(|scale| scale.state)
    }

    fn variable(&self, graph: &Graph, id: VariableId) -> Tensor {
        graph.variable(self.model.parameters.variables(), id)
    }

    fn prototypes(&self, graph: &Graph) -> Tensor {
        self.model.parameters.tensor(graph, "prototypes.weight")
    }

    fn total_loss(&self, graph: &Graph) -> Tensor {
        self.variable(graph, self.variables.loss.expect("a step in micro-batches collects its loss"))
    }

    fn forward(&self, graph: &Graph, mode: BatchNormMode) -> Forward {
        forward(graph, self.model, self.settings, mode)
    }

    /// Codes of each assigned crop from the scores at hand, and the embeddings' way into the queue.
    fn own_codes(&self, graph: &Graph, forward: &Forward) -> Vec<Tensor> {
        let (settings, rows) = (self.settings, self.settings.micro_batch());
        let prototypes = self.prototypes(graph);
        // Every micro-batch has its share of the queue; the only one has all of it.
        let share = settings.queue_rows / settings.micro_batches;
        let queues: Vec<Tensor> = self.variables.queues.iter().map(|&q| self.variable(graph, q)).collect();
        let own = |queue: &Tensor| match settings.micro_batches {
            1 => queue.clone(),
            _ => queue.rows_at(&graph.input("queue_share", &[1], DType::U32), share),
        };
        let codes = graph.scope("codes", || {
            (settings.crops_for_assign.iter().enumerate())
                .map(|(i, &crop)| {
                    let queue = queues.get(i).filter(|_| self.queue == QueueUse::Used).map(own);
                    self.sinkhorn(forward.scores.slice_rows(crop * rows, rows), queue.as_ref(), &prototypes)
                })
                .collect()
        });
        if self.queue != QueueUse::Absent && !queues.is_empty() {
            let position = graph.input("queue_position", &[1], DType::U32);
            for (&crop, queue) in settings.crops_for_assign.iter().zip(&queues) {
                self.push(&forward.embeddings, crop, &position, queue);
            }
        }
        codes
    }

    /// Codes of `scores`, below those of the queue when that is used.
    fn sinkhorn(&self, mut scores: Tensor, queue: Option<&Tensor>, prototypes: &Tensor) -> Tensor {
        let rows = scores.shape()[0];
        if let Some(queue) = queue.filter(|_| self.queue == QueueUse::Used) {
            scores = concat_rows(&[&queue.linear(prototypes, None), &scores]);
        }
        scores.sinkhorn(self.settings.epsilon, self.settings.sinkhorn_iterations, rows)
    }

    /// Writes the embeddings of `crop` into `bank` from row `position` on.
    fn push(&self, embeddings: &Tensor, crop: usize, position: &Tensor, bank: &Tensor) {
        let rows = self.settings.micro_batch();
        embeddings.queue_push(crop * rows, rows, position, bank);
    }

    /// This micro-batch's share of the loss of the whole batch.
    fn loss(&self, forward: &Forward, codes: &Tensor) -> Tensor {
        let (views, assigned) = (self.settings.views(), self.settings.crops_for_assign.len());
        let targets = codes.swap_codes(views, &self.settings.crops_for_assign);
        #[expect(clippy::cast_precision_loss, reason = "a count of rows")]
        let scale = 1.0 / (assigned * (views - 1) * self.settings.batch) as f32;
        let graph = forward.scores.graph().clone();
        graph.scope("loss", || forward.scores.soft_cross_entropy(&targets, self.settings.temperature, scale))
    }

    fn update(&self, graph: &Graph) -> Option<Tensor> {
        let step = graph.input("step", &[4], DType::F32);
        let treatment = |name: &str| Treatment { freezable: name.starts_with("prototypes"), second_rate: false };
        let scale = self.loss_scale(graph);
        self.settings.optimizer.record_scaled(graph, &self.model.parameters, &step, treatment, scale.as_ref())
    }
}
