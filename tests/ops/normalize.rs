//! L2 normalisation of rows and, in place, of columns.

#[test]
fn matches_the_reference() {
    crate::check("normalize");
    crate::check("normalize_columns");
}

#[test]
fn matches_pytorch() {
    use crate::golden::{Golden, Run, assert_close};
    Golden::open("dense", 3e-6).each("l2normalize/", |case| {
        let mut run = Run::default();
        let x = run.input("x", case.tensor("x"));
        let y = x.normalize();
        run.output("y", &y);
        run.gradients(&y, case.tensor("gy"), &[("gx", &x)]);
        let got = run.call();
        for name in ["y", "gx"] {
            // Row by row: the gradient of a row near zero is 1e12 times that of another.
            let (shape, want) = case.tensor(name);
            for (row, (got, want)) in got.f32(name).chunks(shape[1]).zip(want.chunks(shape[1])).enumerate() {
                assert_close(&format!("{} {name} row {row}", case.name), got, want, 3e-6);
            }
        }
    });
}
