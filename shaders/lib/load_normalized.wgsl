// As `load`, for an input relu(batch_norm(x)) that is nowhere in memory: x is read, and normalised every time.
#import input
#import norm

alias Norm = BatchNorm;
const NORMALIZES: bool = true;

@group(0) @binding(3) var<storage, read> input_moments: array<vec4<f32>>; // mean, then 1/sqrt(variance + eps)
@group(0) @binding(4) var<storage, read> input_gamma: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> input_beta: array<vec4<f32>>;

fn norm_of(quad: u32) -> Norm {
    return batch_norm(input_moments[quad], input_moments[params.in_quads + quad], input_gamma[quad], input_beta[quad]);
}

fn normalized_by(n: Norm, x: vec4<f32>) -> vec4<f32> { return relu(normalized(n, x - n.mean)); }
