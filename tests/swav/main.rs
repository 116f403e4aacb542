//! The training step: micro-batches, recomputation and f16 against the plain step.

mod half;

use std::sync::LazyLock;
use swav_wgpu::data::rng::Stream;
use swav_wgpu::gpu::Gpu;
use swav_wgpu::graph::{Store, Variants, lower, plan};
use swav_wgpu::nn::architecture::{Backbone, Block, Head, Stem};
use swav_wgpu::nn::{Images, Init, Recompute, Values, initial_values};
use swav_wgpu::ops::{BatchNormMode, PixelStatistics};
use swav_wgpu::optim::{LossScaling, Optimizer, OptimizerKind};
use swav_wgpu::swav::{Crops, Precision, QueueUse, SinkhornScope, StepInputs, StepRunner, StepSettings, StepVariables, SwavModel, record};
use swav_wgpu::tune::BestGuess;

static GPU: LazyLock<Gpu> =
    LazyLock::new(|| Gpu::open_checked(None).unwrap_or_else(|e| panic!("these tests need a Vulkan, Metal or DX12 adapter, software will do: {e}")));

const BATCH: usize = 8;
const CROPS: [Crops; 2] = [Crops { count: 2, size: 24 }, Crops { count: 3, size: 16 }];
const TRAINING: BatchNormMode = BatchNormMode::Training { momentum: 0.1 };

fn settings(batch: usize, micro_batches: usize, batch_norm: BatchNormMode) -> StepSettings {
    StepSettings {
        crops: CROPS.to_vec(),
        batch,
        micro_batches,
        sinkhorn: SinkhornScope::Global,
        temperature: 0.1,
        epsilon: 0.05,
        sinkhorn_iterations: 3,
        crops_for_assign: vec![0, 1],
        queue_rows: 0,
        optimizer: Optimizer { kind: OptimizerKind::Lars, momentum: 0.9, weight_decay: 1e-4, trust: 0.001, eps: 1e-8 },
        batch_norm,
        images: Images::Normalized,
        recompute: Recompute::None,
        precision: Precision::F32,
        loss_scaling: LossScaling::default(),
    }
}

fn model() -> SwavModel {
    let backbone = Backbone { block: Block::Bottleneck, blocks: vec![1, 2, 1, 1], width: 4, stem: Stem::Standard };
    SwavModel::new(backbone, Head { hidden: 24, feat_dim: 12, prototypes: 14, heads: None }, GPU.caps().max_binding_bytes)
}

/// A runner with its network, initialised alike every time.
struct Rig {
    model: SwavModel,
    runner: StepRunner,
    store: Store,
}

/// What a step gives.
struct Stepped {
    loss: f32,
    codes: Vec<f32>,
    gradients: Values,
}

impl Rig {
    fn new(settings: StepSettings) -> Self {
        Self::on(&GPU, settings)
    }

    fn on(gpu: &Gpu, settings: StepSettings) -> Self {
        let mut model = model();
        let runner = StepRunner::new(&mut model, settings, true);
        let store = model.parameters.allocate(gpu).unwrap();
        let specs = SwavModel::specs(&model.backbone, &model.head);
        let init = Init { seed: 3, zero_init_residual: false, block: model.backbone.block, classifier_std: Some(0.01) };
        model.parameters.write(gpu, &store, &initial_values(&specs, &init)).unwrap();
        Self { model, runner, store }
    }

    fn step<T: bytemuck::Pod>(&mut self, crops: &[Vec<T>], lr: f64, queue_active: bool) -> Stepped {
        self.step_on(&GPU, crops, lr, queue_active)
    }

    fn step_on<T: bytemuck::Pod>(&mut self, gpu: &Gpu, crops: &[Vec<T>], lr: f64, queue_active: bool) -> Stepped {
        self.step_with((gpu, &BestGuess), crops, lr, queue_active)
    }

