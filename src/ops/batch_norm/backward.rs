//! The reverse pass of batch norm, alone and together with what makes its gradient.

use super::BatchNorm;
use super::sums::{finalize_gradients, own_chunks, params, quads, spans};
use crate::gpu::{KernelSpec, Specialization};
use crate::graph::{DType, Fused, Fusing, Lowering, Maker, Node, Op, TensorId, View};
use crate::ops::add::sum;
use crate::ops::conv2d::{Epilogue, InputGradient, Tallied, can_tally};
use crate::ops::relu::ReluBackward;
use crate::ops::{Rewrite, element, groups, rows_of, wants};
use std::rc::Rc;

/// What the ReLU behind the batch norm let through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mask {
    /// There was none.
    All,
    /// Where x, normalised, is positive: its `bias` is read.
    Input,
    /// Where the output y is positive, to which a residual was added: y is read, and g written.
    Output,
}

/// Reads [x, moments, weight, dy]; then what the mask needs; then, when dy is the gradient of a convolution's output (`behind`), its weight, and
/// another gradient to add, where there is one; then other gradients of weight and bias to add. Writes [dx, dweight, dbias], and g where others read
/// it.
#[derive(Clone, Copy)]
pub(in crate::ops) struct BatchNormBackward {
    training: bool,
    mask: Mask,
    behind: Option<InputGradient>,
    /// Which inputs are added to dweight and dbias.
    onto: [Option<usize>; 2],
}

/// A convolution whose input's gradient is dy, its weight, and another gradient to add to that.
type Behind = (InputGradient, TensorId, Option<TensorId>);

/// A node's inputs by what they are.
struct Inputs {
    x: TensorId,
    moments: TensorId,
    weight: TensorId,
    dy: TensorId,
    /// The bias or y, by which the mask is found; the weight where there is none.
    mask: TensorId,
    behind: Option<Behind>,
    /// Other gradients of weight and bias.
    onto: [Option<TensorId>; 2],
}

impl BatchNormBackward {
    pub(super) fn new(training: bool) -> Self {
        Self { training, mask: Mask::All, behind: None, onto: [None; 2] }
    }

    fn inputs(&self, node: &Node) -> Inputs {
        let all = &node.inputs;
        let (mask, at) = if self.mask == Mask::All { (all[2], 4) } else { (all[4], 5) };
        let behind = self.behind.map(|behind| (behind, all[at], behind.sum.then(|| all[at + 1])));
        let onto = self.onto.map(|at| at.map(|at| all[at]));
        Inputs { x: all[0], moments: all[1], weight: all[2], dy: all[3], mask, behind, onto }
    }

    /// The node of `made` with `other` added to `term`, one of its gradients, whose place `sum` takes; `None` where that cannot be.
    pub(in crate::ops) fn with_sum(made: &Maker<'_, Self>, [term, other, sum]: [TensorId; 3]) -> Option<Fused> {
        let which = made.node.outputs[1..3].iter().position(|t| *t == term)?;
        if made.op.onto[which].is_some() || made.node.outputs.contains(&other) {
            return None;
        }
        let (mut op, mut inputs, mut outputs) = (*made.op, made.node.inputs.clone(), made.node.outputs.clone());
        op.onto[which] = Some(inputs.len());
        inputs.push(other);
        outputs[1 + which] = sum;
        Some(Fused { op: Rc::new(op), inputs, outputs, replaces: Some(made.at) })
    }

    /// Takes over the ReLU's share of the reverse pass.
    fn fuse_relu(&self, cx: &Fusing<'_>) -> Option<Fused> {
        let node = cx.node();
        let (x, moments, dy) = (node.inputs[0], node.inputs[1], node.inputs[3]);
        let relu = cx.source::<ReluBackward>(dy)?;
        let y = relu.node.inputs[0];
        let from_x = cx.maker::<BatchNorm>(y).filter(|m| m.op.relu && m.node.inputs.len() == 4 && m.node.inputs[..2] == [x, moments]);
        let (mask, reads, outputs) = match from_x {
            Some(forward) if cx.only_reader(dy) => (Mask::Input, forward.node.inputs[3], node.outputs.clone()),
            _ => (Mask::Output, y, [node.outputs.as_slice(), &[dy]].concat()),
        };
        if !wants(cx, Rewrite::ActivationGradient) {
            return None;
        }
        let inputs = vec![x, moments, node.inputs[2], relu.node.inputs[1], reads];
        Some(Fused { op: Rc::new(Self { mask, behind: None, ..*self }), inputs, outputs, replaces: Some(relu.at) })
    }

    /// Takes over the gradient of a convolution's input, which then sums up what this pass needs while it is at it.
    fn fuse_gradient(&self, cx: &Fusing<'_>) -> Option<Fused> {
        let node = cx.node();
        let behind = cx.source::<InputGradient>(node.inputs[3]).filter(|_| cx.only_reader(node.inputs[3]))?;
        // What kernels there are for.
        if behind.op.sum != (self.mask == Mask::Output) || !can_tally(cx, node.inputs[3]) || !wants(cx, Rewrite::GradientSums) {
            return None;
        }
        let mut inputs = node.inputs.clone();
        inputs[3] = behind.node.inputs[0];
        inputs.extend(&behind.node.inputs[1..]);
        let op = Self { behind: Some(*behind.op), ..*self };
        Some(Fused { op: Rc::new(op), inputs, outputs: node.outputs.clone(), replaces: Some(behind.at) })
    }

