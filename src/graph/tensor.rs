//! Graph, tensors, nodes and the trait every op implements.

use super::{Backward, Fused, Fusing, Lowering, VariableId, Variables, stored_elements};
use std::any::Any;
use std::cell::{Ref, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;

/// Element type of a tensor in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// 32-bit unsigned integer.
    U32,
}

impl DType {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 => 2,
        }
    }

    /// WGSL scalar type.
    pub fn wgsl(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::U32 => "u32",
        }
    }
}

/// Position of a tensor in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub(super) usize);

/// Where a tensor's memory comes from.
#[derive(Clone, Debug)]
pub enum Storage {
    /// A slot of the plan, while it lives.
    Intermediate,
    /// Uploaded before the step under this name.
    Input(String),
    /// A variable, which outlives the program.
    Variable(VariableId),
    /// Written once when the program is built.
    Constant(Rc<[u8]>),
}

/// What is known of a tensor.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Name for reports and errors, for example `layer1.0.conv1`.
    pub name: String,
    /// Logical shape.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
    /// Where it lives.
    pub storage: Storage,
}

impl TensorInfo {
    /// Bytes in memory, padding included.
    pub fn bytes(&self) -> u64 {
        (stored_elements(&self.shape) * self.dtype.bytes()) as u64
    }
}

/// One use of an op.
#[derive(Clone)]
pub struct Node {
    /// The op with its attributes.
    pub op: Rc<dyn Op>,
    /// What it reads.
    pub inputs: Vec<TensorId>,
    /// What it writes; saved values for the reverse pass come after the results proper.
    pub outputs: Vec<TensorId>,
    /// The scope it was recorded in, for example `layer1.0`.
    pub scope: String,
    /// The segment it belongs to, when its results are to be computed again for the reverse pass (see [`Graph::segment`]).
    pub segment: Option<Segment>,
    /// The first output of the node whose results this one computes again.
    pub repeats: Option<TensorId>,
}

/// A part of the forward pass that gives up results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Segment {
    number: usize,
    gives_up: Recomputes,
}

impl Segment {
    /// Whether only cheap results are given up.
    pub(super) fn is_cheap(self) -> bool {
        self.gives_up <= Recomputes::Cheaply
    }

    /// Whether results of `op` are given up.
    pub(super) fn gives_up(self, op: &dyn Op) -> bool {
        op.recomputes() != Recomputes::Never && op.recomputes() <= self.gives_up
    }
}

/// What it costs to compute an op's results again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Recomputes {
    /// It must not be done: the op has a side effect, or its results are too small to matter.
    Never,
    /// One pass over its operands.
    Cheaply,
    /// A convolution.
    Dearly,
}

/// A differentiable operation: one file of `ops/` each.
pub trait Op: Any {
    /// Its name: PyTorch's where PyTorch has the operation.
    fn name(&self) -> &'static str;

    /// Gradients of the inputs, as nodes appended to the graph; `None` where there is none, as for all of an op that says nothing, or none is needed.
    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![None; cx.inputs()]
    }

    /// The kernel launches that compute the outputs.
    fn lower(&self, cx: &mut Lowering<'_>, node: &Node);

    /// A node that takes over the work of another besides, where one kernel can do both; asked again of what came of it, until there is none.
    fn fuse(&self, _cx: &Fusing<'_>) -> Option<Fused> {
        None
    }

    /// What it costs to compute the results again, for segments that give them up.
    fn recomputes(&self) -> Recomputes {
        Recomputes::Never
    }

    /// Operations by mmengine's count: a multiply-add is 1, affine batch norm 2 an output, all else 0.
    fn flops(&self, _graph: &Graph, _node: &Node) -> u64 {
        0
    }
}

#[derive(Default)]
struct Inner {
    tensors: Vec<TensorInfo>,
    nodes: Vec<Node>,
    scope: Vec<String>,
    segments: usize,
    segment: Option<Segment>,
    /// Rows of weights that are channels of what they are convolved with, where that is known.
    inputs: HashMap<TensorId, usize>,
}