    fn step_with<T: bytemuck::Pod>(&mut self, (gpu, variants): (&Gpu, &dyn Variants), crops: &[Vec<T>], lr: f64, queue_active: bool) -> Stepped {
        let crops: Vec<&[u8]> = crops.iter().map(|crop| bytemuck::cast_slice(crop)).collect();
        let inputs = StepInputs { crops: &crops, lr, frozen: false, queue_active };
        let pending = self.runner.run(gpu, &self.model, &self.store, variants, &inputs).unwrap();
        let outputs = self.runner.finish(gpu, pending).unwrap();
        let gradients = self.model.parameters.read_gradients(gpu, &self.store).unwrap();
        assert_eq!(gpu.overruns().unwrap().unwrap_or(0), 0, "accesses beyond a binding");
        Stepped { loss: outputs.scalar("loss"), codes: outputs.f32("codes"), gradients }
    }

    fn values(&self) -> Values {
        self.model.parameters.read(&GPU, &self.store).unwrap()
    }
}

/// Crops of a batch, a group each, in stored form.
fn images(step: u64) -> Vec<Vec<f32>> {
    let mut stream = Stream::new(7, step, 0, 0);
    // Images differ in their mean, so that micro-batches do too.
    let mut group = |c: &Crops| -> Vec<f32> {
        (0..c.count * BATCH)
            .flat_map(|i| (0..c.size * c.size).flat_map(move |_| [i; 4]).collect::<Vec<_>>())
            .enumerate()
            .map(|(at, image)| if at % 4 == 3 { 0.0 } else { stream.normal() as f32 + (image % BATCH) as f32 * 0.2 })
            .collect()
    };
    CROPS.iter().map(&mut group).collect()
}

/// The images `first .. first + count` of every crop.
fn part(crops: &[Vec<f32>], first: usize, count: usize) -> Vec<Vec<f32>> {
    let one = |(c, data): (&Crops, &Vec<f32>)| {
        let image = data.len() / (c.count * BATCH);
        data.chunks_exact(BATCH * image).flat_map(|crop| &crop[first * image..][..count * image]).copied().collect()
    };
    CROPS.iter().zip(crops).map(one).collect()
}

/// A step from bytes is the step from what they become, to the bit: whole and in micro-batches, in f32 and in f16.
#[test]
fn bytes_are_normalised_on_the_device() {
    let by = PixelStatistics { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    let mut stream = Stream::new(5, 0, 0, 0);
    // Pixels of an image, three numbers each.
    let levels: Vec<Vec<Vec<u8>>> =
        (CROPS.iter()).map(|c| (0..c.count * BATCH).map(|_| (0..3 * c.size * c.size).map(|_| stream.below(256) as u8).collect()).collect()).collect();
    let filled = |c: &Crops, image: &Vec<u8>| {
        let mut pixels: Vec<u8> = image.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 77]).collect();
        pixels.resize(Images::Bytes(by).bytes([c.size; 2]), 99);
        pixels
    };
    let numbers = |p: &[u8]| [by.normalized(p[0], 0), by.normalized(p[1], 1), by.normalized(p[2], 2), 0.0];
    let bytes: Vec<Vec<u8>> = CROPS.iter().zip(&levels).map(|(c, images)| images.iter().flat_map(|image| filled(c, image)).collect()).collect();
    let floats: Vec<Vec<f32>> =
        levels.iter().map(|images| images.iter().flat_map(|image| image.chunks_exact(3).flat_map(numbers)).collect()).collect();
    for (micro_batches, precision) in [(1, Precision::F32), (2, Precision::F32), (1, Precision::F16)] {
        let settings = StepSettings { precision, ..settings(BATCH, micro_batches, TRAINING) };
        let from_floats = Rig::new(settings.clone()).step(&floats, 0.5, false);
        let from_bytes = Rig::new(StepSettings { images: Images::Bytes(by), ..settings }).step(&bytes, 0.5, false);
        assert_eq!(from_bytes.loss.to_bits(), from_floats.loss.to_bits(), "{micro_batches} micro-batches, {precision:?}");
        assert_eq!(from_bytes.gradients, from_floats.gradients, "{micro_batches} micro-batches, {precision:?}");
    }
}

