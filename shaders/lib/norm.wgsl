// What a batch norm in between makes of a column quad: relu?(batch_norm(x)). Values, and the masks that say where a ReLU let them through, are computed in
// different kernels: here, so that they differ by no more than a compiler's choice to contract a product and a sum.
#import nan

struct BatchNorm { mean: vec4<f32>, scale: vec4<f32>, shift: vec4<f32> }

fn batch_norm(mean: vec4<f32>, invstd: vec4<f32>, weight: vec4<f32>, bias: vec4<f32>) -> BatchNorm { return BatchNorm(mean, invstd * weight, bias); }

// batch_norm(x) of d = x - mean.
fn normalized(n: BatchNorm, d: vec4<f32>) -> vec4<f32> { return d * n.scale + n.shift; }

// The part of its gradient that the ReLU behind it let through.
fn let_through(n: BatchNorm, d: vec4<f32>, gradient: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(), gradient, relu_follows(normalized(n, d)));
}