    /// The kernel `name`, or its like for joined outputs, over elements of the type of `x`.
    fn kernel(&self, cx: &Lowering<'_>, x: TensorId, name: [&'static str; 2], masks: bool) -> KernelSpec {
        let knobs = element(cx.info(x).dtype);
        match self.mask {
            Mask::Input if masks => KernelSpec::new("batch_norm", name[0]).with(knobs.bool("RELU", true)),
            Mask::Output if masks => KernelSpec::new("batch_norm", name[1]).with(knobs),
            _ => KernelSpec::new("batch_norm", name[0]).with(knobs),
        }
    }

    /// Sums per chunk of rows, into `partials`.
    fn reduce(&self, cx: &mut Lowering<'_>, inputs: &Inputs, partials: TensorId) -> Tallied {
        let Inputs { x, moments, weight, dy, mask, .. } = *inputs;
        let (rows, quads) = (rows_of(cx, x), quads(cx, weight));
        let t = own_chunks(rows, quads);
        cx.reshape_scratch(partials, &[2 * t.chunks, 4 * quads]);
        let kernel = self.kernel(cx, x, ["backward_reduce", "backward_reduce_joined"], true);
        for part in cx.windows(rows, t.chunk, &[x, dy]) {
            let mut reads = vec![part.of(x), part.of(dy), moments.into()];
            match self.mask {
                Mask::All | Mask::Input => reads.extend([weight, mask].map(View::from)),
                Mask::Output => reads.push(part.of(mask)),
            }
            let launched = groups(quads * part.count.div_ceil(t.chunk));
            cx.launch(kernel.clone(), params(cx, quads, part, t.chunk), launched, &reads, &[partials]);
        }
        t
    }

    /// Computes g, the masked gradient, from that of the convolution behind, and the sums per chunk of rows.
    fn reduce_behind(&self, cx: &mut Lowering<'_>, (behind, weight, addend): Behind, inputs: &Inputs, [g, partials]: [TensorId; 2]) -> Tallied {
        let Inputs { x: normalized, moments, weight: gamma, dy, mask, .. } = *inputs;
        let epilogue = match addend {
            // Only then is there a residual (`fuse_gradient`).
            Some(addend) => Epilogue::Join { addend, normalized, joined: mask, moments, chunks: partials },
            None => Epilogue::Gradient { normalized, moments, gamma, beta: mask, relu: self.mask == Mask::Input, chunks: partials },
        };
        behind.lower_with(cx, dy, weight, g, &epilogue)
    }

    /// The gradients of weight and bias from the chunks' sums.
    fn finalize(cx: &mut Lowering<'_>, inputs: &Inputs, tallied: &Tallied, [partials, stats]: [TensorId; 2], gradients: [TensorId; 2]) {
        let Inputs { moments, weight, onto: addends, .. } = *inputs;
        if let [Some(a), Some(b)] = addends {
            finalize_gradients(cx, tallied, &[partials, moments, weight, a, b], &[gradients[0], gradients[1], stats]);
            return;
        }
        let shape = cx.shape(weight).to_vec();
        let own = [0, 1].map(|i| if addends[i].is_some() { cx.scratch("gradient", &shape, DType::F32) } else { gradients[i] });
        finalize_gradients(cx, tallied, &[partials, moments, weight], &[own[0], own[1], stats]);
        for i in 0..2 {
            if let Some(addend) = addends[i] {
                sum(cx, [addend, own[i]], gradients[i]);
            }
        }
    }
}

impl Op for BatchNormBackward {
    fn name(&self) -> &'static str {
        "batch_norm_backward"
    }

    fn fuse(&self, cx: &Fusing<'_>) -> Option<Fused> {
        match (self.mask, self.behind) {
            _ if self.onto != [None; 2] => None,
            (_, Some(_)) => None,
            (Mask::All, _) => self.fuse_relu(cx).or_else(|| self.fuse_gradient(cx)),
            _ => self.fuse_gradient(cx),
        }
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let inputs = self.inputs(node);
        let Inputs { x, weight, dy, mask, .. } = inputs;
        let dx = node.outputs[0];
        let (rows, channels) = (rows_of(cx, x), cx.shape(weight)[0]);
        let quads = quads(cx, weight);
        let partials = cx.scratch("batch_norm.partials", &[0, channels], DType::F32);
        let stats = cx.scratch("batch_norm.stats", &[5, channels], DType::F32);
        let (tallied, g) = if let Some(behind) = inputs.behind {
            let (shape, dtype) = (cx.shape(x).to_vec(), cx.info(x).dtype);
            let g = node.outputs.get(3).copied().unwrap_or_else(|| cx.scratch("masked_gradient", &shape, dtype));
            (self.reduce_behind(cx, behind, &inputs, [g, partials]), g)
        } else {
            (self.reduce(cx, &inputs, partials), dy)
        };
        Self::finalize(cx, &inputs, &tallied, [partials, stats], [node.outputs[1], node.outputs[2]]);
        // What a convolution wrote is masked.
        let masks = self.behind.is_none();
        let kernel = self.kernel(cx, x, ["backward", "backward_joined"], masks);
        let knobs = kernel.constants.clone().and(&training(self.training));
        for part in cx.windows(rows, 1, &[x, g]) {
            let mut reads = vec![part.of(x), part.of(g), stats.into()];
            let mut writes = vec![part.of(dx)];
            match self.mask {
                Mask::Input if masks => reads.push(mask.into()),
                Mask::Output if masks => {
                    reads.push(part.of(mask));
                    writes.push(part.of(node.outputs[3]));
                }
                _ => reads.push(weight.into()),
            }
            let launched = spans(cx, part.count, quads);
            cx.launch(kernel.clone().with(knobs.clone()), params(cx, quads, part, 1), launched, &reads, &writes);
        }
    }
}

fn training(training: bool) -> Specialization {
    // The shader's default is training.
    if training { Specialization::default() } else { Specialization::default().bool("TRAINING", false) }
}
