//! Batch normalisation: training, evaluation, running statistics.

#[test]
fn matches_the_reference() {
    crate::check("batch_norm");
}

/// Cards merge chunks by 64 or 256 invocations, each of which loads several at once.
#[test]
fn sums_of_cards_match_the_reference() {
    let mut gpu = swav_wgpu::gpu::Gpu::open_checked(None).unwrap();
    gpu.act_as(swav_wgpu::gpu::DeviceKind::Discrete);
    crate::check_on(&gpu, "^batch_norm ");
}

use crate::golden::{Case, Golden, Run};
use swav_wgpu::ops::{BatchNormMode, BatchNormParameters};

fn normalized(case: &Case<'_>, mode: BatchNormMode) {
    let mut run = Run::default();
    let x = run.input("x", case.tensor("x"));
    let (weight, bias) = (run.input("w", case.tensor("w")), run.input("b", case.tensor("b")));
    let (shape, zeros) = (case.tensor("w").0, vec![0.0; case.tensor("w").1.len()]);
    let given = |name: &str, value: f64| if case.has(name) { case.tensor(name) } else { (shape.clone(), vec![value; zeros.len()]) };
    let (running_mean, running_var) = (run.variable("mean", given("mean", 0.0)), run.variable("var", given("var", 1.0)));
    let parameters = BatchNormParameters { weight: weight.clone(), bias: bias.clone(), running_mean, running_var };
    let y = x.batch_norm(&parameters, mode);
    run.output("y", &y);
    run.gradients(&y, case.tensor("gy"), &[("gx", &x), ("gw", &weight), ("gb", &bias)]);
    let got = run.call();
    for name in ["y", "gx", "gw", "gb"] {
        case.hold(name, &got.f32(name), &case.tensor(name).1);
    }
}

#[test]
fn matches_pytorch_in_training() {
    Golden::open("norm", 3e-6).each("batchnorm_train/", |case| normalized(case, BatchNormMode::Training { momentum: 0.1 }));
}

#[test]
fn matches_pytorch_in_evaluation() {
    Golden::open("norm", 3e-6).each("batchnorm_eval/", |case| normalized(case, BatchNormMode::Evaluation));
}

#[test]
fn running_statistics_match_pytorch() {
    Golden::open("norm", 3e-6).each("batchnorm_running/", |case| {
        let mut run = Run::default();
        let (shape, x) = case.tensor("x");
        let channels = case.tensor("mean0");
        let ones = (channels.0.clone(), vec![1.0; channels.1.len()]);
        let parameters = BatchNormParameters {
            weight: run.input("w", ones.clone()),
            bias: run.input("b", ones),
            running_mean: run.variable("mean", case.tensor("mean0")),
            running_var: run.variable("var", case.tensor("var0")),
        };
        // Three forward passes in one program: the order of updates is the order of recording.
        for pass in [0.0, 1.0, 2.0] {
            let x = (shape.clone(), x.iter().map(|v| (pass + 1.0) * v + pass).collect());
            let input = run.input(&format!("x{pass}"), x);
            let y = input.batch_norm(&parameters, BatchNormMode::Training { momentum: 0.1 });
            run.output(&format!("y{pass}"), &y);
        }
        run.output("mean3", &parameters.running_mean);
        run.output("var3", &parameters.running_var);
        let got = run.call();
        case.hold("mean3", &got.f32("mean3"), &case.tensor("mean3").1);
        case.hold("var3", &got.f32("var3"), &case.tensor("var3").1);
    });
}
