//! Convolution: all three products, every kernel variant.

#[test]
fn matches_the_reference() {
    crate::check("conv2d");
}

#[test]
fn matches_pytorch() {
    use crate::golden::{Golden, Run};
    Golden::open("conv", 3e-6).each("", |case| {
        let mut run = Run::default();
        let (x, w) = (run.input("x", case.tensor("x")), run.input("w", case.weight("w")));
        let y = x.conv2d(&w, case.size("stride"), case.size("padding"));
        run.output("y", &y);
        run.gradients(&y, case.tensor("gy"), &[("gx", &x), ("gw", &w)]);
        let got = run.call();
        case.hold("y", &got.f32("y"), &case.tensor("y").1);
        case.hold("gx", &got.f32("gx"), &case.tensor("gx").1);
        case.hold("gw", &got.f32("gw"), &case.weight("gw").1);
    });
}
