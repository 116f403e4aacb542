//! Reverse-mode differentiation, graph to graph: no tape at run time. Nodes whose results were given up
//! are recorded once more when the reverse pass first needs one of their segment.

use super::{Graph, Node, Segment, Storage, Tensor, TensorId};
use std::collections::{HashMap, HashSet};

/// What an op sees when it is asked for the gradients of its inputs.
pub struct Backward<'a> {
    graph: &'a Graph,
    node: &'a Node,
    grad_output: Tensor,
    needs: Vec<bool>,
}

impl Backward<'_> {
    /// The `i`-th input of the forward node.
    pub fn input(&self, i: usize) -> Tensor {
        self.graph.tensor(self.node.inputs[i])
    }

    /// The `i`-th output of the forward node.
    pub fn output(&self, i: usize) -> Tensor {
        self.graph.tensor(self.node.outputs[i])
    }

    /// Gradient of the first output, the only one that is differentiated.
    pub fn grad_output(&self) -> Tensor {
        self.grad_output.clone()
    }

    /// Whether the gradient of the `i`-th input is wanted.
    pub fn needs(&self, i: usize) -> bool {
        self.needs[i]
    }

    /// Number of inputs.
    pub fn inputs(&self) -> usize {
        self.node.inputs.len()
    }
}

/// Gradients of the scalar `output`, whose own gradient is `seed`, with respect to each of `wrt`; `None` where it does not depend on it.
/// `add` sums two gradients of the same tensor. Sums are formed in the order of the reverse pass, so results do not vary.
pub fn differentiate(output: &Tensor, seed: Tensor, wrt: &[Tensor], add: impl Fn(&Tensor, &Tensor) -> Tensor) -> Vec<Option<Tensor>> {
    let graph = output.graph().clone();
    let nodes = graph.nodes();
    let mut depends: HashSet<TensorId> = wrt.iter().map(Tensor::id).collect();
    for node in &nodes {
        if node.inputs.iter().any(|t| depends.contains(t)) {
            depends.extend(&node.outputs);
        }
    }
    let mut gradients: HashMap<TensorId, Tensor> = HashMap::from([(output.id(), seed)]);
    let mut again = Again::new(&graph, &nodes);
    for node in nodes.iter().rev() {
        let Some(grad_output) = gradients.get(&node.outputs[0]).filter(|_| depends.contains(&node.outputs[0])).cloned() else { continue };
        let needs: Vec<bool> = node.inputs.iter().map(|t| depends.contains(t)).collect();
        if !needs.contains(&true) {
            continue;
        }
        let seen = again.seen_by(&graph, node);
        let cx = Backward { graph: &graph, node: &seen, grad_output, needs };
        let name = if node.scope.is_empty() { "backward".to_owned() } else { format!("{}.backward", node.scope) };
        let grad_inputs = graph.scope(&name, || node.op.differentiate(&cx));
        assert_eq!(grad_inputs.len(), node.inputs.len(), "{}: a gradient for every input", node.op.name());
        for (input, gradient) in node.inputs.iter().zip(grad_inputs) {
            let Some(gradient) = gradient.filter(|_| depends.contains(input)) else { continue };
            let sum = match gradients.get(input) {
                Some(earlier) => graph.scope(&name, || add(earlier, &gradient)),
                None => gradient,
            };
            gradients.insert(*input, sum);
        }
    }
    wrt.iter().map(|t| gradients.get(&t.id()).cloned()).collect()
}

/// Results that segments gave up, and what stands for those that were computed again.
struct Again<'a> {
    nodes: &'a [Node],
    given_up: HashMap<TensorId, Segment>,
    done: HashSet<Segment>,
    stand_in: HashMap<TensorId, TensorId>,
}

impl<'a> Again<'a> {
    fn new(graph: &Graph, nodes: &'a [Node]) -> Self {
        let mut readers: HashMap<TensorId, HashSet<Option<Segment>>> = HashMap::new();
        for node in nodes {
            for t in &node.inputs {
                readers.entry(*t).or_default().insert(node.segment);
            }
        }
        let mut given_up = HashMap::new();
        for node in nodes {
            let Some(segment) = node.segment.filter(|s| s.gives_up(&*node.op)) else { continue };
            // What a convolution of another segment reads is kept where convolutions are computed again, or that one would need this one first.
            let inside = |t: &TensorId| segment.is_cheap() || readers.get(t).is_none_or(|by| by.iter().all(|r| *r == Some(segment)));
            if node.outputs.iter().all(|t| inside(t) && matches!(graph.info(*t).storage, Storage::Intermediate)) {
                given_up.extend(node.outputs.iter().map(|t| (*t, segment)));
            }
        }
        Self { nodes, given_up, done: HashSet::new(), stand_in: HashMap::new() }
    }

    /// `node` as its reverse pass sees it: results that were given up are replaced by those computed again.
    fn seen_by(&mut self, graph: &Graph, node: &Node) -> Node {
        Node { inputs: self.replaced(graph, &node.inputs), outputs: self.replaced(graph, &node.outputs), ..node.clone() }
    }

    fn replaced(&mut self, graph: &Graph, tensors: &[TensorId]) -> Vec<TensorId> {
        for t in tensors {
            if let Some(segment) = self.given_up.get(t).copied().filter(|s| !self.done.contains(s)) {
                self.record(graph, segment);
            }
        }
        tensors.iter().map(|t| self.stand_in.get(t).copied().unwrap_or(*t)).collect()
    }

    /// Records the nodes of `segment` that gave their results up once more.
    fn record(&mut self, graph: &Graph, segment: Segment) {
        self.done.insert(segment);
        let nodes = self.nodes;
        for node in nodes {
            if node.outputs.first().is_none_or(|t| self.given_up.get(t) != Some(&segment)) {
                continue;
            }
            let inputs = self.replaced(graph, &node.inputs);
            graph.scope(&format!("{}.again", node.scope), || {
                let again = |t: &TensorId| {
                    let info = graph.info(*t).clone();
                    let name = info.name.rsplit('.').next().unwrap_or_default();
                    graph.intermediate(name, &info.shape, info.dtype).id()
                };
                let outputs: Vec<TensorId> = node.outputs.iter().map(again).collect();
                self.stand_in.extend(node.outputs.iter().copied().zip(outputs.iter().copied()));
                graph.repeat(node, inputs, outputs);
            });
        }
    }
}
