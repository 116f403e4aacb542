//! From nodes to kernel launches.

use super::fuse::fuse;
use super::{DType, Graph, Node, Storage, TensorId, TensorInfo, View, Window, stored_elements};
use crate::error::Result;
use crate::gpu::{Caps, Gpu, KernelSpec, Params, grid_fold};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;

/// Which of several kernels for one op to use; `tune/` decides, the ops offer.
pub trait Variants {
    /// The variant to use for `op`, out of `offered` (best guess first), at a shape described by `shape`.
    fn choose<'a>(&self, op: &str, shape: &str, offered: &[&'a str]) -> &'a str;

    /// Told of the choices of a program before it is built, and may run some of its nodes on the device to choose better. Returns
    /// whether the program is to be lowered again.
    fn prepare(&self, _gpu: &Gpu, _graph: &Graph, _decisions: &[Decision]) -> Result<bool> {
        Ok(false)
    }

    /// Whether kernels are offered that round f32 factors to f16 as well; only checks ask for them.
    fn may_round(&self) -> bool {
        false
    }
}

/// Which variant was taken, by op and shape.
pub type Choices = BTreeMap<String, String>;

/// A choice among kernel variants that lowering met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The op, as it names itself to [`Variants::choose`].
    pub op: String,
    /// The shape.
    pub shape: String,
    /// What was offered, best guess first.
    pub offered: Vec<String>,
    /// What was taken.
    pub chosen: String,
    /// The node of the graph that it is for.
    pub node: usize,
    /// The launches that follow from it: those of its node up to the next choice.
    pub launches: Range<usize>,
}

impl Decision {
    /// Op and shape in one, as [`Choices`] and tables have it.
    pub fn key(&self) -> String {
        key(&self.op, &self.shape)
    }
}

/// Op and shape in one.
pub fn key(op: &str, shape: &str) -> String {
    format!("{op} {shape}")
}

/// One kernel launch over tensors or windows of them.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Which kernel.
    pub kernel: KernelSpec,
    /// Its parameters.
    pub params: Params,
    /// Tensors it only reads, in binding order.
    pub reads: Vec<View>,
    /// Tensors it writes (or updates in place), in binding order after the reads.
    pub writes: Vec<View>,
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
    decisions: RefCell<Vec<Decision>>,
    /// What each node took, by its first output, in order: whoever repeats it takes the same.
    taken: RefCell<HashMap<TensorId, Vec<String>>>,
    scope: String,
    node: usize,
    /// First outputs of the node and, where it computes another's results again, of that one.
    output: Option<TensorId>,
    repeats: Option<TensorId>,
    /// Element types of the node's inputs.
    types: String,
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

    /// Whether anything in the graph is f16.
    pub fn has_halves(&self) -> bool {
        self.tensors.iter().any(|t| t.dtype == DType::F16)
    }

    /// `vec4`s in memory.
    pub fn vec4s(&self, id: TensorId) -> usize {
        stored_elements(self.shape(id)) / 4
    }

    /// Chooses one of the offered kernel variants, best guess first; what another node took, where this one computes its results again, to the same bits. The
    /// types of the node's inputs are part of the shape without being named.
    pub fn choose<'v>(&self, op: &str, shape: &str, offered: &[&'v str]) -> &'v str {
        let shape = format!("{shape} {}", self.types);
        let mut taken = self.taken.borrow_mut();
        let at = self.output.and_then(|t| taken.get(&t)).map_or(0, Vec::len);
        let before = self.repeats.and_then(|t| taken.get(&t)?.get(at));
        let repeated = before.and_then(|before| offered.iter().copied().find(|v| v == before));
        if let (Some(before), None) = (before, repeated) {
            tracing::debug!("{op} {shape}: computed again without {before}, which is not offered here");
        }
        let chosen = repeated.unwrap_or_else(|| self.variants.choose(op, &shape, offered));
        if let Some(output) = self.output {
            taken.entry(output).or_default().push(chosen.to_owned());
        }
        if repeated.is_some() {
            self.end_decision();
        } else if offered.len() > 1 {
            let offered = offered.iter().map(|&v| v.to_owned()).collect();
            let (chosen, launches) = (chosen.to_owned(), self.launches.len()..usize::MAX);
            self.end_decision();
            self.decisions.borrow_mut().push(Decision { op: op.to_owned(), shape, offered, chosen, node: self.node, launches });
        }
        chosen
    }

    /// The launches that follow belong to another choice, or to none.
    fn end_decision(&self) {
        if let Some(last) = self.decisions.borrow_mut().last_mut().filter(|last| last.launches.end == usize::MAX) {
            last.launches.end = self.launches.len();
        }
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

    /// Gives memory of [`Self::scratch`] its final shape, for launches whose kernels decide how much they need.
    pub fn reshape_scratch(&mut self, id: TensorId, shape: &[usize]) {
        self.tensors[id.0].shape = shape.to_vec();
    }

    /// Cuts `of` equal pieces (images, rows) of `tensors` so that the adapter can bind every part of every one; a single window where it
    /// can bind them whole. Windows start at multiples of `multiple` pieces.
    pub fn windows(&self, of: usize, multiple: usize, tensors: &[TensorId]) -> Vec<Window> {
        Window::cut(of, multiple, self.caps.offset_alignment, self.caps.max_binding_bytes, &self.pieces(of, tensors))
    }

    /// The same, of at most so many pieces each, where that can be aligned.
    pub fn windows_of_at_most(&self, of: usize, most: usize, tensors: &[TensorId]) -> Vec<Window> {
        let pieces = self.pieces(of, tensors);
        let largest = pieces.iter().copied().max().unwrap_or(0);
        let limit = self.caps.max_binding_bytes.min(largest * most as u64);
        Window::cut(of, 1, self.caps.offset_alignment, limit, &pieces)
    }

    /// Bytes of each of `of` equal pieces of `tensors`.
    fn pieces(&self, of: usize, tensors: &[TensorId]) -> Vec<u64> {
        tensors.iter().map(|t| self.info(*t).bytes() / of.max(1) as u64).collect()
    }

    /// Launches `groups` workgroups, folded into the grid.
    pub fn launch<R, W>(&mut self, kernel: KernelSpec, params: Params, groups: usize, reads: &[R], writes: &[W])
    where
        R: Copy + Into<View>,
        W: Copy + Into<View>,
    {
        let grid = grid_fold(groups as u64, self.caps.max_workgroups);
        let label = format!("{} {}", self.scope, kernel.label()).trim_start().to_owned();
        self.launches.push(Launch { kernel, params, reads: views(reads), writes: views(writes), grid, label });
    }
}

