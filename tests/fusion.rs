//! Rewrites of graphs: fused and plain graphs of one step compute the same, every rewrite is made where it is due, and what they save.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use swav_wgpu::gpu::{Caps, DeviceKind, Gpu};
use swav_wgpu::graph::{Graph, Launch, Program, Storage, Store, Tensor, TensorId, Variables, Variants, lower, pad_rows, plan};
use swav_wgpu::nn::architecture::{Backbone, Block, Head, Stem};
use swav_wgpu::nn::{Images, Init, Recompute, initial_values};
use swav_wgpu::ops::{BatchNormMode, Rewrite, gradients};
use swav_wgpu::optim::{LossScaling, Optimizer, OptimizerKind};
use swav_wgpu::swav::{Crops, Precision, QueueUse, SinkhornScope, StepPart, StepSettings, StepVariables, SwavModel, record};
use swav_wgpu::tune::{BestGuess, Fusions, Repeat};

#[path = "support/minimal.rs"]
mod minimal;
#[path = "support/random_graph.rs"]
mod random_graph;

use minimal::Minimal;
use random_graph::{Random, batch_norm_parameters, input, random_graph};

static GPU: LazyLock<Gpu> =
    LazyLock::new(|| Gpu::open_checked(None).unwrap_or_else(|e| panic!("these tests need a Vulkan, Metal or DX12 adapter, software will do: {e}")));

/// A step of a small network: blocks with and without a shortcut convolution, strides, two groups of crops of sizes no tile divides.
fn settings(batch: usize, sizes: [usize; 2], precision: Precision, recompute: Recompute) -> StepSettings {
    StepSettings {
        crops: vec![Crops { count: 2, size: sizes[0] }, Crops { count: 3, size: sizes[1] }],
        batch,
        micro_batches: 1,
        sinkhorn: SinkhornScope::Global,
        temperature: 0.1,
        epsilon: 0.05,
        sinkhorn_iterations: 3,
        crops_for_assign: vec![0, 1],
        queue_rows: 0,
        optimizer: Optimizer { kind: OptimizerKind::Sgd, momentum: 0.9, weight_decay: 1e-4, trust: 0.0, eps: 0.0 },
        batch_norm: BatchNormMode::Training { momentum: 0.1 },
        images: Images::Normalized,
        recompute,
        precision,
        loss_scaling: LossScaling::default(),
    }
}

fn step(backbone: &Backbone, settings: &StepSettings) -> (SwavModel, StepVariables, StepPart) {
    let head = Head { hidden: 24, feat_dim: 8, prototypes: 10, heads: None };
    let mut model = SwavModel::new(backbone.clone(), head, GPU.caps().max_binding_bytes);
    let variables = StepVariables::new(&mut model, settings);
    let part = record(&model, settings, &variables, QueueUse::Absent, false).remove(0);
    (model, variables, part)
}

/// Loss, gradients and all tensors after a step, by name; and its dispatches.
fn run(backbone: &Backbone, settings: &StepSettings, variants: &dyn Variants) -> (BTreeMap<String, Vec<f32>>, Program) {
    let (model, variables, part) = step(backbone, settings);
    let store = model.parameters.allocate(&GPU).unwrap();
    if let Some(id) = variables.loss_scale {
        // The usual first scale is too large for so few images.
        store.write(&GPU, id, &[64.0, 0.0, 0.0, 0.0]).unwrap();
    }
    let specs = SwavModel::specs(&model.backbone, &model.head);
    let init = Init { seed: 3, zero_init_residual: false, block: model.backbone.block, classifier_std: Some(0.01) };
    model.parameters.write(&GPU, &store, &initial_values(&specs, &init)).unwrap();
    let mut program = Program::new(&GPU, &store, &part.graph, &part.named_outputs(), variants).unwrap();
    let pixels: Vec<Vec<f32>> = settings.crops.iter().map(|c| images(c.count * settings.batch * c.size * c.size)).collect();
    let mut inputs: Vec<(&str, &[u8])> = ["crops0", "crops1"].into_iter().zip(&pixels).map(|(n, v)| (n, bytemuck::cast_slice(v))).collect();
    let rate = [0.05_f32, 0.0, 0.0, 0.0];
    inputs.push(("step", bytemuck::cast_slice(&rate)));
    let outputs = program.call(&GPU, &inputs).unwrap();
    let mut all = BTreeMap::from([("loss".to_owned(), vec![outputs.scalar("loss")])]);
    let gradients = model.parameters.read_gradients(&GPU, &store).unwrap();
    all.extend(gradients.into_iter().map(|(name, v)| (format!("gradient of {name}"), v)));
    all.extend(model.parameters.read(&GPU, &store).unwrap());
    assert_eq!(GPU.overruns().unwrap(), Some(0), "accesses beyond a binding");
    (all, program)
}

