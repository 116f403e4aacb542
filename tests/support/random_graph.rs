//! Random networks.

use swav_wgpu::graph::{DType, Graph, Recomputes, Tensor, Variables};
use swav_wgpu::ops::{BatchNormMode, BatchNormParameters, gradients};

/// SplitMix64: enough to vary graphs.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((b ^ (b >> 31)) % n as u64) as usize
    }
}

/// An f32 input.
pub fn input(graph: &Graph, name: &str, shape: &[usize]) -> Tensor {
    graph.input(name, shape, DType::F32)
}

/// Parameters of a batch norm, as variables.
pub fn batch_norm_parameters(graph: &Graph, variables: &mut Variables, name: &str, channels: usize) -> BatchNormParameters {
    let mut variable = |what: &str| {
        let id = variables.add(&format!("{name}.{what}"), &[channels], DType::F32);
        graph.variable(variables, id)
    };
    BatchNormParameters {
        weight: variable("weight"),
        bias: variable("bias"),
        running_mean: variable("running_mean"),
        running_var: variable("running_var"),
    }
}

/// A random network with skips, its variables; its loss, what the loss is made from, and the gradients of its weights. With `again`, results of two
/// layers in three are given up and computed again for the reverse pass, of some only the cheap ones.
pub fn random_graph(random: &mut Random, again: bool) -> (Graph, Variables, Vec<Tensor>) {
    let (graph, mut variables) = (Graph::new(), Variables::new());
    let (mut pool, mut weights) = (vec![input(&graph, "images", &[2, 8, 8, 4])], Vec::new());
    for layer in 0..3 + random.below(10) {
        let x = pool[random.below(pool.len())].clone();
        let same: Vec<Tensor> = pool.iter().filter(|t| t.shape() == x.shape()).cloned().collect();
        let [_, h, _, c] = x.nhwc();
        let mut record = || match random.below(5) {
            0 => x.relu(),
            1 => x.add(&same[random.below(same.len())]),
            2 if h > 3 => x.max_pool2d(3, 2, 1),
            3 => {
                let parameters = batch_norm_parameters(&graph, &mut variables, &format!("bn{layer}"), c);
                let residual = &same[random.below(same.len())];
                weights.push(parameters.weight.clone());
                let y = x.batch_norm(&parameters, BatchNormMode::Training { momentum: 0.1 });
                if residual.id() == x.id() { y.relu() } else { y.add(residual).relu() }
            }
            _ => {
                let out = [3, 4, 8, 13][random.below(4)];
                let weight = input(&graph, &format!("weight{layer}"), &[3, 3, c.next_multiple_of(4), out]);
                weights.push(weight.clone());
                x.conv2d(&weight, 1 + random.below(2), 1)
            }
        };
        let next = match layer % 3 {
            1 if again => graph.segment(Recomputes::Cheaply, record),
            2 if again => graph.segment(Recomputes::Dearly, record),
            _ => record(),
        };
        pool.push(next);
    }
    let pooled = pool.last().unwrap().global_avg_pool2d();
    let loss = pooled.normalize().soft_cross_entropy(&input(&graph, "targets", &pooled.shape()), 0.1, 1.0);
    let mut outputs = vec![loss.clone(), pooled];
    outputs.extend(gradients(&loss, &weights).into_iter().flatten());
    (graph, variables, outputs)
}
