//! Fully connected layers.

#[test]
fn matches_the_reference() {
    crate::check("linear");
}

#[test]
fn matches_pytorch() {
    use crate::golden::{Golden, Run};
    Golden::open("dense", 3e-6).each("linear/", |case| {
        let mut run = Run::default();
        let (x, w) = (run.input("x", case.tensor("x")), run.input("w", case.weight("w")));
        let b = case.has("b").then(|| run.input("b", case.tensor("b")));
        let y = x.linear(&w, b.as_ref());
        run.output("y", &y);
        let mut wrt = vec![("gx", &x), ("gw", &w)];
        wrt.extend(b.as_ref().map(|b| ("gb", b)));
        run.gradients(&y, case.tensor("gy"), &wrt);
        let got = run.call();
        case.hold("gw", &got.f32("gw"), &case.weight("gw").1);
        for name in ["y", "gx", "gb"].iter().filter(|name| case.has(name)) {
            case.hold(name, &got.f32(name), &case.tensor(name).1);
        }
    });
}
