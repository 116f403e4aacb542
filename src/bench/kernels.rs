//! Kernels timed alone.

use super::case::{Case, Ready};
use crate::data::rng::Stream;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::{DType, Graph, Program, Store, Tensor, VariableId, Variables, Variants, pad4, stored_elements};
use crate::nn::Parameters;
use crate::nn::architecture::Backbone;
use crate::ops::{BatchNormMode, BatchNormParameters};
use crate::optim::{Optimizer, OptimizerKind};

/// Tensors with random contents for kernels timed alone.
struct Bed {
    graph: Graph,
    variables: Variables,
    filled: Vec<(VariableId, f64)>,
    /// Of activations, and of the weights that convolutions read.
    activations: DType,
}

impl Bed {
    fn new(activations: DType) -> Self {
        Self { graph: Graph::new(), variables: Variables::new(), filled: Vec::new(), activations }
    }

    /// An f32 variable of normal values with this deviation.
    fn tensor(&mut self, name: &str, shape: &[usize], deviation: f64) -> Tensor {
        self.variable(name, shape, deviation, DType::F32)
    }

    /// The same of the type of activations.
    fn activation(&mut self, name: &str, shape: &[usize], deviation: f64) -> Tensor {
        self.variable(name, shape, deviation, self.activations)
    }

    fn variable(&mut self, name: &str, shape: &[usize], deviation: f64, dtype: DType) -> Tensor {
        let id = self.variables.add(name, shape, dtype);
        self.filled.push((id, deviation));
        self.graph.variable(&self.variables, id)
    }

    fn ready(self, gpu: &Gpu, variants: &dyn Variants, results: &[Tensor]) -> Result<Ready> {
        let store = Store::new(gpu, self.variables.clone())?;
        for (i, (id, deviation)) in self.filled.iter().enumerate() {
            let info = self.variables.info(*id);
            let values = normal(i as u64, &info.shape, *deviation);
            if info.dtype == DType::F16 {
                let (halves, at): (Vec<_>, _) = (values.iter().map(|v| half::f16::from_f32(*v)).collect(), store.binding(*id));
                gpu.write(&at.buffer, at.offset, bytemuck::cast_slice(&halves))?;
            } else {
                store.write(gpu, *id, &values)?;
            }
        }
        let names: Vec<String> = (0..results.len()).map(|i| format!("result{i}")).collect();
        let outputs: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(results).collect();
        let program = Program::new(gpu, &store, &self.graph, &outputs, variants)?;
        Ok(Ready::device(program, store))
    }
}

/// Normal values of this deviation for a tensor of this shape, as it is stored: padding is zero everywhere in the engine.
#[expect(clippy::cast_possible_truncation, reason = "values are f32")]
pub(super) fn normal(seed: u64, shape: &[usize], deviation: f64) -> Vec<f32> {
    let (mut stream, last) = (Stream::new(0, 0, seed, 0), *shape.last().unwrap_or(&1));
    let value = |i: usize| if i % pad4(last) < last { (stream.normal() * deviation) as f32 } else { 0.0 };
    (0..stored_elements(shape)).map(value).collect()
}

/// `_f16` at the end of a case's name.
pub(super) fn ending(dtype: DType) -> &'static str {
    if dtype == DType::F16 { "_f16" } else { "" }
}

/// Gradients of `output` along a fixed direction, as a loss further on would send them.
fn backward(bed: &mut Bed, output: &Tensor, wrt: &[Tensor]) -> Vec<Tensor> {
    let seed = bed.activation("grad_output", &output.shape(), 1.0);
    let all = crate::graph::differentiate(output, seed, wrt, Tensor::add);
    all.into_iter().flatten().collect()
}

pub(super) fn matmul(n: usize) -> Case {
    let build = move |gpu: &Gpu, variants: &dyn Variants| {
        let mut bed = Bed::new(DType::F32);
        let (x, w) = (bed.tensor("x", &[n, n], 1.0), bed.tensor("w", &[1, 1, n, n], 1.0));
        let y = x.linear(&w, None);
        bed.ready(gpu, variants, &[y])
    };
    Case::new(format!("matmul_{n}"), build).macs(n * n * n)
}

/// A square convolution that keeps the size, up to its stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Convolution {
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Side of its input in pixels.
    pub(super) size: usize,
}

