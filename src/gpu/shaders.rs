//! The WGSL files of `shaders/`, built into the program.

/// Kernels and their importable pieces: (name, text).
pub static SHADERS: &[(&str, &str)] = &[
    ("add", include_str!("../../shaders/add.wgsl")),
    ("argmax", include_str!("../../shaders/argmax.wgsl")),
    ("batch_norm", include_str!("../../shaders/batch_norm.wgsl")),
    ("cast", include_str!("../../shaders/cast.wgsl")),
    ("conv2d_broadcast", include_str!("../../shaders/conv2d_broadcast.wgsl")),
    ("conv2d_coop", include_str!("../../shaders/conv2d_coop.wgsl")),
    ("conv2d_narrow", include_str!("../../shaders/conv2d_narrow.wgsl")),
    ("conv2d_plain", include_str!("../../shaders/conv2d_plain.wgsl")),
    ("conv2d_tile", include_str!("../../shaders/conv2d_tile.wgsl")),
    ("conv2d_weight", include_str!("../../shaders/conv2d_weight.wgsl")),
    ("conv2d_weight_broadcast", include_str!("../../shaders/conv2d_weight_broadcast.wgsl")),
    ("conv2d_weight_coop", include_str!("../../shaders/conv2d_weight_coop.wgsl")),
    ("conv2d_weight_plain", include_str!("../../shaders/conv2d_weight_plain.wgsl")),
    ("conv2d_weight_tile", include_str!("../../shaders/conv2d_weight_tile.wgsl")),
    ("cross_entropy", include_str!("../../shaders/cross_entropy.wgsl")),
    ("global_avg_pool2d", include_str!("../../shaders/global_avg_pool2d.wgsl")),
    ("linear", include_str!("../../shaders/linear.wgsl")),
    ("log_softmax", include_str!("../../shaders/log_softmax.wgsl")),
    ("loop_cap", include_str!("../../shaders/loop_cap.wgsl")),
    ("loss_scale", include_str!("../../shaders/loss_scale.wgsl")),
    ("max_pool2d", include_str!("../../shaders/max_pool2d.wgsl")),
    ("normalize", include_str!("../../shaders/normalize.wgsl")),
    ("optimizer", include_str!("../../shaders/optimizer.wgsl")),
    ("queue", include_str!("../../shaders/queue.wgsl")),
    ("relu", include_str!("../../shaders/relu.wgsl")),
    ("scale", include_str!("../../shaders/scale.wgsl")),
    ("sinkhorn", include_str!("../../shaders/sinkhorn.wgsl")),
    ("sum", include_str!("../../shaders/sum.wgsl")),
    ("swap_codes", include_str!("../../shaders/swap_codes.wgsl")),
    ("lib/columns", include_str!("../../shaders/lib/columns.wgsl")),
    ("lib/conv2d", include_str!("../../shaders/lib/conv2d.wgsl")),
    ("lib/coop", include_str!("../../shaders/lib/coop.wgsl")),
    ("lib/finite", include_str!("../../shaders/lib/finite.wgsl")),
    ("lib/index", include_str!("../../shaders/lib/index.wgsl")),
    ("lib/packed", include_str!("../../shaders/lib/packed.wgsl")),
    ("lib/reduce", include_str!("../../shaders/lib/reduce.wgsl")),
];

/// The text of shader `name`, or of `lib/name`.
pub fn source(name: &str) -> Option<&'static str> {
    let find = |wanted: &str| SHADERS.iter().find(|(n, _)| *n == wanted).map(|(_, text)| *text);
    find(name).or_else(|| find(&format!("lib/{name}")))
}
