//! The cases.

use crate::data::rng::Stream;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::{DType, Graph, Program, Store, Tensor, VariableId, Variables, pad4, stored_elements};
use crate::nn::architecture::{Backbone, TensorKind, TensorSpec};
use crate::nn::{Init, Parameters, Recompute, ResNet, initial_values};
use crate::ops::{BatchNormMode, BatchNormParameters};
use crate::optim::{Optimizer, OptimizerKind};
use crate::swav::{Crops, QueueUse, SinkhornScope, StepSettings, StepVariables, SwavModel, record};
use crate::tune::BestGuess;
use std::time::Instant;

/// One thing to time.
pub struct Case {
    /// Its name.
    pub name: String,
    /// Floating point operations of a run; forward and backward count three forwards.
    pub flops: Option<f64>,
    /// Images of a run, for training steps.
    pub images: Option<f64>,
    /// Whether to report the host's time per dispatch.
    pub host: bool,
    build: Build,
}

type Build = Box<dyn Fn(&Gpu) -> Result<Ready>>;

impl Case {
    /// Builds its program.
    pub(super) fn prepare(&self, gpu: &Gpu) -> Result<Ready> {
        (self.build)(gpu)
    }
}

/// A case ready to run. Inputs stay on the device.
pub(super) struct Ready {
    program: Program,
    _store: Store,
}

impl Ready {
    pub(super) fn run(&mut self, gpu: &Gpu) -> Result<()> {
        self.program.run_only(gpu, &[])?;
        gpu.wait()
    }

    pub(super) fn dispatches(&self) -> usize {
        self.program.dispatches()
    }

    pub(super) fn profile(&self, gpu: &Gpu) -> Result<Vec<(String, f64)>> {
        self.program.profile(gpu)
    }

    /// Time of the host alone: replays are submitted without waiting, and only the encoding is on the clock.
    pub(super) fn host_us_per_dispatch(&mut self, gpu: &Gpu) -> Result<f64> {
        let mut best = f64::MAX;
        for _ in 0..10 {
            let start = Instant::now();
            self.program.run_only(gpu, &[])?;
            best = best.min(start.elapsed().as_secs_f64() * 1e6);
            gpu.wait()?;
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of dispatches")]
        Ok(best / self.dispatches() as f64)
    }
}

/// Tensors with random contents for kernels timed alone.
struct Bed {
    graph: Graph,
    variables: Variables,
    filled: Vec<(VariableId, f64)>,
}

impl Bed {
    fn new() -> Self {
        Self { graph: Graph::new(), variables: Variables::new(), filled: Vec::new() }
    }

    /// A variable of normal values with this deviation.
    fn tensor(&mut self, name: &str, shape: &[usize], deviation: f64) -> Tensor {
        let id = self.variables.add(name, shape, DType::F32);
        self.filled.push((id, deviation));
        self.graph.variable(&self.variables, id)
    }

