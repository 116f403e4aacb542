//! ResNet (He et al. 2015) in the v1.5 form of torchvision: the stride of a bottleneck is in its 3x3 convolution.

use super::Parameters;
use super::architecture::{Backbone, Block, Stem, TensorKind};
use crate::graph::{DType, Graph, Recomputes, Tensor};
use crate::ops::BatchNormMode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    None,
    /// Normalised activations: only raw convolution outputs are kept. At most one pass over each convolution's output more, little more than half the
    /// memory.
    #[default]
    Norm,
    /// All but the outputs of the four stages. The stem counts to the first.
    Stage,
    /// All but the outputs of the residual blocks and of the stem.
    Block,
}

/// The convolutions' weights in the type of the activations: one copy of each serves every pass of a graph, and what the passes have to say
/// about it is summed in f32.
pub struct Working {
    dtype: DType,
    /// Weights by name; none where the type is the parameters' own.
    copies: BTreeMap<String, Tensor>,
}

impl ResNet<'_> {
    /// Working copies of the weights in `graph` for activations of type `dtype`. Batch norm's parameters and statistics stay f32.
    pub fn working(&self, graph: &Graph, dtype: DType) -> Working {
        let cast = |name: &str| (name.to_owned(), self.parameters.tensor(graph, name).cast(dtype));
        let weights = self.backbone.tensors().into_iter().filter(|s| dtype != DType::F32 && s.kind == TensorKind::ConvWeight);
        Working { dtype, copies: graph.scope("weights", || weights.map(|s| cast(&s.name)).collect()) }
    }

    /// Feature map (N, h, w, C) of images (N, H, W, 3).
    #[must_use]
    pub fn forward(&self, images: &Tensor) -> Tensor {
        self.forward_with(images, &self.working(images.graph(), DType::F32))
    }

    /// The same with activations of the working copies' type, the feature map included; `images` are f32.
    #[must_use]
    pub fn forward_with(&self, images: &Tensor, working: &Working) -> Tensor {
        let (kernel, standard) = (self.backbone.stem.kernel(), self.backbone.stem == Stem::Standard);
        let graph = images.graph();
        let stem = || {
            graph.scope("stem", || {
                let x = self.conv_bn(&images.cast(working.dtype), working, ["conv1", "bn1"], [if standard { 2 } else { 1 }, kernel / 2], None, true);
                if standard { x.max_pool2d(3, 2, 1) } else { x }
            })
        };
        let block = |x: &Tensor, stage: usize, block: usize| {
            let name = format!("layer{}.{block}", stage + 1);
            graph.scope(&name, || self.block(x, working, &name, stage, block))
        };
        let segment = |gives_up: Option<Recomputes>, record: &dyn Fn() -> Tensor| match gives_up {
            Some(gives_up) => graph.segment(gives_up, record),
            None => record(),
        };
        // What a whole stage gives up, and what the stem and each block do.
        let (by_stage, by_block) = match self.recompute {
            Recompute::None => (None, None),
            Recompute::Norm => (Some(Recomputes::Cheaply), None),
            Recompute::Stage => (Some(Recomputes::Dearly), None),
            Recompute::Block => (None, Some(Recomputes::Dearly)),
        };
        let mut x: Option<Tensor> = None;
        for (stage, &count) in self.backbone.blocks.iter().enumerate() {
            x = Some(segment(by_stage, &|| {
                let start = x.clone().unwrap_or_else(|| segment(by_block, &stem));
                (0..count).fold(start, |x, b| segment(by_block, &|| block(&x, stage, b)))
            }));
        }
        x.expect("a backbone has stages")
    }

    fn block(&self, x: &Tensor, working: &Working, name: &str, stage: usize, block: usize) -> Tensor {
        let stride = self.backbone.stride(stage, block);
        let full = |i: usize| [format!("{name}.conv{i}"), format!("{name}.bn{i}")];
        let layer = |x: &Tensor, i: usize, stride, padding, residual: Option<&Tensor>| {
            let [conv, bn] = full(i);
            self.conv_bn(x, working, [&conv, &bn], [stride, padding], residual, true)
        };
        let shortcut = || {
            if self.backbone.has_downsample(stage, block) {
                let [conv, bn] = [format!("{name}.downsample.0"), format!("{name}.downsample.1")];
                self.conv_bn(x, working, [&conv, &bn], [stride, 0], None, false)
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
    fn conv_bn(
        &self,
        x: &Tensor,
        working: &Working,
        [conv, bn]: [&str; 2],
        [stride, padding]: [usize; 2],
        residual: Option<&Tensor>,
        relu: bool,
    ) -> Tensor {
        let (graph, name) = (x.graph(), format!("{conv}.weight"));
        let weight = working.copies.get(&name).cloned().unwrap_or_else(|| self.parameters.tensor(graph, &name));
        let y = x.conv2d(&weight, stride, padding).batch_norm(&self.parameters.batch_norm(graph, bn), self.mode);
        let y = residual.map_or(y.clone(), |residual| y.add(residual));
        if relu { y.relu() } else { y }
    }
}
