//! Reference values of PyTorch, and small programs to hold against them.

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::path::Path;
use swav_wgpu::check::Force;
use swav_wgpu::graph::{DType, Graph, Outputs, Program, SEPARATE, Store, Tensor, Variables, Variants, differentiate, pad_rows, stored_elements};
use swav_wgpu::tune::BestGuess;

/// The recorded cases of one file.
pub struct Golden {
    cases: serde_json::Map<String, Value>,
    tensors: Vec<u8>,
    floor: f64,
}

/// One recorded case.
pub struct Case<'a> {
    pub name: &'a str,
    pub params: &'a Value,
    error: &'a Value,
    tensors: SafeTensors<'a>,
    floor: f64,
}

impl Golden {
    /// `tests/golden/ops/NAME.*`. `floor`: the smallest limit, 3e-6, or 3e-5 for ops with exp or log.
    pub fn open(name: &str, floor: f64) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ops");
        let cases = serde_json::from_slice(&std::fs::read(folder.join(format!("{name}.json"))).unwrap()).unwrap();
        Self { cases, tensors: std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap(), floor }
    }

    /// Runs `test` on every case whose name starts with `prefix`.
    pub fn each(&self, prefix: &str, test: impl Fn(&Case<'_>)) {
        let mut count = 0;
        for (name, case) in self.cases.iter().filter(|(name, _)| name.starts_with(prefix) && name.contains('/')) {
            let tensors = SafeTensors::deserialize(&self.tensors).unwrap();
            test(&Case { name, params: &case["params"], error: &case["torch_fp32_error"], tensors, floor: self.floor });
            count += 1;
        }
        assert!(count > 0, "no golden case of {prefix}");
    }
}

impl Case<'_> {
    /// Whether the case has this tensor.
    pub fn has(&self, tensor: &str) -> bool {
        self.tensors.tensor(&format!("{}/{tensor}", self.name)).is_ok()
    }

    /// Shape in PyTorch's order and values of a tensor.
    pub fn raw(&self, tensor: &str) -> (Vec<usize>, Vec<f64>) {
        let view = self.tensors.tensor(&format!("{}/{tensor}", self.name)).unwrap();
        let values = match view.dtype() {
            Dtype::F32 => view.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
            Dtype::F64 => view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::I64 => view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
            other => panic!("{tensor} is {other:?}"),
        };
        (view.shape().to_vec(), values)
    }

    /// A tensor in the engine's order: NCHW becomes NHWC.
    pub fn tensor(&self, tensor: &str) -> (Vec<usize>, Vec<f64>) {
        let (shape, values) = self.raw(tensor);
        if shape.len() == 4 { permute(&shape, &values, [0, 2, 3, 1]) } else { (shape, values) }
    }

    /// A weight in the engine's order and padded: OIHW, or (out, in), becomes (R, S, I padded, O).
    pub fn weight(&self, tensor: &str) -> (Vec<usize>, Vec<f64>) {
        let (mut shape, values) = self.raw(tensor);
        shape.resize(4, 1);
        let (mut shape, values) = permute(&shape, &values, [2, 3, 1, 0]);
        let (rows, columns) = (shape[2], shape[3]);
        shape[2] = rows.next_multiple_of(4);
        let pad = vec![0.0; (shape[2] - rows) * columns];
        (shape, values.chunks_exact(rows * columns).flat_map(|tap| [tap, &pad].concat()).collect())
    }

    pub fn number(&self, param: &str) -> f64 {
        self.params[param].as_f64().unwrap_or_else(|| panic!("{}: no {param}", self.name))
    }

    pub fn size(&self, param: &str) -> usize {
        self.params[param].as_u64().unwrap_or_else(|| panic!("{}: no {param}", self.name)) as usize
    }

    /// Holds `got` to `want`: within 30 times PyTorch's own error in f32, or the floor, of the largest value.
    pub fn hold(&self, tensor: &str, got: &[f32], want: &[f64]) {
        let limit = (30.0 * self.error[tensor].as_f64().unwrap_or(0.0)).max(self.floor);
        assert_close(&format!("{} {tensor}", self.name), got, want, limit);
    }
}

/// Holds `got` to `want` within `limit` of the largest value.
pub fn assert_close(what: &str, got: &[f32], want: &[f64], limit: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
    // Where the truth is 0 but for rounding, errors are absolute.
    let unit = if largest > 1e-12 { largest } else { 1.0 };
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*g) - w).abs();
        assert!(error <= limit * unit, "{what}[{i}]: {g} for {w}, limit {limit:.1e} of {largest}");
    }
}

/// The same where either may be spoilt: NaN must be where it is wanted, infinity, or NaN, where
/// that is. The limit is of the largest value, or of `least` where none is so large. `spreads`: NaN
/// may be elsewhere too.
pub fn assert_spoilt(what: &str, got: &[f32], want: &[f64], (limit, least): (f64, f64), spreads: bool) {
    assert_eq!(got.len(), want.len(), "{what}");
    // As f32 has them.
    let want: Vec<f64> = want.iter().map(|v| f64::from(*v as f32)).collect();
    let unit = want.iter().filter(|v| v.is_finite()).fold(0.0_f64, |m, v| m.max(v.abs())).max(least);
    for (i, (g, w)) in got.iter().map(|g| f64::from(*g)).zip(want).enumerate() {
        let holds = match (g.is_finite(), w.is_finite()) {
            (true, true) => (g - w).abs() <= limit * unit,
            (false, false) => g == w || g.is_nan(),
            (false, true) => g.is_nan() && spreads,
            (true, false) => false,
        };
        assert!(holds, "{what}[{i}]: {g} for {w}, limit {limit:.1e} of {unit}");
    }
}

