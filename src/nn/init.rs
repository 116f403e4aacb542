//! Initial values, as PyTorch's modules and the SwAV reference programs set them.
//!
//! Convolutions: normal, kaiming fan-out, relu (std √(2 / (R·S·out))). Batch norm: weight 1, bias 0, mean 0, variance 1; with
//! `zero_init_residual` the last batch norm of every residual block starts at weight 0 (mmpretrain does, the official code does not).
//! Linear layers: PyTorch's default, uniform within ±1/√in for weight and bias; a classifier (`fc`) may be normal with a given deviation, bias 0.

use super::architecture::{Block, TensorKind, TensorSpec};
use super::parameters::Values;
use crate::data::rng::Stream;
use rayon::prelude::*;

/// Choices of the initialisation.
#[derive(Clone, Copy, Debug)]
pub struct Init {
    /// Seed: tensor `n` of the list draws from its own stream.
    pub seed: u64,
    /// Start residual blocks at zero.
    pub zero_init_residual: bool,
    /// Kind of residual block, which says which batch norm is the last.
    pub block: Block,
    /// Standard deviation of a classifier's weight (`fc`), with a bias of 0; `None` for PyTorch's default.
    pub classifier_std: Option<f64>,
}

/// Epoch number of streams that initialise: no training epoch has it.
const INIT_STREAM: u64 = u64::MAX;

/// Values of every tensor of `specs`, PyTorch layout.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "weights are f32")]
pub fn initial_values(specs: &[TensorSpec], init: &Init) -> Values {
    let last = match init.block {
        Block::Basic => ".bn2.weight",
        Block::Bottleneck => ".bn3.weight",
    };
    let value = |(index, spec): (usize, &TensorSpec)| {
        let mut stream = Stream::new(init.seed, INIT_STREAM, index as u64, 0);
        let n = spec.elements();
        let mut fill = |draw: &mut dyn FnMut(&mut Stream) -> f64| (0..n).map(|_| draw(&mut stream) as f32).collect::<Vec<f32>>();
        let normal = init.classifier_std.filter(|_| spec.name.starts_with("fc."));
        let values = match (spec.kind, normal) {
            (TensorKind::ConvWeight, _) => {
                let fan_out = spec.shape[0] * spec.shape[2] * spec.shape[3];
                let std = (2.0 / fan_out as f64).sqrt();
                fill(&mut |s| s.normal() * std)
            }
            (TensorKind::BatchNormWeight, _) if init.zero_init_residual && spec.name.starts_with("layer") && spec.name.ends_with(last) => {
                vec![0.0; n]
            }
            (TensorKind::BatchNormWeight | TensorKind::RunningVar, _) => vec![1.0; n],
            (TensorKind::BatchNormBias | TensorKind::RunningMean | TensorKind::NumBatchesTracked, _) => vec![0.0; n],
            (TensorKind::LinearWeight, Some(std)) => fill(&mut |s| s.normal() * std),
            (TensorKind::LinearBias, Some(_)) => vec![0.0; n],
            (TensorKind::LinearWeight, None) => {
                let bound = 1.0 / (spec.shape[1] as f64).sqrt();
                fill(&mut |s| s.range(-bound, bound))
            }
            (TensorKind::LinearBias, None) => {
                let weight = spec.name.replace(".bias", ".weight");
                let inputs = specs.iter().find(|s| s.name == weight).map_or(1, |s| s.shape[1]);
                let bound = 1.0 / (inputs as f64).sqrt();
                fill(&mut |s| s.range(-bound, bound))
            }
        };
        (spec.name.clone(), values)
    };
    let drawn = specs.par_iter().enumerate().filter(|(_, s)| s.kind != TensorKind::NumBatchesTracked).map(value);
    drawn.collect::<Vec<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::architecture::{Backbone, Head};

    fn deviation(values: &[f32]) -> f64 {
        let squares: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
        (squares / f64::from(u32::try_from(values.len()).unwrap())).sqrt()
    }

    #[test]
    fn scales_are_those_of_the_references() {
        let backbone = Backbone::resnet(50).unwrap();
        let mut specs = backbone.tensors();
        specs.extend(Head { hidden: 2048, feat_dim: 128, prototypes: 3000, heads: None }.tensors(2048));
        let init = Init { seed: 1, zero_init_residual: true, block: backbone.block, classifier_std: Some(0.01) };
        let values = initial_values(&specs, &init);
        // Numbers of the specification: conv1 std 0.02526, prototypes uniform within 0.0884.
        approx::assert_relative_eq!(deviation(&values["conv1.weight"]), 0.025_26, max_relative = 0.03);
        approx::assert_relative_eq!(deviation(&values["prototypes.weight"]), 0.088_4 / 3_f64.sqrt(), max_relative = 0.02);
        assert!(values["prototypes.weight"].iter().all(|v| v.abs() <= 0.088_4));
        assert!(values["layer1.0.bn3.weight"].iter().all(|v| *v == 0.0) && values["layer1.0.downsample.1.weight"].iter().all(|v| *v == 1.0));
        assert!(values["bn1.running_var"].iter().all(|v| *v == 1.0));
        assert_ne!(values["layer1.1.conv1.weight"], values["layer1.2.conv1.weight"]);
        assert_eq!(values, initial_values(&specs, &init));
        // A classifier of either kind.
        let spec = |name: &str, shape: &[usize], kind| TensorSpec { name: name.into(), shape: shape.to_vec(), kind };
        let fc = [spec("fc.weight", &[100, 2048], TensorKind::LinearWeight), spec("fc.bias", &[100], TensorKind::LinearBias)];
        let [normal, uniform] = [Some(0.01), None].map(|classifier_std| initial_values(&fc, &Init { classifier_std, ..init }));
        approx::assert_relative_eq!(deviation(&normal["fc.weight"]), 0.01, max_relative = 0.02);
        assert!(normal["fc.bias"].iter().all(|v| *v == 0.0) && uniform["fc.bias"].iter().any(|v| *v != 0.0));
        approx::assert_relative_eq!(deviation(&uniform["fc.weight"]), 0.0221 / 3_f64.sqrt(), max_relative = 0.02);
        assert!(uniform.values().flatten().all(|v| v.abs() <= 0.0221));
    }
}
