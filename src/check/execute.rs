//! Runs a case on the GPU, variant by variant, and compares.

use super::CaseResult;
use super::case::{Case, Entry, Kind, Operand};
use super::gradient::central_differences;
use super::random::Random;
use super::tolerance::tolerance;
use super::variants::{Force, Survey};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::{DType, Graph, Outputs, Program, Store, Tensor, VariableId, Variables, differentiate, lower, pad_rows};

/// Multiplications that the differences of a case may cost.
const AFFORDABLE: usize = 100_000_000;

/// What the reference says of one tensor.
struct Expected {
    name: String,
    /// Elements that are compared; all when `None`.
    coordinates: Option<Vec<usize>>,
    values: Vec<f64>,
    /// The operand whose gradient this is.
    operand: Option<usize>,
}

/// The case as a graph.
struct Recorded {
    graph: Graph,
    variables: Variables,
    ids: Vec<Option<VariableId>>,
    /// Outputs, then gradients, in the order of the expectations.
    results: Vec<Tensor>,
}

/// Runs every variant of `entry`.
pub(super) fn run(gpu: &Gpu, entry: &Entry, take: &mut dyn FnMut(CaseResult)) -> Result<()> {
    let variants = variants(gpu, entry);
    if variants.is_empty() {
        return Ok(());
    }
    let seed = entry.shape.bytes().fold(0_u64, |hash, b| hash.wrapping_mul(31).wrapping_add(u64::from(b)));
    let mut random = Random::new(seed);
    let case = (entry.make)(&mut random);
    let (expected, grad_output) = expectations(&case, &mut random);
    let mut oracle: Option<Vec<Vec<f64>>> = None;
    for variant in variants {
        let limit = tolerance(case.transcendental, case.longest_sum, case.cancellation, entry.dtype, &variant);
        let label = format!("{variant} {}", entry.dtype.wgsl()).trim().to_owned();
        let result = |what: &str, max_error: f64, tolerance: f64| {
            let op = if what.is_empty() { entry.op.to_owned() } else { format!("{}.{what}", entry.op) };
            // A comparison with NaN is false; it never gets that far, but a doubt counts as failure.
            let pass = max_error <= tolerance;
            CaseResult { op, variant: label.clone(), shape: entry.shape.clone(), max_error, tolerance, pass }
        };
        let [first, second] = execute(gpu, &case, &grad_output, &Force(variant.clone()))?;
        for (i, want) in expected.iter().enumerate() {
            let error = match &first[i] {
                Some(got) => {
                    let spreads = variant.starts_with("winograd");
                    // NaN that a tile spreads goes through ReLUs that were closed: gradients are others.
                    if spreads && case.stand_in.is_some() && want.operand.is_some() {
                        continue;
                    }
                    let whole = oracle.as_ref().map_or(0.0, |o| compare(got, None, &o[i], spreads));
                    compare(got, want.coordinates.as_deref(), &want.values, spreads).max(whole)
                }
                None => f64::MAX,
            };
            take(result(&want.name, error, limit));
        }
        let bits = |results: &[Option<Vec<f64>>]| -> Vec<Option<Vec<u64>>> {
            results.iter().map(|r| r.as_ref().map(|r| r.iter().map(|v| v.to_bits()).collect())).collect()
        };
        let repeats = bits(&first) == bits(&second);
        take(result("repeat", if repeats { 0.0 } else { f64::MAX }, 0.0));
        if oracle.is_none() {
            oracle = first.into_iter().collect();
        }
    }
    Ok(())
}

/// The variants to run, `plain` first, so that it can stand in where differences are too many. One without a name where ops offer no choice.
fn variants(gpu: &Gpu, entry: &Entry) -> Vec<String> {
    // Which kernels there are depends on shapes alone.
    let recorded = record(&(entry.make)(&mut Random::new(0)));
    let ids: Vec<_> = recorded.results.iter().map(Tensor::id).collect();
    let offered = |survey: Survey| {
        lower(&recorded.graph, &ids, gpu.tested_caps(), &survey);
        survey.offered()
    };
    let mut exact = offered(Survey::default());
    if !entry.rounding {
        exact.sort_by_key(|v| v != "plain");
        return if exact.is_empty() { vec![String::new()] } else { exact };
    }
    let rounding = offered(Survey::rounding()).into_iter().filter(|v| !exact.contains(v)).collect::<Vec<_>>();
    if rounding.is_empty() { rounding } else { [vec!["plain".to_owned()], rounding].concat() }
}