/// Three channels between -1 and 1, and the padding.
fn images(pixels: usize) -> Vec<f32> {
    let mut state = 11_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..4 * pixels).map(|i| if i % 4 == 3 { 0.0 } else { next() }).collect()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

/// The bias before a batch norm has no effect, so a gradient of rounding noise.
const NOISE: &str = "projection_head.0.bias";

/// The largest difference of a tensor relative to its norm, or to a thousandth of the largest norm of its kind.
fn difference(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>) -> (f64, String) {
    let largest = |gradient: bool| a.iter().filter(|(n, _)| n.starts_with("gradient") == gradient).map(|(_, v)| norm(v)).fold(0.0, f64::max);
    let floors = [largest(false), largest(true)].map(|n| 1e-3 * n);
    let of = |(name, x): (&String, &Vec<f32>)| {
        let apart: Vec<f32> = x.iter().zip(&b[name]).map(|(x, y)| x - y).collect();
        let error = norm(&apart) / norm(x).max(floors[usize::from(name.starts_with("gradient"))]);
        (if error.is_nan() { f64::INFINITY } else { error }, name.clone())
    };
    a.iter().filter(|(name, _)| !name.ends_with(NOISE)).map(of).max_by(|x, y| x.0.total_cmp(&y.0)).unwrap()
}

/// The difference of all gradients together; those of `b` are to be multiplied by `scale`.
fn overall(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>, scale: f32) -> f64 {
    let gradients =
        |of: &BTreeMap<String, Vec<f32>>| of.iter().filter(|(n, _)| n.starts_with("gradient")).flat_map(|(_, v)| v.clone()).collect::<Vec<_>>();
    let (x, y) = (gradients(a), gradients(b));
    let apart: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x - y * scale).collect();
    norm(&apart) / norm(&x)
}

fn networks() -> [Backbone; 2] {
    [(Block::Bottleneck, Stem::Standard), (Block::Basic, Stem::Small)].map(|(block, stem)| Backbone {
        block,
        blocks: vec![2, 1, 1, 1],
        width: 12,
        stem,
    })
}

/// All rewrites, each with what it builds on; the usual ones; all together.
fn selections() -> Vec<Fusions> {
    let alone = Rewrite::ALL.map(|r| match r {
        Rewrite::GradientSums => vec![Rewrite::Activation, Rewrite::ActivationGradient, Rewrite::SumOfGradients, r],
        Rewrite::Activation | Rewrite::SumOfGradients | Rewrite::Statistics => vec![r],
        _ => vec![Rewrite::Activation, r],
    });
    alone.into_iter().map(Fusions::Only).chain([Fusions::Usual, Fusions::Only(Rewrite::ALL.to_vec())]).collect()
}

