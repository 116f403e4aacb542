//! Rectified linear unit.

#[test]
fn matches_the_reference() {
    crate::check("relu");
}

#[test]
fn matches_pytorch() {
    use crate::golden::{Golden, Run};
    Golden::open("pool", 3e-6).each("relu/", |case| {
        let mut run = Run::default();
        let x = run.input("x", case.tensor("x"));
        let y = x.relu();
        run.output("y", &y);
        run.gradients(&y, case.tensor("gy"), &[("gx", &x)]);
        let got = run.call();
        case.hold("y", &got.f32("y"), &case.tensor("y").1);
        // WGSL lets an implementation take subnormal numbers for 0, where the derivative is another.
        let zero_may_be: Vec<bool> = case.tensor("x").1.iter().map(|x| *x != 0.0 && x.abs() < f64::from(f32::MIN_POSITIVE)).collect();
        let (gx, mut want) = (got.f32("gx"), case.tensor("gx").1);
        want.iter_mut().zip(&gx).zip(zero_may_be).filter(|((_, got), may)| *may && **got == 0.0).for_each(|((want, _), _)| *want = 0.0);
        case.hold("gx", &gx, &want);
    });
}
