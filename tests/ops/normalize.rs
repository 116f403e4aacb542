#[test]
fn matches_the_reference() {
    crate::check("normalize");
    crate::check("normalize_columns");
}
