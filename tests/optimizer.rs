//! Updates on the device against four recorded steps of PyTorch's SGD, apex' LARC and mmpretrain's LARS (tests/golden/ops/optim), with
//! tensors of zero norm, without gradient, and frozen for one step.

#[path = "support/worst.rs"]
mod worst;

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use swav_wgpu::gpu::Gpu;
use swav_wgpu::graph::{DType, Graph, Program, Store, VariableId};
use swav_wgpu::nn::architecture::{TensorKind, TensorSpec};
use swav_wgpu::nn::{Parameters, Values, layout};
use swav_wgpu::optim::{LossScaling, Optimizer, OptimizerKind, Treatment};
use swav_wgpu::tune::BestGuess;
use swav_wgpu::weights::{TensorFile, read_safetensors};
use worst::worst;

fn golden(ending: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/ops/optim.")).with_extension(ending)
}

/// A network of loose tensors, and its update as a program.
struct Rig {
    gpu: Gpu,
    parameters: Parameters,
    store: Store,
    program: Program,
}

impl Rig {
    fn new(specs: &[TensorSpec], fixed: &str, optimizer: Optimizer, treatment: impl Fn(&str) -> Treatment) -> Self {
        let gpu = Gpu::open_checked(None).unwrap();
        let parameters = Parameters::new(specs, |s| s.name != fixed, gpu.caps().max_binding_bytes);
        let store = parameters.allocate(&gpu).unwrap();
        let graph = Graph::new();
        let step = graph.input("step", &[4], DType::F32);
        optimizer.record_with(&graph, &parameters, &step, treatment);
        let program = Program::new(&gpu, &store, &graph, &[], &BestGuess).unwrap();
        Self { gpu, parameters, store, program }
    }

    /// One update; tensors without a given gradient keep the last.
    fn step(&mut self, gradients: &Values, step: [f32; 4]) {
        let graph = Graph::new();
        let places = self.parameters.trained(&graph);
        let members = self.parameters.arenas().iter().flat_map(|a| &a.members);
        for (name, (_, place)) in members.zip(places) {
            if let Some(gradient) = gradients.get(name) {
                let stored = layout::to_device(self.parameters.spec(name), gradient);
                self.store.write(&self.gpu, place, &stored).unwrap();
            }
        }
        self.program.run_only(&self.gpu, &[("step", bytemuck::cast_slice(&step))]).unwrap();
        assert_eq!(self.gpu.overruns().unwrap(), Some(0), "accesses beyond a binding");
    }
}

fn spec(name: &str, shape: &[usize]) -> TensorSpec {
    let kind = match shape.len() {
        4 => TensorKind::ConvWeight,
        2 => TensorKind::LinearWeight,
        _ => TensorKind::LinearBias,
    };
    TensorSpec { name: name.to_owned(), shape: shape.to_vec(), kind }
}

#[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
fn optimizer(params: &Value) -> Option<Optimizer> {
    let flag = |key: &str| params.get(key).is_some();
    let kind = match (params["kind"].as_str()?, flag("nesterov")) {
        _ if flag("clip") || flag("exclude") => return None,
        ("larc", false) => OptimizerKind::Larc,
        ("mmlars", false) => OptimizerKind::Lars,
        ("sgd", false) => OptimizerKind::Sgd,
        ("sgd", true) => OptimizerKind::Nesterov,
        _ => return None,
    };
    let number = |key: &str| params[key].as_f64().unwrap() as f32;
    Some(Optimizer { kind, momentum: number("momentum"), weight_decay: number("weight_decay"), trust: number("trust"), eps: number("eps") })
}

/// Largest difference of `ours` from the recorded tensor, in units of its largest value (or of 1e-3 where that is smaller).
fn off(file: &TensorFile, key: &str, ours: &[f32]) -> f64 {
    let expected = file.f64(key).unwrap_or_else(|_| file.f32(key).unwrap().data.iter().map(|v| f64::from(*v)).collect());
    worst(ours, &expected) / expected.iter().fold(1e-3, |m: f64, v| m.max(v.abs()))
}