/// A recorded step. Clones share the same graph.
#[derive(Clone)]
pub struct Graph(Rc<RefCell<Inner>>);

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self(Rc::new(RefCell::new(Inner::default())))
    }

    /// The tensor that is uploaded before each run under `name`.
    ///
    /// # Panics
    /// When it has no elements, or the graph has an input of this name with another shape or type.
    #[track_caller]
    pub fn input(&self, name: &str, shape: &[usize], dtype: DType) -> Tensor {
        let found = self.0.borrow().tensors.iter().position(|t| matches!(&t.storage, Storage::Input(n) if n == name));
        let Some(at) = found else { return self.add_tensor(name.to_owned(), shape.to_vec(), dtype, Storage::Input(name.to_owned())) };
        let known = self.tensor(TensorId(at));
        assert_eq!((known.shape().as_slice(), known.dtype()), (shape, dtype), "input {name} recorded again");
        known
    }

    /// The variable `id`, for reading and for ops that update it in place.
    pub fn variable(&self, variables: &Variables, id: VariableId) -> Tensor {
        let info = variables.info(id);
        let found = self.0.borrow().tensors.iter().position(|t| matches!(t.storage, Storage::Variable(v) if v == id));
        match found {
            Some(at) => Tensor { graph: self.clone(), id: TensorId(at) },
            None => self.add_tensor(info.name.clone(), info.shape.clone(), info.dtype, Storage::Variable(id)),
        }
    }

    /// A tensor with fixed contents: `bytes` in stored (padded) form.
    ///
    /// # Panics
    /// When `bytes` does not fit the shape, or there are no elements.
    #[track_caller]
    pub fn constant(&self, name: &str, shape: &[usize], dtype: DType, bytes: &[u8]) -> Tensor {
        assert_eq!(bytes.len(), stored_elements(shape) * dtype.bytes(), "constant {name}: {} bytes for shape {shape:?}", bytes.len());
        self.add_tensor(name.to_owned(), shape.to_vec(), dtype, Storage::Constant(bytes.into()))
    }

    /// A result of an op.
    ///
    /// # Panics
    /// When it has no elements.
    #[track_caller]
    pub fn intermediate(&self, name: &str, shape: &[usize], dtype: DType) -> Tensor {
        self.add_tensor(self.scoped(name), shape.to_vec(), dtype, Storage::Intermediate)
    }

    #[track_caller]
    fn add_tensor(&self, name: String, shape: Vec<usize>, dtype: DType, storage: Storage) -> Tensor {
        assert!(!shape.contains(&0), "{name} {shape:?} has no elements");
        let mut inner = self.0.borrow_mut();
        inner.tensors.push(TensorInfo { name, shape, dtype, storage });
        Tensor { graph: self.clone(), id: TensorId(inner.tensors.len() - 1) }
    }

    /// Appends a node that reads `inputs` and writes `outputs`.
    pub fn record(&self, op: impl Op + 'static, inputs: &[&Tensor], outputs: &[&Tensor]) {
        let ids = |tensors: &[&Tensor]| tensors.iter().map(|t| t.id).collect();
        self.append(Rc::new(op), ids(inputs), ids(outputs), None);
    }

    /// Appends a node that does once more what `node` did.
    pub(super) fn repeat(&self, node: &Node, inputs: Vec<TensorId>, outputs: Vec<TensorId>) {
        self.append(Rc::clone(&node.op), inputs, outputs, node.outputs.first().copied());
    }

    /// Appends a node whose op exists already.
    pub(super) fn append(&self, op: Rc<dyn Op>, inputs: Vec<TensorId>, outputs: Vec<TensorId>, repeats: Option<TensorId>) {
        let scope = self.scoped("");
        let mut inner = self.0.borrow_mut();
        let segment = inner.segment;
        inner.nodes.push(Node { op, inputs, outputs, scope, segment, repeats });
    }

    /// Runs `record`; results of what it records that cost at most `gives_up` are given up after the forward pass and computed again when
    /// the reverse pass needs them; where those of convolutions are, what nodes outside the segment read is kept. PyTorch:
    /// `torch.utils.checkpoint`. Segments do not nest: the inner
    /// one counts.
    pub fn segment<T>(&self, gives_up: Recomputes, record: impl FnOnce() -> T) -> T {
        let outer = {
            let mut inner = self.0.borrow_mut();
            inner.segments += 1;
            let number = inner.segments;
            inner.segment.replace(Segment { number, gives_up })
        };
        let value = record();
        self.0.borrow_mut().segment = outer;
        value
    }

    /// Runs `record` with `name` added to the names of what it records.
    pub fn scope<T>(&self, name: &str, record: impl FnOnce() -> T) -> T {
        self.0.borrow_mut().scope.push(name.to_owned());
        let value = record();
        self.0.borrow_mut().scope.pop();
        value
    }

    fn scoped(&self, name: &str) -> String {
        let inner = self.0.borrow();
        let mut parts: Vec<&str> = inner.scope.iter().map(String::as_str).collect();
        if !name.is_empty() {
            parts.push(name);
        }
        parts.join(".")
    }

    /// The tensor `id`.
    pub fn tensor(&self, id: TensorId) -> Tensor {
        Tensor { graph: self.clone(), id }
    }

    /// What is known of `id`.
    pub fn info(&self, id: TensorId) -> Ref<'_, TensorInfo> {
        Ref::map(self.0.borrow(), |inner| &inner.tensors[id.0])
    }

    /// Notes how many rows of a weight are channels of what it is convolved with; the others are
    /// padding.
    pub fn note_inputs(&self, weight: &Tensor, channels: usize) {
        self.0.borrow_mut().inputs.insert(weight.id, channels);
    }

    /// What was noted of a weight.
    pub fn inputs_of(&self, weight: &Tensor) -> Option<usize> {
        self.0.borrow().inputs.get(&weight.id).copied()
    }

    /// Number of tensors.
    pub fn tensor_count(&self) -> usize {
        self.0.borrow().tensors.len()
    }

    /// The nodes so far, in order.
    pub fn nodes(&self) -> Vec<Node> {
        self.0.borrow().nodes.clone()
    }

    /// The same tensors with other nodes.
    pub(super) fn with_nodes(&self, nodes: Vec<Node>) -> Self {
        let inner = self.0.borrow();
        let (tensors, segments) = (inner.tensors.clone(), inner.segments);
        Self(Rc::new(RefCell::new(Inner { tensors, nodes, segments, inputs: inner.inputs.clone(), ..Inner::default() })))
    }

    /// Operations of all nodes by mmengine's count ([`Op::flops`]).
    pub fn flops(&self) -> u64 {
        self.nodes().iter().map(|n| n.op.flops(self, n)).sum()
    }

    /// Makes `tensor`, an intermediate, live in variable `id`, so that whoever reads the variable later finds it there.
    ///
    /// # Panics
    /// When the tensor lives elsewhere already or shape or type differ.
    #[track_caller]
    pub fn place(&self, tensor: &Tensor, variables: &Variables, id: VariableId) {
        let mut inner = self.0.borrow_mut();
        let (want, info) = (variables.info(id), &mut inner.tensors[tensor.id.0]);
        assert!(matches!(info.storage, Storage::Intermediate), "{} lives elsewhere already", info.name);
        assert_eq!((&info.shape, info.dtype), (&want.shape, want.dtype), "placing {} in {}", info.name, want.name);
        info.storage = Storage::Variable(id);
    }
}

