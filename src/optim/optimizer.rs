//! SGD with momentum, LARC over SGD (apex, the official SwAV code) and LARS (mmpretrain), over whole arenas of parameters.
//!
//! With p a tensor, g its gradient, λ the weight decay, μ the momentum, η the trust coefficient; ratio = η‖p‖ / (‖g‖ + λ‖p‖ + eps):
//! - SGD: v ← μv + g + λp; p ← p − lr·v. With Nesterov's momentum p ← p − lr·(g + λp + μv).
//! - LARC: when ‖p‖ and ‖g‖ are both positive g ← (g + λp)·ratio, else g alone; v ← μv + g; p ← p − lr·v.
//! - LARS: r = ratio when both norms are positive, else 1; v ← μv + (g + λp)·r·lr; p ← p − v.
//!
//! Norms stay on the device. Tensors marked freezable are left alone, momentum too, while the step says so. A tensor follows one of two
//! learning rates, as fine-tuning needs for backbone and head. Where the loss was scaled, g is the gradient divided by that scale, and a step
//! with a gradient that is not finite changes nothing (see [`LossScale`]).

use super::LossScale;
use crate::gpu::{KernelSpec, Params, Specialization};
use crate::graph::{DType, Graph, Lowering, Node, Op, Tensor, pad_rows};
use crate::nn::Parameters;

/// Which update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptimizerKind {
    /// Plain SGD with momentum.
    Sgd,
    /// Layer-wise rate, learning rate outside the momentum.
    Larc,
    /// Layer-wise rate, learning rate inside the momentum.
    Lars,
    /// SGD with Nesterov's momentum, as PyTorch.
    Nesterov,
}

/// How a tensor is treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Treatment {
    /// Left alone while the step says so.
    pub freezable: bool,
    /// Follows the second learning rate of the step instead of the first.
    pub second_rate: bool,
}

/// An update rule with its constants.
#[derive(Clone, Copy, Debug)]
pub struct Optimizer {
    /// Which update.
    pub kind: OptimizerKind,
    /// μ.
    pub momentum: f32,
    /// λ.
    pub weight_decay: f32,
    /// η.
    pub trust: f32,
    /// Added to the divisor of the ratio.
    pub eps: f32,
}

/// Sums of squares of weights and gradients, and a look at whether the gradients are finite, chunk by chunk.
struct Norms(Update);

#[derive(Clone, Copy)]
struct Update {
    optimizer: Optimizer,
    chunks: usize,
    tensors: usize,
}

/// `vec4`s that one workgroup updates.
const CHUNK: usize = 1024;

impl Optimizer {
    /// Records the update of every arena with one learning rate. `step` is a (4) f32 input: learning rate, 1 while freezable tensors are
    /// frozen, two unused. `freezable` names the tensors that can be frozen. Returns the sums of the norms, see [`overflowed`].
    pub fn record(&self, graph: &Graph, parameters: &Parameters, step: &Tensor, freezable: impl Fn(&str) -> bool) -> Option<Tensor> {
        self.record_with(graph, parameters, step, |name| Treatment { freezable: freezable(name), second_rate: false })
    }

    /// Records the update of every arena. `step` is a (4) f32 input: first learning rate, 1 while freezable tensors are frozen, second
    /// learning rate, unused. Returns the sums of the norms.
    pub fn record_with(&self, graph: &Graph, parameters: &Parameters, step: &Tensor, treatment: impl Fn(&str) -> Treatment) -> Option<Tensor> {
        self.record_scaled(graph, parameters, step, treatment, None)
    }