#[test]
fn fused_and_plain_graphs_compute_the_same() {
    for backbone in networks() {
        let settings = settings(3, [37, 26], Precision::F32, Recompute::None);
        let (plain, separate) = run(&backbone, &settings, &Fusions::Only(Vec::new()));
        for fusions in selections() {
            let (got, program) = run(&backbone, &settings, &fusions);
            let (error, name) = difference(&plain, &got);
            assert!(error < 2e-5, "{fusions:?}: {name} is off by {error:.1e}");
            let saved = separate.dispatches().checked_sub(program.dispatches()).expect("no more dispatches than before");
            assert!(saved >= 8, "{fusions:?}: {saved} dispatches saved");
        }
    }
}

/// Winograd's way, in every combination that a step has, computes what the direct one does.
#[test]
fn minimal_filtering_computes_the_same_with_whatever_it_is_fused() {
    for backbone in networks() {
        let settings = settings(3, [37, 26], Precision::F32, Recompute::None);
        let (plain, _) = run(&backbone, &settings, &Fusions::Only(Vec::new()));
        for fusions in [Fusions::Only(Vec::new()), Fusions::Usual, Fusions::Only(Rewrite::ALL.to_vec())] {
            let (got, program) = run(&backbone, &settings, &Minimal(&fusions));
            let (error, name) = difference(&plain, &got);
            assert!(error < 2e-4, "{fusions:?}: {name} is off by {error:.1e}");
            assert!(program.choices().values().filter(|v| v.starts_with("winograd-")).count() >= 6, "{:?}", program.choices());
        }
    }
    // Basic blocks join before a 3x3, and add up gradients there.
    let (_, _, part) = step(&networks()[1], &settings(3, [37, 26], Precision::F32, Recompute::None));
    let keep: Vec<TensorId> = part.outputs.iter().map(|(_, t)| t.id()).collect();
    let launches = |fusions: Fusions| lower(&part.graph, &keep, GPU.caps(), &Minimal(&fusions)).launches;
    let has = |launches: &[Launch], parts: [&str; 2]| launches.iter().any(|l| parts.iter().all(|part| l.kernel.label().contains(part)));
    let usual = launches(Fusions::Usual);
    for store in ["store=store_statistics", "store=store_gradient", "store=store_join"] {
        assert!(has(&usual, ["winograd_output/pixels", store]), "{store}");
    }
    assert!(has(&usual, ["winograd_weight/finish", "store_weight=store_weight_sum"]));
    assert!(has(&launches(Fusions::Only(vec![Rewrite::SumOfGradients])), ["winograd_output/pixels", "store=store_sum"]));
}

/// Choices are kept by op and shape: what is offered for one is always the same, so that a resumed run repeats all of them.
#[test]
fn a_step_that_repeats_its_choices_is_the_same_step() {
    let backbone = Backbone { block: Block::Bottleneck, blocks: vec![1, 2, 2, 2], width: 64, stem: Stem::Standard };
    let cpu = Caps { kind: DeviceKind::Cpu, subgroup_size: Some(8), ..GPU.caps().clone() };
    let card = Caps { kind: DeviceKind::Discrete, subgroup_size: Some(32), ..cpu.clone() };
    for (caps, batch) in [(cpu, 4), (card, 32)] {
        let (_, _, part) = step(&backbone, &settings(batch, [224, 96], Precision::F32, Recompute::default()));
        let keep: Vec<TensorId> = part.outputs.iter().map(|(_, t)| t.id()).collect();
        let first = lower(&part.graph, &keep, &caps, &Fusions::Usual);
        let mut offered = BTreeMap::new();
        for d in &first.decisions {
            assert_eq!(offered.entry(d.key()).or_insert(&d.offered), &&d.offered, "{}", d.key());
        }
        let choices = first.decisions.iter().map(|d| (d.key(), d.chosen.clone())).collect();
        let again = lower(&part.graph, &keep, &caps, &Repeat { choices: &choices, otherwise: &BestGuess });
        assert_eq!(first.decisions, again.decisions);
        // Four of the seven 3x3 have no stride, two groups of crops, three passes; where images are of few tiles it need not pay.
        let minimal = first.decisions.iter().filter(|d| d.chosen.starts_with("winograd-")).count();
        assert!((20..=24).contains(&minimal), "{:?}: {minimal}", caps.kind);
    }
}

