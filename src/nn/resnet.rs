//! ResNet (He et al. 2015) in the v1.5 form of torchvision: the stride of a bottleneck is in its 3x3 convolution.

use super::Parameters;
use super::architecture::{Backbone, Block, Stem};
use crate::graph::Tensor;
use crate::ops::BatchNormMode;
use serde::{Deserialize, Serialize};

/// The forward pass of a backbone.
pub struct ResNet<'a> {
    /// Its shape.
    pub backbone: &'a Backbone,
    /// Its tensors, named without prefix.
    pub parameters: &'a Parameters,
    /// Whether batch norm uses the batch or the running statistics.
    pub mode: BatchNormMode,
    /// What is computed again in the reverse pass to save memory.
    pub recompute: Recompute,
}

/// Which activations are given up after the forward pass and computed again in the reverse pass. The results are the same, bit for bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// None: everything is kept.
    #[default]
    None,
    /// All but the outputs of the four stages. The stem counts to the first.
    Stage,
    /// All but the outputs of the residual blocks and of the stem.
    Block,
}

impl ResNet<'_> {
    /// Feature map (N, h, w, C) of images (N, H, W, 3).
    #[must_use]
    pub fn forward(&self, images: &Tensor) -> Tensor {
        let (kernel, standard) = (self.backbone.stem.kernel(), self.backbone.stem == Stem::Standard);
        let graph = images.graph();
        let stem = || {
            graph.scope("stem", || {
                let x = self.conv_bn(images, ["conv1", "bn1"], if standard { 2 } else { 1 }, kernel / 2, None, true);
                if standard { x.max_pool2d(3, 2, 1) } else { x }
            })
        };
        let block = |x: &Tensor, stage: usize, block: usize| {
            let name = format!("layer{}.{block}", stage + 1);
            graph.scope(&name, || self.block(x, &name, stage, block))
        };
        let stages = self.backbone.blocks.iter().enumerate();
        match self.recompute {
            Recompute::None => stages.fold(stem(), |x, (stage, &count)| (0..count).fold(x, |x, b| block(&x, stage, b))),
            Recompute::Block => {
                stages.fold(graph.segment(stem), |x, (stage, &count)| (0..count).fold(x, |x, b| graph.segment(|| block(&x, stage, b))))
            }
            Recompute::Stage => stages
                .fold(None, |x: Option<Tensor>, (stage, &count)| {
                    Some(graph.segment(|| (0..count).fold(x.unwrap_or_else(stem), |x, b| block(&x, stage, b))))
                })
                .expect("a backbone has stages"),
        }
    }

    fn block(&self, x: &Tensor, name: &str, stage: usize, block: usize) -> Tensor {
        let stride = self.backbone.stride(stage, block);
        let full = |i: usize| [format!("{name}.conv{i}"), format!("{name}.bn{i}")];
        let layer = |x: &Tensor, i: usize, stride, padding, residual: Option<&Tensor>| {
            let [conv, bn] = full(i);
            self.conv_bn(x, [&conv, &bn], stride, padding, residual, true)
        };
        let shortcut = || {
            if self.backbone.has_downsample(stage, block) {
                let [conv, bn] = [format!("{name}.downsample.0"), format!("{name}.downsample.1")];
                self.conv_bn(x, [&conv, &bn], stride, 0, None, false)
            } else {
                x.clone()
            }
        };
        match self.backbone.block {
            Block::Basic => {
                let y = layer(x, 1, stride, 1, None);
                layer(&y, 2, 1, 1, Some(&shortcut()))
            }
            Block::Bottleneck => {
                let y = layer(x, 1, 1, 0, None);
                let y = layer(&y, 2, stride, 1, None);
                layer(&y, 3, 1, 0, Some(&shortcut()))
            }
        }
    }

    /// relu?(bn(conv(x)) (+ residual))
    fn conv_bn(&self, x: &Tensor, [conv, bn]: [&str; 2], stride: usize, padding: usize, residual: Option<&Tensor>, relu: bool) -> Tensor {
        let graph = x.graph();
        let weight = self.parameters.tensor(graph, &format!("{conv}.weight"));
        x.conv2d(&weight, stride, padding).batch_norm(&self.parameters.batch_norm(graph, bn), self.mode, residual, relu)
    }
}
