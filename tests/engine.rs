//! The engine under the ops: memory plan, replay without allocation, variables in place, and what happens when the device fails.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::LazyLock;
use swav_wgpu::Error;
use swav_wgpu::gpu::{Caps, DeviceKind, Gpu};
use swav_wgpu::graph::{DType, Graph, Program, Storage, Store, Tensor, TensorId, Variables, View, lower, pad_rows, plan};
use swav_wgpu::ops::{BatchNormMode, concat_rows, gradients};
use swav_wgpu::tune::{BestGuess, Fusions};

#[path = "support/minimal.rs"]
mod minimal;
#[path = "support/random_graph.rs"]
mod random_graph;
#[path = "support/worst.rs"]
mod worst;

use minimal::Minimal;
use random_graph::{Random, batch_norm_parameters, input, random_graph};
use worst::worst;

static GPU: LazyLock<Gpu> =
    LazyLock::new(|| Gpu::open_checked(None).unwrap_or_else(|e| panic!("these tests need a Vulkan, Metal or DX12 adapter, software will do: {e}")));

const CAPS: Caps = Caps {
    kind: DeviceKind::Discrete,
    f16: true,
    subgroup_size: Some(32),
    registers: 255,
    cooperative_matrix: None,
    max_binding_bytes: 1 << 27,
    max_buffer_bytes: 1 << 28,
    memory_bytes: None,
    max_workgroups: 65_535,
    offset_alignment: 256,
    timestamp_period: None,
};

/// Runs the plan in the mind: every slot remembers whose data each of its bytes holds.
#[test]
fn a_tensor_is_never_overwritten_while_it_is_needed() {
    let (mut planned, mut separate, mut minimal) = (0, 0, 0);
    for seed in 0..300 {
        let (graph, _, outputs) = random_graph(&mut Random(seed), seed % 2 == 1);
        let keep: Vec<_> = outputs.iter().map(Tensor::id).collect();
        // What kernels need for themselves comes and goes within a node, again and again where it is visited in windows.
        let small = Caps { kind: DeviceKind::Cpu, subgroup_size: Some(8), max_binding_bytes: 1 << 16, ..CAPS };
        let lowered = if seed % 4 < 2 { lower(&graph, &keep, &CAPS, &BestGuess) } else { lower(&graph, &keep, &small, &Minimal(&BestGuess)) };
        minimal += lowered.launches.iter().filter(|l| l.kernel.label().starts_with("conv2d_winograd_input")).count();
        let plan = plan(&lowered, &keep);
        let mut holds: HashMap<usize, Vec<(Range<u64>, TensorId)>> = HashMap::new();
        let range = |t: &TensorId| plan.places[t].offset..plan.places[t].offset + lowered.info(*t).bytes();
        let owned = |t: &TensorId| plan.places.contains_key(t);
        let kept = |holds: &HashMap<usize, Vec<(Range<u64>, TensorId)>>, t: &TensorId| {
            holds.get(&plan.places[t].slot).is_some_and(|held| held.iter().any(|(bytes, owner)| owner == t && *bytes == range(t)))
        };
        let write = |holds: &mut HashMap<usize, Vec<(Range<u64>, TensorId)>>, t: TensorId| {
            let (slot, own) = (plan.places[&t].slot, range(&t));
            assert!(own.end <= plan.slots[slot] && own.start.is_multiple_of(256), "seed {seed}: {} does not fit its slot", lowered.info(t).name);
            let held = holds.entry(slot).or_default();
            held.retain(|(bytes, _)| bytes.end <= own.start || own.end <= bytes.start);
            held.push((own, t));
        };
        let mut fixed: Vec<_> = plan.places.keys().filter(|t| !matches!(lowered.info(**t).storage, Storage::Intermediate)).collect();
        fixed.sort();
        fixed.iter().for_each(|t| write(&mut holds, **t));
        for launch in &lowered.launches {
            let tensors = |views: &[View]| views.iter().map(|view| view.tensor).filter(owned).collect::<Vec<_>>();
            let (reads, writes) = (tensors(&launch.reads), tensors(&launch.writes));
            for t in &reads {
                assert!(kept(&holds, t), "seed {seed}: {} reads {}, which is gone", launch.label, lowered.info(*t).name);
            }
            let mut slots: Vec<usize> = reads.iter().chain(&writes).collect::<BTreeSet<_>>().into_iter().map(|t| plan.places[t].slot).collect();
            slots.sort_unstable();
            assert!(slots.windows(2).all(|w| w[0] != w[1]), "seed {seed}: {} uses a slot twice", launch.label);
            writes.iter().for_each(|t| write(&mut holds, *t));
        }
        for t in keep.iter().chain(fixed).filter(|t| owned(t)) {
            assert!(kept(&holds, t), "seed {seed}: {} is gone at the end", lowered.info(*t).name);
        }
        planned += plan.bytes();
        separate += plan.places.keys().map(|t| lowered.info(*t).bytes()).sum::<u64>();
    }
    assert!(minimal > 100, "{minimal} launches of Winograd's way");
    assert!(planned * 5 < separate * 4, "the plan saves little: {planned} bytes instead of {separate}");
}

