// As `store`: mean and sum of squared deviations of each chunk of rows are written too, for the batch norm that follows.
#import moments
#import nan
#import write_tally

const STORE: u32 = 3u;

@group(0) @binding(STORE) var<storage, read_write> output: array<vec4<Element>>;
@group(0) @binding(STORE + 1u) var<storage, read_write> chunks: array<vec4<f32>>;

// Deviations are from the first value, so that large means do no harm.
var<private> shift: vec4<f32>;

fn begin(column: u32, value: vec4<f32>) {
    shift = value;
    sums = Tally();
}

struct Beside { unused: u32 }

fn beside(at: u32, column: u32) -> Beside { return Beside(); }

fn put(row: u32, at: u32, column: u32, value: vec4<f32>, b: Beside) {
    if (row < params.rows) & (column < params.out_quads) {
        output[at * params.out_quads + column] = vec4<Element>(value);
        let d = value - shift;
        sums = Tally(sums.count + 1.0, sums.first + d, sums.second + d * d);
    }
}

fn tally() -> Tally {
    let mean = sums.first / max(sums.count, 1.0);
    return Tally(sums.count, shift + mean, relu(sums.second - sums.first * mean));
}

fn merged(a: Tally, b: Tally) -> Tally { return merge_moments(a, b); }
