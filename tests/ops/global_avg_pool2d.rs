#[test]
fn matches_the_reference() {
    crate::check("global_avg_pool2d");
}
