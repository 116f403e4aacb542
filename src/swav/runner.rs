//! Training steps on a device.

use super::SwavModel;
use super::record::{Part, StepVariables, crops_name, record};
use super::step::{QueueUse, SinkhornScope, StepInputs, StepSettings};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::{Choices, Outputs, Pending, Program, Store, VariableId, Variants};
use std::collections::BTreeMap;

/// Runs training steps: owns the programs of the present way to use the queue, and the queue's state.
pub struct StepRunner {
    settings: StepSettings,
    variables: StepVariables,
    programs: Option<(QueueUse, BTreeMap<Part, Program>)>,
    /// Batches pushed since the queue began.
    pushed: u64,
    keep_codes: bool,
}

impl StepRunner {
    /// A runner; adds its variables to the model's. `keep_codes` reads codes and scores back as they are ([`StepPart::outputs`](super::StepPart)).
    ///
    /// # Panics
    /// When the micro-batches do not divide the batch.
    pub fn new(model: &mut SwavModel, settings: StepSettings, keep_codes: bool) -> Self {
        let micro_batches = settings.micro_batches;
        assert!(micro_batches > 0 && settings.batch.is_multiple_of(micro_batches), "a batch of {} in {micro_batches} parts", settings.batch);
        let variables = StepVariables::new(model, &settings);
        Self { settings, variables, programs: None, pushed: 0, keep_codes }
    }

    /// What a step computes.
    pub fn settings(&self) -> &StepSettings {
        &self.settings
    }

    /// Its variables besides the network's.
    pub fn variables(&self) -> &StepVariables {
        &self.variables
    }

    /// The queue's variables, one per assigned crop, and the batches pushed so far.
    pub fn queue(&self) -> (&[VariableId], u64) {
        (&self.variables.queues, self.pushed)
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

    /// Whether the last batch filled it: the next step with the queue is the first that looks into it.
    pub fn queue_is_new(&self) -> bool {
        self.queue_is_full() && (self.pushed - 1) * (self.settings.batch as u64) < self.settings.queue_rows as u64
    }

    /// Whether the next step needs other programs than the last: finish what is in flight first.
    pub fn will_rebuild(&self, queue_active: bool) -> bool {
        self.programs.as_ref().is_some_and(|(built, _)| *built != self.queue_use(queue_active))
    }

    fn queue_use(&self, queue_active: bool) -> QueueUse {
        match (queue_active && !self.variables.queues.is_empty(), self.queue_is_full()) {
            (false, _) => QueueUse::Absent,
            (true, false) => QueueUse::Filling,
            (true, true) => QueueUse::Used,
        }
    }

    /// Builds the next step's programs, where they are not built yet, so that what does not fit shows before anything runs. Says whether
    /// it built them.
    pub fn prepare(&mut self, gpu: &Gpu, model: &SwavModel, store: &Store, variants: &dyn Variants, queue_active: bool) -> Result<bool> {
        let queue = self.queue_use(queue_active);
        let stale = self.programs.as_ref().is_none_or(|(built, _)| *built != queue);
        if stale {
            // The old programs' memory goes first.
            self.programs = None;
            let parts = record(model, &self.settings, &self.variables, queue, self.keep_codes);
            let build = |part: &super::StepPart| Ok((part.part, Program::new(gpu, store, &part.graph, &part.named_outputs(), variants)?));
            self.programs = Some((queue, parts.iter().map(build).collect::<Result<_>>()?));
        }
        Ok(stale)
    }

    /// Kernel variants that the programs use, where there was a choice.
    pub fn choices(&self) -> Choices {
        self.programs.iter().flat_map(|(_, programs)| programs.values()).flat_map(Program::choices).collect()
    }

    /// Starts a step. Does not wait for its results.
    pub fn run(&mut self, gpu: &Gpu, model: &SwavModel, store: &Store, variants: &dyn Variants, inputs: &StepInputs<'_>) -> Result<Pending> {
        self.prepare(gpu, model, store, variants, inputs.queue_active)?;
        let queue = self.queue_use(inputs.queue_active);
        let micro_batches = self.settings.micro_batches;
        let names: Vec<String> = (0..inputs.crops.len()).map(crops_name).collect();
        let (_, mut programs) = self.programs.take().expect("built above");
        let outcome = (|| {
            #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
            let step = [inputs.lr as f32, if inputs.frozen { 1.0 } else { 0.0 }, 0.0, 0.0];
            let step: (&str, &[u8]) = ("step", bytemuck::cast_slice(&step));
            if let Some(whole) = programs.get_mut(&Part::Whole) {
                let position = self.queue_position(0);
                let crops = names.iter().zip(inputs.crops).map(|(name, data)| (name.as_str(), *data));
                return whole.run(gpu, &crops.chain([step, ("queue_position", bytemuck::cast_slice(&position))]).collect::<Vec<_>>());
            }
            let mut run = |part: Part, micro: usize| -> Result<()> {
                let Some(program) = programs.get_mut(&part) else { return Ok(()) };
                let crops = if matches!(part, Part::Embed | Part::Learn) { self.settings.part_of(inputs.crops, micro) } else { Vec::new() };
                let positions = [row(micro * self.settings.micro_batch()), self.queue_position(micro), row(self.share() * micro)];
                let images = names.iter().zip(&crops).map(|(name, data)| (name.as_str(), data.as_slice()));
                let rows = ["batch_position", "queue_position", "queue_share"].into_iter().zip(&positions);
                program.run_only(gpu, &images.chain(rows.map(|(name, row)| (name, bytemuck::cast_slice(row)))).collect::<Vec<_>>())
            };
            run(Part::Start, 0)?;
            (0..micro_batches).try_for_each(|micro| run(Part::Embed, micro))?;
            run(Part::Codes, 0)?;
            (0..micro_batches).try_for_each(|micro| run(Part::Learn, micro))?;
            programs.get_mut(&Part::Finish).expect("the last part of a step in micro-batches").run(gpu, &[step])
        })();
        self.programs = Some((queue, programs));
        if outcome.is_ok() && queue != QueueUse::Absent {
            self.pushed += 1;
        }
        outcome
    }

    /// Rows of the queue that belong to a micro-batch.
    fn share(&self) -> usize {
        self.settings.queue_rows / self.settings.micro_batches
    }

    /// Row of the queue that the next embeddings of micro-batch `micro` overwrite.
    fn queue_position(&self, micro: usize) -> [u32; 4] {
        let s = &self.settings;
        let local = s.micro_batches > 1 && s.sinkhorn == SinkhornScope::Local;
        let (share, rows) = if local { (self.share(), s.micro_batch()) } else { (s.queue_rows, s.batch) };
        let within = self.pushed * rows as u64 % share.max(1) as u64;
        row(usize::try_from(within).expect("a row of the queue") + if local { share * micro } else { 0 })
    }

    /// Waits for a step and takes its results ([`StepPart::outputs`](super::StepPart)).
    ///
    /// # Panics
    /// When no step was started.
    pub fn finish(&mut self, gpu: &Gpu, pending: Pending) -> Result<Outputs> {
        let (_, programs) = self.programs.as_mut().expect("a step was started");
        programs.last_entry().expect("a step has parts").get_mut().finish(gpu, pending)
    }
}

/// A row of a bank as the graph's inputs take it.
fn row(row: usize) -> [u32; 4] {
    [u32::try_from(row).expect("banks have fewer than 2^32 rows"), 0, 0, 0]
}
