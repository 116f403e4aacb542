#[test]
fn matches_the_reference() {
    crate::check("swap_codes");
}