    #[expect(clippy::cast_possible_truncation, reason = "values are f32")]
    fn ready(self, gpu: &Gpu, results: &[Tensor]) -> Result<Ready> {
        let store = Store::new(gpu, self.variables.clone())?;
        for (i, (id, deviation)) in self.filled.iter().enumerate() {
            let shape = &self.variables.info(*id).shape;
            let mut stream = Stream::new(0, 0, i as u64, 0);
            let mut values: Vec<f32> = (0..stored_elements(shape)).map(|_| (stream.normal() * deviation) as f32).collect();
            // Padding is zero everywhere in the engine.
            let last = *shape.last().unwrap_or(&1);
            values.chunks_exact_mut(pad4(last)).for_each(|row| row[last..].fill(0.0));
            store.write(gpu, *id, &values)?;
        }
        let names: Vec<String> = (0..results.len()).map(|i| format!("result{i}")).collect();
        let outputs: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(results).collect();
        let program = Program::new(gpu, &store, &self.graph, &outputs, &BestGuess)?;
        Ok(Ready { program, _store: store })
    }
}

/// Gradients of `output` along a fixed direction, as a loss further on would send them.
fn backward(bed: &mut Bed, output: &Tensor, wrt: &[Tensor]) -> Vec<Tensor> {
    let seed = bed.tensor("grad_output", &output.shape(), 1.0);
    let all = crate::graph::differentiate(output, seed, wrt, Tensor::add);
    all.into_iter().flatten().collect()
}

/// Every case, in the order of the table.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for n in [256, 512, 1024] {
        all.push(matmul(n));
    }
    let convs = [
        ("c7s2_3_64_224", 7, 2, 3, 64, 224),
        ("c3_64_64_56", 3, 1, 64, 64, 56),
        ("c1_256_64_56", 1, 1, 256, 64, 56),
        ("c3_512_512_7", 3, 1, 512, 512, 7),
    ];
    for (name, kernel, stride, inputs, outputs, size) in convs {
        for batch in [1, 4] {
            for both in [false, true] {
                all.push(conv(&format!("{name}_b{batch}"), [kernel, stride, inputs, outputs, size, batch], both));
            }
        }
    }
    for (channels, size, batch) in [(64, 56, 4), (256, 56, 4), (512, 7, 4)] {
        all.push(batch_norm(channels, size, batch));
    }
    all.push(sinkhorn(3000, 4096));
    all.push(optimizer());
    for (depth, size, batch) in [(18, 32, 16), (50, 64, 4), (50, 224, 1)] {
        all.push(resnet_step(depth, size, batch));
    }
    all.push(swav_step("swav_step_small_2x32_4x16_b64", small(), 64, [32, 16], 4, 60));
    all.push(swav_step("swav_step_resnet18_2x64_4x32_b8", Backbone::resnet(18).expect("a usual depth"), 8, [64, 32], 4, 300));
    all.push(swav_step("swav_step_resnet50_2x224_6x96_b2", Backbone::resnet(50).expect("a usual depth"), 2, [224, 96], 6, 3000));
    all
}

fn small() -> Backbone {
    use crate::nn::architecture::{Block, Stem};
    Backbone { block: Block::Basic, blocks: vec![1; 4], width: 16, stem: Stem::Standard }
}

#[expect(clippy::cast_precision_loss, reason = "operation counts")]
fn flops(macs: usize) -> Option<f64> {
    Some(2.0 * macs as f64)
}

fn matmul(n: usize) -> Case {
    let build = move |gpu: &Gpu| {
        let mut bed = Bed::new();
        let (x, w) = (bed.tensor("x", &[n, n], 1.0), bed.tensor("w", &[1, 1, n, n], 1.0));
        let y = x.linear(&w, None);
        bed.ready(gpu, &[y])
    };
    Case { name: format!("matmul_{n}"), flops: flops(n * n * n), images: None, host: false, build: Box::new(build) }
}

fn conv(name: &str, [kernel, stride, inputs, outputs, size, batch]: [usize; 6], both: bool) -> Case {
    let build = move |gpu: &Gpu| {
        let mut bed = Bed::new();
        let x = bed.tensor("x", &[batch, size, size, inputs], 1.0);
        let w = bed.tensor("w", &[kernel, kernel, pad4(inputs), outputs], 0.05);
        let y = x.conv2d(&w, stride, kernel / 2);
        let results = if both { [vec![y.clone()], backward(&mut bed, &y, &[x, w])].concat() } else { vec![y] };
        bed.ready(gpu, &results)
    };
    let out = size / stride;
    let macs = batch * out * out * outputs * inputs * kernel * kernel;
    let name = format!("conv_{}_{name}", if both { "fwdbwd" } else { "fwd" });
    Case { name, flops: flops(if both { 3 * macs } else { macs }), images: None, host: false, build: Box::new(build) }
}

