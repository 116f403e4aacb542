//! Whole training steps.

use super::case::{Case, Ready};
use super::kernels::{ending, normal};
use crate::data::rng::Stream;
use crate::gpu::Gpu;
use crate::graph::{DType, Graph, Program, Variants};
use crate::nn::architecture::{Backbone, Block, Head, Stem, TensorKind, TensorSpec};
use crate::nn::{Init, Parameters, Recompute, ResNet, initial_values};
use crate::ops::BatchNormMode;
use crate::optim::{LossScaling, Optimizer, OptimizerKind};
use crate::swav::{Crops, Precision, QueueUse, SinkhornScope, StepSettings, StepVariables, SwavModel, crops_name, record};
use crate::train::config::DataConfig;
use crate::train::plan::images;

/// A network for small images.
pub(super) fn small() -> Backbone {
    Backbone { block: Block::Basic, blocks: vec![1; 4], width: 16, stem: Stem::Standard }
}

/// Supervised training of torchvision's ResNet with 1000 classes: SGD, momentum 0.9, weight decay 1e-4.
pub(super) fn supervised(depth: usize, size: usize, batch: usize, recompute: Recompute) -> Case {
    let build = move |gpu: &Gpu, variants: &dyn Variants| {
        let backbone = Backbone::resnet(depth).expect("a usual depth");
        let mut specs = backbone.tensors();
        let spec = |name: &str, shape: Vec<usize>, kind| TensorSpec { name: name.into(), shape, kind };
        specs.push(spec("fc.weight", vec![1000, backbone.features()], TensorKind::LinearWeight));
        specs.push(spec("fc.bias", vec![1000], TensorKind::LinearBias));
        let parameters = Parameters::new(&specs, |_| true, gpu.caps().max_binding_bytes);
        let graph = Graph::new();
        let images = graph.input("images", &[batch, size, size, 3], DType::F32);
        let labels = graph.input("labels", &[batch], DType::U32);
        let mode = BatchNormMode::Training { momentum: 0.1 };
        let resnet = ResNet { backbone: &backbone, parameters: &parameters, mode, recompute };
        let pooled = resnet.forward(&images).global_avg_pool2d();
        let tensor = |name| parameters.tensor(&graph, name);
        let loss = pooled.linear(&tensor("fc.weight"), Some(&tensor("fc.bias"))).cross_entropy(&labels);
        parameters.record_gradients(&loss, None);
        let step = graph.input("step", &[4], DType::F32);
        let sgd = Optimizer { kind: OptimizerKind::Sgd, momentum: 0.9, weight_decay: 1e-4, trust: 0.0, eps: 0.0 };
        sgd.record(&graph, &parameters, &step, |_| false);
        let store = parameters.allocate(gpu)?;
        let init = Init { seed: 0, zero_init_residual: false, block: backbone.block, classifier_std: Some(0.01) };
        parameters.write(gpu, &store, &initial_values(&specs, &init))?;
        let mut program = Program::new(gpu, &store, &graph, &[("loss", &loss)], variants)?;
        let pixels = normal(0, &[batch, size, size, 3], 1.0);
        // A rate of 0 keeps the weights. Trained on one batch for long, gradients become subnormal numbers, which processors are slow at.
        let step = [0.0_f32; 4];
        program.run_only(gpu, &[("images", bytemuck::cast_slice(&pixels)), ("step", bytemuck::cast_slice(&step))])?;
        Ok(Ready::started(program, store))
    };
    let backbone = Backbone::resnet(depth).expect("a usual depth");
    // Three forwards of convolutions and classifier.
    let macs = 3 * batch * (backbone_macs(&backbone, size) + backbone.features() * 1000);
    Case::new(format!("resnet{depth}_step_{size}_b{batch}"), build).macs(macs).images(batch).step()
}

/// Multiply-adds of the convolutions for one image of `size` pixels.
fn backbone_macs(backbone: &Backbone, size: usize) -> usize {
    let model = SwavModel::new(backbone.clone(), Head { hidden: 0, feat_dim: 4, prototypes: 4, heads: None }, u64::MAX);
    let graph = Graph::new();
    let images = graph.input("images", &[1, size, size, 3], DType::F32);
    let resnet = ResNet { backbone: &model.backbone, parameters: &model.parameters, mode: BatchNormMode::Evaluation, recompute: Recompute::None };
    let _ = resnet.forward(&images);
    let convolutions: u64 = graph.nodes().iter().filter(|n| n.op.name() == "conv2d").map(|n| n.op.flops(&graph, n)).sum();
    usize::try_from(convolutions).expect("operations that fit the address space")
}

/// Uniform bytes.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut stream = Stream::new(seed, 0, 0, 0);
    (0..count).map(|_| u8::try_from(stream.below(256)).expect("less than 256")).collect()
}

/// Feature dimensions of a projection.
const FEAT_DIM: usize = 128;

/// A SwAV step of the official code's kind, with two groups of crops (how many, of which size), a projection of two layers and LARC.
pub(super) fn swav(
    network: &str,
    backbone: Backbone,
    (precision, recompute): (Precision, Recompute),
    batch: usize,
    groups: [(usize, usize); 2],
    prototypes: usize,
) -> Case {
    let [large, small] = groups.map(|(count, size)| format!("{count}x{size}"));
    let name = format!("swav_step_{network}_{large}_{small}_b{batch}{}", ending(precision.dtype()));
    // Three forwards of every crop: convolutions, projection and prototypes.
    let features = backbone.features();
    let head = features * features + features * FEAT_DIM + FEAT_DIM * prototypes;
    let macs = 3 * batch * groups.map(|(count, size)| count * (backbone_macs(&backbone, size) + head)).iter().sum::<usize>();
    let build = move |gpu: &Gpu, variants: &dyn Variants| {
        let head = Head { hidden: backbone.features(), feat_dim: FEAT_DIM, prototypes, heads: None };
        let mut model = SwavModel::new(backbone.clone(), head, gpu.caps().max_binding_bytes);
        let settings = StepSettings {
            crops: groups.map(|(count, size)| Crops { count, size }).to_vec(),
            images: images(&DataConfig::default()),
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
            recompute,
            precision,
            loss_scaling: LossScaling::default(),
        };
        let variables = StepVariables::new(&mut model, &settings);
        let step = record(&model, &settings, &variables, QueueUse::Absent, false).remove(0);
        let store = model.parameters.allocate(gpu)?;
        let specs = SwavModel::specs(&model.backbone, &model.head);
        let init = Init { seed: 0, zero_init_residual: false, block: model.backbone.block, classifier_std: Some(0.01) };
        model.parameters.write(gpu, &store, &initial_values(&specs, &init))?;
        let mut program = Program::new(gpu, &store, &step.graph, &step.named_outputs(), variants)?;
        // Bytes, as the loader gives them; a rate of 0, as in the supervised step.
        let crops: Vec<Vec<u8>> =
            settings.crops.iter().zip(0..).map(|(c, i)| noise(i, c.count * batch * settings.images.bytes([c.size; 2]))).collect();
        let names: Vec<String> = (0..crops.len()).map(crops_name).collect();
        let mut inputs: Vec<(&str, &[u8])> = names.iter().zip(&crops).map(|(name, pixels)| (name.as_str(), pixels.as_slice())).collect();
        let rates = [0.0_f32; 4];
        inputs.push(("step", bytemuck::cast_slice(&rates)));
        program.run_only(gpu, &inputs)?;
        Ok(Ready::started(program, store))
    };
    Case::new(name, build).macs(macs).images(batch).step()
}