impl From<[usize; 5]> for Convolution {
    fn from([kernel, stride, inputs, outputs, size]: [usize; 5]) -> Self {
        Self { kernel, stride, inputs, outputs, size }
    }
}

/// What of a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    InputGradient,
    WeightGradient,
    /// All three.
    Both,
}

/// `conv_fwd_c3s2_64_128_56_b4`: a 3x3 window with stride 2 from 64 to 128 channels at 56x56 pixels, 4 images.
pub(super) fn conv(c: Convolution, batch: usize, pass: Pass, dtype: DType) -> Case {
    let Convolution { kernel, stride, inputs, outputs, size } = c;
    let build = move |gpu: &Gpu, variants: &dyn Variants| {
        let mut bed = Bed::new(dtype);
        let x = bed.activation("x", &[batch, size, size, inputs], 1.0);
        let w = bed.activation("w", &[kernel, kernel, pad4(inputs), outputs], 0.05);
        let y = x.conv2d(&w, stride, kernel / 2);
        let results = match pass {
            Pass::Forward => vec![y],
            Pass::InputGradient => backward(&mut bed, &y, &[x]),
            Pass::WeightGradient => backward(&mut bed, &y, &[w]),
            Pass::Both => [vec![y.clone()], backward(&mut bed, &y, &[x, w])].concat(),
        };
        bed.ready(gpu, variants, &results)
    };
    let (name, passes) = match pass {
        Pass::Forward => ("fwd", 1),
        Pass::InputGradient => ("dgrad", 1),
        Pass::WeightGradient => ("wgrad", 1),
        Pass::Both => ("fwdbwd", 3),
    };
    let stepped = if stride > 1 { format!("s{stride}") } else { String::new() };
    let out = size.div_ceil(stride);
    Case::new(format!("conv_{name}_c{kernel}{stepped}_{inputs}_{outputs}_{size}_b{batch}{}", ending(dtype)), build)
        .macs(passes * batch * out * out * outputs * inputs * kernel * kernel)
}

pub(super) fn batch_norm(channels: usize, size: usize, batch: usize, dtype: DType) -> Case {
    let build = move |gpu: &Gpu, variants: &dyn Variants| {
        let mut bed = Bed::new(dtype);
        let x = bed.activation("x", &[batch, size, size, channels], 1.0);
        let mut vector = |name: &str| bed.tensor(name, &[channels], 1.0);
        let p = BatchNormParameters {
            weight: vector("weight"),
            bias: vector("bias"),
            running_mean: vector("running_mean"),
            running_var: vector("running_var"),
        };
        let y = x.batch_norm(&p, BatchNormMode::Training { momentum: 0.1 }).relu();
        let grads = backward(&mut bed, &y, &[x, p.weight.clone(), p.bias.clone()]);
        bed.ready(gpu, variants, &[vec![y], grads].concat())
    };
    Case::new(format!("bnrelu_fwdbwd_{channels}_{size}_b{batch}{}", ending(dtype)), build)
}

pub(super) fn sinkhorn(prototypes: usize, samples: usize) -> Case {
    let build = move |gpu: &Gpu, variants: &dyn Variants| {
        let mut bed = Bed::new(DType::F32);
        let scores = bed.tensor("scores", &[samples, prototypes], 0.1);
        let codes = scores.sinkhorn(0.05, 3, 256.min(samples));
        bed.ready(gpu, variants, &[codes])
    };
    Case::new(format!("sinkhorn_{prototypes}x{samples}"), build)
}

/// One update of ResNet-50's parameters.
pub(super) fn optimizer(name: &str, kind: OptimizerKind) -> Case {
    let build = move |gpu: &Gpu, variants: &dyn Variants| {
        let backbone = Backbone::resnet(50).expect("a usual depth");
        let parameters = Parameters::new(&backbone.tensors(), |_| true, gpu.caps().max_binding_bytes);
        let graph = Graph::new();
        let step = graph.input("step", &[4], DType::F32);
        let optimizer = Optimizer { kind, momentum: 0.9, weight_decay: 1e-6, trust: 0.001, eps: 1e-8 };
        optimizer.record(&graph, &parameters, &step, |_| false);
        let store = parameters.allocate(gpu)?;
        let program = Program::new(gpu, &store, &graph, &[], variants)?;
        Ok(Ready::device(program, store))
    };
    Case::new(format!("optimizer_{name}_resnet50"), build)
}
