// Batch normalisation over the rows of (rows, channels), in training and evaluation mode, with an optional residual sum and ReLU:
// y = relu?((x - mean) * invstd * weight + bias (+ residual)). `moments` are two rows: the means, and invstd = 1/sqrt(variance + eps).
//
// Sums over the batch are made in two ordered passes and nowhere else: per chunk of rows, by `statistics` and `backward_reduce` or by the
// convolution that writes the rows (`lib/store_*.wgsl`); then `finalize` and `backward_finalize` over the chunks. Variances use the chunk's
// first row as a shift and Chan's merge, so large means do no harm. All outputs are `=`, but the running statistics are updated in place.
//
// Bindings of kernels that stand for different things have names of their own, with the kernel's letter: s_tatistics, f_inalize, e_valuate, r_educe, j_oined
// reduce, z: finalize of the reverse pass, o_nto, b_ackward.
#import finite
#import index
#import moments
#import norm
#import nan

alias Element = f32;
const RELU: bool = false;
const TRAINING: bool = true;
// Whether a batch whose statistics are not finite leaves the running ones as they were.
const SKIPS: bool = false;

// `rows` are those of this launch, `batch_rows` those of the whole batch; this launch's chunks are numbered from `first_chunk` on. For `finalize`
// `rows` are those of a window, each of which has `window_chunks` chunks, but the last may have fewer.
struct Params {
    rows: u32, batch_rows: u32, quads: u32, chunk: u32, chunks: u32, first_chunk: u32, window_chunks: u32, span: u32, momentum: f32, eps: f32,
}

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
    s_partials[to + 1u] = relu(squares - sum * mean);
}

// ---- over the chunks: LANES invocations a column quad, of which each takes every LANES-th chunk, then a tree of fixed shape; COLUMNS column
// quads a workgroup. AHEAD chunks are loaded before the first of them is added, so that they are waited for together; behind the last come others, which count
// for nothing.

const LANES: u32 = 64u;
const AHEAD: u32 = 4u;
const COLUMNS: u32 = 1u;
var<workgroup> lanes: array<Tally, LANES * COLUMNS>;

// ---- finalize: merges the chunks; updates the running statistics (unbiased variance)

@group(0) @binding(1) var<storage, read> f_partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> f_moments: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> f_running_mean: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> f_running_var: array<vec4<f32>>;

// Rows of a chunk: all but the last of a window are full.
fn rows_of(chunk: u32) -> u32 {
    let window = chunk / params.window_chunks;
    let rows = min(params.rows, params.batch_rows - window * params.rows);
    return min(params.chunk, rows - chunk % params.window_chunks * params.chunk);
}

@compute @workgroup_size(LANES * COLUMNS)
fn finalize(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let quad = workgroup_index(wg, n) * COLUMNS + local / LANES;
    let lane = local % LANES;
    var all = Tally();
    if quad < params.quads {
        for (var first = lane; first < params.chunks; first += AHEAD * LANES) {
            var parts: array<Tally, AHEAD>;
            #unroll
            for (var i = 0u; i < AHEAD; i++) {
                let chunk = min(first + i * LANES, params.chunks - 1u);
                let at = 2u * (chunk * params.quads + quad);
                parts[i] = Tally(f32(rows_of(chunk)), f_partials[at], f_partials[at + 1u]);
            }
            #unroll
            for (var i = 0u; i < AHEAD; i++) {
                if first + i * LANES < params.chunks { all = merge_moments(all, parts[i]); }
            }
        }
    }
    if LANES > 1u {
        lanes[local] = all;
        for (var half = LANES / 2u; half > 0u; half >>= 1u) {
            workgroupBarrier();
            if lane < half { lanes[local] = merge_moments(lanes[local], lanes[local + half]); }
        }
        workgroupBarrier();
        all = lanes[local];
    }
    if lane > 0u || quad >= params.quads { return; }
    f_moments[quad] = all.first;
    f_moments[params.quads + quad] = 1.0 / sqrt(all.second / all.count + params.eps);
    let unbiased = all.second / max(all.count - 1.0, 1.0);
    // A batch that overflowed f16 updates no weight either (see loss_scale.wgsl); the running statistics go on without it.
    if SKIPS && (not_finite(all.first) || not_finite(unbiased)) { return; }
    f_running_mean[quad] = mix(f_running_mean[quad], all.first, params.momentum);
    f_running_var[quad] = mix(f_running_var[quad], unbiased, params.momentum);
}

// ---- evaluate: moments from the running statistics. Padding lanes give 1/sqrt(eps), which a weight of 0 removes.

@group(0) @binding(1) var<storage, read> e_running_mean: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> e_running_var: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> e_moments: array<vec4<f32>>;

