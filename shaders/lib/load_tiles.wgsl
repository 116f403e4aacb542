// What kernels that stage both factors of a gather in workgroup memory load of them. Addresses come before all loads and without a branch, and what of
// the input is not there is left out after (`there`): no load waits for another, and the values may come while something else is multiplied.
#import turned

// A row as the loads see it: the first piece of the first tap's pixel, which may lie outside the image, and where in the image that is.
struct InputRow { first: u32, h: i32, w: i32 }

fn input_row(at: u32) -> InputRow {
    // Without padding, where the grid is the input, rows are pixels.
    if !PADDED && params.in_step == 1 && params.grid_w == params.in_w && params.grid_h == params.in_h { return InputRow(at * in_pieces(), 0, 0); }
    let row = gather_row(params, at);
    return InputRow(u32((row.n * i32(params.in_h) + row.h) * i32(params.in_w) + row.w) * in_pieces(), row.h, row.w);
}

// From there to depth `k`: so many pieces, and pixels.
struct Step { pieces: u32, h: i32, w: i32 }

fn step_of(k: Depth) -> Step {
    if !PADDED { return Step(k.channel, 0, 0); }
    let h = i32(k.r) * params.tap_step;
    let w = i32(k.s) * params.tap_step;
    // Beyond the last tap all pixels are outside.
    return Step(u32(h * i32(params.in_w) + w) * in_pieces() + k.channel, select(1 << 30u, h, k.r < params.taps_h), w);
}

fn source_a(row: InputRow, step: Step) -> Source {
    if !PADDED { return Source(row.first + step.pieces, true); }
    let there = inside_unsigned(row.h + step.h, row.w + step.w, params.in_h, params.in_w);
    return Source(select(0u, row.first + step.pieces, there), there);
}

// Where the weights of depth `k` and a piece of columns are: the first channel's; each further one is `out_pieces()` behind. Others that exist beyond the last
// tap, where the input is left out, and beyond the last column, where the result is.
fn source_b(k: Depth, group: u32, column: u32) -> u32 {
    let tap = tap_of(params, k.r, k.s, group);
    let there = !PADDED || k.r < params.taps_h;
    return select(0u, (tap * in_pieces() + k.channel) * WIDTH * out_pieces(), there) + min(column, out_pieces() - 1u);
}

// The same of weights that are TURNED: where the piece of the depth at `k` is, of one column.
fn source_turned(k: Depth, group: u32, column: u32) -> u32 {
    let tap = tap_of(params, k.r, k.s, group) * params.out_quads * 4u;
    let there = !PADDED || k.r < params.taps_h;
    return select(0u, (tap + min(column, params.out_quads * 4u - 1u)) * in_pieces() + k.channel, there);
}
