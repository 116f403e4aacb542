//! A SwAV step written with burn: the network with its projection and prototypes, codes by Sinkhorn, the swapped prediction.

use crate::resnet::ResNet;
use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{Device, Tensor};

/// Feature dimensions of the projection.
const FEAT_DIM: usize = 128;
const TEMPERATURE: f64 = 0.1;
const EPSILON: f64 = 0.05;

/// Network, projection of two layers, prototypes.
#[derive(Module, Debug)]
pub struct Swav {
    backbone: ResNet,
    hidden: Linear,
    norm: BatchNorm,
    output: Linear,
    prototypes: Linear,
}

impl Swav {
    pub fn new(depth: usize, prototypes: usize, device: &Device) -> Self {
        let backbone = ResNet::new(depth, 1, device);
        let features = ResNet::width(depth);
        Self {
            backbone,
            hidden: LinearConfig::new(features, features).init(device),
            norm: BatchNormConfig::new(features).init(device),
            output: LinearConfig::new(features, FEAT_DIM).init(device),
            prototypes: LinearConfig::new(FEAT_DIM, prototypes).with_bias(false).init(device),
        }
    }

    /// Prototypes of unit length, as every step begins.
    pub fn normalize_prototypes(mut self) -> Self {
        // burn keeps the weight as (inputs, outputs).
        self.prototypes.weight = self.prototypes.weight.map(|w| Tensor::from_inner(unit(w.inner(), 0)).require_grad());
        self
    }

    /// Scores (crops * B, K) of groups of crops of one size.
    fn scores(&self, groups: &[Tensor<4>]) -> Tensor<2> {
        let features = Tensor::cat(groups.iter().map(|g| self.backbone.features(g.clone())).collect(), 0);
        let hidden = relu(self.norm.forward(self.hidden.forward(features)));
        self.prototypes.forward(unit(self.output.forward(hidden), 1))
    }

    /// The loss of `crops` crops of each image, the first two of which are assigned codes.
    pub fn loss(&self, groups: &[Tensor<4>], crops: usize) -> Tensor<1> {
        let scores = self.scores(groups).chunk(crops, 0);
        let codes = scores[..2].iter().map(|s| Tensor::from_inner(sinkhorn(s.clone().inner(), 3))).collect::<Vec<_>>();
        let log_p: Vec<_> = scores.into_iter().map(|s| log_softmax(s.div_scalar(TEMPERATURE), 1)).collect();
        let terms = codes.iter().enumerate().flat_map(|(assigned, q)| {
            let others = log_p.iter().enumerate().filter(move |(v, _)| *v != assigned);
            others.map(move |(_, p)| (q.clone() * p.clone()).sum_dim(1).mean())
        });
        let total = terms.reduce(|a, b| a + b).expect("two crops at least");
        total.div_scalar(-2.0 * (crops - 1) as f64)
    }
}

fn unit(x: Tensor<2>, dim: usize) -> Tensor<2> {
    let norm = x.clone().square().sum_dim(dim).sqrt().clamp_min(1e-12);
    x / norm
}

/// Codes (B, K) of scores (B, K): the paper's appendix A.1.
fn sinkhorn(scores: Tensor<2>, iterations: usize) -> Tensor<2> {
    let [samples, prototypes] = scores.dims();
    let mut q = scores.div_scalar(EPSILON).exp();
    for _ in 0..iterations {
        q = q.clone() / (q.sum_dim(0) * prototypes as f64);
        q = q.clone() / (q.sum_dim(1) * samples as f64);
    }
    q * samples as f64
}

/// Floating point operations of projection and prototypes for one crop.
pub fn head_flops(depth: usize, prototypes: usize) -> f64 {
    let features = ResNet::width(depth);
    2.0 * (features * features + features * FEAT_DIM + FEAT_DIM * prototypes) as f64
}
