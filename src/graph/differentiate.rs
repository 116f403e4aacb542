//! Reverse-mode differentiation, graph to graph: no tape at run time. Nodes of a segment are recorded once more before its reverse pass.

use super::{Graph, Node, Segment, Storage, Tensor, TensorId};
use std::collections::{HashMap, HashSet};

/// What an op sees when it is asked for the gradients of its inputs.
pub struct Backward<'a> {
    graph: &'a Graph,
    node: &'a Node,
    grad_outputs: Vec<Option<Tensor>>,
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

    /// Gradient of the first output.
    ///
    /// # Panics
    /// When nothing differentiable reads that output; [`differentiate`] does not ask then.
    pub fn grad_output(&self) -> Tensor {
        self.grad_outputs[0].clone().expect("a gradient of the first output")
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
    let mut again = Again::default();
    for node in nodes.iter().rev() {
        let reaches = gradients.contains_key(&node.outputs[0]) && depends.contains(&node.outputs[0]);
        let needs: Vec<bool> = node.inputs.iter().map(|t| depends.contains(t)).collect();
        if !reaches || !needs.contains(&true) {
            continue;
        }
        let grad_outputs = node.outputs.iter().map(|t| gradients.get(t).cloned()).collect();
        let seen = again.seen_by(&graph, &nodes, node);
        let cx = Backward { graph: &graph, node: &seen, grad_outputs, needs };
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

/// The segment whose reverse pass is being recorded, and what stands for its given-up results.
#[derive(Default)]
struct Again {
    segment: Option<Segment>,
    stand_in: HashMap<TensorId, TensorId>,
}

impl Again {
    /// `node` as its reverse pass sees it: results that were given up are replaced by those computed again.
    fn seen_by(&mut self, graph: &Graph, nodes: &[Node], node: &Node) -> Node {
        if let Some(segment) = node.segment.filter(|s| Some(*s) != self.segment) {
            self.segment = Some(segment);
            self.stand_in = record_again(graph, nodes, segment);
        }
        let replace = |ids: &[TensorId]| ids.iter().map(|t| self.stand_in.get(t).copied().unwrap_or(*t)).collect();
        Node { inputs: replace(&node.inputs), outputs: replace(&node.outputs), ..node.clone() }
    }
}

/// Records the nodes of `segment` that give their results up once more; returns what stands for each of those results.
fn record_again(graph: &Graph, nodes: &[Node], segment: Segment) -> HashMap<TensorId, TensorId> {
    let outside: HashSet<TensorId> = nodes.iter().filter(|n| n.segment != Some(segment)).flat_map(|n| n.inputs.iter().copied()).collect();
    let given_up = |t: &TensorId| !outside.contains(t) && matches!(graph.info(*t).storage, Storage::Intermediate);
    let mut stand_in = HashMap::new();
    let again = |n: &&Node| n.segment == Some(segment) && segment.gives_up(&*n.op) && n.outputs.iter().all(given_up);
    for node in nodes.iter().filter(again) {
        graph.scope(&format!("{}.again", node.scope), || {
            for &t in &node.outputs {
                let info = graph.info(t).clone();
                let name = info.name.rsplit('.').next().unwrap_or_default();
                stand_in.insert(t, graph.intermediate(name, &info.shape, info.dtype).id());
            }
            let replace = |ids: &[TensorId]| ids.iter().map(|t| stand_in.get(t).copied().unwrap_or(*t)).collect();
            graph.append(node.op.clone(), replace(&node.inputs), replace(&node.outputs));
        });
    }
    stand_in
}
