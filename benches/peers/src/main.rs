//! Times burn on one device under the names of `swav-wgpu bench`: one JSON line a case.
//!
//! `burn-bench [--device wgpu|vulkan] [--seconds 3] NAME...`; names without a twin here are passed over. A case runs once
//! (`first_ms`: shaders, and autotune where it is built in), then until it has settled, then in 3 to 9 samples. The clock is read after
//! `Device::sync`; `cpu_ms` is processor time of the process, all threads.

mod case;
mod resnet;
mod swav;

use burn::nn::BatchNormConfig;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, DeviceKind, Distribution, Int, Tensor};
use case::{Case, Conv};
use cpu_time::ProcessTime;
use std::time::Instant;

const NORMAL: Distribution = Distribution::Normal(0.0, 1.0);

fn main() {
    let (mut wanted, mut seconds, mut names) = ("wgpu".to_owned(), 3.0, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--device" => wanted = value(),
            "--seconds" => seconds = value().parse().expect("--seconds takes a number"),
            _ if argument.starts_with('-') => panic!("unknown option {argument}"),
            _ => names.push(argument),
        }
    }
    let device = match wanted.as_str() {
        "wgpu" => Device::wgpu(DeviceKind::DefaultDevice),
        #[cfg(feature = "vulkan")]
        "vulkan" => Device::vulkan(DeviceKind::DefaultDevice),
        other => panic!("device {other} is not built in"),
    };
    let bench = Bench { device: device.clone(), tool: format!("burn-{wanted}"), seconds };
    for name in &names {
        match Case::parse(name) {
            Some(Case::Matmul { n }) => matmul(&bench, name, n),
            Some(Case::Conv { conv, batch, backward: false }) => forward(&bench, name, conv, batch),
            Some(Case::Conv { conv, batch, backward: true }) => forward_backward(&bench, name, conv, batch),
            Some(Case::BatchNorm { channels, size, batch }) => batch_norm(&bench, name, [batch, channels, size, size]),
            Some(Case::Step { depth, size, batch }) => step(&bench, name, depth, size, batch),
            Some(Case::Swav { depth, crops, batch, prototypes }) => swav_step(&bench, name, depth, crops, batch, prototypes),
            None => {}
        }
    }
}

struct Bench {
    device: Device,
    tool: String,
    seconds: f64,
}

