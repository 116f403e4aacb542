#[test]
fn matches_the_reference() {
    crate::check("batch_norm");
}