fn permute(shape: &[usize], values: &[f64], order: [usize; 4]) -> (Vec<usize>, Vec<f64>) {
    let strides = [shape[1] * shape[2] * shape[3], shape[2] * shape[3], shape[3], 1];
    let to = order.map(|i| shape[i]);
    let from = order.map(|i| strides[i]);
    let mut out = Vec::with_capacity(values.len());
    for a in 0..to[0] {
        for b in 0..to[1] {
            for c in 0..to[2] {
                out.extend((0..to[3]).map(|d| values[a * from[0] + b * from[1] + c * from[2] + d * from[3]]));
            }
        }
    }
    (to.to_vec(), out)
}

/// A program under construction with the data of its inputs and variables.
#[derive(Default)]
pub struct Run {
    pub graph: Graph,
    variables: Variables,
    inputs: Vec<(String, Vec<u8>)>,
    contents: Vec<(swav_wgpu::graph::VariableId, Vec<f32>)>,
    outputs: Vec<(String, Tensor)>,
}

impl Run {
    pub fn input(&mut self, name: &str, (shape, values): (Vec<usize>, Vec<f64>)) -> Tensor {
        let stored = pad_rows(&values.iter().map(|&v| v as f32).collect::<Vec<_>>(), &shape);
        self.inputs.push((name.to_owned(), bytemuck::cast_slice(&stored).to_vec()));
        self.graph.input(name, &shape, DType::F32)
    }

    pub fn labels(&mut self, name: &str, (shape, values): (Vec<usize>, Vec<f64>)) -> Tensor {
        let stored = pad_rows(&values.iter().map(|&v| v as u32).collect::<Vec<_>>(), &shape);
        self.inputs.push((name.to_owned(), bytemuck::cast_slice(&stored).to_vec()));
        self.graph.input(name, &shape, DType::U32)
    }

    pub fn variable(&mut self, name: &str, (shape, values): (Vec<usize>, Vec<f64>)) -> Tensor {
        let id = self.variables.add(name, &shape, DType::F32);
        self.contents.push((id, pad_rows(&values.iter().map(|&v| v as f32).collect::<Vec<_>>(), &shape)));
        self.graph.variable(&self.variables, id)
    }

    pub fn output(&mut self, name: &str, tensor: &Tensor) {
        self.outputs.push((name.to_owned(), tensor.clone()));
    }

    /// Adds the gradients of `output`, whose own gradient is `grad_output`, under their names.
    pub fn gradients(&mut self, output: &Tensor, grad_output: (Vec<usize>, Vec<f64>), wrt: &[(&str, &Tensor)]) {
        let seed = self.input("grad_output", grad_output);
        let tensors: Vec<Tensor> = wrt.iter().map(|(_, t)| (*t).clone()).collect();
        for ((name, _), gradient) in wrt.iter().zip(differentiate(output, seed, &tensors, Tensor::add)) {
            self.output(name, &gradient.unwrap());
        }
    }

    /// Runs with every kernel variant that is offered, fused and not, and holds what comes out by
    /// `hold`. Kernels that round factors to f16 are left out: they are given none that need it
    /// elsewhere.
    pub fn each_variant(&self, hold: impl Fn(&str, &Outputs)) {
        let names: Vec<(&str, &Tensor)> = self.outputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let store = Store::new(&crate::GPU, self.variables.clone()).unwrap();
        let program = Program::new(&crate::GPU, &store, &self.graph, &names, &BestGuess).unwrap();
        let offered = program.decisions().iter().flat_map(|d| &d.offered).map(String::as_str);
        let variants: std::collections::BTreeSet<&str> = offered.chain(["plain", SEPARATE]).filter(|v| !v.contains("coop")).collect();
        for variant in variants {
            hold(variant, &self.call_with(&Force(variant.to_owned())));
        }
    }

    pub fn call(&self) -> Outputs {
        self.call_with(&BestGuess)
    }

    fn call_with(&self, variants: &dyn Variants) -> Outputs {
        let gpu = &*crate::GPU;
        let store = Store::new(gpu, self.variables.clone()).unwrap();
        for (id, stored) in &self.contents {
            assert_eq!(stored.len(), stored_elements(&self.variables.info(*id).shape));
            store.write(gpu, *id, stored).unwrap();
        }
        let outputs: Vec<(&str, &Tensor)> = self.outputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let mut program = Program::new(gpu, &store, &self.graph, &outputs, variants).unwrap();
        let inputs: Vec<(&str, &[u8])> = self.inputs.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
        let outputs = program.call(gpu, &inputs).unwrap();
        assert_eq!(gpu.overruns().unwrap(), Some(0), "accesses beyond a binding");
        outputs
    }
}
