// What kernels that stage both factors of a gather in workgroup memory load of them: only addresses are computed before, and what is not there is left
// out after (`there`), so that no load waits for another and the values may come while something else is multiplied.
fn source_a(row: Row, k: Depth) -> Source {
    let h = row.h + i32(k.r) * params.tap_step;
    let w = row.w + i32(k.s) * params.tap_step;
    let there = k.r < params.taps_h && inside(h, w, params.in_h, params.in_w);
    let at = u32((row.n * i32(params.in_h) + h) * i32(params.in_w) + w) * params.in_quads + k.channel;
    return Source(select(0u, at, there), there);
}

// Depth `d` of depth quad `k`.
fn source_b(first_row: u32, k: Depth, d: u32, column: u32) -> Source {
    let there = k.r < params.taps_h && column < params.out_quads;
    let at = ((tap_of(params, k.r, k.s, first_row) * params.in_quads + k.channel) * 4u + d) * params.out_quads + column;
    return Source(select(0u, at, there), there);
}
