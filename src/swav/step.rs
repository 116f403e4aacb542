//! One training step as a graph, and its replay.

use super::SwavModel;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::{DType, Graph, Outputs, Pending, Program, Store, Tensor, VariableId, Variants};
use crate::ops::{BatchNormMode, concat_rows};
use crate::optim::Optimizer;

/// Crops of one resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crops {
    /// Crops of each image.
    pub count: usize,
    /// Their side in pixels.
    pub size: usize,
}

/// What a step computes, besides the network.
#[derive(Clone, Debug)]
pub struct StepSettings {
    /// Groups of crops, in order.
    pub crops: Vec<Crops>,
    /// Images of a batch, B.
    pub batch: usize,
    /// τ of the prediction.
    pub temperature: f32,
    /// Smoothing of the codes, ε of eq. 3.
    pub epsilon: f32,
    /// Sinkhorn iterations.
    pub sinkhorn_iterations: usize,
    /// Crops whose codes are predicted, numbered over all groups.
    pub crops_for_assign: Vec<usize>,
    /// Rows of the feature queue of each assigned crop; 0 for none.
    pub queue_rows: usize,
    /// The update rule.
    pub optimizer: Optimizer,
    /// Share of a batch in the running statistics. 0.1 in every reference.
    pub bn_momentum: f32,
}

impl StepSettings {
    /// Crops of an image, V.
    pub fn views(&self) -> usize {
        self.crops.iter().map(|c| c.count).sum()
    }

    /// Backbone passes of a step, one for each run of groups of one size, as the references count them: each updates the running statistics once.
    pub fn passes(&self) -> usize {
        self.crops.chunk_by(|a, b| a.size == b.size).count()
    }
}

/// What changes from step to step.
#[derive(Clone, Copy, Debug)]
pub struct StepInputs<'a> {
    /// One array per group of crops in stored form, crop after crop.
    pub crops: &'a [&'a [f32]],
    /// Learning rate.
    pub lr: f64,
    /// The prototypes stay as they are.
    pub frozen: bool,
    /// The queue has begun.
    pub queue_active: bool,
}

/// A recorded training step.
pub struct TrainStep {
    graph: Graph,
    loss: Tensor,
    codes: Tensor,
    scores: Tensor,
}

impl TrainStep {
    /// Records the step. `queues` are the queue variables, one per assigned crop, or empty; `use_queue` lets them join the codes.
    pub fn record(model: &SwavModel, settings: &StepSettings, queues: &[VariableId], use_queue: bool) -> Self {
        let graph = Graph::new();
        let batch = settings.batch;
        let groups: Vec<Tensor> = (settings.crops.iter().enumerate())
            .map(|(i, c)| graph.input(&format!("crops{i}"), &[c.count * batch, c.size, c.size, 3], DType::F32))
            .collect();
        // Neighbouring groups of one size share the statistics of their batch norms.
        let groups: Vec<Tensor> =
            groups.chunk_by(|a, b| a.shape()[1] == b.shape()[1]).map(|run| concat_rows(&run.iter().collect::<Vec<_>>())).collect();
        let prototypes = model.parameters.tensor(&graph, "prototypes.weight");
        prototypes.normalize_columns();
        let forward = model.forward(&groups, BatchNormMode::Training { momentum: settings.bn_momentum });
        let codes: Vec<Tensor> = graph.scope("codes", || {
            (settings.crops_for_assign.iter().enumerate())
                .map(|(i, &crop)| {
                    let mut scores = forward.scores.slice_rows(crop * batch, batch);
                    if use_queue {
                        let queue = graph.variable(model.parameters.variables(), queues[i]);
                        scores = concat_rows(&[&queue.linear(&prototypes, None), &scores]);
                    }
                    scores.sinkhorn(settings.epsilon, settings.sinkhorn_iterations, batch)
                })
                .collect()
        });
        if !queues.is_empty() {
            let position = graph.input("queue_position", &[1], DType::U32);
            for (&crop, &queue) in settings.crops_for_assign.iter().zip(queues) {
                let queue = graph.variable(model.parameters.variables(), queue);
                forward.embeddings.queue_push(crop * batch, batch, &position, &queue);
            }
        }
        let codes = concat_rows(&codes.iter().collect::<Vec<_>>());
        let (views, assigned) = (settings.views(), settings.crops_for_assign.len());
        let targets = codes.swap_codes(views, &settings.crops_for_assign);
        #[expect(clippy::cast_precision_loss, reason = "a count of rows")]
        let scale = 1.0 / (assigned * (views - 1) * batch) as f32;
        let loss = graph.scope("loss", || forward.scores.soft_cross_entropy(&targets, settings.temperature, scale));
        model.parameters.record_gradients(&loss);
        let step = graph.input("step", &[4], DType::F32);
        settings.optimizer.record(&graph, &model.parameters, &step, |name| name.starts_with("prototypes"));
        Self { graph, loss, codes, scores: forward.scores }
    }

