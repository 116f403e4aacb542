//! Shapes that mean nothing are refused where they are written, with all shapes that take part.

use std::panic::{AssertUnwindSafe, catch_unwind};
use swav_wgpu::graph::{DType, Graph, Variables};

#[track_caller]
fn refused(record: impl FnOnce(&Graph), words: &[&str]) {
    let panic = catch_unwind(AssertUnwindSafe(|| record(&Graph::new()))).expect_err("was recorded");
    let said = panic.downcast_ref::<String>().expect("a message with shapes");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

#[test]
fn shapes_that_mean_nothing_are_refused_with_all_shapes() {
    let images = |g: &Graph| g.input("x", &[2, 5, 6, 3], DType::F32);
    let weight = |g: &Graph| g.input("w", &[3, 3, 4, 8], DType::F32);
    let stride = |g: &Graph| drop(images(g).conv2d(&weight(g), 0, 1));
    refused(stride, &["[2, 5, 6, 3]", "[3, 3, 4, 8]", "stride 0"]);
    let known = |g: &Graph| {
        let w = weight(g);
        g.note_inputs(&w, 4);
        drop(images(g).conv2d(&w, 1, 1));
    };
    refused(known, &["[2, 5, 6, 3]", "[3, 3, 4, 8]", "3 channels", "is for 4"]);
    // So is a copy of it in another type.
    let cast = |g: &Graph| {
        let w = weight(g);
        g.note_inputs(&w, 4);
        drop(images(g).cast(DType::F16).conv2d(&w.cast(DType::F16), 1, 1));
    };
    refused(cast, &["[2, 5, 6, 3]", "is for 4"]);
    refused(|g| drop(images(g).max_pool2d(3, 0, 1)), &["[2, 5, 6, 3]", "stride 0"]);
    refused(|g| drop(images(g).max_pool2d(0, 1, 0)), &["[2, 5, 6, 3]", "0x0"]);
    for shape in [&[0, 5, 6, 3][..], &[4, 0], &[0]] {
        refused(|g| drop(g.input("empty", shape, DType::F32)), &["empty", &format!("{shape:?}"), "no elements"]);
        refused(|g| drop(g.intermediate("empty", shape, DType::F32)), &[&format!("{shape:?}"), "no elements"]);
        refused(
            |_| {
                let _ = Variables::new().add("empty", shape, DType::F32);
            },
            &[&format!("{shape:?}"), "no elements"],
        );
    }
    let matrix = |g: &Graph| g.input("x", &[6, 5], DType::F32);
    refused(|g| drop(matrix(g).slice_rows(2, 0)), &["[6, 5]", "2..2"]);
    refused(|g| drop(matrix(g).sinkhorn(0.05, 3, 0)), &["0 of 6 rows"]);
    refused(|g| drop(matrix(g).swap_codes(2, &[])), &["[6, 5]", "0 assigned"]);
}
