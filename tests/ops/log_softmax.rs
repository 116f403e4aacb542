//! Log-softmax.

#[test]
fn matches_the_reference() {
    crate::check("log_softmax");
}

#[test]
fn matches_pytorch() {
    use crate::golden::{Golden, Run};
    Golden::open("loss", 3e-5).each("log_softmax/", |case| {
        // Recorded with a temperature, which is the caller's here.
        let temperature = case.number("temperature");
        let (shape, x) = case.tensor("x");
        let mut run = Run::default();
        let x = run.input("x", (shape, x.iter().map(|v| v / temperature).collect()));
        let y = x.log_softmax();
        run.output("y", &y);
        run.gradients(&y, case.tensor("gy"), &[("gx", &x)]);
        let got = run.call();
        case.hold("y", &got.f32("y"), &case.tensor("y").1);
        let gx: Vec<f32> = got.f32("gx").iter().map(|g| (f64::from(*g) / temperature) as f32).collect();
        case.hold("gx", &gx, &case.tensor("gx").1);
    });
}
