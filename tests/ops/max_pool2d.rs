#[test]
fn matches_the_reference() {
    crate::check("max_pool2d");
}
