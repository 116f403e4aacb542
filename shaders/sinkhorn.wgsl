// Sinkhorn-Knopp in the log domain (Caron et al. 2020, section 3.1; equal to the reference's exponentials, without their overflow):
// potentials f of the prototypes and g of the samples start at 0; each iteration sets f[k] = -logsumexp_n(o[n,k] / eps + g[n]), then
// g[n] = -logsumexp_k(o[n,k] / eps + f[k]); codes are q[n,k] = exp(o[n,k] / eps + f[k] + g[n]), rows of which sum to 1.
// The sums over samples are the two passes `prototypes_partial` and `prototypes`: one place for ranks to join.
#import index
#import reduce
#import columns
#import nan

// g is 0 before the first iteration and need not exist.
const FIRST: bool = false;

struct Params { rows: u32, quads: u32, columns: u32, chunk: u32, chunks: u32, first_row: u32, epsilon: f32 }

@group(0) @binding(0) var<uniform> params: Params;
// exp(min(v, 0)), for what is at most 0 but for rounding; NaN stays NaN.
fn exp_below(v: vec4<f32>) -> vec4<f32> {
    return exp(select(min(v, vec4<f32>()), v, is_nan(v)));
}

@group(0) @binding(1) var<storage, read> scores: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> samples_in: array<f32>;
@group(0) @binding(3) var<storage, read_write> partials: array<vec4<f32>>; // maximum, then sum of exponentials below it

@compute @workgroup_size(64)
fn prototypes_partial(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.quads * params.chunks { return; }
    let quad = i % params.quads;
    let first = i / params.quads * params.chunk;
    let end = min(first + params.chunk, params.rows);
    var largest = vec4(LOWEST);
    var sum = vec4<f32>();
    for (var row = first; row < end; row++) {
        var value = scores[row * params.quads + quad] / params.epsilon;
        if !FIRST { value += samples_in[row]; }
        let higher = max(largest, value);
        sum = sum * exp(largest - higher) + exp(value - higher);
        largest = higher;
    }
    partials[2u * i] = largest;
    partials[2u * i + 1u] = sum;
}

@group(0) @binding(1) var<storage, read> partials_in: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> prototypes_out: array<vec4<f32>>;

@compute @workgroup_size(64)
fn prototypes(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let quad = workgroup_index(wg, n) * 64u + local;
    if quad >= params.quads { return; }
    var largest = vec4(LOWEST);
    for (var chunk = 0u; chunk < params.chunks; chunk++) {
        largest = max(largest, partials_in[2u * (chunk * params.quads + quad)]);
    }
    var sum = vec4<f32>();
    for (var chunk = 0u; chunk < params.chunks; chunk++) {
        let at = 2u * (chunk * params.quads + quad);
        sum += partials_in[at + 1u] * exp(partials_in[at] - largest);
    }
    prototypes_out[quad] = -(largest + log(sum));
}

@group(0) @binding(2) var<storage, read> prototypes_in: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> samples_out: array<f32>;

@compute @workgroup_size(64)
fn samples(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup_index(wg, n);
    if row >= params.rows { return; }
    let first = row * params.quads;
    var largest = LOWEST;
    for (var quad = local; quad < params.quads; quad += 64u) {
        let value = scores[first + quad] / params.epsilon + prototypes_in[quad];
        largest = max(largest, max4(select(vec4(LOWEST), value, column_mask(quad, params.columns) > vec4<f32>())));
    }
    largest = workgroup_max(local, largest);
    var sums = vec4<f32>();
    for (var quad = local; quad < params.quads; quad += 64u) {
        sums += within(exp_below(scores[first + quad] / params.epsilon + prototypes_in[quad] - largest), quad, params.columns);
    }
    let total = workgroup_sum(local, sums);
    if local == 0u { samples_out[row] = -(largest + log(sum4(total))); }
}

@group(0) @binding(3) var<storage, read> samples_final: array<f32>;
@group(0) @binding(4) var<storage, read_write> codes: array<vec4<f32>>;

// One invocation per vec4 of the codes, which are those of the rows from first_row on.
@compute @workgroup_size(64)
fn write_codes(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= (params.rows - params.first_row) * params.quads { return; }
    let quad = i % params.quads;
    let row = params.first_row + i / params.quads;
    let value = scores[row * params.quads + quad] / params.epsilon + prototypes_in[quad] + samples_final[row];
    codes[i] = within(exp_below(value), quad, params.columns);
}
