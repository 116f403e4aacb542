// Batch normalisation over the rows of (rows, channels), in training and evaluation mode, with an optional residual sum and ReLU:
// y = relu?((x - mean) * invstd * weight + bias (+ residual)).
//
// Sums over the batch are made in two ordered passes and nowhere else: `statistics` and `backward_reduce` per chunk of rows, then
// `finalize` and `backward_finalize` over the chunks. Variances use the chunk's first row as a shift and Chan's merge, so large means do
// no harm. All outputs are `=`, but the running statistics are updated in place.
#import index

alias Element = f32;
const RELU: bool = false;
const TRAINING: bool = true;

struct Params { rows: u32, quads: u32, chunk: u32, chunks: u32, momentum: f32, eps: f32 }

@group(0) @binding(0) var<uniform> params: Params;

// ---- statistics: (mean, sum of squared deviations) of each chunk; one invocation per column quad and chunk

@group(0) @binding(1) var<storage, read> s_input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> s_partials: array<vec4<f32>>;

@compute @workgroup_size(64)
fn statistics(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.quads * params.chunks { return; }
    let quad = i % params.quads;
    let first = i / params.quads * params.chunk;
    let end = min(first + params.chunk, params.rows);
    let shift = vec4<f32>(s_input[first * params.quads + quad]);
    var sum = vec4<f32>();
    var squares = vec4<f32>();
    for (var row = first; row < end; row++) {
        let d = vec4<f32>(s_input[row * params.quads + quad]) - shift;
        sum += d;
        squares += d * d;
    }
    let mean = sum / f32(end - first);
    s_partials[2u * i] = shift + mean;
    s_partials[2u * i + 1u] = max(squares - sum * mean, vec4<f32>());
}

// ---- finalize: merges the chunks; saves mean and 1/sqrt(variance + eps); updates the running statistics (unbiased variance)

@group(0) @binding(1) var<storage, read> f_partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> f_mean: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> f_invstd: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> f_running_mean: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> f_running_var: array<vec4<f32>>;

@compute @workgroup_size(64)
fn finalize(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let quad = workgroup_index(wg, n) * 64u + local;
    if quad >= params.quads { return; }
    var count = 0.0;
    var mean = vec4<f32>();
    var squares = vec4<f32>();
    for (var chunk = 0u; chunk < params.chunks; chunk++) {
        let at = 2u * (chunk * params.quads + quad);
        let more = f32(min((chunk + 1u) * params.chunk, params.rows) - chunk * params.chunk);
        let delta = f_partials[at] - mean;
        let total = count + more;
        mean += delta * (more / total);
        squares += f_partials[at + 1u] + delta * delta * (count * more / total);
        count = total;
    }
    f_mean[quad] = mean;
    f_invstd[quad] = 1.0 / sqrt(squares / count + params.eps);
    let unbiased = squares / max(count - 1.0, 1.0);
    f_running_mean[quad] = mix(f_running_mean[quad], mean, params.momentum);
    f_running_var[quad] = mix(f_running_var[quad], unbiased, params.momentum);
}

// ---- evaluate: mean and 1/sqrt(variance + eps) from the running statistics. Padding lanes give 1/sqrt(eps), which a weight of 0 removes.

@group(0) @binding(1) var<storage, read> e_running_mean: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> e_running_var: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> e_mean: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> e_invstd: array<vec4<f32>>;

@compute @workgroup_size(64)
fn evaluate(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let quad = workgroup_index(wg, n) * 64u + local;
    if quad >= params.quads { return; }
    e_mean[quad] = e_running_mean[quad];
    e_invstd[quad] = 1.0 / sqrt(e_running_var[quad] + params.eps);
}

// ---- forward: one invocation per vec4

@group(0) @binding(1) var<storage, read> x: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> mean: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> invstd: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<Element>>;

fn normalized(i: u32) -> vec4<f32> {
    let quad = i % params.quads;
    return (vec4<f32>(x[i]) - mean[quad]) * (invstd[quad] * weight[quad]) + bias[quad];
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.rows * params.quads { return; }
    var value = normalized(i);
    if RELU { value = max(value, vec4<f32>()); }
    y[i] = vec4<Element>(value);
}

@group(0) @binding(6) var<storage, read> residual: array<vec4<Element>>;
@group(0) @binding(7) var<storage, read_write> joined: array<vec4<Element>>;

