#[test]
fn matches_the_reference() {
    crate::check("cross_entropy");
    crate::check("soft_cross_entropy");
}