/// Stored values around `centre`.
fn values(shape: &[usize], centre: f32) -> Vec<f32> {
    let count: usize = shape.iter().product();
    pad_rows(&images(count).iter().filter(|v| **v != 0.0).take(count).map(|v| v + centre).collect::<Vec<_>>(), shape)
}

/// Every input of a graph with values for it.
fn inputs(graph: &Graph) -> BTreeMap<String, Vec<f32>> {
    let read: Vec<TensorId> = graph.nodes().iter().flat_map(|node| node.inputs.clone()).collect();
    let named = read.into_iter().filter_map(|t| match &graph.info(t).storage {
        Storage::Input(name) => Some((name.clone(), values(&graph.info(t).shape, if name == "targets" { 1.5 } else { 0.1 }))),
        _ => None,
    });
    named.collect()
}

/// Networks that nobody would build: what is fused is read by others, kept, added to itself.
#[test]
fn random_graphs_compute_the_same_fused() {
    let mut fused = 0;
    for seed in 0..60 {
        let mut random = Random(seed);
        let plain = random_graph(&mut random, false);
        // Any tensor may be an output too.
        let some: Vec<usize> = (0..3).map(|_| random.below(plain.0.nodes().len())).collect();
        let run = |(graph, variables, outputs): &(Graph, Variables, Vec<Tensor>), some: &[usize], fusions: &Fusions| {
            let more = some.iter().map(|&at| graph.tensor(graph.nodes()[at].outputs[0]));
            let outputs: Vec<Tensor> = outputs.iter().cloned().chain(more).collect();
            let names: Vec<String> = outputs.iter().enumerate().map(|(i, t)| format!("{i}: {t:?}")).collect();
            let named: Vec<_> = names.iter().map(String::as_str).zip(&outputs).collect();
            let store = Store::new(&GPU, variables.clone()).unwrap();
            for name in (0..13).flat_map(|layer| ["weight", "bias", "running_mean", "running_var"].map(|part| format!("bn{layer}.{part}"))) {
                let Some(id) = variables.find(&name) else { continue };
                let shape = &variables.info(id).shape;
                store.write(&GPU, id, &values(shape, if name.ends_with("bias") { 0.1 } else { 1.2 })).unwrap();
            }
            let mut program = Program::new(&GPU, &store, graph, &named, fusions).unwrap();
            let inputs = inputs(graph);
            let given: Vec<(&str, &[u8])> = inputs.iter().map(|(name, v)| (name.as_str(), bytemuck::cast_slice(v))).collect();
            let results = program.call(&GPU, &given).unwrap();
            let values: Vec<(String, Vec<f32>)> = names.iter().map(|name| (name.clone(), results.f32(name))).collect();
            (values, program.dispatches())
        };
        let (want, many) = run(&plain, &some, &Fusions::Only(Vec::new()));
        let again = random_graph(&mut Random(seed), true);
        for (graph, fusions) in [(&plain, Fusions::Usual), (&plain, Fusions::Only(Rewrite::ALL.to_vec())), (&again, Fusions::Usual)] {
            let (got, few) = run(graph, if std::ptr::eq(graph, &plain) { &some } else { &[] }, &fusions);
            fused += usize::from(few < many);
            for ((name, a), (_, b)) in want.iter().zip(&got) {
                let apart: Vec<f32> = a.iter().zip(b).map(|(x, y)| x - y).collect();
                assert!(norm(&apart) <= 1e-3 * norm(a).max(1e-6), "seed {seed}, {fusions:?}: {name} is off by {:.1e}", norm(&apart) / norm(a));
            }
        }
    }
    assert_eq!(GPU.overruns().unwrap(), Some(0), "accesses beyond a binding");
    assert!(fused > 60, "{fused} graphs had something to fuse");
}