impl Bench {
    fn run(&self, name: &str, flops: Option<f64>, mut work: impl FnMut()) {
        let mut once = || {
            let (wall, cpu) = (Instant::now(), ProcessTime::now());
            work();
            self.device.sync().expect("the device goes on");
            (wall.elapsed().as_secs_f64() * 1e3, cpu.elapsed().as_secs_f64() * 1e3)
        };
        let first = once().0;
        let mut warm = once().0;
        // Fusion and autotune may settle over several passes.
        let started = Instant::now();
        while started.elapsed().as_secs_f64() < self.seconds / 4.0 {
            warm = once().0;
        }
        let repeats = ((self.seconds * 1e3 / 9.0 / warm) as u32).clamp(1, 1000);
        let samples = ((self.seconds * 1e3 / (warm * f64::from(repeats))) as usize).clamp(3, 9);
        let mut taken: Vec<(f64, f64)> = (0..samples)
            .map(|_| {
                let sum = (0..repeats).map(|_| once()).fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
                (sum.0 / f64::from(repeats), sum.1 / f64::from(repeats))
            })
            .collect();
        let mut median = |part: fn(&(f64, f64)) -> f64| {
            taken.sort_by(|a, b| part(a).total_cmp(&part(b)));
            part(&taken[samples / 2])
        };
        let (wall, cpu) = (median(|t| t.0), median(|t| t.1));
        let gflops = flops.map_or("null".to_owned(), |f| format!("{:.3}", f / wall / 1e6));
        println!(r#"{{"tool":"{}","name":"{name}","median_ms":{wall:.3},"cpu_ms":{cpu:.3},"first_ms":{first:.0},"gflops":{gflops}}}"#, self.tool);
    }
}

fn matmul(bench: &Bench, name: &str, n: usize) {
    let [x, y] = [0; 2].map(|_| Tensor::<2>::random([n, n], NORMAL, &bench.device));
    bench.run(name, Some(2.0 * (n as f64).powi(3)), || drop(x.clone().matmul(y.clone())));
}

fn forward(bench: &Bench, name: &str, c: Conv, batch: usize) {
    let module = resnet::conv(c, &bench.device);
    let x = Tensor::<4>::random([batch, c.inputs, c.size, c.size], NORMAL, &bench.device);
    bench.run(name, Some(c.flops(batch)), || drop(module.forward(x.clone())));
}

fn forward_backward(bench: &Bench, name: &str, c: Conv, batch: usize) {
    let device = bench.device.clone().autodiff();
    let module = resnet::conv(c, &device);
    let x = Tensor::<4>::random([batch, c.inputs, c.size, c.size], NORMAL, &device).require_grad();
    bench.run(name, Some(3.0 * c.flops(batch)), || {
        let gradients = module.forward(x.clone()).sum().backward();
        let of_input = x.grad(&gradients).expect("a gradient of the input");
        let of_weight = module.weight.val().grad(&gradients).expect("a gradient of the weight");
        bench.device.sync().expect("the device goes on");
        drop((of_input, of_weight));
    });
}

fn batch_norm(bench: &Bench, name: &str, shape: [usize; 4]) {
    let device = bench.device.clone().autodiff();
    let module = BatchNormConfig::new(shape[1]).init(&device);
    let x = Tensor::<4>::random(shape, NORMAL, &device).require_grad();
    bench.run(name, None, || {
        let gradients = relu(module.forward(x.clone())).sum().backward();
        let of_input = x.grad(&gradients).expect("a gradient of the input");
        bench.device.sync().expect("the device goes on");
        drop(of_input);
    });
}

/// A supervised training step: SGD with momentum 0.9 and weight decay 1e-4, 1000 classes. The rate is 0: trained on one batch for long,
/// gradients would become subnormal numbers, which processors are slow at.
fn step(bench: &Bench, name: &str, depth: usize, size: usize, batch: usize) {
    let device = bench.device.clone().autodiff();
    let mut model = Some(resnet::ResNet::new(depth, 1000, &device));
    let mut sgd = sgd(1e-4).init();
    let x = Tensor::<4>::random([batch, 3, size, size], NORMAL, &device);
    let labels: Vec<i32> = (0..batch as i32).map(|i| (i * 37 + 11) % 1000).collect();
    let labels = Tensor::<1, Int>::from_ints(labels.as_slice(), &device);
    let criterion = CrossEntropyLossConfig::new().init(&device);
    bench.run(name, Some(3.0 * resnet::forward_flops(depth, size, batch, 1000)), || {
        let network = model.take().expect("put back by the last step");
        let loss = criterion.forward(network.forward(x.clone()), labels.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        model = Some(sgd.step(0.0, network, gradients));
    });
}

/// A SwAV step: SGD with momentum 0.9 and weight decay 1e-6, for burn has no LARC. The rate is 0, as in the supervised step.
fn swav_step(bench: &Bench, name: &str, depth: usize, crops: [(usize, usize); 2], batch: usize, prototypes: usize) {
    let device = bench.device.clone().autodiff();
    let mut model = Some(swav::Swav::new(depth, prototypes, &device));
    let mut sgd = sgd(1e-6).init();
    let groups = crops.map(|(n, size)| Tensor::<4>::random([n * batch, 3, size, size], NORMAL, &device));
    let all = crops[0].0 + crops[1].0;
    let flops = |(n, size): (usize, usize)| resnet::forward_flops(depth, size, n * batch, 0);
    let flops = crops.map(flops).iter().sum::<f64>() + (all * batch) as f64 * swav::head_flops(depth, prototypes);
    bench.run(name, Some(3.0 * flops), || {
        let network = model.take().expect("put back by the last step").normalize_prototypes();
        let gradients = GradientsParams::from_grads(network.loss(&groups, all).backward(), &network);
        model = Some(sgd.step(0.0, network, gradients));
    });
}

/// SGD with momentum 0.9.
fn sgd(weight_decay: f32) -> SgdConfig {
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0).with_nesterov(false);
    SgdConfig::new().with_momentum(Some(momentum)).with_weight_decay(Some(WeightDecayConfig::new(weight_decay)))
}
