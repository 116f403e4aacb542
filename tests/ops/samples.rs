//! Sample inputs of PyTorch's OpInfo and of ONNX's node tests, and such with NaN, infinities, zeros
//! of both signs and large logits: forward and gradients, with every kernel variant.
//! `tests/golden/samples.py` records them and says what it leaves out, and why.

use crate::golden::{Case, Golden, Run, assert_spoilt};
use swav_wgpu::graph::{Outputs, Tensor};
use swav_wgpu::ops::{BatchNormMode, BatchNormParameters};

/// Runs every case of `op`, which `record` records with its outputs.
fn each(op: &str, floor: f64, record: impl Fn(&Case<'_>, &mut Run)) {
    Golden::open("samples", floor).each(&format!("{op}/"), |case| {
        let mut run = Run::default();
        record(case, &mut run);
        run.each_variant(|variant, got| hold(case, variant, got, floor));
    });
}

fn hold(case: &Case<'_>, variant: &str, got: &Outputs, floor: f64) {
    // A transformed tile has sums of all its pixels, and rounds more.
    let minimal = variant.starts_with("winograd");
    let limit = if minimal { 4.0 * floor } else { floor };
    // The gradient of a batch norm over a few values is what is left of some that cancel.
    let least = if case.name.starts_with("batch_norm/") { 1e-2 } else { 1e-12 };
    for (name, shaped) in [("y", true), ("gx", true), ("gother", true), ("gw", false), ("gb", true), ("gweight", true), ("gbias", true)] {
        let Some(values) = case.has(name).then(|| got.get_f32(name)).flatten() else { continue };
        let want = if shaped { case.tensor(name).1 } else { case.weight(name).1 };
        // Kernels multiply some weight by 0 where there is no pixel: NaN of one can be at the
        // border, and in other channels, too.
        let spreads = minimal || name == "gx" && case.name.ends_with("in w");
        assert_spoilt(&format!("{} {name} [{variant}]", case.name), &values, &want, (limit, least), spreads);
    }
    for name in ["new_mean", "new_var"] {
        if let Some(values) = case.has(name).then(|| got.get_f32(name)).flatten() {
            assert_spoilt(&format!("{} {name}", case.name), &values, &case.tensor(name).1, (limit, least), false);
        }
    }
}

/// Records `y` and the gradients of its operands.
fn differentiate(case: &Case<'_>, run: &mut Run, y: &Tensor, wrt: &[(&str, &Tensor)]) {
    run.output("y", y);
    if case.has("gy") {
        run.gradients(y, case.tensor("gy"), wrt);
    }
}

#[test]
fn convolutions() {
    each("conv2d", 1e-5, |case, run| {
        let (x, w) = (run.input("x", case.tensor("x")), run.input("w", case.weight("w")));
        let y = x.conv2d(&w, case.size("stride"), case.size("padding"));
        differentiate(case, run, &y, &[("gx", &x), ("gw", &w)]);
    });
}

#[test]
fn linear_layers() {
    each("linear", 1e-5, |case, run| {
        let (x, w) = (run.input("x", case.tensor("x")), run.input("w", case.weight("w")));
        let b = case.has("b").then(|| run.input("b", case.tensor("b")));
        let y = x.linear(&w, b.as_ref());
        let gradients = [Some(("gx", &x)), Some(("gw", &w)), b.as_ref().map(|b| ("gb", b))];
        differentiate(case, run, &y, &gradients.into_iter().flatten().collect::<Vec<_>>());
    });
}

#[test]
fn batch_norms() {
    each("batch_norm", 1e-4, |case, run| {
        let x = run.input("x", case.tensor("x"));
        let (weight, bias) = (run.input("weight", case.tensor("weight")), run.input("bias", case.tensor("bias")));
        let (running_mean, running_var) = (run.variable("mean", case.tensor("mean")), run.variable("var", case.tensor("var")));
        let training = case.params["training"].as_bool().unwrap();
        let mode = if training { BatchNormMode::Training { momentum: case.number("momentum") as f32 } } else { BatchNormMode::Evaluation };
        let parameters = BatchNormParameters { weight: weight.clone(), bias: bias.clone(), running_mean, running_var };
        let y = x.batch_norm(&parameters, mode);
        differentiate(case, run, &y, &[("gx", &x), ("gweight", &weight), ("gbias", &bias)]);
        run.output("new_mean", &parameters.running_mean);
        run.output("new_var", &parameters.running_var);
    });
}

/// Ops of one tensor.
fn unary(op: &str, floor: f64, build: impl Fn(&Case<'_>, &Tensor) -> Tensor) {
    each(op, floor, |case, run| {
        let x = run.input("x", case.tensor("x"));
        let y = build(case, &x);
        differentiate(case, run, &y, &[("gx", &x)]);
    });
}

#[test]
fn activations_and_pools() {
    unary("relu", 1e-7, |_, x| x.relu());
    unary("max_pool2d", 1e-6, |case, x| x.max_pool2d(case.size("kernel"), case.size("stride"), case.size("padding")));
    unary("adaptive_avg_pool2d", 1e-6, |_, x| x.global_avg_pool2d());
}

#[test]
fn rows() {
    unary("normalize", 1e-6, |_, x| x.normalize());
    unary("log_softmax", 3e-5, |_, x| x.log_softmax());
    unary("sum_columns", 1e-6, |_, x| x.sum_columns());
}

#[test]
fn sums() {
    each("add", 1e-7, |case, run| {
        let (x, other) = (run.input("x", case.tensor("x")), run.input("other", case.tensor("other")));
        let y = x.add(&other);
        differentiate(case, run, &y, &[("gx", &x), ("gother", &other)]);
    });
}

#[test]
fn cross_entropies() {
    each("cross_entropy", 3e-5, |case, run| {
        let x = run.input("x", case.tensor("x"));
        let y = if case.params["soft"].as_bool().unwrap() {
            x.soft_cross_entropy(&run.input("t", case.tensor("t")), 1.0, case.number("scale") as f32)
        } else {
            x.cross_entropy(&run.labels("t", case.tensor("t")))
        };
        differentiate(case, run, &y, &[("gx", &x)]);
    });
}

#[test]
fn columns_of_the_largest() {
    Golden::open("samples", 0.0).each("argmax/", |case| {
        let mut run = Run::default();
        let y = run.input("x", case.tensor("x")).argmax_rows();
        run.output("y", &y);
        let want: Vec<u32> = case.tensor("y").1.iter().map(|v| *v as u32).collect();
        assert_eq!(run.call().u32("y"), want, "{}", case.name);
    });
}