@compute @workgroup_size(64)
fn evaluate(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let quad = workgroup_index(wg, n) * 64u + local;
    if quad >= params.quads { return; }
    e_moments[quad] = e_running_mean[quad];
    e_moments[params.quads + quad] = 1.0 / sqrt(e_running_var[quad] + params.eps);
}

// ---- forward: one invocation per column quad and `span` rows, so that what belongs to the column is read once

@group(0) @binding(1) var<storage, read> x: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> moments: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<Element>>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    let quad = i % params.quads;
    let first = i / params.quads * params.span;
    let end = min(first + params.span, params.rows);
    let norm = batch_norm(moments[quad], moments[params.quads + quad], weight[quad], bias[quad]);
    for (var row = first; row < end; row++) {
        let at = row * params.quads + quad;
        var value = normalized(norm, vec4<f32>(x[at]) - norm.mean);
        if RELU { value = relu(value); }
        y[at] = vec4<Element>(value);
    }
}

@group(0) @binding(5) var<storage, read> residual: array<vec4<Element>>;
@group(0) @binding(6) var<storage, read_write> joined: array<vec4<Element>>;

@compute @workgroup_size(64)
fn forward_residual(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    let quad = i % params.quads;
    let first = i / params.quads * params.span;
    let end = min(first + params.span, params.rows);
    let norm = batch_norm(moments[quad], moments[params.quads + quad], weight[quad], bias[quad]);
    for (var row = first; row < end; row++) {
        let at = row * params.quads + quad;
        var value = normalized(norm, vec4<f32>(x[at]) - norm.mean) + vec4<f32>(residual[at]);
        if RELU { value = relu(value); }
        joined[at] = vec4<Element>(value);
    }
}

// ---- backward_reduce: (sum of g, sum of g * (x - mean)) of each chunk, g being grad_output where the ReLU let through: where (x - mean) * invstd *
// weight + bias is positive or NaN

@group(0) @binding(1) var<storage, read> r_input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> r_grad_output: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read> r_moments: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> r_weight: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> r_bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> r_partials: array<vec4<f32>>;

@compute @workgroup_size(64)
fn backward_reduce(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.quads * params.chunks { return; }
    let quad = i % params.quads;
    let first = i / params.quads * params.chunk;
    let end = min(first + params.chunk, params.rows);
    let norm = batch_norm(r_moments[quad], r_moments[params.quads + quad], r_weight[quad], r_bias[quad]);
    var sum = vec4<f32>();
    var product = vec4<f32>();
    for (var row = first; row < end; row++) {
        let at = row * params.quads + quad;
        let d = vec4<f32>(r_input[at]) - norm.mean;
        var g = vec4<f32>(r_grad_output[at]);
        if RELU { g = let_through(norm, d, g); }
        sum += g;
        product += g * d;
    }
    let to = 2u * (params.first_chunk * params.quads + i);
    r_partials[to] = sum;
    r_partials[to + 1u] = product;
}

// ---- backward_reduce_joined: the same with a residual sum before the ReLU, which let through
// where the output is not 0

@group(0) @binding(4) var<storage, read> j_output: array<vec4<Element>>;
@group(0) @binding(5) var<storage, read_write> j_partials: array<vec4<f32>>;

@compute @workgroup_size(64)
fn backward_reduce_joined(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.quads * params.chunks { return; }
    let quad = i % params.quads;
    let first = i / params.quads * params.chunk;
    let end = min(first + params.chunk, params.rows);
    let mean = r_moments[quad];
    var sum = vec4<f32>();
    var product = vec4<f32>();
    for (var row = first; row < end; row++) {
        let at = row * params.quads + quad;
        let g = select(vec4<f32>(), vec4<f32>(r_grad_output[at]), relu_followed(vec4<f32>(j_output[at])));
        sum += g;
        product += g * (vec4<f32>(r_input[at]) - mean);
    }
    let to = 2u * (params.first_chunk * params.quads + i);
    j_partials[to] = sum;
    j_partials[to + 1u] = product;
}

// ---- backward_finalize: the sums over all chunks are the gradients of bias and weight. What `backward` reads of a column quad is
// laid side by side in `z_stats`, so that it binds few buffers.

@group(0) @binding(1) var<storage, read> z_partials: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> z_moments: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> z_weight: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> grad_weight: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> grad_bias: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> z_stats: array<array<vec4<f32>, 5>>; // mean, invstd, weight, grad_weight, grad_bias

