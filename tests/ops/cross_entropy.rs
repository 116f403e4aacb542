//! Cross-entropy against labels and distributions.

#[test]
fn matches_the_reference() {
    crate::check("cross_entropy");
    crate::check("soft_cross_entropy");
    crate::check("weighted_cross_entropy");
}

/// Cards take 64 invocations a row, processors eight.
#[test]
fn rows_of_cards_match_the_reference() {
    let mut gpu = swav_wgpu::gpu::Gpu::open_checked(None).unwrap();
    gpu.act_as(swav_wgpu::gpu::DeviceKind::Discrete);
    crate::check_on(&gpu, "^(soft_|weighted_)?cross_entropy ");
}

use crate::golden::{Golden, Run};
use swav_wgpu::ops::gradients;

#[test]
fn soft_targets_match_pytorch() {
    Golden::open("loss", 3e-5).each("soft_cross_entropy/", |case| {
        let mut run = Run::default();
        let (x, q) = (run.input("x", case.tensor("x")), run.input("q", case.tensor("q")));
        let rows = case.tensor("x").0[0];
        let loss = x.soft_cross_entropy(&q, case.number("temperature") as f32, 1.0 / rows as f32);
        run.output("loss", &loss);
        let gx = gradients(&loss, &[x]).remove(0).unwrap();
        run.output("gx", &gx);
        let got = run.call();
        case.hold("loss", &got.f32("loss"), &case.tensor("loss").1);
        case.hold("gx", &got.f32("gx"), &case.tensor("gx").1);
    });
}

#[test]
fn labels_match_pytorch() {
    Golden::open("loss", 3e-5).each("cross_entropy/hard", |case| {
        let mut run = Run::default();
        let (x, target) = (run.input("x", case.tensor("x")), run.labels("target", case.tensor("target")));
        let loss = x.cross_entropy(&target);
        run.output("loss", &loss);
        let gx = gradients(&loss, &[x]).remove(0).unwrap();
        run.output("gx", &gx);
        let got = run.call();
        case.hold("loss", &got.f32("loss"), &case.tensor("loss").1);
        case.hold("gx", &got.f32("gx"), &case.tensor("gx").1);
    });
}

/// Neither reads another row or beyond the tensor.
#[test]
fn a_label_out_of_range_is_the_last_one() {
    let loss = |labels: [f64; 2], weighted: bool| {
        let mut run = Run::default();
        let x = run.input("x", (vec![2, 3], vec![0.5, -1.0, 2.0, 9.0, 3.0, -7.0]));
        let target = run.labels("target", (vec![2], labels.to_vec()));
        let loss = if weighted {
            let weights = run.input("weights", (vec![2], vec![0.5, 0.5]));
            x.weighted_cross_entropy(&target, &weights, 1.0)
        } else {
            x.cross_entropy(&target)
        };
        run.output("loss", &loss);
        run.output("gx", &gradients(&loss, &[x]).remove(0).unwrap());
        let got = run.call();
        (got.f32("loss"), got.f32("gx"))
    };
    for weighted in [false, true] {
        let last = loss([2.0, 2.0], weighted);
        for beyond in [[3.0, 2.0], [4.0, 5.0], [4e9, 1e9]] {
            assert_eq!(loss(beyond, weighted), last, "{beyond:?}, {weighted}");
        }
    }
}
