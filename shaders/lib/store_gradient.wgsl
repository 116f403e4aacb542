// As `store`: results are gradients of relu?(batch_norm(x)), and what is written is g, the part that the ReLU let through, with the sums of g and
// of g * (x - mean) of each chunk of rows, from which the batch norm's reverse pass goes on.
#import norm
#import sum_tally

const STORE: u32 = 3u;
const RELU: bool = true;

@group(0) @binding(STORE) var<storage, read> norm_input: array<vec4<Element>>; // x
@group(0) @binding(STORE + 1u) var<storage, read> moments: array<vec4<f32>>; // mean, then 1/sqrt(variance + eps)
@group(0) @binding(STORE + 2u) var<storage, read> gamma: array<vec4<f32>>;
@group(0) @binding(STORE + 3u) var<storage, read> beta: array<vec4<f32>>;
@group(0) @binding(STORE + 4u) var<storage, read_write> output: array<vec4<Element>>;
@group(0) @binding(STORE + 5u) var<storage, read_write> chunks: array<vec4<f32>>;

var<private> norm: BatchNorm;

fn begin(column: u32, value: vec4<f32>) {
    let quad = min(column, params.out_quads - 1u);
    norm = batch_norm(moments[quad], moments[params.out_quads + quad], gamma[quad], beta[quad]);
    sums = Tally();
}

struct Beside { x: vec4<f32> }

fn beside(at: u32, column: u32) -> Beside {
    return Beside(vec4<f32>(norm_input[at * params.out_quads + min(column, params.out_quads - 1u)]));
}

fn put(row: u32, at: u32, column: u32, value: vec4<f32>, b: Beside) {
    if (row < params.rows) & (column < params.out_quads) {
        let d = b.x - norm.mean;
        var g = value;
        if RELU { g = let_through(norm, d, value); }
        output[at * params.out_quads + column] = vec4<Element>(g);
        sums = Tally(0.0, sums.first + g, sums.second + g * d);
    }
}