struct Model {
    graph: Graph,
    variables: Variables,
    loss: Tensor,
    running_mean: Tensor,
}

/// Convolution, batch norm and loss over a variable weight whose gradient lands in a variable.
fn model() -> Model {
    let (graph, mut variables) = (Graph::new(), Variables::new());
    let id = variables.add("conv.weight", &[3, 3, 4, 8], DType::F32);
    let weight = graph.variable(&variables, id);
    let parameters = batch_norm_parameters(&graph, &mut variables, "bn", 8);
    let x = input(&graph, "images", &[2, 9, 9, 3]);
    let y = x.conv2d(&weight, 2, 1).batch_norm(&parameters, BatchNormMode::Training { momentum: 0.5 }).relu();
    let loss = y.global_avg_pool2d().soft_cross_entropy(&input(&graph, "targets", &[2, 8]), 1.0, 0.5);
    let gradient = gradients(&loss, &[weight]).remove(0).unwrap();
    let kept = variables.add("conv.weight.grad", &gradient.shape(), DType::F32);
    graph.place(&gradient, &variables, kept);
    Model { graph, variables, loss, running_mean: parameters.running_mean }
}

fn data(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    (0..count).map(|_| random.below(2_001) as f32 / 1_000.0 - 1.0).collect()
}

#[test]
fn replays_allocate_nothing() {
    let mut gpu = Gpu::open_checked(None).expect("an adapter");
    let model = model();
    let store = Store::new(&gpu, model.variables.clone()).unwrap();
    let outputs = [("loss", &model.loss), ("running_mean", &model.running_mean)];
    let mut program = Program::new(&gpu, &store, &model.graph, &outputs, &BestGuess).unwrap();
    let images = pad_rows(&data(2 * 9 * 9 * 3, 1), &[2, 9, 9, 3]);
    let targets = data(16, 2);
    let inputs: [(&str, &[u8]); 2] = [("images", bytemuck::cast_slice(&images)), ("targets", bytemuck::cast_slice(&targets))];
    let loss = program.call(&gpu, &inputs).unwrap().f32("loss");
    let first = gpu.allocation_report();
    // Metal has no such report.
    assert!(first.is_some() || gpu.description().backend == "metal", "nothing to compare");
    // In one submission or in several.
    for kind in [DeviceKind::Cpu, DeviceKind::Discrete, DeviceKind::Integrated] {
        gpu.act_as(kind);
        for _ in 0..50 {
            let runs: Vec<_> = (0..3).map(|_| program.run(&gpu, &inputs).unwrap()).collect();
            for run in runs {
                assert_eq!(program.finish(&gpu, run).unwrap().f32("loss"), loss);
            }
            assert_eq!(gpu.allocation_report(), first);
        }
    }
}

/// Slow devices get a step in pieces: nothing is lost, and the order stays.
#[test]
fn pieces_of_a_replay_run_in_order() {
    let mut gpu = Gpu::open_checked(None).expect("an adapter");
    let graph = Graph::new();
    let (x, y) = (input(&graph, "x", &[1, 4]), input(&graph, "y", &[1, 4]));
    // Doubled and added to in turn: another order gives another sum.
    let z = (0..150).fold(y, |z, i| if i % 8 == 0 { z.add(&z) } else { z.add(&x) });
    let store = Store::new(&gpu, Variables::new()).unwrap();
    let mut program = Program::new(&gpu, &store, &graph, &[("z", &z)], &BestGuess).unwrap();
    let data: [(&str, &[u8]); 2] = [("x", bytemuck::cast_slice(&[1.0_f32, 2.0, 3.0, 4.0])), ("y", bytemuck::cast_slice(&[0.5_f32; 4]))];
    let expected = (0..150).fold(0.5_f32, |z, i| if i % 8 == 0 { z + z } else { z + 1.0 });
    for kind in [DeviceKind::Cpu, DeviceKind::Discrete, DeviceKind::Integrated] {
        gpu.act_as(kind);
        assert_eq!(program.call(&gpu, &data).unwrap().f32("z")[0], expected, "{kind:?}");
    }
}

