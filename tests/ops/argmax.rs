//! The largest value's column.

#[test]
fn matches_the_reference() {
    crate::check("argmax");
}