@compute @workgroup_size(64)
fn forward_residual(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.rows * params.quads { return; }
    var value = normalized(i) + vec4<f32>(residual[i]);
    if RELU { value = max(value, vec4<f32>()); }
    joined[i] = vec4<Element>(value);
}

// ---- backward_reduce: (sum of g, sum of g * xhat) of each chunk, g being grad_output where the ReLU let through

@group(0) @binding(1) var<storage, read> r_input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> r_mean: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> r_invstd: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> r_output: array<vec4<Element>>;
@group(0) @binding(5) var<storage, read> r_grad_output: array<vec4<Element>>;
@group(0) @binding(6) var<storage, read_write> r_partials: array<vec4<f32>>;

@compute @workgroup_size(64)
fn backward_reduce(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.quads * params.chunks { return; }
    let quad = i % params.quads;
    let first = i / params.quads * params.chunk;
    let end = min(first + params.chunk, params.rows);
    let center = r_mean[quad];
    let scale = r_invstd[quad];
    var sum = vec4<f32>();
    var product = vec4<f32>();
    for (var row = first; row < end; row++) {
        let at = row * params.quads + quad;
        var g = vec4<f32>(r_grad_output[at]);
        if RELU { g = select(vec4<f32>(), g, vec4<f32>(r_output[at]) > vec4<f32>()); }
        sum += g;
        product += g * ((vec4<f32>(r_input[at]) - center) * scale);
    }
    r_partials[2u * i] = sum;
    r_partials[2u * i + 1u] = product;
}

// ---- backward_finalize: the sums over all chunks are the gradients of bias and weight. What `backward` reads of a column quad is
// laid side by side in `z_stats`, so that it binds few buffers.

@group(0) @binding(1) var<storage, read> z_partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> z_mean: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> z_invstd: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> z_weight: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> grad_weight: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> grad_bias: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> z_stats: array<vec4<f32>>;

@compute @workgroup_size(64)
fn backward_finalize(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let quad = workgroup_index(wg, n) * 64u + local;
    if quad >= params.quads { return; }
    var sum = vec4<f32>();
    var product = vec4<f32>();
    for (var chunk = 0u; chunk < params.chunks; chunk++) {
        let at = 2u * (chunk * params.quads + quad);
        sum += z_partials[at];
        product += z_partials[at + 1u];
    }
    grad_bias[quad] = sum;
    grad_weight[quad] = product;
    z_stats[quad * 5u] = z_mean[quad];
    z_stats[quad * 5u + 1u] = z_invstd[quad];
    z_stats[quad * 5u + 2u] = z_weight[quad];
    z_stats[quad * 5u + 3u] = product;
    z_stats[quad * 5u + 4u] = sum;
}

// ---- backward: dx = weight * invstd * (g - sum g / rows - xhat * sum(g xhat) / rows); without the means in evaluation mode

@group(0) @binding(1) var<storage, read> b_input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> b_stats: array<vec4<f32>>; // mean, invstd, weight, grad_weight, grad_bias of every column quad
@group(0) @binding(3) var<storage, read> b_output: array<vec4<Element>>;
@group(0) @binding(4) var<storage, read> b_grad_output: array<vec4<Element>>;
@group(0) @binding(5) var<storage, read_write> b_grad_input: array<vec4<Element>>;

fn masked_gradient(i: u32) -> vec4<f32> {
    let g = vec4<f32>(b_grad_output[i]);
    if RELU { return select(vec4<f32>(), g, vec4<f32>(b_output[i]) > vec4<f32>()); }
    return g;
}

fn input_gradient(i: u32, g: vec4<f32>) -> vec4<f32> {
    let at = i % params.quads * 5u;
    let scale = b_stats[at + 1u];
    var d = g;
    if TRAINING {
        let xhat = (vec4<f32>(b_input[i]) - b_stats[at]) * scale;
        d -= (b_stats[at + 4u] + xhat * b_stats[at + 3u]) / f32(params.rows);
    }
    return d * scale * b_stats[at + 2u];
}

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.rows * params.quads { return; }
    b_grad_input[i] = vec4<Element>(input_gradient(i, masked_gradient(i)));
}

@group(0) @binding(6) var<storage, read_write> b_grad_residual: array<vec4<Element>>;

@compute @workgroup_size(64)
fn backward_residual(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.rows * params.quads { return; }
    let g = masked_gradient(i);
    b_grad_input[i] = vec4<Element>(input_gradient(i, g));
    b_grad_residual[i] = vec4<Element>(g);
}