/// The running mean moves half way towards the batch's mean each time, from one run to the next and across programs.
#[test]
fn variables_change_in_place_and_outlive_programs() {
    let (graph, mut variables) = (Graph::new(), Variables::new());
    let parameters = batch_norm_parameters(&graph, &mut variables, "bn", 3);
    let x = input(&graph, "x", &[2, 3]);
    let y = x.batch_norm(&parameters, BatchNormMode::Training { momentum: 0.5 });
    let store = Store::new(&GPU, variables).unwrap();
    let stored = pad_rows(&[1.0_f32, 2.0, 3.0, 3.0, 2.0, 5.0], &[2, 3]);
    let inputs: [(&str, &[u8]); 1] = [("x", bytemuck::cast_slice(&stored))];
    for (run, share) in [0.5_f32, 0.75, 0.875].into_iter().enumerate() {
        let outputs = [("y", &y), ("mean", &parameters.running_mean)];
        let mut program = Program::new(&GPU, &store, &graph, &outputs, &BestGuess).unwrap();
        let got = program.call(&GPU, &inputs).unwrap().f32("mean");
        assert_eq!(got, [2.0 * share, 2.0 * share, 4.0 * share], "run {run}");
    }
}

#[test]
fn rows_join_in_order() {
    let graph = Graph::new();
    let (a, b) = (input(&graph, "a", &[1, 5]), input(&graph, "b", &[2, 5]));
    let joined = concat_rows(&[&b, &a, &b]);
    let store = Store::new(&GPU, Variables::new()).unwrap();
    let mut program = Program::new(&GPU, &store, &graph, &[("joined", &joined)], &BestGuess).unwrap();
    let (one, two) = (data(5, 3), data(10, 4));
    let (stored_one, stored_two) = (pad_rows(&one, &[1, 5]), pad_rows(&two, &[2, 5]));
    let inputs: [(&str, &[u8]); 2] = [("a", bytemuck::cast_slice(&stored_one)), ("b", bytemuck::cast_slice(&stored_two))];
    assert_eq!(program.call(&GPU, &inputs).unwrap().f32("joined"), [two.clone(), one, two].concat());
    // Inputs that are left out keep their contents.
    let three = pad_rows(&[7.0_f32; 5], &[1, 5]);
    let got = program.call(&GPU, &[("a", bytemuck::cast_slice(&three))]).unwrap().f32("joined");
    assert_eq!(got[10..15], [7.0; 5]);
    assert_eq!(got[..10], got[15..]);
    assert_eq!(GPU.overruns().unwrap(), Some(0), "accesses beyond a binding");
}

#[test]
fn a_destroyed_device_is_reported_as_lost() {
    let gpu = Gpu::open_checked(None).expect("an adapter");
    let model = model();
    let store = Store::new(&gpu, model.variables.clone()).unwrap();
    let mut program = Program::new(&gpu, &store, &model.graph, &[("loss", &model.loss)], &BestGuess).unwrap();
    let _ = program.call(&gpu, &[]).unwrap();
    gpu.destroy();
    // More often than runs may be in flight.
    for _ in 0..5 {
        let outcome = program.call(&gpu, &[]).map(|_| ());
        assert!(matches!(outcome, Err(Error::DeviceLost(_))), "{outcome:?}");
    }
    let outcome = Store::new(&gpu, model.variables).map(|_| ());
    assert!(matches!(outcome, Err(Error::DeviceLost(_))), "{outcome:?}");
}

