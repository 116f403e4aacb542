//! Steps in f16 against steps in f32; overflow, and what the scale of the loss does.

use super::*;

/// What f16 may change, relative to the norm: its roundings are 5e-4 each, and a gradient passes through about twenty layers.
const GRADIENTS: f64 = 0.05;

/// The network is so small that its gradients are large: a low scale keeps them within f16.
const SCALE: f32 = 256.0;

fn half(micro_batches: usize) -> StepSettings {
    let loss_scaling = LossScaling { initial: SCALE, ..LossScaling::default() };
    StepSettings { precision: Precision::F16, loss_scaling, ..settings(BATCH, micro_batches, TRAINING) }
}

/// Scale, clean steps since it last moved, skipped steps.
fn scale(rig: &Rig) -> [f32; 3] {
    let id = rig.runner.variables().loss_scale.expect("a step in f16 scales its loss");
    rig.store.read(&GPU, id).unwrap()[..3].try_into().unwrap()
}

fn set_scale(rig: &Rig, scale: f32) {
    rig.store.write(&GPU, rig.runner.variables().loss_scale.unwrap(), &[scale, 0.0, 0.0, 0.0]).unwrap();
}

/// What an update moves: parameters, but the prototypes, which are scaled to unit length in any case, and momentum.
fn trained(rig: &Rig) -> [Values; 2] {
    let fixed = |name: &str| name.contains("running") || name.starts_with("prototypes");
    let values = rig.values().into_iter().filter(|(name, _)| !fixed(name)).collect();
    [values, rig.model.parameters.read_momentum(&GPU, &rig.store).unwrap()]
}

fn scaled(gradients: &Values, factor: f32) -> Vec<f32> {
    flat(gradients).iter().map(|g| g * factor).collect()
}

#[test]
fn gradients_are_those_of_f32() {
    for (micro_batches, batch_norm) in [(1, BatchNormMode::Evaluation), (1, TRAINING), (2, TRAINING)] {
        let mut rigs = [settings(BATCH, micro_batches, batch_norm), StepSettings { batch_norm, ..half(micro_batches) }].map(Rig::new);
        let start = flat(&rigs[0].values());
        let [want, got] = rigs.each_mut().map(|rig| rig.step(&images(0), 0.5, false));
        let limit = if batch_norm == TRAINING { GRADIENTS } else { GRADIENTS / 10.0 };
        println!("{micro_batches} {batch_norm:?} loss {} {}", got.loss, want.loss);
        println!("codes differ by {}", relative(&got.codes, &want.codes));
        println!("{:?}", scale(&rigs[1]));
        let error = relative(&scaled(&got.gradients, 1.0 / SCALE), &flat(&want.gradients));
        println!("gradients differ by {error}");
        // The optimiser divides by the scale: norms and ratios are those of f32.
        let [wide, narrow] = rigs.map(|rig| flat(&rig.values()).iter().zip(&start).map(|(a, b)| a - b).collect::<Vec<f32>>());
        println!("update {:e} {limit}", relative(&narrow, &wide));
        // How much it is to round the weights alone.
        let mut rounded = Rig::new(settings(BATCH, micro_batches, batch_norm));
        let values: Values =
            (rounded.values().into_iter()).map(|(name, v)| (name, v.iter().map(|v| f32::from_bits(v.to_bits() & 0xffff_e000)).collect())).collect();
        rounded.model.parameters.write(&GPU, &rounded.store, &values).unwrap();
        let other = rounded.step(&images(0), 0.5, false);
        println!("rounded weights: gradients differ by {}", relative(&flat(&other.gradients), &flat(&want.gradients)));
    }
}

/// Sums over both groups of crops are formed in f32 from one copy of each weight: nothing of f16 is left in the gradients.
#[test]
fn weights_are_copied_once_and_their_gradients_never_rounded() {
    let (mut model, settings) = (model(), half(1));
    let variables = StepVariables::new(&mut model, &settings);
    let part = record(&model, &settings, &variables, QueueUse::Absent, false).remove(0);
    let nodes = part.graph.nodes();
    let casts = nodes.iter().filter(|n| n.op.name() == "cast").count();
    let convolutions = model.backbone.tensors().iter().filter(|s| s.name.contains("conv") || s.name.contains("downsample.0")).count();
    assert_eq!(casts, convolutions + CROPS.len(), "one for each weight, one for each group of images");
    for node in nodes.iter().filter(|n| n.op.name() == "conv2d_weight_gradient") {
        assert_eq!(part.graph.info(node.outputs[0]).dtype, swav_wgpu::graph::DType::F32);
    }
}