    /// The graph, for planning.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What is read back of every step: the loss, and the codes for the record of prototype use.
    pub fn outputs(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("loss", &self.loss), ("codes", &self.codes)]
    }

    fn all_outputs(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("loss", &self.loss), ("codes", &self.codes), ("scores", &self.scores)]
    }
}

/// Runs training steps: owns the programs with and without the queue, and the queue's state.
pub struct StepRunner {
    settings: StepSettings,
    queues: Vec<VariableId>,
    program: Option<(Mode, Program)>,
    /// Batches pushed since the queue began.
    pushed: u64,
    keep_scores: bool,
}

/// How the queue takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Absent,
    Filling,
    Used,
}

impl StepRunner {
    /// A runner; adds the queue's variables to the model's. `keep_scores` reads the scores back too.
    pub fn new(model: &mut SwavModel, settings: StepSettings, keep_scores: bool) -> Self {
        let mut queue = |crop: &usize| {
            let shape = [settings.queue_rows, model.head.feat_dim];
            model.parameters.variables_mut().add(&format!("queue of crop {crop}"), &shape, DType::F32)
        };
        let queues = if settings.queue_rows > 0 { settings.crops_for_assign.iter().map(&mut queue).collect() } else { Vec::new() };
        Self { settings, queues, program: None, pushed: 0, keep_scores }
    }

    /// What a step computes.
    pub fn settings(&self) -> &StepSettings {
        &self.settings
    }

    /// The queue's variables, one per assigned crop, and the batches pushed so far.
    pub fn queue(&self) -> (&[VariableId], u64) {
        (&self.queues, self.pushed)
    }

    /// Continues with `pushed` batches in the queue, whose variables the caller has filled.
    pub fn restore_queue(&mut self, pushed: u64) {
        self.pushed = pushed;
    }

    /// Whether the next step uses the queue, when it has one.
    pub fn queue_is_full(&self) -> bool {
        let rows = self.settings.queue_rows as u64;
        rows > 0 && self.pushed * self.settings.batch as u64 >= rows
    }

    /// Whether the next step needs another program than the last: finish what is in flight first.
    pub fn will_rebuild(&self, queue_active: bool) -> bool {
        self.program.as_ref().is_some_and(|(built, _)| *built != self.mode(queue_active))
    }

    fn mode(&self, queue_active: bool) -> Mode {
        match (queue_active && !self.queues.is_empty(), self.queue_is_full()) {
            (false, _) => Mode::Absent,
            (true, false) => Mode::Filling,
            (true, true) => Mode::Used,
        }
    }

    /// Builds the next step's program, where it is not built yet, so that what does not fit shows before anything runs.
    pub fn prepare(&mut self, gpu: &Gpu, model: &SwavModel, store: &Store, variants: &dyn Variants, queue_active: bool) -> Result<()> {
        let mode = self.mode(queue_active);
        if self.program.as_ref().is_none_or(|(built, _)| *built != mode) {
            // The old program's memory goes first.
            self.program = None;
            let queues: &[VariableId] = if mode == Mode::Absent { &[] } else { &self.queues };
            let step = TrainStep::record(model, &self.settings, queues, mode == Mode::Used);
            let outputs = if self.keep_scores { step.all_outputs() } else { step.outputs() };
            self.program = Some((mode, Program::new(gpu, store, step.graph(), &outputs, variants)?));
        }
        Ok(())
    }

    /// Starts a step. Does not wait.
    pub fn run(&mut self, gpu: &Gpu, model: &SwavModel, store: &Store, variants: &dyn Variants, inputs: &StepInputs<'_>) -> Result<Pending> {
        let StepInputs { crops, lr, frozen, queue_active } = *inputs;
        self.prepare(gpu, model, store, variants, queue_active)?;
        let mode = self.mode(queue_active);
        #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
        let scalars = [lr as f32, if frozen { 1.0 } else { 0.0 }, 0.0, 0.0];
        let rows = self.settings.queue_rows.max(1) as u64;
        let position = u32::try_from(self.pushed * self.settings.batch as u64 % rows).expect("a queue has fewer than 2^32 rows");
        let position = [position, 0, 0, 0];
        let names: Vec<String> = (0..crops.len()).map(|i| format!("crops{i}")).collect();
        let mut inputs: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(crops.iter().map(|c| bytemuck::cast_slice(c))).collect();
        inputs.push(("step", bytemuck::cast_slice(&scalars)));
        inputs.push(("queue_position", bytemuck::cast_slice(&position)));
        let (_, program) = self.program.as_mut().expect("built above");
        let pending = program.run(gpu, &inputs)?;
        if mode != Mode::Absent {
            self.pushed += 1;
        }
        Ok(pending)
    }

    /// Waits for a step.
    ///
    /// # Panics
    /// When no step was started.
    pub fn finish(&mut self, gpu: &Gpu, pending: Pending) -> Result<Outputs> {
        self.program.as_mut().expect("a step was started").1.finish(gpu, pending)
    }

    /// The program in use, for reports.
    pub fn program(&self) -> Option<&Program> {
        self.program.as_ref().map(|(_, program)| program)
    }
}
