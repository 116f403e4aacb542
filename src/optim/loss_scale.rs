//! Dynamic loss scaling (Micikevicius et al. 2018, "Mixed Precision Training"; apex.amp, PyTorch's `GradScaler`).
//!
//! The reverse pass starts with the scale instead of 1, so that small gradients of activations survive in f16; the optimiser divides by it. A
//! step whose gradients are not all finite changes no weight and no momentum, and halves the scale; after so many clean steps it doubles.
//! Powers of two throughout: scaling costs no rounding. Everything is decided on the device, from the gradients' exponent bits, because
//! shaders may be compiled as if infinities did not exist.

use crate::gpu::{KernelSpec, Params};
use crate::graph::{DType, Graph, Lowering, Node, Op, Tensor, VariableId, Variables};

/// How the scale moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScaling {
    /// Scale of the first step.
    pub initial: f32,
    /// Clean steps after which it doubles.
    pub growth_steps: u32,
    /// It never exceeds this. The least is 1.
    pub largest: f32,
}

impl Default for LossScaling {
    /// apex' numbers (spec of opt level O1): 2^16, doubled after 2000 clean steps, at most 2^24.
    fn default() -> Self {
        Self { initial: 65_536.0, growth_steps: 2_000, largest: 16_777_216.0 }
    }
}

/// The scale of the loss in one graph.
pub struct LossScale {
    /// (4) f32: the scale (0 before the first step), clean steps since it last moved, skipped steps in all, and how much of the present
    /// step's gradients was found not to be finite. As a seed of the reverse pass its first element counts.
    pub state: Tensor,
    rule: LossScaling,
}

/// What happens to the state.
#[derive(Clone, Copy)]
enum Stage {
    /// Before the reverse pass: takes the initial scale if there is none, forgets what the last step found.
    Begin,
    /// Takes note of one arena's gradients.
    Inspect,
    /// After the update: halves or doubles.
    Decide,
}

struct Scale(Stage, LossScaling);

impl LossScaling {
    /// The variable that keeps the state from step to step.
    pub fn variable(variables: &mut Variables) -> VariableId {
        variables.add("loss scale", &[4], DType::F32)
    }

    /// Whether `state` can have been read from that variable: the scale is a power of two and at least 1, or 0 before the first step.
    pub fn is_valid(state: &[f32]) -> bool {
        let scale = state[0];
        let power_of_two = scale.is_normal() && scale.to_bits().trailing_zeros() >= f32::MANTISSA_DIGITS - 1;
        (scale == 0.0 || scale >= 1.0 && power_of_two) && state.iter().all(|v| v.is_finite() && *v >= 0.0)
    }

    /// The scale in a graph.
    pub fn in_graph(self, graph: &Graph, variables: &Variables, id: VariableId) -> LossScale {
        LossScale { state: graph.variable(variables, id), rule: self }
    }
}

impl LossScale {
    /// The state of a loss that is not scaled.
    pub(super) fn none(graph: &Graph) -> Tensor {
        graph.constant("loss scale 1", &[4], DType::F32, bytemuck::cast_slice(&[1.0_f32, 0.0, 0.0, 0.0]))
    }

    /// Records what comes first in a step.
    pub fn begin(&self) {
        self.record(Stage::Begin, &[]);
    }

    /// Records the look at what the optimiser's norms found.
    pub(super) fn inspect(&self, norms: &Tensor) {
        self.record(Stage::Inspect, &[norms]);
    }

    /// Records what comes last in a step.
    pub(super) fn decide(&self) {
        self.record(Stage::Decide, &[]);
    }

    fn record(&self, stage: Stage, inputs: &[&Tensor]) {
        self.state.graph().record(Scale(stage, self.rule), inputs, &[&self.state]);
    }
}

impl Op for Scale {
    fn name(&self) -> &'static str {
        "loss_scale"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let Self(stage, rule) = self;
        let entry = match stage {
            Stage::Begin => "begin",
            Stage::Inspect => "inspect",
            Stage::Decide => "decide",
        };
        let chunks = node.inputs.first().map_or(0, |norms| cx.vec4s(*norms));
        let params = Params::default()
            .u32("chunks", chunks)
            .u32("growth_steps", rule.growth_steps as usize)
            .f32("initial", rule.initial)
            .f32("largest", rule.largest);
        cx.launch(KernelSpec::new("loss_scale", entry), params, 1, &node.inputs, &node.outputs);
    }
}

#[cfg(test)]
mod tests {
    use super::LossScaling;

    #[test]
    fn scales_are_powers_of_two() {
        for (scale, valid) in
            [(0.0, true), (1.0, true), (65_536.0, true), (0.5, false), (3.0, false), (-2.0, false), (f32::NAN, false), (f32::INFINITY, false)]
        {
            assert_eq!(LossScaling::is_valid(&[scale, 0.0, 0.0, 0.0]), valid, "{scale}");
        }
        assert!(!LossScaling::is_valid(&[2.0, f32::NAN, 0.0, 0.0]) && !LossScaling::is_valid(&[2.0, 0.0, -1.0, 0.0]));
    }
}
