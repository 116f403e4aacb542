//! A step as data: recorded once, differentiated graph to graph, planned, then replayed.
//!
//! [`Graph`] holds tensors (shape, type, where they live) and nodes in the order they were recorded, which is the order they run in.
//! [`differentiate`] appends the nodes of the reverse pass. [`lower`] fuses nodes that one kernel can compute together and asks every op for
//! its kernel launches; [`plan`] maps
//! tensors to memory slots by their lifetimes, so that peak memory is known before anything is allocated; [`Program`]
//! allocates, prepares and replays.
//!
//! Layout: the last dimension of every tensor is padded with zeros to a multiple of 4 in memory, so every kernel may read `vec4`s; kernels
//! keep the padding zero, but for what an op keeps row by row for itself. Images are NHWC.
//!
//! Architecture Invariant: nothing here knows what an op computes; ops implement [`Op`].

mod differentiate;
mod fuse;
mod isolate;
mod lower;
mod order;
mod plan;
mod program;
mod tensor;
mod variables;
mod window;

pub use differentiate::{Backward, differentiate};
pub use fuse::{FUSE, FUSED, Fused, Fusing, Maker, SEPARATE};
pub use isolate::Isolated;
pub use lower::{Choices, Decision, Launch, Lowered, Lowering, Variants, key, lower};
pub use plan::{Place, Plan, plan};
pub use program::{Outputs, Pending, Program};
pub use tensor::{DType, Graph, Node, Op, Recomputes, Segment, Storage, Tensor, TensorId, TensorInfo};
pub use variables::{Store, VariableId, VariableInfo, Variables};
pub use window::{View, Window};

/// `n` rounded up to a multiple of 4: the stored length of a last dimension.
pub const fn pad4(n: usize) -> usize {
    n.next_multiple_of(4)
}

/// Elements in memory of a tensor of this shape, padding included.
pub fn stored_elements(shape: &[usize]) -> usize {
    match shape.split_last() {
        Some((last, rest)) => rest.iter().product::<usize>() * pad4(*last),
        None => 4,
    }
}

/// Copies a dense array of `shape` into its padded form.
///
/// # Panics
/// When `dense` does not have the shape's number of elements.
pub fn pad_rows<T: Copy + Default>(dense: &[T], shape: &[usize]) -> Vec<T> {
    let last = shape.last().copied().unwrap_or(1);
    assert_eq!(dense.len(), shape.iter().product::<usize>(), "data of {} elements for shape {shape:?}", dense.len());
    if last.is_multiple_of(4) {
        return dense.to_vec();
    }
    let mut out = vec![T::default(); stored_elements(shape)];
    for (to, from) in out.chunks_exact_mut(pad4(last)).zip(dense.chunks_exact(last.max(1))) {
        to[..last].copy_from_slice(from);
    }
    out
}

/// The inverse of [`pad_rows`].
pub fn unpad_rows<T: Copy>(stored: &[T], shape: &[usize]) -> Vec<T> {
    let last = shape.last().copied().unwrap_or(1);
    let elements = stored_elements(shape);
    stored[..elements].chunks_exact(pad4(last)).flat_map(|row| &row[..last]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_round_trips() {
        let shape = [2, 3];
        let dense = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
        let stored = pad_rows(&dense, &shape);
        assert_eq!(stored, [1.0, 2.0, 3.0, 0.0, 4.0, 5.0, 6.0, 0.0]);
        assert_eq!(unpad_rows(&stored, &shape), dense);
        assert_eq!(stored_elements(&[]), 4);
    }
}