/// Reference outputs and gradients, and the gradient of the first output.
fn expectations(case: &Case, random: &mut Random) -> (Vec<Expected>, Vec<f64>) {
    let mut operands: Vec<Vec<f64>> = case.operands.iter().map(|o| o.values.clone()).collect();
    let outputs = (case.reference)(&operands);
    let mut grad_output: Vec<f64> = random.values(outputs[0].len(), 1.0).iter().map(|v| half::f16::from_f64(*v).to_f64()).collect();
    if let Some(kink) = &case.kink {
        for (g, distance) in grad_output.iter_mut().zip(kink(&operands)) {
            if distance < 1e-3 {
                *g = 0.0;
            }
        }
    }
    let mut expected: Vec<Expected> = case
        .outputs
        .iter()
        .zip(outputs)
        .map(|(name, values)| Expected { name: (*name).to_owned(), coordinates: None, values, operand: None })
        .collect();
    for i in (0..operands.len()).filter(|&i| case.operands[i].gradient) {
        let length = operands[i].len();
        let count = (AFFORDABLE / (2 * case.work.max(1))).clamp(2, 2_000).min(length);
        let coordinates: Vec<usize> = match count == length {
            true => (0..length).collect(),
            // The corners always; the rest at random.
            false => (0..count)
                .map(|k| {
                    if k == 0 {
                        0
                    } else if k == 1 {
                        length - 1
                    } else {
                        random.below(length)
                    }
                })
                .collect(),
        };
        let forward = case.smooth.as_ref().unwrap_or(&case.reference);
        let values = central_differences(forward, case.stand_in.clone().as_mut().unwrap_or(&mut operands), i, &coordinates, &grad_output);
        let name = format!("grad.{}", case.operands[i].name);
        expected.push(Expected { name, coordinates: Some(coordinates), values, operand: Some(i) });
    }
    debug_assert!(expected.iter().all(|e| e.operand.is_none_or(|i| case.operands[i].gradient)));
    (expected, grad_output)
}

fn record(case: &Case) -> Recorded {
    let graph = Graph::new();
    let mut variables = Variables::new();
    let mut ids = Vec::new();
    for o in &case.operands {
        ids.push((o.kind == Kind::Variable).then(|| variables.add(o.name, &o.shape, o.dtype)));
    }
    let tensor = |(o, id): (&Operand, &Option<VariableId>)| match id {
        Some(id) => graph.variable(&variables, *id),
        None => graph.input(o.name, &o.graph_shape(), o.dtype),
    };
    let operands: Vec<Tensor> = case.operands.iter().zip(&ids).map(tensor).collect();
    let mut results = (case.build)(&operands);
    let wrt: Vec<Tensor> = operands.iter().zip(&case.operands).filter(|(_, o)| o.gradient).map(|(t, _)| t.clone()).collect();
    if !wrt.is_empty() {
        let seed = graph.input("grad_output", &results[0].shape(), results[0].dtype());
        let gradients = differentiate(&results[0], seed, &wrt, Tensor::add);
        results.extend(gradients.into_iter().map(|g| g.expect("every operand that asks for a gradient has one")));
    }
    Recorded { graph, variables, ids, results }
}