#[test]
#[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
fn equals_every_recorded_sequence() {
    let cases: BTreeMap<String, Value> = serde_json::from_str(&std::fs::read_to_string(golden("json")).unwrap()).unwrap();
    let file = read_safetensors(golden("safetensors")).unwrap();
    let mut kinds = Vec::new();
    for (case, about) in &cases {
        let Some(optimizer) = optimizer(&about["params"]) else { continue };
        let names = about["tensors"].as_object().unwrap().keys().filter_map(|k| k.strip_prefix("p0."));
        let read = |step: usize, part: &str, name: &str| file.f32(&format!("{case}/{part}{step}.{name}"));
        let initial: Values = names.map(|name| (name.to_owned(), read(0, "p", name).unwrap().data)).collect();
        let specs: Vec<TensorSpec> = initial.keys().map(|name| spec(name, &read(0, "p", name).unwrap().shape)).collect();
        // In the recording `fc` has no gradient at step 1, so it is frozen then, and `nograd` is not trained at all.
        let mut rig = Rig::new(&specs, "nograd", optimizer, |name| Treatment { freezable: name == "fc", second_rate: false });
        rig.parameters.write(&rig.gpu, &rig.store, &initial).unwrap();
        for (step, lr) in about["params"]["lr"].as_array().unwrap().iter().enumerate() {
            let gradient = |name: &String| Some((name.clone(), read(step, "g", name).ok()?.data));
            let gradients: Values = initial.keys().filter_map(gradient).collect();
            let frozen = if gradients.contains_key("fc") { 0.0 } else { 1.0 };
            assert_eq!(frozen, if step == 1 { 1.0 } else { 0.0 }, "{case}");
            rig.step(&gradients, [lr.as_f64().unwrap() as f32, frozen, 1e9, 0.0]);
            for (name, value) in rig.parameters.read(&rig.gpu, &rig.store).unwrap() {
                let off = off(&file, &format!("{case}/p{}.{name}", step + 1), &value);
                assert!(off <= 5e-6, "{case}: {name} after step {step} is off by {off:e}");
            }
        }
        let momentum = rig.parameters.read_momentum(&rig.gpu, &rig.store).unwrap();
        assert_eq!(momentum.len(), initial.len() - 1);
        // Without momentum PyTorch keeps none.
        let recorded = optimizer.momentum > 0.0;
        for (name, value) in momentum.into_iter().filter(|_| recorded) {
            let off = off(&file, &format!("{case}/m.{name}"), &value);
            assert!(off <= 5e-6, "{case}: momentum of {name} is off by {off:e}");
        }
        kinds.push(optimizer.kind);
    }
    for kind in [OptimizerKind::Larc, OptimizerKind::Lars, OptimizerKind::Sgd, OptimizerKind::Nesterov] {
        assert!(kinds.contains(&kind), "{kind:?} of {kinds:?}");
    }
    assert_eq!(kinds.len(), 8);
}

#[test]
fn two_rates_and_frozen_tensors() {
    let specs = [spec("backbone.weight", &[3, 5]), spec("head.weight", &[2, 3]), spec("prototypes.weight", &[4, 3])];
    let values =
        |scale: f32| -> Values { specs.iter().map(|s| (s.name.clone(), (0..s.elements()).map(|i| scale * (i as f32 - 3.0)).collect())).collect() };
    let (initial, gradients) = (values(0.25), values(0.5));
    let sgd = Optimizer { kind: OptimizerKind::Sgd, momentum: 0.5, weight_decay: 0.0, trust: 0.0, eps: 0.0 };
    let treatment = |name: &str| Treatment { freezable: name.starts_with("prototypes"), second_rate: name.starts_with("head") };
    let mut rig = Rig::new(&specs, "", sgd, treatment);
    rig.parameters.write(&rig.gpu, &rig.store, &initial).unwrap();
    rig.step(&gradients, [0.125, 1.0, 2.0, 0.0]);
    rig.step(&gradients, [0.25, 0.0, 0.0, 0.0]);
    let after = rig.parameters.read(&rig.gpu, &rig.store).unwrap();
    // Powers of two throughout: equality is exact. The momentum is g, then 1.5 g; that of the frozen tensor begins at the second step.
    for (name, factor) in [("backbone.weight", 0.125 + 0.25 * 1.5), ("head.weight", 2.0), ("prototypes.weight", 0.25)] {
        let expected: Vec<f32> = initial[name].iter().zip(&gradients[name]).map(|(p, g)| p - factor * g).collect();
        assert_eq!(after[name], expected, "{name}");
    }
}

