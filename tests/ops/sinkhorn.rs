//! Sinkhorn codes.

#[test]
fn matches_the_reference() {
    crate::check("sinkhorn");
}

#[test]
fn matches_the_official_code() {
    use crate::golden::{Golden, Run};
    Golden::open("loss", 3e-5).each("sinkhorn", |case| {
        let mut run = Run::default();
        let rows = case.tensor("scores").0[0];
        let scores = run.input("scores", case.tensor("scores"));
        run.output("q", &scores.sinkhorn(case.number("eps") as f32, case.size("iterations"), rows));
        case.hold("q", &run.call().f32("q"), &case.tensor("q").1);
    });
}
