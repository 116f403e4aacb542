//! The shape of a network as pure data: which tensors it has, under which names, in which order.
//!
//! Promises: names and order are torchvision's for the backbone and the official SwAV code's for the head, so that
//! [`Backbone::tensors`] followed by [`Head::tensors`] is the `state_dict` of the reference network and, restricted to
//! [`TensorKind::is_parameter`], its `named_parameters`. Strides follow ResNet v1.5 (the stride of a bottleneck is in its 3x3 convolution),
//! which no weight file can tell. A [`Backbone`] is recovered from names and shapes alone by [`Backbone::infer`].

use crate::gpu::MOST_ITERATIONS;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a tensor of a network is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorKind {
    /// Weight of a convolution without bias, (out, in, height, width).
    ConvWeight,
    /// Scale of a batch norm.
    BatchNormWeight,
    /// Shift of a batch norm.
    BatchNormBias,
    /// Running mean of a batch norm.
    RunningMean,
    /// Running (unbiased) variance of a batch norm.
    RunningVar,
    /// How many batches a batch norm has seen; an integer scalar that only averaging without momentum needs.
    NumBatchesTracked,
    /// Weight of a linear layer, (out, in).
    LinearWeight,
    /// Bias of a linear layer.
    LinearBias,
}

impl TensorKind {
    /// Whether an optimizer trains it (running statistics and counters are buffers).
    pub fn is_parameter(self) -> bool {
        !matches!(self, Self::RunningMean | Self::RunningVar | Self::NumBatchesTracked)
    }
}

/// Name, shape and purpose of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Official name, for example `layer1.0.conv1.weight`.
    pub name: String,
    /// Shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Purpose.
    pub kind: TensorKind,
}

impl TensorSpec {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Block {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1, 3x3, 1x1 convolutions; the last one has four times the channels.
    Bottleneck,
}

impl Block {
    /// Output channels over the block's own width.
    pub fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// First layers of a backbone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stem {
    #[default]
    /// 7x7 convolution with stride 2 and padding 3, then 3x3 max pooling with stride 2 and padding 1.
    Standard,
    /// 3x3 convolution with stride 1 and padding 1 and no pooling, for images of 32 pixels or so.
    Small,
}

impl Stem {
    /// Side of the convolution's kernel.
    pub fn kernel(self) -> usize {
        match self {
            Self::Standard => 7,
            Self::Small => 3,
        }
    }

    /// Sides of an image over sides of its last feature map: the stem's strides, and those of three stages.
    fn total_stride(self) -> usize {
        match self {
            Self::Standard => 32,
            Self::Small => 8,
        }
    }

    /// Whether pooling, one loop over the last feature map, can count the pixels of images of these sides.
    pub fn can_pool(self, sides: [usize; 2]) -> bool {
        sides.iter().map(|side| side.div_ceil(self.total_stride())).product::<usize>() <= MOST_ITERATIONS
    }

    /// Largest side of square images that it can count.
    pub fn largest_side(self) -> usize {
        MOST_ITERATIONS.isqrt() * self.total_stride()
    }
}

/// A ResNet without its classifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backbone {
    /// Kind of every residual block.
    pub block: Block,
    /// Number of blocks of each stage; every stage after the first halves the resolution and doubles the width.
    pub blocks: Vec<usize>,
    /// Channels after the stem (64 in the usual networks).
    pub width: usize,
    /// First layers.
    pub stem: Stem,
}

/// Most blocks accepted in a stage of a network from a file; a ResNet-152 has 36.
const MAX_BLOCKS: usize = 1000;

/// Collects tensor specifications under dotted names.
struct Specs(Vec<TensorSpec>);

impl Specs {
    fn push(&mut self, name: String, shape: &[usize], kind: TensorKind) {
        self.0.push(TensorSpec { name, shape: shape.to_vec(), kind });
    }

    fn conv(&mut self, name: &str, shape: [usize; 4]) {
        self.push(format!("{name}.weight"), &shape, TensorKind::ConvWeight);
    }

    fn batch_norm(&mut self, name: &str, channels: usize) {
        self.push(format!("{name}.weight"), &[channels], TensorKind::BatchNormWeight);
        self.push(format!("{name}.bias"), &[channels], TensorKind::BatchNormBias);
        self.push(format!("{name}.running_mean"), &[channels], TensorKind::RunningMean);
        self.push(format!("{name}.running_var"), &[channels], TensorKind::RunningVar);
        self.push(format!("{name}.num_batches_tracked"), &[], TensorKind::NumBatchesTracked);
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize) {
        self.push(format!("{name}.weight"), &[outputs, inputs], TensorKind::LinearWeight);
        self.push(format!("{name}.bias"), &[outputs], TensorKind::LinearBias);
    }
}

