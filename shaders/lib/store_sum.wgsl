// As `store`: another gradient of the same tensor is added.
#import no_tally

const STORE: u32 = 3u;

@group(0) @binding(STORE) var<storage, read> addend: array<vec4<Element>>;
@group(0) @binding(STORE + 1u) var<storage, read_write> output: array<vec4<Element>>;

struct Beside { addend: vec4<f32> }

fn beside(at: u32, column: u32) -> Beside {
    return Beside(vec4<f32>(addend[at * params.out_quads + min(column, params.out_quads - 1u)]));
}

fn put(row: u32, at: u32, column: u32, value: vec4<f32>, b: Beside) {
    if (row < params.rows) & (column < params.out_quads) {
        output[at * params.out_quads + column] = vec4<Element>(value + b.addend);
    }
}