    /// The same for gradients of a scaled loss: divides by the scale, skips the step where a gradient of any arena is not finite, and then
    /// decides on the scale of the next. Returns the sums of the norms where the update computes them: (4) of the squares of all weights, of
    /// all gradients, of gradients that are not finite (see [`overflowed`]), and nothing.
    pub fn record_scaled(
        &self,
        graph: &Graph,
        parameters: &Parameters,
        step: &Tensor,
        treatment: impl Fn(&str) -> Treatment,
        scale: Option<&LossScale>,
    ) -> Option<Tensor> {
        graph.scope("optimizer", || {
            let state = scale.map_or_else(|| LossScale::none(graph), |s| s.state.clone());
            let (mut updates, mut sums) = (Vec::new(), Vec::new());
            for arena in parameters.arenas() {
                let (mut chunks, mut tensors) = (Vec::new(), Vec::new());
                for (t, (name, first, length)) in parameters.arena_layout(arena).into_iter().enumerate() {
                    let before = chunks.len() / 4;
                    for at in (0..length / 4).step_by(CHUNK) {
                        let quads = CHUNK.min(length / 4 - at);
                        chunks.extend([t, first / 4 + at, quads, 0].map(narrow));
                    }
                    let Treatment { freezable, second_rate } = treatment(&name);
                    tensors.extend([before, chunks.len() / 4 - before, usize::from(freezable), usize::from(second_rate)].map(narrow));
                }
                let table = |name: &str, rows: &[u32]| {
                    let shape = [rows.len() / 4, 4];
                    graph.constant(name, &shape, DType::U32, bytemuck::cast_slice(&pad_rows(rows, &shape)))
                };
                let variable = |id| graph.variable(parameters.variables(), id);
                let op = Update { optimizer: *self, chunks: chunks.len() / 4, tensors: tensors.len() / 4 };
                let norms = graph.intermediate("norms", &[op.chunks, 4], DType::F32);
                let (chunks, tensors) = (table("chunks", &chunks), table("tensors", &tensors));
                let (weights, gradients, momentum) = (variable(arena.weights), variable(arena.gradients), variable(arena.momentum));
                // Plain momentum has no use for norms, unless overflow shows in them; `ratios` then makes nothing of what it finds in their place.
                if matches!(self.kind, OptimizerKind::Larc | OptimizerKind::Lars) || scale.is_some() {
                    graph.record(Norms(op), &[&chunks, &weights, &gradients, &state], &[&norms]);
                    sums.push(norms.sum_columns());
                }
                updates.push((op, [chunks, tensors, gradients, norms], [momentum, weights]));
            }
            if let Some(scale) = scale {
                updates.iter().for_each(|(_, [.., norms], _)| scale.inspect(norms));
            }
            for (op, [chunks, tensors, gradients, norms], [momentum, weights]) in updates {
                graph.record(op, &[&chunks, &tensors, &gradients, step, &norms, &state], &[&momentum, &weights]);
            }
            if let Some(scale) = scale {
                scale.decide();
            }
            sums.into_iter().reduce(|all, next| all.add(&next))
        })
    }
}

/// Whether a gradient was not finite, by the sums of the norms.
pub fn overflowed(sums: &[f32]) -> bool {
    sums[2] > 0.0
}

fn narrow(v: usize) -> u32 {
    u32::try_from(v).expect("an arena has fewer than 2^32 elements")
}

impl Op for Norms {
    fn name(&self) -> &'static str {
        "optimizer_norms"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        cx.launch(KernelSpec::new("optimizer", "norms"), self.0.params(), self.0.chunks, &node.inputs, &node.outputs);
    }
}

impl Op for Update {
    fn name(&self) -> &'static str {
        "optimizer"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [chunks, tensors, gradients, step, norms, state] = <[_; 6]>::try_from(node.inputs.as_slice()).expect("six inputs");
        let params = self.params();
        let factors = cx.scratch("factors", &[self.tensors, 4], DType::F32);
        let kernel = |entry| KernelSpec::new("optimizer", entry).with(Specialization::default().u32("KIND", self.optimizer.kind as u32));
        cx.launch(kernel("ratios"), params.clone(), self.tensors.div_ceil(64), &[tensors, norms, step, state], &[factors]);
        cx.launch(kernel("update"), params, self.chunks, &[chunks, factors, gradients], &node.outputs);
    }
}

impl Update {
    fn params(&self) -> Params {
        let o = &self.optimizer;
        Params::default()
            .u32("chunks", self.chunks)
            .u32("tensors", self.tensors)
            .f32("momentum", o.momentum)
            .f32("weight_decay", o.weight_decay)
            .f32("trust", o.trust)
            .f32("eps", o.eps)
    }
}
