// As `store_gradient`, for y = relu(batch_norm(x) + residual) that two paths go on from: the other path's gradient is added, and y itself says
// what the ReLU let through.
#import nan
#import sum_tally

const STORE: u32 = 3u;

@group(0) @binding(STORE) var<storage, read> addend: array<vec4<Element>>;
@group(0) @binding(STORE + 1u) var<storage, read> normalized: array<vec4<Element>>; // x
@group(0) @binding(STORE + 2u) var<storage, read> joined: array<vec4<Element>>; // y
@group(0) @binding(STORE + 3u) var<storage, read> moments: array<vec4<f32>>; // mean, then 1/sqrt(variance + eps)
@group(0) @binding(STORE + 4u) var<storage, read_write> output: array<vec4<Element>>;
@group(0) @binding(STORE + 5u) var<storage, read_write> chunks: array<vec4<f32>>;

var<private> mean: vec4<f32>;

fn begin(column: u32, value: vec4<f32>) {
    mean = moments[min(column, params.out_quads - 1u)];
    sums = Tally();
}

struct Beside { addend: vec4<f32>, x: vec4<f32>, y: vec4<f32> }

fn beside(at: u32, column: u32) -> Beside {
    let i = at * params.out_quads + min(column, params.out_quads - 1u);
    return Beside(vec4<f32>(addend[i]), vec4<f32>(normalized[i]), vec4<f32>(joined[i]));
}

fn put(row: u32, at: u32, column: u32, value: vec4<f32>, b: Beside) {
    if (row < params.rows) & (column < params.out_quads) {
        let g = select(vec4<f32>(), value + b.addend, relu_followed(b.y));
        output[at * params.out_quads + column] = vec4<Element>(g);
        sums = Tally(0.0, sums.first + g, sums.second + g * (b.x - mean));
    }
}
