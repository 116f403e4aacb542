//! Sum of two tensors.

#[test]
fn matches_the_reference() {
    crate::check("add");
    crate::check("accumulate_into");
    crate::check("clear");
}

#[test]
fn matches_pytorch() {
    use crate::golden::{Golden, Run};
    Golden::open("pool", 3e-6).each("add_relu/", |case| {
        let mut run = Run::default();
        let (x, z) = (run.input("x", case.tensor("x")), run.input("z", case.tensor("z")));
        let y = x.add(&z).relu();
        run.output("y", &y);
        run.gradients(&y, case.tensor("gy"), &[("gx", &x), ("gz", &z)]);
        let got = run.call();
        for name in ["y", "gx", "gz"] {
            case.hold(name, &got.f32(name), &case.tensor(name).1);
        }
    });
}
