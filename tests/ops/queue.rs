//! The feature queue.

#[test]
fn matches_the_reference() {
    crate::check("queue_push");
    crate::check("rows_at");
}
