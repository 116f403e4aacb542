//! The list of cases.

use super::case::Case;
use super::kernels::{Convolution, Pass, batch_norm, conv, matmul, optimizer, sinkhorn};
use super::{images, steps};
use crate::graph::{DType, Graph};
use crate::nn::architecture::{Backbone, Head};
use crate::nn::{Recompute, ResNet};
use crate::ops::BatchNormMode;
use crate::optim::OptimizerKind;
use crate::swav::{Precision, SwavModel};
use std::collections::BTreeSet;

/// Images of a batch of single kernels.
const BATCH: usize = 4;

/// Every case, in the order of the table; kernels and steps with `batch` images where it is given, in place of each one's own, and steps that give up
/// `recompute` of their activations.
pub fn cases(batch: Option<usize>, recompute: Recompute) -> Vec<Case> {
    let count = |own: usize| batch.unwrap_or(own);
    let mut all: Vec<Case> = [256, 512, 1024, 4096].into_iter().map(matmul).collect();
    // Single images of four shapes that stand for the network: the programs measuring others have them too.
    for c in [[7, 2, 3, 64, 224], [3, 1, 64, 64, 56], [1, 1, 256, 64, 56], [3, 1, 512, 512, 7]].map(Convolution::from) {
        all.extend([Pass::Forward, Pass::Both].map(|pass| conv(c, count(1), pass, DType::F32)));
    }
    for size in [224, 96] {
        for c in convolutions(size) {
            all.extend([Pass::Forward, Pass::InputGradient, Pass::WeightGradient, Pass::Both].map(|pass| conv(c, count(BATCH), pass, DType::F32)));
        }
    }
    for c in convolutions(224) {
        all.extend([Pass::Forward, Pass::InputGradient, Pass::WeightGradient].map(|pass| conv(c, count(BATCH), pass, DType::F16)));
    }
    for dtype in [DType::F32, DType::F16] {
        for (channels, size) in [(64, 112), (64, 56), (256, 56), (512, 28), (1024, 14), (512, 7), (2048, 7)] {
            all.push(batch_norm(channels, size, count(BATCH), dtype));
        }
    }
    all.push(sinkhorn(3000, 4096));
    all.push(sinkhorn(3000, 64));
    all.extend([("sgd", OptimizerKind::Sgd), ("lars", OptimizerKind::Lars), ("larc", OptimizerKind::Larc)].map(|(name, kind)| optimizer(name, kind)));
    for (depth, size, own) in [(18, 32, 16), (50, 64, 4), (50, 96, 4), (50, 224, 1), (50, 224, 4)] {
        all.push(steps::supervised(depth, size, count(own), recompute));
    }
    for precision in [Precision::F32, Precision::F16] {
        let resnet = |depth| Backbone::resnet(depth).expect("a usual depth");
        let mut swav = |network, backbone, own, groups, prototypes| {
            all.push(steps::swav(network, backbone, (precision, recompute), count(own), groups, prototypes));
        };
        swav("small", steps::small(), 64, [(2, 32), (4, 16)], 60);
        swav("resnet18", resnet(18), 8, [(2, 64), (4, 32)], 300);
        swav("resnet50", resnet(50), 2, [(2, 224), (6, 96)], 3000);
    }
    all.extend(images::cases());
    // With one batch for all, some are the same.
    if batch.is_some() {
        let mut seen = BTreeSet::new();
        all.retain(|case| seen.insert(case.name.clone()));
    }
    all
}

/// The different convolutions of ResNet-50 at images of `size` pixels, in the network's order.
fn convolutions(size: usize) -> Vec<Convolution> {
    let head = Head { hidden: 0, feat_dim: 4, prototypes: 4, heads: None };
    let model = SwavModel::new(Backbone::resnet(50).expect("a usual depth"), head, u64::MAX);
    let graph = Graph::new();
    let images = graph.input("images", &[1, size, size, 3], DType::F32);
    let _ = ResNet { backbone: &model.backbone, parameters: &model.parameters, mode: BatchNormMode::Evaluation, recompute: Recompute::None }
        .forward(&images);
    let mut all = Vec::new();
    for node in graph.nodes().iter().filter(|n| n.op.name() == "conv2d") {
        let [x, w, y] = [node.inputs[0], node.inputs[1], node.outputs[0]].map(|t| graph.tensor(t).nhwc());
        let c = Convolution { kernel: w[0], stride: x[1].div_ceil(y[1]), inputs: x[3], outputs: w[3], size: x[1] };
        if !all.contains(&c) {
            all.push(c);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_hold_those_of_the_peers() {
        let all = cases(None, Recompute::Norm);
        let names: BTreeSet<&str> = all.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        for size in [224, 96] {
            assert_eq!(convolutions(size).len(), 23, "ResNet-50 has 23 different convolutions");
        }
        for name in [
            "matmul_256",
            "conv_fwd_c7s2_3_64_224_b1",
            "conv_fwdbwd_c7s2_3_64_224_b4",
            "conv_fwdbwd_c3_64_64_56_b1",
            "conv_dgrad_c3s2_128_128_56_b4",
            "conv_wgrad_c1s2_1024_2048_14_b4",
            "conv_fwd_c1_256_64_56_b4",
            "conv_fwdbwd_c3_512_512_7_b4",
            "conv_fwd_c3_512_512_3_b4",
            "conv_wgrad_c3_512_512_7_b4_f16",
            "bnrelu_fwdbwd_512_7_b4",
            "sinkhorn_3000x4096",
            "resnet18_step_32_b16",
            "resnet50_step_224_b1",
            "loader_2x224_6x96_b8",
        ] {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn a_batch_for_all_names_every_case_once() {
        let all = cases(Some(64), Recompute::Norm);
        let named = |name: &str| all.iter().filter(|c| c.name == name).count();
        for name in ["conv_fwd_c3_512_512_7_b64", "bnrelu_fwdbwd_64_56_b64", "resnet50_step_224_b64", "swav_step_resnet50_2x224_6x96_b64_f16"] {
            assert_eq!(named(name), 1, "{name}");
        }
        assert!(!all.iter().any(|c| c.name.ends_with("_b4")));
    }

    #[test]
    fn a_full_swav_step_counts_three_forwards_of_every_crop() {
        let all = cases(None, Recompute::Norm);
        let step = all.iter().find(|c| c.name == "swav_step_resnet50_2x224_6x96_b2").expect("in the list");
        let gmacs = step.flops.expect("counted") / step.images.expect("counted") / 2e9;
        // By hand: 4.087 G for 224 pixels, 0.751 G for 96 and 4.84 M for the head, of each crop.
        let forward = 2.0 * 4.087 + 6.0 * 0.751 + 8.0 * 0.00484;
        assert!((gmacs / (3.0 * forward) - 1.0).abs() < 1e-3, "{gmacs}");
    }
}
