//! Concatenation, slices and copies between element types.

#[test]
fn matches_the_reference() {
    crate::check("concat_rows");
    crate::check("slice_rows");
    crate::check("cast");
}
