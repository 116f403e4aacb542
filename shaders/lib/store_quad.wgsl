// Puts four rows of a column quad of a weight's gradient, those of a quad of input channels, where they belong in sum number `split`; rows and
// columns beyond the last are left out.
fn store(split: u32, quad: u32, column: u32, c0: vec4<f32>, c1: vec4<f32>, c2: vec4<f32>, c3: vec4<f32>) {
    if quad < params.quads && column < params.out_quads {
        let at = ((params.first_split + split) * params.quads + quad) * 4u * params.out_quads + column;
        put(at, c0);
        put(at + params.out_quads, c1);
        put(at + 2u * params.out_quads, c2);
        put(at + 3u * params.out_quads, c3);
    }
}