/// In f16 a plain graph rounds where a fused one does not, and a network of few pixels multiplies that: fused, it must be as close to f32.
#[test]
fn fused_graphs_in_f16_are_as_close_to_f32_as_plain_ones() {
    let [backbone, _] = networks();
    let with = |precision, fusions: &Fusions| run(&backbone, &settings(3, [37, 26], precision, Recompute::None), fusions).0;
    let exact = with(Precision::F32, &Fusions::Only(Vec::new()));
    let plain = overall(&exact, &with(Precision::F16, &Fusions::Only(Vec::new())), 1.0 / 64.0);
    assert!(plain < 0.2, "plain f16 is off by {plain:.1e}");
    for fusions in selections() {
        let error = overall(&exact, &with(Precision::F16, &fusions), 1.0 / 64.0);
        assert!(error < 1.5 * plain, "{fusions:?}: off by {error:.1e}, plain f16 by {plain:.1e}");
    }
}

/// Each rewrite, alone or with those it needs, changes what is launched as its name says.
#[test]
fn every_rewrite_is_made_where_it_is_due() {
    let settings = settings(2, [32, 24], Precision::F32, Recompute::None);
    let (_, _, part) = step(&networks()[0], &settings);
    let keep: Vec<TensorId> = part.outputs.iter().map(|(_, t)| t.id()).collect();
    let launches = |fusions: Vec<Rewrite>| -> Vec<String> {
        lower(&part.graph, &keep, GPU.caps(), &Fusions::Only(fusions)).launches.iter().map(|l| l.kernel.label()).collect()
    };
    let count = |launches: &[String], what: &str| launches.iter().filter(|l| l.contains(what)).count();
    // Per group: 20 convolutions with a batch norm behind, of which 11 have a ReLU at once, 5 join a residual, 4 are shortcuts.
    let (convolutions, joins) = (2 * 20, 2 * 5);
    let plain = launches(vec![]);
    assert_eq!([count(&plain, "batch_norm/statistics"), count(&plain, "store="), count(&plain, "load=")], [convolutions + 1, 0, 0]);
    let activation = launches(vec![Rewrite::Activation]);
    assert_eq!([count(&activation, "relu/forward"), count(&activation, "batch_norm/forward_residual")], [0, joins]);
    let masked = launches(vec![Rewrite::Activation, Rewrite::ActivationGradient]);
    assert_eq!([count(&masked, "relu/backward"), count(&masked, "batch_norm/backward_joined")], [0, joins]);
    let noted = launches(vec![Rewrite::Statistics]);
    assert_eq!([count(&noted, "batch_norm/statistics"), count(&noted, "store=store_statistics")], [1, convolutions]);
    let summed = launches(vec![Rewrite::SumOfGradients]);
    assert!(count(&summed, "store=store_sum") >= joins && count(&summed, "store_weight=store_weight_sum") > 0);
    let usual = launches(Rewrite::ALL.into_iter().filter(|r| r.usual()).collect());
    // The last join's gradient comes from the pool.
    assert_eq!(count(&usual, "store=store_join"), joins - 2);
    assert!(count(&usual, "batch_norm/backward_reduce") < count(&masked, "batch_norm/backward_reduce") / 3);
    // Two convolutions of each block are behind a ReLU without a residual, and so is the head's second layer.
    let all = launches(Rewrite::ALL.to_vec());
    let normalizing = |launches: &[String]| {
        ["/reduce", "/gather"].map(|entry| launches.iter().filter(|l| l.contains(entry) && l.contains("load=load_normalized")).count())
    };
    assert_eq!([normalizing(&usual), normalizing(&all)], [[2 * 10 + 1, 0], [2 * 10 + 1; 2]]);
}

