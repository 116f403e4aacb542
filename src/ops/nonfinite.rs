//! Finding what is not finite, and who made it: for the moment after a result turned out to be
//! spoilt. PyTorch: `torch.isfinite(x).all()`, `torch.autograd.detect_anomaly`.

use super::{WORKGROUP, kernel_for};
use crate::gpu::Params;
use crate::graph::{DType, Graph, Lowering, Node, Op, Outputs, Storage, Tensor, TensorId};
use std::collections::HashMap;

struct Nonfinite;

/// Workgroups that look at a tensor at most.
const GROUPS: usize = 1_024;

impl Tensor {
    /// How many of so many parts of the tensor hold something that is not finite: (parts, 4), whose
    /// first column counts. No gradient.
    #[must_use]
    pub fn nonfinite(&self) -> Self {
        let parts = (crate::graph::stored_elements(&self.shape()) / 4).div_ceil(WORKGROUP).clamp(1, GROUPS);
        let output = self.graph().intermediate("nonfinite", &[parts, 4], DType::F32);
        self.graph().record(Nonfinite, &[self], &[&output]);
        output
    }
}

impl Op for Nonfinite {
    fn name(&self) -> &'static str {
        "nonfinite"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let parts = cx.shape(node.outputs[0])[0];
        let params = Params::default().u32("count", cx.vec4s(node.inputs[0])).u32("groups", parts);
        let kernel = kernel_for(cx, node.inputs[0], "nonfinite", "look");
        cx.launch(kernel, params, parts, &node.inputs, &node.outputs);
    }
}

/// A result of a graph that is looked at.
pub struct Watched {
    /// The layer and its op, for example `layer1.0.conv1 (conv2d)`.
    pub name: String,
    /// Name of the output that tells.
    pub output: String,
    /// See [`Tensor::nonfinite`].
    pub found: Tensor,
}

impl Watched {
    /// Whether it was not finite in the run that `outputs` are of.
    pub fn is_spoilt(&self, outputs: &Outputs) -> bool {
        outputs.f32(&self.output).chunks_exact(4).any(|part| part[0] > 0.0)
    }
}

/// `graph` with the results of all its nodes looked at, in the order in which they are made. Every
/// result is then made by itself, for nothing that is looked at can be fused away.
pub fn watch(graph: &Graph) -> (Graph, Vec<Watched>) {
    let (nodes, layers) = (graph.nodes(), layers(graph));
    let results = nodes.iter().flat_map(|node| node.outputs.iter().map(move |t| (node, *t)));
    let floats = results.filter(|(_, t)| {
        let info = graph.info(*t);
        info.dtype != DType::U32 && matches!(info.storage, Storage::Intermediate)
    });
    let watched = floats.enumerate().map(|(i, (node, t))| {
        let layer = node.inputs.iter().find_map(|input| layers.get(input)).cloned().unwrap_or_else(|| graph.info(t).name.clone());
        let name = format!("{layer} ({})", node.op.name());
        Watched { name, output: format!("nonfinite {i}"), found: graph.tensor(t).nonfinite() }
    });
    let watched = watched.collect();
    (graph.hoisted(nodes.len()), watched)
}

/// Layers by what they read of their own: the names of weights without what a layer calls them. A
/// cast of a weight counts as the weight.
fn layers(graph: &Graph) -> HashMap<TensorId, String> {
    let mut layers = HashMap::new();
    for node in graph.nodes() {
        for t in &node.inputs {
            let info = graph.info(*t);
            if let (Storage::Variable(_), Some((layer, _))) = (&info.storage, info.name.rsplit_once('.')) {
                layers.insert(*t, layer.to_owned());
            }
        }
        if let ("cast", Some(layer)) = (node.op.name(), layers.get(&node.inputs[0]).cloned()) {
            layers.insert(node.outputs[0], layer);
        }
    }
    layers
}
