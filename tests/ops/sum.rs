//! Ordered sums.

#[test]
fn matches_the_reference() {
    crate::check("sum_columns");
}
