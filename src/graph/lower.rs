//! From nodes to kernel launches.

use super::{DType, Graph, Node, Storage, TensorId, TensorInfo, stored_elements};
use crate::gpu::{Caps, KernelSpec, Params, grid_fold};
use std::collections::HashSet;

/// Which of several kernels for one op to use; `tune/` decides, the ops offer.
pub trait Variants {
    /// The variant to use for `op`, out of `offered` (best guess first), at a shape described by `shape`.
    fn choose<'a>(&self, op: &str, shape: &str, offered: &[&'a str]) -> &'a str;

    /// Whether kernels are offered that round f32 factors to f16 as well; only checks ask for them.
    fn may_round(&self) -> bool {
        false
    }
}

/// One kernel launch over tensors.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Which kernel.
    pub kernel: KernelSpec,
    /// Its parameters.
    pub params: Params,
    /// Tensors it only reads, in binding order.
    pub reads: Vec<TensorId>,
    /// Tensors it writes (or updates in place), in binding order after the reads.
    pub writes: Vec<TensorId>,
    /// Workgroups.
    pub grid: [u32; 3],
    /// Scope and kernel, for profiles.
    pub label: String,
}

/// What an op uses to state its launches.
pub struct Lowering<'a> {
    caps: &'a Caps,
    variants: &'a dyn Variants,
    tensors: Vec<TensorInfo>,
    launches: Vec<Launch>,
    scope: String,
}

impl Lowering<'_> {
    /// Capabilities of the adapter.
    pub fn caps(&self) -> &Caps {
        self.caps
    }

    /// What is known of a tensor.
    pub fn info(&self, id: TensorId) -> &TensorInfo {
        &self.tensors[id.0]
    }

    /// Shape of a tensor.
    pub fn shape(&self, id: TensorId) -> &[usize] {
        &self.tensors[id.0].shape
    }

    /// Batch, height, width, channels; a matrix is a batch of single pixels.
    pub fn nhwc(&self, id: TensorId) -> [usize; 4] {
        match *self.shape(id) {
            [n, h, w, c] => [n, h, w, c],
            [n, c] => [n, 1, 1, c],
            ref other => panic!("{} is {other:?}, neither an image batch nor a matrix", self.tensors[id.0].name),
        }
    }

    /// `vec4`s in memory.
    pub fn vec4s(&self, id: TensorId) -> usize {
        stored_elements(self.shape(id)) / 4
    }

    /// Chooses one of the offered kernel variants.
    pub fn choose<'v>(&self, op: &str, shape: &str, offered: &[&'v str]) -> &'v str {
        self.variants.choose(op, shape, offered)
    }

    /// Whether kernels that round f32 factors to f16 may be offered.
    pub fn may_round(&self) -> bool {
        self.variants.may_round()
    }

    /// Memory that lives only between launches of this node.
    pub fn scratch(&mut self, name: &str, shape: &[usize], dtype: DType) -> TensorId {
        let name = format!("{}.{name}", self.scope);
        self.tensors.push(TensorInfo { name, shape: shape.to_vec(), dtype, storage: Storage::Intermediate });
        TensorId(self.tensors.len() - 1)
    }

    /// Launches `groups` workgroups, folded into the grid.
    pub fn launch(&mut self, kernel: KernelSpec, params: Params, groups: usize, reads: &[TensorId], writes: &[TensorId]) {
        let grid = grid_fold(groups as u64, self.caps.max_workgroups);
        let label = format!("{} {}", self.scope, kernel.label()).trim_start().to_owned();
        self.launches.push(Launch { kernel, params, reads: reads.to_vec(), writes: writes.to_vec(), grid, label });
    }
}

/// A graph as launches, with the scratch tensors that lowering added.
pub struct Lowered {
    /// All tensors: the graph's, then scratch.
    pub tensors: Vec<TensorInfo>,
    /// In order of execution.
    pub launches: Vec<Launch>,
}

impl Lowered {
    /// What is known of a tensor.
    pub fn info(&self, id: TensorId) -> &TensorInfo {
        &self.tensors[id.0]
    }
}

/// Lowers every node that `outputs` or a variable depends on.
pub fn lower(graph: &Graph, outputs: &[TensorId], caps: &Caps, variants: &dyn Variants) -> Lowered {
    let nodes = graph.nodes();
    let live = live_nodes(graph, &nodes, outputs);
    let tensors = (0..graph.tensor_count()).map(|i| graph.info(TensorId(i)).clone()).collect();
    let mut cx = Lowering { caps, variants, tensors, launches: Vec::new(), scope: String::new() };
    for (node, _) in nodes.iter().zip(&live).filter(|(_, live)| **live) {
        cx.scope.clone_from(&node.scope);
        node.op.lower(&mut cx, node);
    }
    Lowered { tensors: cx.tensors, launches: cx.launches }
}

/// A node is live when an output, a variable or a live node needs what it writes.
fn live_nodes(graph: &Graph, nodes: &[Node], outputs: &[TensorId]) -> Vec<bool> {
    let mut needed: HashSet<TensorId> = outputs.iter().copied().collect();
    let mut live = vec![false; nodes.len()];
    for (i, node) in nodes.iter().enumerate().rev() {
        let kept = |t: &TensorId| needed.contains(t) || matches!(graph.info(*t).storage, Storage::Variable(_));
        if node.outputs.iter().any(kept) {
            live[i] = true;
            needed.extend(&node.inputs);
        }
    }
    live
}
