// Batch normalisation over the rows of (rows, channels), in training and evaluation mode, with an optional residual sum and ReLU:
// y = relu?((x - mean) * invstd * weight + bias (+ residual)).
//
// Sums over the batch are made in two ordered passes and nowhere else: `statistics` and `backward_reduce` per chunk of rows, then
// `finalize` and `backward_finalize` over the chunks. Variances use the chunk's first row as a shift and Chan's merge, so large means do
// no harm. All outputs are `=`, but the running statistics are updated in place.
#import finite
#import index
#import reduce

alias Element = f32;
const RELU: bool = false;
const TRAINING: bool = true;

// `rows` are those of this launch, `batch_rows` those of the whole batch; this launch's chunks are numbered from `first_chunk` on.
struct Params { rows: u32, batch_rows: u32, quads: u32, chunk: u32, chunks: u32, first_chunk: u32, span: u32, momentum: f32, eps: f32 }

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
    let to = 2u * (params.first_chunk * params.quads + i);
    s_partials[to] = shift + mean;
    s_partials[to + 1u] = max(squares - sum * mean, vec4<f32>());
}

// ---- finalize: merges the chunks; saves mean and 1/sqrt(variance + eps); updates the running statistics (unbiased variance). One
// workgroup per column quad: every invocation merges each LANES-th chunk, then a tree of fixed shape merges the invocations.

@group(0) @binding(1) var<storage, read> f_partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> f_mean: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> f_invstd: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> f_running_mean: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> f_running_var: array<vec4<f32>>;

struct Moments { count: f32, mean: vec4<f32>, squares: vec4<f32> }

var<workgroup> moments: array<Moments, LANES>;

fn merge(a: Moments, b: Moments) -> Moments {
    let total = max(a.count + b.count, 1.0);
    let delta = b.mean - a.mean;
    let mean = a.mean + delta * (b.count / total);
    return Moments(a.count + b.count, mean, a.squares + b.squares + delta * delta * (a.count * b.count / total));
}

@compute @workgroup_size(LANES)
fn finalize(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let quad = workgroup_index(wg, n);
    if quad >= params.quads { return; }
    var own = Moments(0.0, vec4<f32>(), vec4<f32>());
    for (var chunk = local; chunk < params.chunks; chunk += LANES) {
        let at = 2u * (chunk * params.quads + quad);
        let count = f32(min((chunk + 1u) * params.chunk, params.rows) - chunk * params.chunk);
        own = merge(own, Moments(count, f_partials[at], f_partials[at + 1u]));
    }
    moments[local] = own;
    for (var half = LANES / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if local < half { moments[local] = merge(moments[local], moments[local + half]); }
    }
    if local > 0u { return; }
    let all = moments[0];
    f_mean[quad] = all.mean;
    f_invstd[quad] = 1.0 / sqrt(all.squares / all.count + params.eps);
    let unbiased = all.squares / max(all.count - 1.0, 1.0);
    // A batch that overflowed f16 updates no weight either (see loss_scale.wgsl); the running statistics go on without it.
    if not_finite(all.mean) || not_finite(unbiased) { return; }
    f_running_mean[quad] = mix(f_running_mean[quad], all.mean, params.momentum);
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

// ---- forward: one invocation per column quad and `span` rows, so that what belongs to the column is read once

@group(0) @binding(1) var<storage, read> x: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> mean: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> invstd: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<Element>>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    let quad = i % params.quads;
    let first = i / params.quads * params.span;
    let end = min(first + params.span, params.rows);
    let center = mean[quad];
    let scale = invstd[quad] * weight[quad];
    let shift = bias[quad];
    for (var row = first; row < end; row++) {
        let at = row * params.quads + quad;
        var value = (vec4<f32>(x[at]) - center) * scale + shift;
        if RELU { value = max(value, vec4<f32>()); }
        y[at] = vec4<Element>(value);
    }
}

@group(0) @binding(6) var<storage, read> residual: array<vec4<Element>>;
@group(0) @binding(7) var<storage, read_write> joined: array<vec4<Element>>;

@compute @workgroup_size(64)
fn forward_residual(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    let quad = i % params.quads;
    let first = i / params.quads * params.span;
    let end = min(first + params.span, params.rows);
    let center = mean[quad];
    let scale = invstd[quad] * weight[quad];
    let shift = bias[quad];
    for (var row = first; row < end; row++) {
        let at = row * params.quads + quad;
        var value = (vec4<f32>(x[at]) - center) * scale + shift + vec4<f32>(residual[at]);
        if RELU { value = max(value, vec4<f32>()); }
        joined[at] = vec4<Element>(value);
    }
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
    let to = 2u * (params.first_chunk * params.quads + i);
    r_partials[to] = sum;
    r_partials[to + 1u] = product;
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

// One workgroup per column quad.
@compute @workgroup_size(LANES)
fn backward_finalize(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let quad = workgroup_index(wg, n);
    if quad >= params.quads { return; }
    var own_sum = vec4<f32>();
    var own_product = vec4<f32>();
    for (var chunk = local; chunk < params.chunks; chunk += LANES) {
        let at = 2u * (chunk * params.quads + quad);
        own_sum += z_partials[at];
        own_product += z_partials[at + 1u];
    }
    let sum = workgroup_sum(local, own_sum);
    let product = workgroup_sum(local, own_product);
    if local > 0u { return; }
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

@group(0) @binding(6) var<storage, read_write> b_grad_residual: array<vec4<Element>>;

// What belongs to a column quad: dx = (g - offset - (x - mean) * slope) * scale.
struct Column { mean: vec4<f32>, scale: vec4<f32>, offset: vec4<f32>, slope: vec4<f32> }

fn column(quad: u32) -> Column {
    let at = quad * 5u;
    let invstd = b_stats[at + 1u];
    let scale = invstd * b_stats[at + 2u];
    if !TRAINING { return Column(vec4<f32>(), scale, vec4<f32>(), vec4<f32>()); }
    let rows = f32(params.batch_rows);
    return Column(b_stats[at], scale, b_stats[at + 4u] / rows, invstd * (b_stats[at + 3u] / rows));
}

fn masked_gradient(at: u32) -> vec4<f32> {
    let g = vec4<f32>(b_grad_output[at]);
    if RELU { return select(vec4<f32>(), g, vec4<f32>(b_output[at]) > vec4<f32>()); }
    return g;
}

fn input_gradient(c: Column, at: u32, g: vec4<f32>) -> vec4<f32> {
    if !TRAINING { return g * c.scale; }
    return (g - c.offset - (vec4<f32>(b_input[at]) - c.mean) * c.slope) * c.scale;
}

// As `forward`: one invocation per column quad and `span` rows.
@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    let quad = i % params.quads;
    let first = i / params.quads * params.span;
    let end = min(first + params.span, params.rows);
    let c = column(quad);
    for (var row = first; row < end; row++) {
        let at = row * params.quads + quad;
        b_grad_input[at] = vec4<Element>(input_gradient(c, at, masked_gradient(at)));
    }
}

@compute @workgroup_size(64)
fn backward_residual(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    let quad = i % params.quads;
    let first = i / params.quads * params.span;
    let end = min(first + params.span, params.rows);
    let c = column(quad);
    for (var row = first; row < end; row++) {
        let at = row * params.quads + quad;
        let g = masked_gradient(at);
        b_grad_input[at] = vec4<Element>(input_gradient(c, at, g));
        b_grad_residual[at] = vec4<Element>(g);
    }
}
