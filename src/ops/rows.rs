//! Rows of tensors along the first dimension: concatenation, slices, and copies between element types.
//! PyTorch: `torch.cat(dim=0)`, `x[a:b]`, `x.to(dtype)`.

use super::{elementwise, groups, quads_of, rows_of};
use crate::gpu::{KernelSpec, Params, Specialization};
use crate::graph::{Backward, DType, Lowering, Node, Op, Recomputes, Tensor, TensorId, Window};

/// Concatenation along the first dimension.
struct ConcatRows;
/// `rows` rows from `first` on.
struct SliceRows {
    first: usize,
}
/// Same values in another element type.
struct Cast;

/// `parts` one below another.
///
/// # Panics
/// When there are none, or their other dimensions or types differ.
#[track_caller]
pub fn concat_rows(parts: &[&Tensor]) -> Tensor {
    let first = parts.first().expect("at least one tensor to concatenate");
    if parts.len() == 1 {
        return (*first).clone();
    }
    let mut shape = first.shape();
    for part in parts {
        assert_eq!((&part.shape()[1..], part.dtype()), (&shape[1..], first.dtype()), "concat_rows: {part:?} below {first:?}");
    }
    shape[0] = parts.iter().map(|p| p.shape()[0]).sum();
    let output = first.graph().intermediate("concat_rows", &shape, first.dtype());
    first.graph().record(ConcatRows, parts, &[&output]);
    output
}

impl Tensor {
    /// Rows `first .. first + rows` along the first dimension.
    ///
    /// # Panics
    /// When they do not all exist.
    #[must_use]
    #[track_caller]
    pub fn slice_rows(&self, first: usize, rows: usize) -> Self {
        let mut shape = self.shape();
        assert!(rows > 0 && first + rows <= shape[0], "slice_rows: rows {first}..{} of {self:?}", first + rows);
        if rows == shape[0] {
            return self.clone();
        }
        shape[0] = rows;
        let output = self.graph().intermediate("slice_rows", &shape, self.dtype());
        self.graph().record(SliceRows { first }, &[self], &[&output]);
        output
    }

    /// The same values as `dtype`; the tensor itself when it has that type.
    #[must_use]
    pub fn cast(&self, dtype: DType) -> Self {
        if self.dtype() == dtype {
            return self.clone();
        }
        let output = self.graph().intermediate("cast", &self.shape(), dtype);
        self.graph().record(Cast, &[self], &[&output]);
        if let Some(inputs) = self.graph().inputs_of(self) {
            self.graph().note_inputs(&output, inputs);
        }
        output
    }
}

impl Op for ConcatRows {
    fn name(&self) -> &'static str {
        "concat_rows"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        let mut first = 0;
        let part = |i| {
            let rows = cx.input(i).shape()[0];
            first += rows;
            cx.needs(i).then(|| cx.grad_output().slice_rows(first - rows, rows))
        };
        (0..cx.inputs()).map(part).collect()
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let mut first = 0;
        for &input in &node.inputs {
            let rows = rows_of(cx, input);
            copy(cx, (input, 0), (node.outputs[0], first), rows);
            first += rows;
        }
    }
}

impl Op for SliceRows {
    fn name(&self) -> &'static str {
        "slice_rows"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (x, dy) = (cx.input(0), cx.grad_output());
        let (rows, total) = (dy.shape()[0], x.shape()[0]);
        let zeros = |name: &str, rows: usize| {
            let mut shape = x.shape();
            shape[0] = rows;
            let bytes = vec![0; crate::graph::stored_elements(&shape) * x.dtype().bytes()];
            x.graph().constant(name, &shape, x.dtype(), &bytes)
        };
        let (above, below) = (self.first, total - self.first - rows);
        let mut parts = Vec::new();
        if above > 0 {
            parts.push(zeros("zero rows above", above));
        }
        parts.push(dy);
        if below > 0 {
            parts.push(zeros("zero rows below", below));
        }
        vec![Some(concat_rows(&parts.iter().collect::<Vec<_>>()))]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let rows = rows_of(cx, node.outputs[0]);
        let each = rows / cx.shape(node.outputs[0])[0].max(1);
        copy(cx, (node.inputs[0], self.first * each), (node.outputs[0], 0), rows);
    }
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![Some(cx.grad_output().cast(cx.input(0).dtype()))]
    }

    fn recomputes(&self) -> Recomputes {
        Recomputes::Cheaply
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let (kernel, params) = copy_kernel(cx, node.inputs[0], node.outputs[0]);
        elementwise(cx, &kernel, (&node.inputs, &[], &node.outputs), |count| params(count, 0, 0));
    }
}

/// Copies `rows` rows (of the last dimension) of `source` from its row `from` to row `to` of `target`, window by window.
fn copy(cx: &mut Lowering<'_>, (source, from): (TensorId, usize), (target, to): (TensorId, usize), rows: usize) {
    let (kernel, params) = copy_kernel(cx, source, target);
    let quads = quads_of(cx, target);
    let limit = cx.caps().max_binding_bytes;
    let row_bytes = [source, target].map(|t| cx.info(t).bytes() / rows_of(cx, t).max(1) as u64);
    if [source, target].iter().all(|t| cx.info(*t).bytes() <= limit) {
        cx.launch(kernel, params(rows * quads, from * quads, to * quads), groups(rows * quads), &[source], &[target]);
        return;
    }
    // A window begins at an aligned row; the kernel skips what lies before the row that is meant.
    let unit = cx.caps().offset_alignment as usize / 8;
    let step = usize::try_from(limit / row_bytes.iter().copied().max().unwrap_or(1).max(1)).unwrap_or(rows).saturating_sub(unit).max(1);
    for done in (0..rows).step_by(step) {
        let count = step.min(rows - done);
        let view = |tensor: TensorId, row: usize| {
            let first = row / unit * unit;
            let window = Window { first, count: row + count - first, of: rows_of(cx, tensor) };
            (window.of(tensor), (row - first) * quads)
        };
        let ((read, skip), (write, gap)) = (view(source, from + done), view(target, to + done));
        cx.launch(kernel.clone(), params(count * quads, skip, gap), groups(count * quads), &[read], &[write]);
    }
}

/// The copying kernel between the types of two tensors; its parameters from the number of `vec4`s and the offsets in `vec4`s.
fn copy_kernel(cx: &Lowering<'_>, source: TensorId, target: TensorId) -> (KernelSpec, fn(usize, usize, usize) -> Params) {
    // Values pass through f32.
    assert!([source, target].iter().all(|t| cx.info(*t).dtype != DType::U32), "copies are of floats");
    let (from, to) = (cx.info(source).dtype.wgsl(), cx.info(target).dtype.wgsl());
    let kernel = KernelSpec::new("cast", "forward").with(Specialization::default().alias("Source", from).alias("Target", to));
    let params = |count, source_offset, target_offset| {
        Params::default().u32("count", count).u32("source_offset", source_offset).u32("target_offset", target_offset)
    };
    (kernel, params)
}