/// Norm of the difference over the norm.
fn relative(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |v: f32| f64::from(v) * f64::from(v);
    let (difference, norm) = a.iter().zip(b).fold((0.0, 0.0), |(d, n), (x, y)| (d + square(x - y), n + square(*y)));
    (difference / f64::max(norm, 1e-30)).sqrt()
}

fn flat(values: &Values) -> Vec<f32> {
    values.iter().filter(|(name, _)| !name.contains("running")).flat_map(|(_, v)| v).copied().collect()
}

#[test]
fn four_micro_batches_are_one_batch_when_batch_norm_does_not_look_at_it() {
    for queue_rows in [0, 2 * BATCH] {
        let with = |micro_batches| StepSettings { queue_rows, ..settings(BATCH, micro_batches, BatchNormMode::Evaluation) };
        let (mut whole, mut parts) = (Rig::new(with(1)), Rig::new(with(4)));
        // The queue is absent, then fills for two steps, then is used.
        for step in 0..5 {
            let crops = images(step);
            let (a, b) = (whole.step(&crops, 0.5, step > 0), parts.step(&crops, 0.5, step > 0));
            assert!(a.loss > 1.0 && (a.loss - b.loss).abs() < 1e-5, "step {step}: losses {} and {}", a.loss, b.loss);
            assert!(relative(&b.codes, &a.codes) < 1e-5, "step {step}: codes differ by {}", relative(&b.codes, &a.codes));
            let (a, b) = (flat(&a.gradients), flat(&b.gradients));
            assert!(a.iter().any(|v| *v != 0.0) && relative(&b, &a) < 1e-5, "step {step}: gradients differ by {}", relative(&b, &a));
        }
        let (a, b) = (flat(&whole.values()), flat(&parts.values()));
        assert!(relative(&b, &a) < 1e-5, "weights after five steps differ by {}", relative(&b, &a));
    }
}

/// Batch norm sees micro-batches, and its running statistics take each of them once, in order; codes still balance the whole batch.
#[test]
fn batch_norm_sees_micro_batches_and_codes_the_whole_batch() {
    let crops = images(0);
    let mut accumulated = Rig::new(settings(BATCH, 2, TRAINING));
    let got = accumulated.step(&crops, 0.0, false);
    let mut separate = Rig::new(settings(BATCH / 2, 1, TRAINING));
    let halves = [0, 1].map(|i| separate.step(&part(&crops, i * BATCH / 2, BATCH / 2), 0.0, false));
    let (ours, expected) = (accumulated.values(), separate.values());
    for (name, value) in ours.iter().filter(|(name, _)| name.contains("running")) {
        assert_eq!(value, &expected[name], "{name}");
    }
    let plain = Rig::new(settings(BATCH, 1, TRAINING)).step(&crops, 0.0, false);
    assert!(got.loss.is_finite() && (got.loss - plain.loss).abs() > 1e-6, "losses {} and {}", got.loss, plain.loss);
    // Each prototype gets its share of the whole batch of a crop, not of each half.
    let share = |codes: &[f32], rows: usize, k: usize| (0..rows).map(|r| codes[r * 14 + k]).sum::<f32>();
    let uneven = (0..14).map(|k| (share(&got.codes, BATCH / 2, k) - 4.0 / 14.0).abs()).fold(0.0, f32::max);
    let even = (0..14).map(|k| (share(&halves[0].codes, BATCH / 2, k) - 4.0 / 14.0).abs()).fold(0.0, f32::max);
    assert!(uneven > 2.0 * even, "a half's share is off by {uneven} with codes of the whole batch, by {even} with its own");
}

