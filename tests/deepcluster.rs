//! DeepCluster-v2 against a run recorded with PyTorch in float64 (`tests/golden/generate_deepcluster.py`), and k-means on the device against
//! plain loops.

use serde_json::Value;
use std::path::Path;
use std::sync::LazyLock;
use swav_wgpu::data::rng::Stream;
use swav_wgpu::gpu::Gpu;
use swav_wgpu::graph::Store;
use swav_wgpu::nn::architecture::{Backbone, Block, Head, Stem};
use swav_wgpu::nn::{Images, Recompute, Values};
use swav_wgpu::ops::BatchNormMode;
use swav_wgpu::optim::{LossScaling, Optimizer, OptimizerKind};
use swav_wgpu::swav::deepcluster::{Assigner, DeepCluster, FirstPass};
use swav_wgpu::swav::{Crops, Precision, SinkhornScope, StepInputs, StepSettings, SwavModel};
use swav_wgpu::train::nhwc4;
use swav_wgpu::tune::BestGuess;
use swav_wgpu::weights::{TensorFile, read_safetensors};

static GPU: LazyLock<Gpu> =
    LazyLock::new(|| Gpu::open_checked(None).unwrap_or_else(|e| panic!("these tests need a Vulkan, Metal or DX12 adapter, software will do: {e}")));

/// A batch norm follows it, so its true gradient is 0 and only rounding noise could be compared.
const NOISE: &str = "projection_head.0.bias";

struct Recorded {
    file: TensorFile,
    about: Value,
}