impl Backbone {
    /// The usual ImageNet network of this depth: 18, 34 or 50.
    pub fn resnet(depth: usize) -> Option<Self> {
        let (block, blocks) = match depth {
            18 => (Block::Basic, vec![2, 2, 2, 2]),
            34 => (Block::Basic, vec![3, 4, 6, 3]),
            50 => (Block::Bottleneck, vec![3, 4, 6, 3]),
            _ => return None,
        };
        Some(Self { block, blocks, width: 64, stem: Stem::Standard })
    }

    /// Output channels, which are the length of the pooled feature vector.
    pub fn features(&self) -> usize {
        self.stage_width(self.blocks.len().saturating_sub(1)) * self.block.expansion()
    }

    /// Width of the blocks of a stage, counted from 0, before expansion.
    pub fn stage_width(&self, stage: usize) -> usize {
        self.width << stage
    }

    /// Stride of a block: 2 for the first one of every stage but the first.
    pub fn stride(&self, stage: usize, block: usize) -> usize {
        if stage > 0 && block == 0 { 2 } else { 1 }
    }

    /// Input channels of a block, both counted from 0.
    pub fn block_inputs(&self, stage: usize, block: usize) -> usize {
        match (stage, block) {
            (0, 0) => self.width,
            (_, 0) => self.stage_width(stage - 1) * self.block.expansion(),
            _ => self.stage_width(stage) * self.block.expansion(),
        }
    }

    /// Whether a block's shortcut has a 1x1 convolution and a batch norm of its own.
    pub fn has_downsample(&self, stage: usize, block: usize) -> bool {
        self.stride(stage, block) != 1 || self.block_inputs(stage, block) != self.stage_width(stage) * self.block.expansion()
    }

    /// Every tensor in `state_dict` order.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut specs = Specs(Vec::new());
        let kernel = self.stem.kernel();
        specs.conv("conv1", [self.width, 3, kernel, kernel]);
        specs.batch_norm("bn1", self.width);
        for (stage, &count) in self.blocks.iter().enumerate() {
            let width = self.stage_width(stage);
            let outputs = width * self.block.expansion();
            for block in 0..count {
                let name = format!("layer{}.{block}", stage + 1);
                let inputs = self.block_inputs(stage, block);
                let convs = match self.block {
                    Block::Basic => vec![[width, inputs, 3, 3], [width, width, 3, 3]],
                    Block::Bottleneck => vec![[width, inputs, 1, 1], [width, width, 3, 3], [outputs, width, 1, 1]],
                };
                for (index, shape) in convs.into_iter().enumerate() {
                    specs.conv(&format!("{name}.conv{}", index + 1), shape);
                    specs.batch_norm(&format!("{name}.bn{}", index + 1), shape[0]);
                }
                if self.has_downsample(stage, block) {
                    specs.conv(&format!("{name}.downsample.0"), [outputs, inputs, 1, 1]);
                    specs.batch_norm(&format!("{name}.downsample.1"), outputs);
                }
            }
        }
        specs.0
    }

    /// Recovers a four-stage backbone from official names and shapes: the stem from the first kernel, the width from the first
    /// convolution's outputs, the block from the presence of a third convolution, the stages from the highest block numbers. Whether every
    /// tensor is there and has the right shape is for the caller to compare with [`Backbone::tensors`].
    pub fn infer(shapes: &BTreeMap<String, Vec<usize>>) -> Result<Self, String> {
        let first = shapes.get("conv1.weight").ok_or("no backbone: conv1.weight is missing")?;
        let (width, stem) = match first[..] {
            [width, 3, 7, 7] if (1..=1 << 16).contains(&width) => (width, Stem::Standard),
            [width, 3, 3, 3] if (1..=1 << 16).contains(&width) => (width, Stem::Small),
            _ => return Err(format!("conv1.weight has shape {first:?}, expected [width, 3, 7, 7] or [width, 3, 3, 3]")),
        };
        let mut found: BTreeMap<&str, usize> = BTreeMap::new();
        for name in shapes.keys() {
            if let Some((stage, rest)) = name.strip_prefix("layer").and_then(|rest| rest.split_once('.'))
                && let Some(block) = rest.split('.').next().and_then(|digits| digits.parse::<usize>().ok())
            {
                let last = found.entry(stage).or_default();
                *last = block.max(*last);
            }
        }
        let gone: Vec<&str> = ["1", "2", "3", "4"].into_iter().filter(|stage| !found.contains_key(stage)).collect();
        if !gone.is_empty() {
            let list: Vec<String> = gone.iter().map(|stage| format!("layer{stage}.*")).collect();
            return Err(format!("the backbone is not whole: missing are {}", list.join(", ")));
        }
        if let Some((stage, block)) = found.iter().find(|(_, last)| **last >= MAX_BLOCKS) {
            return Err(format!("layer{stage} has a block {block}; at most {MAX_BLOCKS} are accepted"));
        }
        let blocks = ["1", "2", "3", "4"].into_iter().filter_map(|stage| found.remove(stage)).map(|last| last + 1).collect();
        if let Some(stage) = found.keys().next() {
            return Err(format!("layer{stage} is no stage of a four-stage ResNet"));
        }
        let bottleneck = shapes.keys().any(|name| name.starts_with("layer") && name.ends_with(".conv3.weight"));
        let block = if bottleneck { Block::Bottleneck } else { Block::Basic };
        Ok(Self { block, blocks, width, stem })
    }
}

