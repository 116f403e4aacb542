//! Steps in f16 against steps in f32; overflow, and what the scale of the loss does.

use super::*;

/// How far all gradients may be from those of f32, relative to their norm, where batch norm has fixed statistics. To round the weights to
/// f16 and compute all else in f32 moves them by 9.5e-3; f16 by 7.6e-3.
const FIXED: f64 = 0.02;
/// The same with statistics of batches as small as here, some of 24 values: to round the weights alone moves them by 0.06 to 0.18, f16 by
/// 0.13 to 0.18.
const TRAINED: f64 = 0.3;

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
    for (micro_batches, batch_norm) in [(1, BatchNormMode::Evaluation), (4, BatchNormMode::Evaluation), (1, TRAINING), (2, TRAINING)] {
        let mut rigs = [settings(BATCH, micro_batches, batch_norm), StepSettings { batch_norm, ..half(micro_batches) }].map(Rig::new);
        let start = flat(&rigs[0].values());
        let [want, got] = rigs.each_mut().map(|rig| rig.step(&images(0), 0.5, false));
        let limit = if batch_norm == TRAINING { TRAINED } else { FIXED };
        let case = format!("{micro_batches} micro-batches, {batch_norm:?}");
        assert!((got.loss - want.loss).abs() < 0.01 * want.loss, "{case}: losses {} and {}", got.loss, want.loss);
        assert!(relative(&got.codes, &want.codes) < 0.05, "{case}: codes differ by {}", relative(&got.codes, &want.codes));
        assert_eq!(scale(&rigs[1]), [SCALE, 1.0, 0.0]);
        let error = relative(&scaled(&got.gradients, 1.0 / SCALE), &flat(&want.gradients));
        assert!(error > 1e-4 && error < limit, "{case}: gradients differ by {error}");
        // The optimiser divides by the scale: norms and ratios are those of f32.
        let [wide, narrow] = rigs.map(|rig| flat(&rig.values()).iter().zip(&start).map(|(a, b)| a - b).collect::<Vec<f32>>());
        assert!(relative(&narrow, &wide) < limit, "{case}: updates differ by {}", relative(&narrow, &wide));
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

/// Images beyond f16 make the activations infinite or NaN, and with them gradients, whatever becomes of the loss.
#[test]
fn an_overflow_on_the_way_forward_spoils_nothing() {
    let mut rig = Rig::new(half(1));
    rig.step(&images(0), 0.5, false);
    let before = trained(&rig);
    let beyond: Vec<Vec<f32>> = images(1).into_iter().map(|group| group.into_iter().map(|v| v * 1e6).collect()).collect();
    rig.step(&beyond, 0.5, false);
    assert!(trained(&rig) == before, "parameters and momentum, bit for bit");
    assert_eq!(scale(&rig), [SCALE / 2.0, 0.0, 1.0]);
    assert!(rig.values().values().flatten().all(|v| v.is_finite()), "running statistics among them");
    assert!(rig.step(&images(2), 0.5, false).loss.is_finite() && trained(&rig) != before);
}

#[test]
fn a_spoiled_step_leaves_the_queue_clean() {
    for micro_batches in [1, 2] {
        let mut rig = Rig::new(StepSettings { queue_rows: 2 * BATCH, ..half(micro_batches) });
        let name = "projection_head.3.bias";
        let good = rig.values()[name].clone();
        let write = |rig: &Rig, value: Vec<f32>| rig.model.parameters.write(&GPU, &rig.store, &Values::from([(name.to_owned(), value)])).unwrap();
        rig.step(&images(0), 0.0, true);
        write(&rig, vec![f32::NAN; good.len()]);
        assert!(!rig.step(&images(1), 0.0, true).loss.is_finite());
        assert_eq!(scale(&rig), [SCALE / 2.0, 0.0, 1.0]);
        write(&rig, good);
        assert!(rig.runner.queue_is_full());
        for queue in rig.runner.queue().0 {
            let rows = rig.store.read(&GPU, *queue).unwrap();
            let zeros = rows.iter().filter(|v| **v == 0.0).count();
            assert!(rows.iter().all(|v| v.is_finite()) && zeros >= rows.len() / 2, "{zeros} of {}", rows.len());
        }
        let after = rig.step(&images(2), 0.0, true);
        assert!(after.loss.is_finite() && after.codes.iter().all(|q| q.is_finite()), "{micro_batches} micro-batches: {}", after.loss);
    }
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
    let gpu = Gpu::open_without_f16(None).unwrap();
    let settings = || StepSettings { batch_norm: BatchNormMode::Evaluation, ..half(1) };
    let (mut native, mut packed) = (Rig::new(settings()), Rig::on(&gpu, settings()));
    for step in 0..2 {
        let (want, got) = (native.step(&images(step), 0.5, false), packed.step_on(&gpu, &images(step), 0.5, false));
        let error = relative(&flat(&got.gradients), &flat(&want.gradients));
        assert!(error < FIXED && (got.loss - want.loss).abs() < 0.01 * want.loss, "step {step}: gradients differ by {error}");
    }
}
