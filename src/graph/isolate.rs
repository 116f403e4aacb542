//! One node of a graph on its own, to be timed.

use super::{DType, Graph, Program, Store, Tensor, TensorId, VariableId, Variables, Variants, stored_elements};
use crate::error::Result;
use crate::gpu::Gpu;
use std::collections::BTreeMap;

/// A graph of a single node, whose tensors are variables of their own with made-up contents.
pub struct Isolated {
    graph: Graph,
    store: Store,
}

impl Isolated {
    /// Node `at` of `graph`.
    pub fn new(gpu: &Gpu, graph: &Graph, at: usize) -> Result<Self> {
        let node = &graph.nodes()[at];
        let (alone, mut variables) = (Graph::new(), Variables::new());
        let mut known: BTreeMap<TensorId, (VariableId, Tensor)> = BTreeMap::new();
        for &t in node.inputs.iter().chain(&node.outputs) {
            let info = graph.info(t);
            known.entry(t).or_insert_with(|| {
                let id = variables.add(&info.name, &info.shape, info.dtype);
                (id, alone.variable(&variables, id))
            });
        }
        let ids = |old: &[TensorId]| old.iter().map(|t| known[t].1.id()).collect();
        alone.append(node.op.clone(), ids(&node.inputs), ids(&node.outputs), None);
        let store = Store::new(gpu, variables)?;
        for (id, tensor) in known.values() {
            // Zeros would flatter devices that clock by what their multipliers do.
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let values = (0..stored_elements(&tensor.shape())).map(|i| ((i * 37) % 101) as f32 * 0.01 - 0.5);
            let binding = store.binding(*id);
            match tensor.dtype() {
                DType::F32 => gpu.write(&binding.buffer, binding.offset, bytemuck::cast_slice(&values.collect::<Vec<_>>()))?,
                DType::F16 => {
                    gpu.write(&binding.buffer, binding.offset, bytemuck::cast_slice(&values.map(half::f16::from_f32).collect::<Vec<_>>()))?;
                }
                DType::U32 => {}
            }
        }
        Ok(Self { graph: alone, store })
    }

    /// The node as a program.
    pub fn program(&self, gpu: &Gpu, variants: &dyn Variants) -> Result<Program> {
        Program::new(gpu, &self.store, &self.graph, &[], variants)
    }
}
