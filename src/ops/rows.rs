//! Rows of tensors along the first dimension: concatenation, slices, and copies between element types.
//! PyTorch: `torch.cat(dim=0)`, `x[a:b]`, `x.to(dtype)`.

use super::{elementwise, groups};
use crate::gpu::{KernelSpec, Params, Specialization};
use crate::graph::{Backward, DType, Lowering, Node, Op, Recomputes, Tensor, TensorId};

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
        assert!(first + rows <= shape[0], "slice_rows: rows {first}..{} of {self:?}", first + rows);
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
        let mut offset = 0;
        for &input in &node.inputs {
            let count = cx.vec4s(input);
            copy(cx, input, node.outputs[0], count, 0, offset);
            offset += count;
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
        let count = cx.vec4s(node.outputs[0]);
        let rows = cx.shape(node.outputs[0])[0];
        copy(cx, node.inputs[0], node.outputs[0], count, self.first * (count / rows.max(1)), 0);
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

fn copy(cx: &mut Lowering<'_>, source: TensorId, target: TensorId, count: usize, source_offset: usize, target_offset: usize) {
    let (kernel, params) = copy_kernel(cx, source, target);
    cx.launch(kernel, params(count, source_offset, target_offset), groups(count), &[source], &[target]);
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
