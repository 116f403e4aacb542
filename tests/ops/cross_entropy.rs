//! Cross-entropy against labels and distributions.

#[test]
fn matches_the_reference() {
    crate::check("cross_entropy");
    crate::check("soft_cross_entropy");
    crate::check("weighted_cross_entropy");
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
