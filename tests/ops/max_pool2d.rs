//! Max pooling, ties included.

#[test]
fn matches_the_reference() {
    crate::check("max_pool2d");
}

#[test]
fn matches_pytorch() {
    use crate::golden::{Golden, Run};
    Golden::open("pool", 3e-6).each("maxpool3x3s2p1/", |case| {
        let mut run = Run::default();
        let x = run.input("x", case.tensor("x"));
        let y = x.max_pool2d(3, 2, 1);
        run.output("y", &y);
        run.gradients(&y, case.tensor("gy"), &[("gx", &x)]);
        let got = run.call();
        case.hold("y", &got.f32("y"), &case.tensor("y").1);
        case.hold("gx", &got.f32("gx"), &case.tensor("gx").1);
    });
}