fn batch_norm(channels: usize, size: usize, batch: usize) -> Case {
    let build = move |gpu: &Gpu| {
        let mut bed = Bed::new();
        let x = bed.tensor("x", &[batch, size, size, channels], 1.0);
        let mut vector = |name: &str| bed.tensor(name, &[channels], 1.0);
        let p = BatchNormParameters {
            weight: vector("weight"),
            bias: vector("bias"),
            running_mean: vector("running_mean"),
            running_var: vector("running_var"),
        };
        let y = x.batch_norm(&p, BatchNormMode::Training { momentum: 0.1 }, None, true);
        let grads = backward(&mut bed, &y, &[x, p.weight.clone(), p.bias.clone()]);
        bed.ready(gpu, &[vec![y], grads].concat())
    };
    Case { name: format!("bnrelu_fwdbwd_{channels}_{size}_b{batch}"), flops: None, images: None, host: false, build: Box::new(build) }
}

fn sinkhorn(prototypes: usize, samples: usize) -> Case {
    let build = move |gpu: &Gpu| {
        let mut bed = Bed::new();
        let scores = bed.tensor("scores", &[samples, prototypes], 0.1);
        let codes = scores.sinkhorn(0.05, 3, 256.min(samples));
        bed.ready(gpu, &[codes])
    };
    Case { name: format!("sinkhorn_{prototypes}x{samples}"), flops: None, images: None, host: false, build: Box::new(build) }
}

/// ResNet-50's parameters under LARS.
fn optimizer() -> Case {
    let build = |gpu: &Gpu| {
        let backbone = Backbone::resnet(50).expect("a usual depth");
        let specs = backbone.tensors();
        let parameters = Parameters::new(&specs, |_| true, gpu.caps().max_binding_bytes);
        let graph = Graph::new();
        let step = graph.input("step", &[4], DType::F32);
        let optimizer = Optimizer { kind: OptimizerKind::Lars, momentum: 0.9, weight_decay: 1e-6, trust: 0.001, eps: 1e-8 };
        optimizer.record(&graph, &parameters, &step, |_| false);
        let store = parameters.allocate(gpu)?;
        let program = Program::new(gpu, &store, &graph, &[], &BestGuess)?;
        Ok(Ready { program, _store: store })
    };
    Case { name: "optimizer_lars_resnet50".into(), flops: None, images: None, host: false, build: Box::new(build) }
}