/// A network with every op that sees whole images, and its gradients.
fn image_network(variables: &mut Variables) -> (Graph, Vec<(&'static str, Tensor)>) {
    let graph = Graph::new();
    let images = input(&graph, "images", &[12, 17, 16, 8]);
    let wide = input(&graph, "wide", &[3, 3, 8, 12]);
    let narrow = input(&graph, "narrow", &[1, 1, 12, 12]);
    let training = BatchNormMode::Training { momentum: 0.1 };
    let [first, second] = ["first", "second"].map(|name| batch_norm_parameters(&graph, variables, name, 12));
    let x = images.conv2d(&wide, 1, 1).batch_norm(&first, training).relu();
    let x = concat_rows(&[&x.slice_rows(0, 5), &x.slice_rows(5, 7)]);
    let y = x.conv2d(&narrow, 1, 0).batch_norm(&second, training).add(&x).relu();
    let z = y.max_pool2d(3, 2, 1).conv2d(&input(&graph, "strided", &[3, 3, 12, 8]), 2, 1);
    let loss = z.global_avg_pool2d().soft_cross_entropy(&input(&graph, "targets", &[12, 8]), 0.5, 0.1);
    let wrt = [images, wide, narrow, first.weight, second.bias];
    let names = ["images", "wide", "narrow", "weight", "bias"];
    let sums = input(&graph, "rows", &[1500, 12]).sum_columns();
    let mut outputs = vec![("loss", loss.clone()), ("z", z), ("mean", first.running_mean), ("sums", sums)];
    outputs.extend(names.into_iter().zip(gradients(&loss, &wrt).into_iter().map(Option::unwrap)));
    (graph, outputs)
}

/// With a binding limit that no image tensor fits, everything is computed window by window. Sums over the batch keep their chunks, so all
/// bits are the same, but of a weight's gradient, which deals its pixels out differently; fused, convolutions cut a window's rows into chunks of their own.
#[test]
fn windows_change_no_result() {
    // The smaller limit does not fit the sums that convolutions would note for batch norms either. (Nor those of a weight's gradient, one a window.)
    let small = [48 << 10, 16 << 10].map(|bytes| {
        let mut gpu = Gpu::open_checked(None).expect("an adapter");
        gpu.limit_bindings(bytes);
        gpu
    });
    let mut variables = Variables::new();
    let (graph, outputs) = image_network(&mut variables);
    let stored: Vec<(&str, Vec<f32>)> =
        [("images", 12 * 17 * 16 * 8), ("wide", 9 * 8 * 12), ("narrow", 144), ("strided", 9 * 12 * 8), ("targets", 96), ("rows", 1500 * 12)]
            .into_iter()
            .map(|(name, count)| (name, data(count, count as u64)))
            .collect();
    let inputs: Vec<(&str, &[u8])> = stored.iter().map(|(name, values)| (*name, bytemuck::cast_slice(values))).collect();
    let run = |gpu: &Gpu, fusions: &Fusions, outputs: &[(&str, Tensor)]| {
        let named: Vec<(&str, &Tensor)> = outputs.iter().map(|(name, t)| (*name, t)).collect();
        let store = Store::new(gpu, variables.clone()).unwrap();
        for name in ["first", "second"] {
            let id = variables.find(&format!("{name}.weight")).unwrap();
            store.write(gpu, id, &data(12, 5)).unwrap();
        }
        let mut program = Program::new(gpu, &store, &graph, &named, fusions).unwrap();
        (program.call(gpu, &inputs).unwrap(), program.dispatches())
    };
    let without_weights: Vec<_> = outputs.iter().filter(|(name, _)| !["wide", "narrow"].contains(name)).cloned().collect();
    let cases =
        [(Fusions::Only(Vec::new()), &small[0], &outputs), (Fusions::Usual, &small[0], &outputs), (Fusions::Usual, &small[1], &without_weights)];
    for (fusions, small, outputs) in cases {
        let ((whole, few), (cut, many)) = (run(&GPU, &fusions, outputs), run(small, &fusions, outputs));
        assert!(many > few + 20, "{many} dispatches with windows, {few} without");
        for (name, _) in outputs {
            let (a, b) = (whole.f32(name), cut.f32(name));
            assert!(a.iter().any(|v| *v != 0.0), "{name} is all zero");
            if fusions == Fusions::Usual || ["wide", "narrow"].contains(name) {
                let largest = a.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                let off = worst(&a, &b);
                assert!(off <= 3e-6 * f64::from(largest), "{name}: {off} of {largest}");
            } else {
                assert_eq!(a, b, "{name}");
            }
        }
        assert_eq!(small.overruns().unwrap(), Some(0), "accesses beyond a window");
    }
}

#[test]
fn a_single_image_beyond_the_binding_limit_is_named() {
    let side = 1 + usize::try_from(GPU.caps().max_binding_bytes / 16).unwrap().isqrt();
    let graph = Graph::new();
    let y = graph.scope("layer1.0", || input(&graph, "images", &[1, side, side, 4]).max_pool2d(3, 2, 1));
    let store = Store::new(&GPU, Variables::new()).unwrap();
    let error = Program::new(&GPU, &store, &graph, &[("y", &y)], &BestGuess).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("images") && text.contains(&format!("[1, {side}, {side}, 4]")) && text.contains("iB"), "{text}");
}
