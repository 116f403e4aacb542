//! Rewrites of a graph before it is lowered: nodes that one op can compute together become one, so that what passes between them need not pass
//! through memory, or a pass over it is saved. What joins with what, the ops know ([`Op::fuse`]); here is when it may.

use super::lower::live_nodes;
use super::{Choices, Graph, Node, Op, Storage, TensorId, TensorInfo, Variants, key};
use crate::gpu::Caps;
use std::any::Any;
use std::cell::{Ref, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// The op under which rewrites are chosen ([`Variants::choose`]), between [`FUSED`] and [`SEPARATE`].
pub const FUSE: &str = "fuse";
/// The rewrite is made.
pub const FUSED: &str = "fused";
/// It is not.
pub const SEPARATE: &str = "separate";

/// What an op sees when it is asked to take over the work of nodes before it.
pub struct Fusing<'a> {
    graph: &'a Graph,
    caps: &'a Caps,
    variants: &'a dyn Variants,
    /// Live nodes; none where one was taken over.
    nodes: Vec<Option<Node>>,
    /// How many live nodes read a tensor; one more where it outlives the program's run.
    readers: HashMap<TensorId, usize>,
    /// The node that writes an intermediate tensor.
    writers: HashMap<TensorId, usize>,
    at: usize,
    choices: RefCell<Choices>,
}

/// A node that computes what the present one and those it takes over compute.
pub struct Fused {
    /// What it does.
    pub op: Rc<dyn Op>,
    /// What it reads.
    pub inputs: Vec<TensorId>,
    /// What it writes: all that anything else reads.
    pub outputs: Vec<TensorId>,
    /// Whose work it takes over.
    pub replaces: Option<usize>,
}

/// A node that writes an input of the present one.
pub struct Maker<'a, T> {
    /// Its position.
    pub at: usize,
    /// Its op.
    pub op: &'a T,
    /// The node.
    pub node: &'a Node,
}

impl Fusing<'_> {
    /// The present node.
    pub fn node(&self) -> &Node {
        self.nodes[self.at].as_ref().expect("the present node is there")
    }

    /// Capabilities of the adapter.
    pub fn caps(&self) -> &Caps {
        self.caps
    }

    /// What is known of a tensor.
    pub fn info(&self, id: TensorId) -> Ref<'_, TensorInfo> {
        self.graph.info(id)
    }

    /// Whether `rewrite` is wanted; `usually` says what to do where nobody decides otherwise.
    pub fn wants(&self, rewrite: &str, usually: bool) -> bool {
        let offered = if usually { [FUSED, SEPARATE] } else { [SEPARATE, FUSED] };
        let chosen = self.variants.choose(FUSE, rewrite, &offered);
        self.choices.borrow_mut().insert(key(FUSE, rewrite), chosen.to_owned());
        chosen == FUSED
    }

    /// The node that writes `tensor`, when its op is a `T` and all that it reads is still as it was, so that it could as well run now.
    pub fn maker<T: Op>(&self, tensor: TensorId) -> Option<Maker<'_, T>> {
        let at = *self.writers.get(&tensor).filter(|&&at| at < self.at)?;
        let node = self.nodes[at].as_ref()?;
        let op = (&*node.op as &dyn Any).downcast_ref()?;
        let changed = |n: &Node| n.outputs.iter().any(|t| node.inputs.contains(t));
        (!self.between(at).any(changed)).then_some(Maker { at, op, node })
    }

    /// The same, when the present node may take over its work: nothing before the present node reads what it writes, or writes it too.
    pub fn source<T: Op>(&self, tensor: TensorId) -> Option<Maker<'_, T>> {
        let maker = self.maker(tensor)?;
        let uses = |n: &Node| n.inputs.iter().chain(&n.outputs).any(|t| maker.node.outputs.contains(t));
        (!self.between(maker.at).any(uses)).then_some(maker)
    }

    /// Whether the present node alone reads `tensor`, once, and nothing keeps it.
    pub fn only_reader(&self, tensor: TensorId) -> bool {
        self.readers.get(&tensor) == Some(&1)
    }

    fn between(&self, at: usize) -> impl Iterator<Item = &Node> {
        self.nodes[at + 1..self.at].iter().flatten()
    }

    fn apply(&mut self, fused: Fused) {
        let old = self.nodes[self.at].take().expect("the present node is there");
        let node = Node { op: fused.op, inputs: fused.inputs, outputs: fused.outputs, ..old.clone() };
        for t in &node.inputs {
            *self.readers.entry(*t).or_default() += 1;
        }
        for t in &node.outputs {
            self.writers.entry(*t).and_modify(|writer| *writer = self.at);
        }
        let taken = fused.replaces.and_then(|at| self.nodes[at].take());
        self.nodes[self.at] = Some(node);
        for gone in [Some(old), taken].into_iter().flatten() {
            self.forget(&gone);
        }
    }

    /// `gone` reads its inputs no longer: nodes that nobody needs any more go too.
    fn forget(&mut self, gone: &Node) {
        for t in &gone.inputs {
            let count = self.readers.get_mut(t).expect("a tensor that was read is counted");
            *count -= 1;
            let Some(&writer) = self.writers.get(t).filter(|_| *count == 0) else { continue };
            let unread = |n: &Node| n.outputs.iter().all(|t| self.readers.get(t).is_none_or(|&n| n == 0));
            if let Some(dead) = self.nodes[writer].take_if(|n| unread(n)) {
                self.forget(&dead);
            }
        }
    }
}

/// `graph` with everything fused that may be and that `variants` wants, as far as `outputs` and variables depend on it; and what was wanted.
pub(super) fn fuse(graph: &Graph, outputs: &[TensorId], caps: &Caps, variants: &dyn Variants) -> (Graph, Choices) {
    let nodes = graph.nodes();
    let live = live_nodes(graph, &nodes, outputs);
    let nodes: Vec<Option<Node>> = nodes.into_iter().zip(live).map(|(node, live)| live.then_some(node)).collect();
    let (mut readers, mut writers) = (HashMap::new(), HashMap::new());
    for t in outputs {
        *readers.entry(*t).or_default() += 1;
    }
    for (at, node) in nodes.iter().enumerate() {
        let Some(node) = node else { continue };
        for t in &node.inputs {
            *readers.entry(*t).or_default() += 1;
        }
        for t in &node.outputs {
            match graph.info(*t).storage {
                Storage::Intermediate => drop(writers.insert(*t, at)),
                _ => *readers.entry(*t).or_default() += 1,
            }
        }
    }
    let mut fusing = Fusing { graph, caps, variants, nodes, readers, writers, at: 0, choices: RefCell::default() };
    for at in 0..fusing.nodes.len() {
        fusing.at = at;
        while let Some(node) = &fusing.nodes[at] {
            let Some(fused) = node.op.clone().fuse(&fusing) else { break };
            fusing.apply(fused);
        }
    }
    let nodes = fusing.nodes.into_iter().flatten().collect();
    (fusing.graph.with_nodes(nodes), fusing.choices.into_inner())
}