/// Runs the case twice: dense results each, `None` where padding is not zero.
fn execute(gpu: &Gpu, case: &Case, grad_output: &[f64], variants: &Force) -> Result<[Vec<Option<Vec<f64>>>; 2]> {
    let recorded = record(case);
    let store = Store::new(gpu, recorded.variables.clone())?;
    let names: Vec<String> = (0..recorded.results.len()).map(|i| format!("result {i}")).collect();
    let outputs: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(&recorded.results).collect();
    let mut program = Program::new(gpu, &store, &recorded.graph, &outputs, variants)?;
    let uploads: Vec<(&str, Vec<u8>)> = case
        .operands
        .iter()
        .filter(|o| o.kind != Kind::Variable)
        .map(|o| (o.name, stored(&o.graph_values(), &o.graph_shape(), o.dtype)))
        .chain(std::iter::once(("grad_output", stored(grad_output, &recorded.results[0].shape(), recorded.results[0].dtype()))))
        .collect();
    let inputs: Vec<(&str, &[u8])> = uploads.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let mut once = || -> Result<Vec<Option<Vec<f64>>>> {
        for (o, id) in case.operands.iter().zip(&recorded.ids) {
            if let Some(id) = id {
                store.write(gpu, *id, &pad_rows(&narrow(&o.values), &o.shape))?;
            }
        }
        let results = program.call(gpu, &inputs)?;
        let differentiated = case.operands.iter().filter(|o| o.gradient);
        let owners = case.outputs.iter().map(|_| None).chain(differentiated.map(Some));
        // What is not finite spreads to the padding: infinity times 0 is no number.
        let pads = case.stand_in.is_none();
        Ok(names.iter().zip(&recorded.results).zip(owners).map(|((name, t), owner)| dense(&results, name, t.dtype(), owner, pads)).collect())
    };
    Ok([once()?, once()?])
}

fn dense(results: &Outputs, name: &str, dtype: DType, owner: Option<&Operand>, pads: bool) -> Option<Vec<f64>> {
    if pads && !results.padding_is_zero(name) {
        return None;
    }
    let values: Vec<f64> = match dtype {
        DType::F32 => results.f32(name).into_iter().map(f64::from).collect(),
        DType::F16 => results.f16(name).into_iter().map(f64::from).collect(),
        DType::U32 => results.u32(name).into_iter().map(f64::from).collect(),
    };
    match owner {
        Some(operand) => operand.dense(values),
        None => Some(values),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "operands are exact in f32")]
fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

/// Bytes of dense values in stored form.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "operands are exact in their type")]
fn stored(values: &[f64], shape: &[usize], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F32 => bytemuck::cast_slice(&pad_rows(&narrow(values), shape)).to_vec(),
        DType::F16 => bytemuck::cast_slice(&pad_rows(&values.iter().map(|&v| half::f16::from_f64(v)).collect::<Vec<_>>(), shape)).to_vec(),
        DType::U32 => bytemuck::cast_slice(&pad_rows(&values.iter().map(|&v| v as u32).collect::<Vec<_>>(), shape)).to_vec(),
    }
}

/// Largest difference relative to the largest wanted value. Where NaN is wanted it must be there,
/// and infinity where that is; where kernels compute several results from sums of many values
/// (`spreads`), NaN may be in other places of such a tensor too.
fn compare(got: &[f64], coordinates: Option<&[usize]>, want: &[f64], spreads: bool) -> f64 {
    let at = |k: usize| coordinates.map_or(k, |c| c[k]);
    let spoilt = want.iter().any(|v| !v.is_finite());
    if coordinates.is_none() && got.len() != want.len() || !spoilt && got.iter().any(|v| !v.is_finite()) {
        return f64::MAX;
    }
    let largest = want.iter().filter(|v| v.is_finite()).fold(0.0_f64, |m, v| m.max(v.abs()));
    let difference = |got: f64, want: f64| match (got.is_finite(), want.is_finite()) {
        (true, true) => (got - want).abs(),
        (false, false) if got == want || got.is_nan() && (want.is_nan() || spreads) => 0.0,
        (false, true) if spreads && got.is_nan() => 0.0,
        _ => f64::MAX,
    };
    let worst = want.iter().enumerate().fold(0.0_f64, |m, (k, w)| m.max(difference(got[at(k)], *w)));
    if worst == f64::MAX {
        return worst;
    }
    // Where all is zero, an absolute error.
    if largest > 0.0 { worst / largest } else { worst }
}