/// A handle to a tensor of a graph; ops are its methods.
#[derive(Clone)]
pub struct Tensor {
    pub(super) graph: Graph,
    pub(super) id: TensorId,
}

impl Tensor {
    /// The graph it belongs to.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Its position there.
    pub fn id(&self) -> TensorId {
        self.id
    }

    /// Logical shape.
    pub fn shape(&self) -> Vec<usize> {
        self.graph.info(self.id).shape.clone()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.graph.info(self.id).dtype
    }

    /// Name.
    pub fn name(&self) -> String {
        self.graph.info(self.id).name.clone()
    }

    /// Batch, height, width, channels.
    ///
    /// # Panics
    /// When the tensor is not an image batch.
    #[track_caller]
    pub fn nhwc(&self) -> [usize; 4] {
        let shape = self.shape();
        <[usize; 4]>::try_from(shape.as_slice()).unwrap_or_else(|_| panic!("{} is {shape:?}, not (N, H, W, C)", self.name()))
    }

    /// Rows and columns.
    ///
    /// # Panics
    /// When the tensor is not a matrix.
    #[track_caller]
    pub fn rows_columns(&self) -> [usize; 2] {
        let shape = self.shape();
        <[usize; 2]>::try_from(shape.as_slice()).unwrap_or_else(|_| panic!("{} is {shape:?}, not (rows, columns)", self.name()))
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = self.graph.info(self.id);
        write!(f, "{} {:?} {:?}", info.name, info.shape, info.dtype)
    }
}
