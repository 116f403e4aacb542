// Ordered sums. `all`: one workgroup sums the first `rows` values of a vector, times `factor`, into the first element of output.
// `columns`: sums over the rows of a matrix (bias gradients), in as many passes as it takes; one invocation per column quad and chunk of rows.
#import index
#import reduce

struct Params { rows: u32, quads: u32, chunk: u32, first: u32, factor: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<f32>>;

@compute @workgroup_size(64)
fn all(@builtin(local_invocation_index) local: u32) {
    var sum = 0.0;
    for (var i = local; i < params.rows; i += 64u) {
        sum += input[i];
    }
    let total = workgroup_sum(local, vec4(sum, 0.0, 0.0, 0.0));
    if local == 0u { output[0] = params.factor * total; }
}

@group(0) @binding(1) var<storage, read> matrix: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> sums: array<vec4<f32>>;

// Sums `chunk` rows into row `first` and the chunk's number of `sums`; run again on the result until one row is left.
@compute @workgroup_size(64)
fn columns(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    let chunk = i / params.quads;
    let quad = i % params.quads;
    let begin = chunk * params.chunk;
    if begin >= params.rows { return; }
    var sum = vec4<f32>();
    let end = min(begin + params.chunk, params.rows);
    for (var row = begin; row < end; row++) {
        sum += matrix[row * params.quads + quad];
    }
    sums[params.first * params.quads + i] = params.factor * sum;
}