/// Supervised training of torchvision's ResNet with 1000 classes: SGD, momentum 0.9, weight decay 1e-4.
fn resnet_step(depth: usize, size: usize, batch: usize) -> Case {
    let build = move |gpu: &Gpu| {
        let backbone = Backbone::resnet(depth).expect("a usual depth");
        let mut specs = backbone.tensors();
        let spec = |name: &str, shape: Vec<usize>, kind| TensorSpec { name: name.into(), shape, kind };
        specs.push(spec("fc.weight", vec![1000, backbone.features()], TensorKind::LinearWeight));
        specs.push(spec("fc.bias", vec![1000], TensorKind::LinearBias));
        let parameters = Parameters::new(&specs, |_| true, gpu.caps().max_binding_bytes);
        let graph = Graph::new();
        let images = graph.input("images", &[batch, size, size, 3], DType::F32);
        let labels = graph.input("labels", &[batch], DType::U32);
        let resnet =
            ResNet { backbone: &backbone, parameters: &parameters, mode: BatchNormMode::Training { momentum: 0.1 }, recompute: Recompute::None };
        let pooled = resnet.forward(&images).global_avg_pool2d();
        let tensor = |name| parameters.tensor(&graph, name);
        let loss = pooled.linear(&tensor("fc.weight"), Some(&tensor("fc.bias"))).cross_entropy(&labels);
        parameters.record_gradients(&loss);
        let step = graph.input("step", &[4], DType::F32);
        let sgd = Optimizer { kind: OptimizerKind::Sgd, momentum: 0.9, weight_decay: 1e-4, trust: 0.0, eps: 0.0 };
        sgd.record(&graph, &parameters, &step, |_| false);
        let store = parameters.allocate(gpu)?;
        let init = Init { seed: 0, zero_init_residual: false, block: backbone.block, classifier_std: 0.01 };
        parameters.write(gpu, &store, &initial_values(&specs, &init))?;
        let program = Program::new(gpu, &store, &graph, &[("loss", &loss)], &BestGuess)?;
        let mut ready = Ready { program, _store: store };
        let mut stream = Stream::new(0, 0, 0, 0);
        #[expect(clippy::cast_possible_truncation, reason = "values are f32")]
        let pixels: Vec<f32> = (0..batch * size * size * 4).map(|i| if i % 4 == 3 { 0.0 } else { stream.normal() as f32 }).collect();
        let step = [0.01_f32, 0.0, 0.0, 0.0];
        ready.program.run_only(gpu, &[("images", bytemuck::cast_slice(&pixels)), ("step", bytemuck::cast_slice(&step))])?;
        Ok(ready)
    };
    // Three forwards of convolutions and classifier.
    let model = SwavModel::new(
        Backbone::resnet(depth).expect("a usual depth"),
        crate::nn::architecture::Head { hidden: 0, feat_dim: 4, prototypes: 4, heads: None },
        u64::MAX,
    );
    let graph = Graph::new();
    let images = graph.input("images", &[batch, size, size, 3], DType::F32);
    let resnet = ResNet { backbone: &model.backbone, parameters: &model.parameters, mode: BatchNormMode::Evaluation, recompute: Recompute::None };
    let _ = resnet.forward(&images);
    let convolutions: u64 = graph.nodes().iter().filter(|n| n.op.name() == "conv2d").map(|n| n.op.flops(&graph, n)).sum();
    #[expect(clippy::cast_precision_loss, reason = "operation counts")]
    let (total, images) = (6.0 * (convolutions as f64 + (batch * model.backbone.features() * 1000) as f64), batch as f64);
    Case { name: format!("resnet{depth}_step_{size}_b{batch}"), flops: Some(total), images: Some(images), host: true, build: Box::new(build) }
}

fn swav_step(name: &str, backbone: Backbone, batch: usize, sizes: [usize; 2], locals: usize, prototypes: usize) -> Case {
    let build = move |gpu: &Gpu| {
        let head = crate::nn::architecture::Head { hidden: backbone.features(), feat_dim: 128, prototypes, heads: None };
        let mut model = SwavModel::new(backbone.clone(), head, gpu.caps().max_binding_bytes);
        let settings = StepSettings {
            crops: vec![Crops { count: 2, size: sizes[0] }, Crops { count: locals, size: sizes[1] }],
            batch,
            micro_batches: 1,
            sinkhorn: SinkhornScope::Global,
            temperature: 0.1,
            epsilon: 0.05,
            sinkhorn_iterations: 3,
            crops_for_assign: vec![0, 1],
            queue_rows: 0,
            optimizer: Optimizer { kind: OptimizerKind::Larc, momentum: 0.9, weight_decay: 1e-6, trust: 0.001, eps: 1e-8 },
            batch_norm: BatchNormMode::Training { momentum: 0.1 },
            recompute: Recompute::None,
        };
        let variables = StepVariables::new(&mut model, &settings);
        let step = record(&model, &settings, &variables, QueueUse::Absent, false).remove(0);
        let store = model.parameters.allocate(gpu)?;
        let specs = SwavModel::specs(&model.backbone, &model.head);
        let init = Init { seed: 0, zero_init_residual: false, block: model.backbone.block, classifier_std: 0.01 };
        model.parameters.write(gpu, &store, &initial_values(&specs, &init))?;
        let program = Program::new(gpu, &store, &step.graph, &step.named_outputs(), &BestGuess)?;
        Ok(Ready { program, _store: store })
    };
    #[expect(clippy::cast_precision_loss, reason = "a batch")]
    let images = Some(batch as f64);
    Case { name: name.into(), flops: None, images, host: true, build: Box::new(build) }
}
