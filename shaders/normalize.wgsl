// L2 normalisation, divisor max(norm, eps). `forward` and `backward`: rows, one workgroup each. `columns`: the columns of a matrix in
// place, one column quad per invocation: prototypes are stored (feature, prototype).
#import index
#import reduce
#import columns
#import nan

struct Params { rows: u32, quads: u32, eps: f32 }

@group(0) @binding(0) var<uniform> params: Params;
// max(norm, eps); NaN stays NaN.
fn divisor_of(norm: vec4<f32>) -> vec4<f32> {
    return select(max(norm, vec4(params.eps)), norm, is_nan(norm));
}

@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> norms: array<f32>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup_index(wg, n);
    if row >= params.rows { return; }
    var squares = vec4<f32>();
    for (var quad = local; quad < params.quads; quad += 64u) {
        let v = input[row * params.quads + quad];
        squares += v * v;
    }
    let norm = sqrt(sum4(workgroup_sum(local, squares)));
    let divisor = divisor_of(vec4(norm)).x;
    for (var quad = local; quad < params.quads; quad += 64u) {
        output[row * params.quads + quad] = input[row * params.quads + quad] / divisor;
    }
    if local == 0u { norms[row] = norm; }
}

@group(0) @binding(1) var<storage, read> result: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> saved_norms: array<f32>;
@group(0) @binding(3) var<storage, read> grad_output: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> grad_input: array<vec4<f32>>;

// dx = (g - y (y . g)) / norm; where the norm is below eps the divisor is constant and dx = g / eps.
@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup_index(wg, n);
    if row >= params.rows { return; }
    var products = vec4<f32>();
    for (var quad = local; quad < params.quads; quad += 64u) {
        products += result[row * params.quads + quad] * grad_output[row * params.quads + quad];
    }
    let along = sum4(workgroup_sum(local, products));
    let norm = saved_norms[row];
    let above = norm > params.eps;
    let divisor = divisor_of(vec4(norm)).x;
    for (var quad = local; quad < params.quads; quad += 64u) {
        let i = row * params.quads + quad;
        grad_input[i] = (grad_output[i] - select(0.0, along, above) * result[i]) / divisor;
    }
}

@group(0) @binding(1) var<storage, read_write> matrix: array<vec4<f32>>;

@compute @workgroup_size(64)
fn columns(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let quad = workgroup_index(wg, n) * 64u + local;
    if quad >= params.quads { return; }
    var squares = vec4<f32>();
    for (var row = 0u; row < params.rows; row++) {
        let v = matrix[row * params.quads + quad];
        squares += v * v;
    }
    let divisor = divisor_of(sqrt(squares));
    for (var row = 0u; row < params.rows; row++) {
        matrix[row * params.quads + quad] /= divisor;
    }
}