impl Recorded {
    fn open() -> Self {
        let file = read_safetensors(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/deepcluster.safetensors")).unwrap();
        let about = serde_json::from_str(&file.metadata()["deepcluster"]).unwrap();
        Self { file, about }
    }

    fn count(&self, key: &str) -> usize {
        usize::try_from(self.about[key].as_u64().unwrap()).unwrap()
    }

    fn number(&self, key: &str) -> f32 {
        self.about[key].as_f64().unwrap() as f32
    }

    fn numbers(&self, name: &str) -> Vec<u32> {
        self.file.i64(name).unwrap().iter().map(|v| u32::try_from(*v).unwrap()).collect()
    }

    fn settings(&self) -> StepSettings {
        let pair = |v: &Value| Crops { count: v[0].as_u64().unwrap() as usize, size: v[1].as_u64().unwrap() as usize };
        StepSettings {
            crops: self.about["crops"].as_array().unwrap().iter().map(pair).collect(),
            batch: self.count("batch"),
            temperature: self.number("temperature"),
            epsilon: 0.05,
            sinkhorn_iterations: 3,
            crops_for_assign: self.about["assign"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect(),
            queue_rows: 0,
            optimizer: Optimizer {
                kind: OptimizerKind::Larc,
                momentum: self.number("momentum"),
                weight_decay: self.number("weight_decay"),
                trust: self.number("trust"),
                eps: 1e-8,
            },
            micro_batches: 1,
            sinkhorn: SinkhornScope::Global,
            batch_norm: BatchNormMode::Training { momentum: 0.1 },
            images: Images::Normalized,
            recompute: Recompute::Norm,
            precision: Precision::F32,
            loss_scaling: LossScaling::default(),
        }
    }

    fn model(&self) -> SwavModel {
        let backbone = Backbone { block: Block::Basic, blocks: vec![1; 4], width: self.count("width"), stem: Stem::Standard };
        let (hidden, feat_dim, prototypes) = (self.count("hidden"), self.count("feat_dim"), self.count("clusters"));
        SwavModel::new(backbone, Head { hidden, feat_dim, prototypes, heads: Some(self.count("heads")) }, GPU.caps().max_binding_bytes)
    }

    fn values(&self, prefix: &str, model: &SwavModel) -> Values {
        let all = model.parameters.names().filter(|n| self.file.contains(&format!("{prefix}/{n}")));
        all.map(|n| (n.to_owned(), self.file.f32(&format!("{prefix}/{n}")).unwrap().data)).collect()
    }

    /// Groups of crops in stored form.
    fn crops(&self, name: &str, settings: &StepSettings) -> Vec<Vec<f32>> {
        let group = |(i, c): (usize, &Crops)| {
            let crops = self.file.f32(&format!("{name}/{i}")).unwrap();
            nhwc4(&crops.data, c.count * settings.batch, c.size, c.size)
        };
        settings.crops.iter().enumerate().map(group).collect()
    }
}

/// Norm of the difference over the norm of the reference.
fn relative(ours: &[f32], reference: &[f32]) -> f64 {
    assert_eq!(ours.len(), reference.len());
    let square = |v: f64| v * v;
    let difference: f64 = ours.iter().zip(reference).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    (difference / reference.iter().map(|v| square(f64::from(*v))).sum::<f64>().max(1e-30)).sqrt()
}

fn joined(values: &Values, keep: impl Fn(&str) -> bool) -> Vec<f32> {
    values.iter().filter(|(name, _)| *name != NOISE && keep(name)).flat_map(|(_, v)| v).copied().collect()
}

fn slices(groups: &[Vec<f32>]) -> Vec<&[u8]> {
    groups.iter().map(|group| bytemuck::cast_slice(group)).collect()
}

#[test]
fn a_recorded_run_is_reproduced() {
    let (recorded, gpu) = (Recorded::open(), &*GPU);
    let (model, settings) = (recorded.model(), recorded.settings());
    let store: Store = model.parameters.allocate(gpu).unwrap();
    let initial = recorded.values("init", &model);
    assert_eq!(initial.len(), model.parameters.names().count());
    model.parameters.write(gpu, &store, &initial).unwrap();
    let mut runner = DeepCluster::new(&model, settings.clone(), recorded.count("images"));
    let batch = settings.batch;
    let per_epoch = recorded.count("images") / batch;

    let mut pass = FirstPass::new(gpu, &model, &store, &BestGuess, &settings).unwrap();
    for step in 0..per_epoch {
        let crops = recorded.crops(&format!("first/crops/{step}"), &settings);
        let embeddings = pass.run(gpu, &slices(&crops)).unwrap();
        runner.remember(step * batch, &recorded.numbers(&format!("first/images/{step}")), &embeddings).unwrap();
    }
    let expected_losses = recorded.file.f64("loss").unwrap();
    let lr: Vec<f64> = recorded.about["lr"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    for (step, expected) in expected_losses.iter().enumerate() {
        let (epoch, within) = (step / per_epoch, step % per_epoch);
        if within == 0 {
            let first = |head: usize| recorded.numbers(&format!("start/{epoch}/{head}"));
            runner.cluster(gpu, &model, &store, &BestGuess, recorded.count("iterations") as u32, first).unwrap();
            let labels = recorded.file.i64(&format!("labels/{epoch}")).unwrap();
            let prototypes = model.parameters.read(gpu, &store).unwrap();
            for head in 0..recorded.count("heads") {
                let images = recorded.count("images");
                assert_eq!(runner.labels().head(head), &labels[head * images..(head + 1) * images], "epoch {epoch}, head {head}");
                let centroids = recorded.file.f32(&format!("centroids/{epoch}/{head}")).unwrap().data;
                let error = relative(&prototypes[&model.head.prototypes_name(head)], &centroids);
                assert!(error < 1e-4, "epoch {epoch}, head {head}: centroids are off by {error:.1e}");
            }
        }
        let crops = recorded.crops(&format!("crops/{step}"), &settings);
        let images = recorded.numbers(&format!("images/{step}"));
        let inputs = StepInputs { crops: &slices(&crops), lr: lr[step], frozen: true, queue_active: false };
        let pending = runner.run(gpu, &model, &store, &BestGuess, &inputs, (within * batch, &images)).unwrap();
        let loss = f64::from(runner.finish(gpu, pending).unwrap().scalar("loss"));
        assert!((loss - expected).abs() < 2e-4, "step {step}: {loss} instead of {expected}");
        if step == 0 {
            let (ours, theirs) = (model.parameters.read_gradients(gpu, &store).unwrap(), recorded.values("grad0", &model));
            let error = relative(&joined(&ours, |_| true), &joined(&theirs, |_| true));
            assert!(error < 1e-4, "gradients are off by {error:.1e}");
            for (name, gradient) in theirs.iter().filter(|(name, _)| *name != NOISE) {
                let error = relative(&ours[name], gradient);
                assert!(error < 1e-3, "the gradient of {name} is off by {error:.1e}");
            }
        }
    }
    for bank in 0..settings.crops_for_assign.len() {
        let error = relative(runner.memory().bank(bank), &recorded.file.f32(&format!("memory/{bank}")).unwrap().data);
        // The last embeddings: the rounding of all steps, the smallest variances multiply it most.
        assert!(error < 3e-4, "bank {bank} is off by {error:.1e}");
    }
    let (ours, theirs) = (model.parameters.read(gpu, &store).unwrap(), recorded.values("final", &model));
    let update = |values: &Values| -> Vec<f32> {
        let pairs = values.iter().filter(|(name, _)| *name != NOISE && !name.contains("running_") && !name.starts_with("prototypes"));
        pairs.flat_map(|(name, v)| v.iter().zip(&initial[name]).map(|(v, i)| v - i)).collect()
    };
    let error = relative(&update(&ours), &update(&theirs));
    assert!(error < 1e-3, "updates are off by {error:.1e}");
    for part in ["running_mean", "running_var"] {
        let error = relative(&joined(&ours, |n| n.ends_with(part)), &joined(&theirs, |n| n.ends_with(part)));
        assert!(error < 1e-4, "{part} is off by {error:.1e}: the first pass must move it too");
    }
    assert_eq!(gpu.overruns().unwrap(), Some(0), "accesses beyond a binding");
}

#[test]
fn assignment_in_tiles_is_that_of_plain_loops() {
    // A tile of 32 MiB has 2,796 rows of 3,000 products: here are two tiles and a bit.
    let (rows, dim, clusters) = (6_001, 7, 2_999);
    let mut stream = Stream::new(9, 0, 0, 0);
    let mut unit = |count: usize| -> Vec<f32> {
        let mut all = Vec::new();
        for _ in 0..count {
            let row: Vec<f64> = (0..dim).map(|_| stream.normal()).collect();
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            all.extend(row.iter().map(|v| (v / norm) as f32));
        }
        all
    };
    let (bank, mut centroids) = (unit(rows), unit(clusters));
    // The last hundred repeat the first: they must get nobody.
    let again = clusters - 100;
    centroids.copy_within(..100 * dim, again * dim);
    let mut assigner = Assigner::new(&GPU, &BestGuess, rows, dim, clusters).unwrap();
    let labels = assigner.assign(&GPU, &bank, &centroids).unwrap();
    assert_eq!(labels.len(), rows);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    let mut repeated = 0;
    for (row, &label) in bank.chunks_exact(dim).zip(&labels) {
        let best = centroids.chunks_exact(dim).map(|c| dot(row, c)).fold(f64::MIN, f64::max);
        let label = label as usize;
        assert!(dot(row, &centroids[label * dim..(label + 1) * dim]) > best - 1e-6);
        assert!(label < again, "of equal centroids the first is taken");
        repeated += usize::from(label < 100);
    }
    assert!(repeated > 50, "{repeated}");
    // Other centroids through the same program, and the same bits again.
    let other = unit(clusters);
    assert_ne!(assigner.assign(&GPU, &bank, &other).unwrap(), labels);
    assert_eq!(assigner.assign(&GPU, &bank, &centroids).unwrap(), labels);
    assert_eq!(GPU.overruns().unwrap(), Some(0), "accesses beyond a binding");
}