/// What is computed again only for the gradient of a weight is not, when that normalises what it reads.
#[test]
fn nothing_is_computed_again_for_nobody() {
    let count = |recompute| {
        let (_, _, part) = step(&networks()[0], &settings(2, [32, 24], Precision::F32, recompute));
        let keep: Vec<TensorId> = part.outputs.iter().map(|(_, t)| t.id()).collect();
        let launches = lower(&part.graph, &keep, GPU.caps(), &Fusions::Usual).launches;
        launches.iter().filter(|l| l.kernel.label() == "batch_norm/forward[RELU=true]").count()
    };
    // But for the stem's, which the pool reads.
    assert_eq!(count(Recompute::Norm), count(Recompute::None) + 2);
}

/// A weight's gradient normalises its input only while the batch norm's parameters are what they were.
#[test]
fn changed_parameters_are_not_read_again() {
    let (graph, mut variables) = (Graph::new(), Variables::new());
    let parameters = batch_norm_parameters(&graph, &mut variables, "bn0", 4);
    let weight = input(&graph, "weight", &[1, 1, 4, 4]);
    let y = input(&graph, "x", &[1, 3, 5, 4]).batch_norm(&parameters, BatchNormMode::Training { momentum: 0.1 }).relu().conv2d(&weight, 1, 0);
    input(&graph, "change", &[4]).accumulate_into(&parameters.weight);
    let loss = y.global_avg_pool2d().soft_cross_entropy(&input(&graph, "targets", &[1, 4]), 1.0, 1.0);
    let gradient = gradients(&loss, &[weight]).remove(0).unwrap();
    let run = |fusions: &Fusions| {
        let store = Store::new(&GPU, variables.clone()).unwrap();
        for (part, centre) in [("weight", 1.2), ("bias", 0.1)] {
            store.write(&GPU, variables.find(&format!("bn0.{part}")).unwrap(), &values(&[4], centre)).unwrap();
        }
        let mut program = Program::new(&GPU, &store, &graph, &[("gradient", &gradient)], fusions).unwrap();
        let given = inputs(&graph);
        let given: Vec<(&str, &[u8])> = given.iter().map(|(name, v)| (name.as_str(), bytemuck::cast_slice(v))).collect();
        program.call(&GPU, &given).unwrap().f32("gradient")
    };
    assert_eq!(run(&Fusions::Only(Vec::new())), run(&Fusions::Only(vec![Rewrite::Activation, Rewrite::WeightGradientInput])));
}

/// Planned bytes of a step of ResNet-50, per 224x224 image.
#[test]
fn memory_of_a_resnet50_step_is_little_more_than_half() {
    let bytes = |recompute, fusions: &Fusions| {
        let settings = StepSettings { crops: vec![Crops { count: 2, size: 224 }], ..settings(16, [224, 224], Precision::F32, recompute) };
        let (_, _, part) = step(&Backbone::resnet(50).unwrap(), &settings);
        let keep: Vec<TensorId> = part.outputs.iter().map(|(_, t)| t.id()).collect();
        plan(&lower(&part.graph, &keep, GPU.caps(), fusions), &keep).bytes()
    };
    let plain = bytes(Recompute::None, &Fusions::Only(Vec::new()));
    let kept = bytes(Recompute::None, &Fusions::Usual);
    let usual = bytes(Recompute::default(), &Fusions::Usual);
    let mib = |b: u64| b as f64 / 32.0 / (1 << 20) as f64;
    let figures = format!("MiB an image: plain {:.1}, fused {:.1}, with norms computed again {:.1}", mib(plain), mib(kept), mib(usual));
    assert!(usual * 10 <= plain * 6 && kept < plain, "{figures}");
    assert!(mib(usual) < 81.9, "more than PyTorch saves");
}

#[test]
fn flops_of_convolutions_do_not_depend_on_rewrites() {
    let (_, _, part) = step(&networks()[0], &settings(2, [32, 24], Precision::F32, Recompute::None));
    let keep: Vec<TensorId> = part.outputs.iter().map(|(_, t)| t.id()).collect();
    let flops = |fusions| lower(&part.graph, &keep, GPU.caps(), &fusions).graph.flops();
    assert_eq!(flops(Fusions::Only(Vec::new())), flops(Fusions::Usual));
}
