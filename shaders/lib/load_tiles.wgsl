// What kernels that stage both factors in workgroup memory load of them.
// The input of a row. What is not there is read elsewhere, so that loads need not wait for each other.
fn load_a(row: Row, k: Depth) -> vec4<f32> {
    let h = row.h + i32(k.r) * params.tap_step;
    let w = row.w + i32(k.s) * params.tap_step;
    let there = k.r < params.taps_h && inside(h, w, params.in_h, params.in_w);
    let at = u32((row.n * i32(params.in_h) + h) * i32(params.in_w) + w) * params.in_quads + k.channel;
    return select(vec4<f32>(), input_at(select(0u, at, there), norm_of(k.channel)), there);
}

// The weights of a column quad at depth `d` of a depth quad.
fn load_b(first_row: u32, k: Depth, d: u32, column: u32) -> vec4<f32> {
    let there = k.r < params.taps_h && column < params.out_quads;
    let at = ((tap_of(params, k.r, k.s, first_row) * params.in_quads + k.channel) * 4u + d) * params.out_quads + column;
    return select(vec4<f32>(), vec4<f32>(weight[select(0u, at, there)]), there);
}
