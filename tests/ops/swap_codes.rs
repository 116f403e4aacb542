//! Targets of the swapped prediction, and the whole loss.

#[test]
fn matches_the_reference() {
    crate::check("swap_codes");
}

/// Scores to loss and gradient: codes of two crops, swapped, against every other view.
#[test]
fn swapped_prediction_matches_the_official_code() {
    use crate::golden::{Golden, Run};
    use swav_wgpu::ops::{concat_rows, gradients};
    Golden::open("loss", 3e-5).each("swav_loss/", |case| {
        let (batch, crops) = (case.size("batch"), case.size("crops"));
        let mut run = Run::default();
        let scores = run.input("scores", case.tensor("scores"));
        let codes = |crop: usize| scores.slice_rows(crop * batch, batch).sinkhorn(case.number("eps") as f32, 3, batch);
        let targets = concat_rows(&[&codes(0), &codes(1)]).swap_codes(crops, &[0, 1]);
        let scale = 1.0 / (batch * (crops - 1) * 2) as f32;
        let loss = scores.soft_cross_entropy(&targets, case.number("temperature") as f32, scale);
        run.output("loss", &loss);
        let gradient = gradients(&loss, &[scores]).remove(0).unwrap();
        run.output("gscores", &gradient);
        let got = run.call();
        case.hold("loss", &got.f32("loss"), &case.tensor("loss").1);
        case.hold("gscores", &got.f32("gscores"), &case.tensor("gscores").1);
    });
}
