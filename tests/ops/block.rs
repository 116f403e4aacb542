//! Convolutions, batch norms and what goes around them, fused and apart.

#[test]
fn matches_the_reference() {
    crate::check("block");
}