/// SwAV's projection head and prototypes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// Width of the hidden layer; 0 for a single linear projection (`projection_head.weight`).
    pub hidden: usize,
    /// Length of the embedding that is compared with the prototypes.
    pub feat_dim: usize,
    /// Number of prototypes, of each head where there are several.
    pub prototypes: usize,
    /// Prototype heads in a list, `prototypes.prototypes0.weight` and on (the official code's `MultiPrototypes`); `None` for the single
    /// matrix `prototypes.weight`.
    pub heads: Option<usize>,
}

impl Head {
    /// Every tensor in `state_dict` order for a backbone with this many output channels.
    pub fn tensors(&self, features: usize) -> Vec<TensorSpec> {
        let mut specs = Specs(Vec::new());
        if self.hidden == 0 {
            specs.linear("projection_head", self.feat_dim, features);
        } else {
            specs.linear("projection_head.0", self.hidden, features);
            specs.batch_norm("projection_head.1", self.hidden);
            specs.linear("projection_head.3", self.feat_dim, self.hidden);
        }
        for head in 0..self.prototype_heads() {
            specs.push(self.prototypes_name(head), &[self.prototypes, self.feat_dim], TensorKind::LinearWeight);
        }
        specs.0
    }

    /// Number of prototype matrices.
    pub fn prototype_heads(&self) -> usize {
        self.heads.unwrap_or(1)
    }

    /// Name of prototype matrix `head`, counted from 0.
    pub fn prototypes_name(&self, head: usize) -> String {
        match self.heads {
            None => "prototypes.weight".to_owned(),
            Some(_) => format!("prototypes.prototypes{head}.weight"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(specs: &[TensorSpec]) -> usize {
        specs.iter().filter(|spec| spec.kind.is_parameter()).map(TensorSpec::elements).sum()
    }

    #[test]
    fn counts_are_those_of_the_reference_networks() {
        let resnet50 = Backbone::resnet(50).unwrap();
        let head = Head { hidden: 2048, feat_dim: 128, prototypes: 3000, heads: None };
        assert_eq!(resnet50.features(), 2048);
        assert_eq!(parameters(&resnet50.tensors()), 23_508_032);
        assert_eq!(parameters(&head.tensors(2048)), 4_462_720 + 384_000);
        let three = Head { heads: Some(3), ..head }.tensors(2048);
        assert_eq!(parameters(&three), 4_462_720 + 3 * 384_000);
        assert_eq!(three.last().unwrap().name, "prototypes.prototypes2.weight");
        assert_eq!(resnet50.tensors().len() + head.tensors(2048).len(), 328);
        let elements: usize = resnet50.tensors().iter().chain(&head.tensors(2048)).map(TensorSpec::elements).sum();
        assert_eq!(elements, 28_412_022);
        assert_eq!(parameters(&Backbone { width: 128, ..resnet50 }.tensors()), 93_907_072);
        assert_eq!(parameters(&Backbone::resnet(18).unwrap().tensors()), 11_176_512);
        assert_eq!(parameters(&Backbone::resnet(34).unwrap().tensors()), 21_284_672);
        assert_eq!(Backbone::resnet(51), None);
    }

    #[test]
    fn the_largest_side_can_be_pooled_and_no_larger_one() {
        for stem in [Stem::Standard, Stem::Small] {
            let side = stem.largest_side();
            assert!(stem.can_pool([side; 2]) && !stem.can_pool([side + 1; 2]), "{side}");
        }
        assert!((1_920..2_000).contains(&Stem::Small.largest_side()) && Stem::Standard.can_pool([4096; 2]));
        assert!(Stem::Small.can_pool([64, 60_000]) && !Stem::Small.can_pool([65, 60_000]));
    }

    #[test]
    fn infer_recovers_every_backbone() {
        for block in [Block::Basic, Block::Bottleneck] {
            for stem in [Stem::Standard, Stem::Small] {
                let backbone = Backbone { block, blocks: vec![3, 1, 11, 2], width: 5, stem };
                let mut shapes: BTreeMap<_, _> = backbone.tensors().into_iter().map(|spec| (spec.name, spec.shape)).collect();
                shapes.retain(|name, _| !name.starts_with("layer3.4."));
                assert_eq!(Backbone::infer(&shapes), Ok(backbone));
                shapes.retain(|name, _| !name.starts_with("layer3.") && !name.starts_with("layer1."));
                assert!(Backbone::infer(&shapes).unwrap_err().ends_with("missing are layer1.*, layer3.*"));
                shapes.insert("layer1.4000000000.conv1.weight".to_owned(), vec![]);
                shapes.insert("layer3.0.conv1.weight".to_owned(), vec![]);
                assert!(Backbone::infer(&shapes).unwrap_err().contains("layer1 has a block 4000000000"));
            }
        }
    }
}
