// Log-softmax over rows, and its derivative dx = g - softmax(x) * sum(g). One workgroup per row; padding stays 0.
#import index
#import reduce
#import columns

struct Params { rows: u32, quads: u32, columns: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<f32>>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup_index(wg, n);
    if row >= params.rows { return; }
    let first = row * params.quads;
    var largest = LOWEST;
    for (var quad = local; quad < params.quads; quad += 64u) {
        largest = max(largest, max4(select(vec4(LOWEST), input[first + quad], column_mask(quad, params.columns) > vec4<f32>())));
    }
    largest = workgroup_max(local, largest);
    var exps = vec4<f32>();
    for (var quad = local; quad < params.quads; quad += 64u) {
        exps += masked_exp(input[first + quad] - largest, quad, params.columns);
    }
    // Not added to `largest`, which may be large enough to swallow it.
    let log_sum = log(sum4(workgroup_sum(local, exps)));
    for (var quad = local; quad < params.quads; quad += 64u) {
        output[first + quad] = within(input[first + quad] - largest - log_sum, quad, params.columns);
    }
}

@group(0) @binding(1) var<storage, read> result: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> grad_output: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> grad_input: array<vec4<f32>>;

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup_index(wg, n);
    if row >= params.rows { return; }
    let first = row * params.quads;
    var sums = vec4<f32>();
    for (var quad = local; quad < params.quads; quad += 64u) {
        sums += grad_output[first + quad];
    }
    let total = sum4(workgroup_sum(local, sums));
    for (var quad = local; quad < params.quads; quad += 64u) {
        let gradient = grad_output[first + quad] - exp(result[first + quad]) * total;
        grad_input[first + quad] = within(gradient, quad, params.columns);
    }
}
