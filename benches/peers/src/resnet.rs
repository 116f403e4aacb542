//! torchvision's ResNet (the stride sits in the 3x3 of a bottleneck), written with burn modules.

use crate::case::Conv;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

/// A convolution without bias.
pub fn conv(c: Conv, device: &Device) -> Conv2d {
    let padding = c.kernel / 2;
    Conv2dConfig::new([c.inputs, c.outputs], [c.kernel, c.kernel])
        .with_stride([c.stride, c.stride])
        .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
        .with_bias(false)
        .init(device)
}

#[derive(Module, Debug)]
struct ConvBn {
    conv: Conv2d,
    bn: BatchNorm,
}

impl ConvBn {
    fn new(inputs: usize, outputs: usize, kernel: usize, stride: usize, device: &Device) -> Self {
        // The size does not matter to the module.
        let c = Conv { kernel, stride, inputs, outputs, size: 0 };
        Self { conv: conv(c, device), bn: BatchNormConfig::new(outputs).init(device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.bn.forward(self.conv.forward(x))
    }
}

#[derive(Module, Debug)]
struct Block {
    conv1: ConvBn,
    conv2: ConvBn,
    conv3: Option<ConvBn>,
    downsample: Option<ConvBn>,
}

impl Block {
    fn new(inputs: usize, width: usize, stride: usize, bottleneck: bool, device: &Device) -> Self {
        let outputs = if bottleneck { 4 * width } else { width };
        let new = |i, o, kernel, stride| ConvBn::new(i, o, kernel, stride, device);
        let downsample = (stride != 1 || inputs != outputs).then(|| new(inputs, outputs, 1, stride));
        if bottleneck {
            Self { conv1: new(inputs, width, 1, 1), conv2: new(width, width, 3, stride), conv3: Some(new(width, outputs, 1, 1)), downsample }
        } else {
            Self { conv1: new(inputs, width, 3, stride), conv2: new(width, width, 3, 1), conv3: None, downsample }
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let skip = match &self.downsample {
            Some(module) => module.forward(x.clone()),
            None => x.clone(),
        };
        let mut y = self.conv2.forward(relu(self.conv1.forward(x)));
        if let Some(conv3) = &self.conv3 {
            y = conv3.forward(relu(y));
        }
        relu(y + skip)
    }
}

/// ResNet-18 or ResNet-50 with its classifier.
#[derive(Module, Debug)]
pub struct ResNet {
    stem: ConvBn,
    pool: MaxPool2d,
    blocks: Vec<Block>,
    average: AdaptiveAvgPool2d,
    fc: Linear,
}

/// Blocks of the four stages, and whether they are bottlenecks.
fn stages(depth: usize) -> ([usize; 4], bool) {
    match depth {
        18 => ([2, 2, 2, 2], false),
        50 => ([3, 4, 6, 3], true),
        _ => panic!("depth 18 or 50, not {depth}"),
    }
}

impl ResNet {
    pub fn new(depth: usize, classes: usize, device: &Device) -> Self {
        let (stages, bottleneck) = stages(depth);
        let (mut blocks, mut inputs) = (Vec::new(), 64);
        for (stage, count) in stages.into_iter().enumerate() {
            let width = 64 << stage;
            for i in 0..count {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                blocks.push(Block::new(inputs, width, stride, bottleneck, device));
                inputs = if bottleneck { 4 * width } else { width };
            }
        }
        let pool = MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init();
        Self {
            stem: ConvBn::new(3, 64, 7, 2, device),
            pool,
            blocks,
            average: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            fc: LinearConfig::new(inputs, classes).init(device),
        }
    }

    /// Dimensions of its features.
    pub fn width(depth: usize) -> usize {
        if stages(depth).1 { 2048 } else { 512 }
    }

    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.stem.forward(images)));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.average.forward(x).flatten(1, 3)
    }

    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        self.fc.forward(self.features(images))
    }
}

/// Floating point operations of a forward pass: convolutions and classifier.
pub fn forward_flops(depth: usize, size: usize, batch: usize, classes: usize) -> f64 {
    let mut total = 0.0;
    let mut add = |inputs: usize, outputs: usize, kernel: usize, out: usize| {
        total += 2.0 * (inputs * outputs * kernel * kernel * out * out) as f64;
    };
    let (stages, bottleneck) = stages(depth);
    let half = |x: usize| x.div_ceil(2);
    let mut size = half(size);
    add(3, 64, 7, size);
    size = half(size);
    let mut inputs = 64;
    for (stage, count) in stages.into_iter().enumerate() {
        let width = 64 << stage;
        let outputs = if bottleneck { 4 * width } else { width };
        for i in 0..count {
            let (before, stride) = (size, if stage > 0 && i == 0 { 2 } else { 1 });
            if stride == 2 {
                size = half(size);
            }
            if stride != 1 || inputs != outputs {
                add(inputs, outputs, 1, size);
            }
            if bottleneck {
                add(inputs, width, 1, before);
                add(width, width, 3, size);
                add(width, outputs, 1, size);
            } else {
                add(inputs, width, 3, size);
                add(width, width, 3, size);
            }
            inputs = outputs;
        }
    }
    add(inputs, classes, 1, 1);
    total * batch as f64
}
