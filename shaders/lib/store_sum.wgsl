// As `store`: another gradient of the same tensor is added.
#import no_tally

const STORE: u32 = 3u;

@group(0) @binding(STORE) var<storage, read> addend: array<vec4<Element>>;
@group(0) @binding(STORE + 1u) var<storage, read_write> output: array<vec4<Element>>;

fn put(row: u32, at: u32, column: u32, value: vec4<f32>) {
    if row < params.rows && column < params.out_quads {
        let i = at * params.out_quads + column;
        output[i] = vec4<Element>(value + vec4<f32>(addend[i]));
    }
}