// The sums over all chunks of a column quad, in its first lane.
fn gradient_sums(quad: u32, local: u32) -> Tally {
    let lane = local % LANES;
    var all = Tally();
    if quad < params.quads {
        for (var first = lane; first < params.chunks; first += AHEAD * LANES) {
            var parts: array<array<vec4<f32>, 2>, AHEAD>;
            #unroll
            for (var i = 0u; i < AHEAD; i++) {
                let at = 2u * (min(first + i * LANES, params.chunks - 1u) * params.quads + quad);
                parts[i] = array(z_partials[at], z_partials[at + 1u]);
            }
            #unroll
            for (var i = 0u; i < AHEAD; i++) {
                if first + i * LANES < params.chunks {
                    all.first += parts[i][0];
                    all.second += parts[i][1];
                }
            }
        }
        all.second *= z_moments[params.quads + quad];
    }
    if LANES > 1u {
        lanes[local] = all;
        for (var half = LANES / 2u; half > 0u; half >>= 1u) {
            workgroupBarrier();
            if lane < half {
                lanes[local].first += lanes[local + half].first;
                lanes[local].second += lanes[local + half].second;
            }
        }
        workgroupBarrier();
        all = lanes[local];
    }
    return all;
}

fn stats(quad: u32, sums: Tally) -> array<vec4<f32>, 5> {
    return array(z_moments[quad], z_moments[params.quads + quad], z_weight[quad], sums.second, sums.first);
}

@compute @workgroup_size(LANES * COLUMNS)
fn backward_finalize(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let quad = workgroup_index(wg, n) * COLUMNS + local / LANES;
    let sums = gradient_sums(quad, local);
    if local % LANES > 0u || quad >= params.quads { return; }
    grad_bias[quad] = sums.first;
    grad_weight[quad] = sums.second;
    z_stats[quad] = stats(quad, sums);
}

// ---- backward_finalize_onto: other gradients of weight and bias are added to what is written

@group(0) @binding(4) var<storage, read> weight_addend: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> bias_addend: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> grad_weight_sum: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> grad_bias_sum: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> o_stats: array<array<vec4<f32>, 5>>;

@compute @workgroup_size(LANES * COLUMNS)
fn backward_finalize_onto(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let quad = workgroup_index(wg, n) * COLUMNS + local / LANES;
    let sums = gradient_sums(quad, local);
    if local % LANES > 0u || quad >= params.quads { return; }
    grad_bias_sum[quad] = bias_addend[quad] + sums.first;
    grad_weight_sum[quad] = weight_addend[quad] + sums.second;
    o_stats[quad] = stats(quad, sums);
}

// ---- backward: dx = weight * invstd * (g - sum g / rows - xhat * sum(g xhat) / rows); without the means in evaluation mode

@group(0) @binding(1) var<storage, read> b_input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> b_grad_output: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read> b_stats: array<array<vec4<f32>, 5>>; // as `z_stats`
@group(0) @binding(4) var<storage, read> b_bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> b_grad_input: array<vec4<Element>>;

// What belongs to a column quad: dx = (g - offset - (x - mean) * slope) * scale.
struct Column { norm: BatchNorm, offset: vec4<f32>, slope: vec4<f32> }

fn column(quad: u32, bias: vec4<f32>) -> Column {
    let invstd = b_stats[quad][1];
    let norm = batch_norm(b_stats[quad][0], invstd, b_stats[quad][2], bias);
    if !TRAINING { return Column(norm, vec4<f32>(), vec4<f32>()); }
    let rows = f32(params.batch_rows);
    return Column(norm, b_stats[quad][4] / rows, invstd * (b_stats[quad][3] / rows));
}

fn input_gradient(c: Column, d: vec4<f32>, g: vec4<f32>) -> vec4<f32> {
    if !TRAINING { return g * c.norm.scale; }
    return (g - c.offset - d * c.slope) * c.norm.scale;
}

// As `forward`: one invocation per column quad and `span` rows.
@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    let quad = i % params.quads;
    let first = i / params.quads * params.span;
    let end = min(first + params.span, params.rows);
    let c = column(quad, b_bias[quad]);
    for (var row = first; row < end; row++) {
        let at = row * params.quads + quad;
        let d = vec4<f32>(b_input[at]) - c.norm.mean;
        var g = vec4<f32>(b_grad_output[at]);
        if RELU { g = let_through(c.norm, d, g); }
        b_grad_input[at] = vec4<Element>(input_gradient(c, d, g));
    }
}

// ---- backward_joined: with a residual sum, whose gradient is g

@group(0) @binding(4) var<storage, read> b_output: array<vec4<Element>>;
@group(0) @binding(6) var<storage, read_write> b_grad_residual: array<vec4<Element>>;

@compute @workgroup_size(64)
fn backward_joined(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    let quad = i % params.quads;
    let first = i / params.quads * params.span;
    let end = min(first + params.span, params.rows);
    let c = column(quad, vec4<f32>());
    for (var row = first; row < end; row++) {
        let at = row * params.quads + quad;
        let g = select(vec4<f32>(), vec4<f32>(b_grad_output[at]), relu_followed(vec4<f32>(b_output[at])));
        b_grad_input[at] = vec4<Element>(input_gradient(c, vec4<f32>(b_input[at]) - c.norm.mean, g));
        b_grad_residual[at] = vec4<Element>(g);
    }
}