/// An update of scaled gradients; every tensor is an arena of its own.
struct ScaledRig {
    rig: Rig,
    state: VariableId,
}

const LAYERWISE: Optimizer = Optimizer { kind: OptimizerKind::Larc, momentum: 0.9, weight_decay: 1e-3, trust: 0.02, eps: 1e-8 };

impl ScaledRig {
    fn new(specs: &[TensorSpec]) -> Self {
        let gpu = Gpu::open_checked(None).unwrap();
        let mut parameters = Parameters::new(specs, |_| true, 256);
        assert_eq!(parameters.arenas().len(), specs.len());
        let state = LossScaling::variable(parameters.variables_mut());
        let store = parameters.allocate(&gpu).unwrap();
        let graph = Graph::new();
        let step = graph.input("step", &[4], DType::F32);
        let scale = LossScaling::default().in_graph(&graph, parameters.variables(), state);
        scale.begin();
        LAYERWISE.record_scaled(&graph, &parameters, &step, |_| Treatment::default(), Some(&scale));
        let program = Program::new(&gpu, &store, &graph, &[], &BestGuess).unwrap();
        Self { rig: Rig { gpu, parameters, store, program }, state }
    }

    fn read(&self) -> [Values; 2] {
        let Rig { gpu, parameters, store, .. } = &self.rig;
        [parameters.read(gpu, store).unwrap(), parameters.read_momentum(gpu, store).unwrap()]
    }
}

/// The scale is a power of two, and the ratios of norms are those of the gradients themselves: not a bit differs.
#[test]
fn a_scale_changes_no_bit_and_one_bad_gradient_skips_every_arena() {
    let specs = [spec("a.weight", &[3, 5]), spec("b.weight", &[2, 3, 1, 1]), spec("c.bias", &[7])];
    let values = |scale: f32, shift: f32| -> Values {
        specs.iter().map(|s| (s.name.clone(), (0..s.elements()).map(|i| scale * (i as f32 * 0.37 - shift).sin()).collect())).collect()
    };
    let (initial, step) = (values(0.3, 1.0), [0.7, 0.0, 0.0, 0.0]);
    let mut plain = Rig::new(&specs, "", LAYERWISE, |_| Treatment::default());
    let mut scaled = ScaledRig::new(&specs);
    plain.parameters.write(&plain.gpu, &plain.store, &initial).unwrap();
    scaled.rig.parameters.write(&scaled.rig.gpu, &scaled.rig.store, &initial).unwrap();
    for shift in [2.0, 3.0] {
        plain.step(&values(1e-3, shift), step);
        scaled.rig.step(&values(1e-3, shift).into_iter().map(|(n, v)| (n, v.iter().map(|g| g * 65_536.0).collect())).collect(), step);
    }
    let read = |rig: &Rig| [rig.parameters.read(&rig.gpu, &rig.store).unwrap(), rig.parameters.read_momentum(&rig.gpu, &rig.store).unwrap()];
    let after = scaled.read();
    assert!(after == read(&plain) && after[0] != initial);
    for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
        for (name, at) in [("a.weight", 14), ("b.weight", 0), ("c.bias", 6)] {
            let mut gradients = values(1.0, 4.0);
            gradients.get_mut(name).unwrap()[at] = bad;
            scaled.rig.step(&gradients, step);
            assert!(scaled.read() == after, "{bad} in {name}");
        }
    }
    let state = scaled.rig.store.read(&scaled.rig.gpu, scaled.state).unwrap();
    assert_eq!(state[..3], [16.0, 0.0, 12.0], "halved twelve times");
    // The largest finite number is finite, and the least scale is 1.
    for _ in 0..6 {
        let mut gradients = values(1.0, 4.0);
        gradients.get_mut("c.bias").unwrap()[3] = f32::NAN;
        scaled.rig.step(&gradients, step);
    }
    assert_eq!(scaled.rig.store.read(&scaled.rig.gpu, scaled.state).unwrap()[..3], [1.0, 0.0, 18.0]);
    let mut gradients = values(1.0, 4.0);
    gradients.get_mut("c.bias").unwrap()[3] = f32::MAX;
    scaled.rig.step(&gradients, step);
    assert_eq!(scaled.rig.store.read(&scaled.rig.gpu, scaled.state).unwrap()[..3], [1.0, 1.0, 18.0]);
}