#[test]
fn an_overflow_skips_the_step_and_halves_the_scale() {
    for micro_batches in [1, 2] {
        let mut rig = Rig::new(half(micro_batches));
        rig.step(&images(0), 0.5, false);
        let before = trained(&rig);
        let absurd = 2.0_f32.powi(40);
        set_scale(&rig, absurd);
        let spoiled = rig.step(&images(1), 0.5, false);
        assert!(spoiled.loss.is_finite() && flat(&spoiled.gradients).iter().any(|g| !g.is_finite()));
        assert!(trained(&rig) == before, "parameters and momentum, bit for bit");
        assert_eq!(scale(&rig), [absurd / 2.0, 0.0, 1.0]);
        // It halves until training goes on.
        let mut skipped = 1.0;
        loop {
            rig.step(&images(1), 0.5, false);
            let [now, clean, in_all] = scale(&rig);
            if clean > 0.0 {
                assert_eq!((now, in_all), (absurd * 0.5_f32.powf(skipped), skipped));
                break;
            }
            skipped += 1.0;
            assert_eq!((now, in_all), (absurd * 0.5_f32.powf(skipped), skipped));
            assert!(skipped < 40.0);
        }
        let after = trained(&rig);
        assert!(after[0] != before[0] && after.iter().all(|values| flat(values).iter().all(|v| v.is_finite())));
    }
}

#[test]
fn clean_steps_double_the_scale_up_to_its_limit() {
    let scaling = LossScaling { initial: 1024.0, growth_steps: 2, largest: 4096.0 };
    let mut rig = Rig::new(StepSettings { loss_scaling: scaling, ..half(1) });
    let mut seen = Vec::new();
    for step in 0..7 {
        rig.step(&images(step), 0.1, false);
        seen.push((scale(&rig)[0], scale(&rig)[1]));
    }
    assert_eq!(seen, [(1024.0, 1.0), (2048.0, 0.0), (2048.0, 1.0), (4096.0, 0.0), (4096.0, 1.0), (4096.0, 0.0), (4096.0, 1.0)]);
}

/// Images beyond f16 make every activation, the loss and all gradients infinite or NaN.
#[test]
fn an_overflow_on_the_way_forward_spoils_nothing() {
    let mut rig = Rig::new(half(1));
    rig.step(&images(0), 0.5, false);
    let before = trained(&rig);
    let beyond: Vec<Vec<f32>> = images(1).into_iter().map(|group| group.into_iter().map(|v| v * 1e6).collect()).collect();
    let spoiled = rig.step(&beyond, 0.5, false);
    assert!(!spoiled.loss.is_finite());
    assert!(trained(&rig) == before, "parameters and momentum, bit for bit");
    assert_eq!(scale(&rig), [SCALE / 2.0, 0.0, 1.0]);
    assert!(rig.values().values().flatten().all(|v| v.is_finite()), "running statistics among them");
    assert!(rig.step(&images(2), 0.5, false).loss.is_finite() && trained(&rig) != before);
}

#[test]
fn recomputation_in_f16_changes_no_bit() {
    let mut rigs = [Recompute::None, Recompute::Stage, Recompute::Block].map(|recompute| Rig::new(StepSettings { recompute, ..half(1) }));
    let [plain, stage, block] = rigs.each_mut().map(|rig| rig.step(&images(0), 0.5, false));
    assert!(plain.gradients == stage.gradients && plain.gradients == block.gradients);
    assert!(trained(&rigs[0]) == trained(&rigs[1]) && trained(&rigs[0]) == trained(&rigs[2]));
}

/// Adapters without f16 in shaders store it packed and compute in f32.
#[test]
fn packed_f16_trains_like_f16() {
    let mut gpu = Gpu::open(None).unwrap();
    gpu.forget_f16();
    let (mut native, mut packed) = (Rig::new(half(1)), Rig::on(&gpu, half(1)));
    for step in 0..2 {
        let (want, got) = (native.step(&images(step), 0.5, false), packed.step_on(&gpu, &images(step), 0.5, false));
        let error = relative(&flat(&got.gradients), &flat(&want.gradients));
        println!("packed {error:e} {} {}", got.loss, want.loss);
        assert!(error < GRADIENTS && (got.loss - want.loss).abs() < 0.01 * want.loss, "step {step}: gradients differ by {error}");
    }
}

/// The curve of a short run: the same within a hundredth.
#[test]
fn losses_over_a_run_are_those_of_f32() {
    const STEPS: u64 = 40;
    let curves = [settings(BATCH, 1, TRAINING), half(1)].map(|settings| {
        let mut rig = Rig::new(settings);
        (0..STEPS).map(|step| f64::from(rig.step(&images(step % 4), 2.0, false).loss)).collect::<Vec<f64>>()
    });
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    for part in [0..10, 10..20, 20..30, 30..40] {
        let [wide, narrow] = curves.each_ref().map(|losses| mean(&losses[part.clone()]));
        println!("{part:?} {wide} {narrow}");
        assert!((narrow - wide).abs() < 0.01 * wide, "steps {part:?}: {narrow} in f16, {wide} in f32");
    }
    assert!(mean(&curves[0][30..]) < 0.8 * mean(&curves[0][..4]), "it must learn: {:?}", curves[0]);
}