/// With local codes every micro-batch is what a device is to mmpretrain: its own codes, its own share of the queue, gradients averaged.
#[test]
fn local_codes_are_those_of_separate_batches() {
    let half = BATCH / 2;
    let local = StepSettings { sinkhorn: SinkhornScope::Local, queue_rows: 2 * BATCH, ..settings(BATCH, 2, TRAINING) };
    let mut accumulated = Rig::new(local);
    let mut devices = [0, 1].map(|_| Rig::new(StepSettings { queue_rows: BATCH, ..settings(half, 1, TRAINING) }));
    for step in 0..4 {
        let crops = images(step);
        let got = accumulated.step(&crops, 0.0, true);
        let alone: Vec<Stepped> = devices.iter_mut().enumerate().map(|(i, d)| d.step(&part(&crops, i * half, half), 0.0, true)).collect();
        let codes: Vec<f32> = (0..2).flat_map(|crop| alone.iter().flat_map(move |s| s.codes[crop * half * 14..][..half * 14].to_vec())).collect();
        assert!(relative(&got.codes, &codes) < 1e-6, "step {step}: codes differ by {}", relative(&got.codes, &codes));
        assert!((got.loss - (alone[0].loss + alone[1].loss) / 2.0).abs() < 1e-5, "step {step}");
        let mean: Vec<f32> = flat(&alone[0].gradients).iter().zip(flat(&alone[1].gradients)).map(|(a, b)| (a + b) / 2.0).collect();
        let error = relative(&flat(&got.gradients), &mean);
        assert!(error < 1e-5, "step {step}: gradients differ by {error}");
    }
}

/// As measurements may have it: forward convolutions with and without statistics take other kernels, which round differently.
struct ByShape;

impl Variants for ByShape {
    fn choose<'v>(&self, op: &str, shape: &str, offered: &[&'v str]) -> &'v str {
        let direct = op != "conv2d" || shape.contains("fused");
        offered.iter().copied().find(|v| v.starts_with("winograd-") != direct).unwrap_or(offered[0])
    }
}

#[test]
fn recomputation_changes_no_bit_and_saves_memory() {
    let with = |recompute, micro_batches| StepSettings { recompute, ..settings(BATCH, micro_batches, TRAINING) };
    let planned = |recompute| {
        let (mut model, settings) = (model(), with(recompute, 1));
        let variables = StepVariables::new(&mut model, &settings);
        let part = record(&model, &settings, &variables, QueueUse::Absent, false).remove(0);
        let keep: Vec<_> = part.outputs.iter().map(|(_, t)| t.id()).collect();
        plan(&lower(&part.graph, &keep, GPU.caps(), &BestGuess), &keep).bytes()
    };
    let [all, norms, stages, blocks] = [Recompute::None, Recompute::Norm, Recompute::Stage, Recompute::Block].map(planned);
    assert!(norms < all && stages < norms && blocks < norms, "planned {all} bytes; computed again: norms {norms}, stages {stages}, blocks {blocks}");
    for (micro_batches, variants) in [(1, &BestGuess as &dyn Variants), (2, &BestGuess), (1, &ByShape)] {
        let mut rigs = [Recompute::None, Recompute::Norm, Recompute::Stage, Recompute::Block].map(|r| Rig::new(with(r, micro_batches)));
        for step in 0..2 {
            let [plain, norm, stage, block] = rigs.each_mut().map(|rig| rig.step_with((&GPU, variants), &images(step), 0.5, false));
            for other in [norm, stage, block] {
                assert_eq!((other.loss, &other.codes), (plain.loss, &plain.codes));
                assert_eq!(other.gradients, plain.gradients);
            }
        }
        let [plain, norm, stage, block] = rigs.map(|rig| rig.values());
        assert!(plain == norm && plain == stage && plain == block, "values, running statistics among them");
    }
}