fn views<T: Copy + Into<View>>(tensors: &[T]) -> Vec<View> {
    tensors.iter().map(|t| (*t).into()).collect()
}

/// A graph as launches, with the scratch tensors that lowering added.
pub struct Lowered {
    /// All tensors: the graph's, then scratch.
    pub tensors: Vec<TensorInfo>,
    /// In order of execution.
    pub launches: Vec<Launch>,
    /// Choices among kernel variants, in the same order.
    pub decisions: Vec<Decision>,
    /// Which nodes were fused, by kind, where there was a choice.
    pub fusions: Choices,
    /// The graph after that, whose nodes the decisions name.
    pub graph: Graph,
}

impl Lowered {
    /// What is known of a tensor.
    pub fn info(&self, id: TensorId) -> &TensorInfo {
        &self.tensors[id.0]
    }

    /// First byte and bytes of what a launch binds.
    pub fn range(&self, view: &View) -> (u64, u64) {
        view.range(self.info(view.tensor).bytes())
    }

    /// Bytes that the launches bind, each tensor or part of one that a launch binds once: about what crosses memory when nothing stays in caches between launches, and launches
    /// read what they need once. What a launch updates in place counts once too.
    pub fn traffic(&self) -> u64 {
        self.launches.iter().map(|launch| self.traffic_of(launch)).sum()
    }

    /// The share of one launch in it.
    pub fn traffic_of(&self, launch: &Launch) -> u64 {
        let bound: HashSet<&View> = launch.reads.iter().chain(&launch.writes).collect();
        bound.into_iter().map(|view| self.range(view).1).sum()
    }

    /// The most that any launch binds, and of which tensor.
    pub fn largest_binding(&self) -> Option<(u64, &TensorInfo)> {
        let views = self.launches.iter().flat_map(|l| l.reads.iter().chain(&l.writes));
        views.map(|v| (self.range(v).1, self.info(v.tensor))).max_by_key(|(bytes, info)| (*bytes, std::cmp::Reverse(&info.name)))
    }
}

/// Fuses and lowers every node that `outputs` or a variable depends on.
pub fn lower(graph: &Graph, outputs: &[TensorId], caps: &Caps, variants: &dyn Variants) -> Lowered {
    let (graph, fusions) = fuse(graph, outputs, caps, variants);
    let tensors = (0..graph.tensor_count()).map(|i| graph.info(TensorId(i)).clone()).collect();
    let mut cx = Lowering {
        caps,
        variants,
        tensors,
        launches: Vec::new(),
        decisions: RefCell::default(),
        taken: RefCell::default(),
        scope: String::new(),
        node: 0,
        output: None,
        repeats: None,
        types: String::new(),
    };
    for (at, node) in graph.nodes().iter().enumerate() {
        cx.scope.clone_from(&node.scope);
        cx.node = at;
        (cx.output, cx.repeats) = (node.outputs.first().copied(), node.repeats);
        cx.types = node.inputs.iter().map(|t| cx.info(*t).dtype.wgsl()).collect::<Vec<_>>().join(",");
        node.op.lower(&mut cx, node);
        cx.end_decision();
    }
    Lowered { tensors: cx.tensors, launches: cx.launches, decisions: cx.decisions.into_inner(), fusions, graph }
}

/// A node is live when an output, a variable or a live node needs what it writes.
pub(super) fn live_nodes(graph: &Graph, nodes: &[Node], outputs: &[TensorId]) -> Vec<bool> {
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
