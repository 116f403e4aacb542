// What the convolution kernels share: the map from rows of the implicit matrix product to pixels.
//
// `gather` computes out[row] = sum over taps and channels of in[pixel(row, tap)] * weight[tap]. It serves forward (rows are output
// pixels) and, for each class of input pixels modulo the stride, the gradient of the input (rows are the pixels of the class).
// Weights are (tap, channel of `input`, channel of `output`), `output` fastest.
struct Gather {
    rows: u32,              // pixels of the row grid over the whole batch
    grid_h: u32, grid_w: u32, // the row grid of one image
    out_h: u32, out_w: u32,   // size of an output image
    out_step: u32, out_h0: u32, out_w0: u32, // grid to output pixel
    in_h: u32, in_w: u32,
    in_step: i32, in_h0: i32, in_w0: i32,    // grid to the input pixel of the first tap
    tap_step: i32,          // input pixels from one tap to the next
    taps_h: u32, taps_w: u32,
    first_h: u32, first_w: u32, tap_stride: u32, // taps used: first, first + stride, ...
    kernel_w: u32,
    in_quads: u32, out_quads: u32,
    column_tiles: u32, tiles: u32,
    first_chunk: u32,       // number of this launch's first chunk of rows, where chunks are tallied
    tile_rows: u32,         // rows of a workgroup, where a kernel has the choice
    turned: u32,            // whether weights are stored (tap, column, k) and turned while they are loaded, where a kernel can
    group_rows: u32,        // rows that share weights: the next as many have the next tap's. A multiple of a kernel's tile
}

// Neighbouring channels that a load brings: 4, or 8 in f16. The kernels on cooperative matrices have the choice; addresses count in so many.
const WIDTH: u32 = 4u;

fn in_pieces() -> u32 { return params.in_quads * 4u / WIDTH; }

fn out_pieces() -> u32 { return params.out_quads * 4u / WIDTH; }

// Input pixel of the first tap and output position of a row.
struct Row { n: i32, h: i32, w: i32, out: u32 }

fn gather_row(p: Gather, row: u32) -> Row {
    let per_image = p.grid_h * p.grid_w;
    let n = row / per_image;
    let rest = row % per_image;
    let i = rest / p.grid_w;
    let j = rest % p.grid_w;
    let out = (n * p.out_h + i * p.out_step + p.out_h0) * p.out_w + j * p.out_step + p.out_w0;
    return Row(i32(n), i32(i) * p.in_step + p.in_h0, i32(j) * p.in_step + p.in_w0, out);
}

// The output position of a row, or of the last there is.
fn out_of(p: Gather, row: u32) -> u32 {
    let there = min(row, p.rows - 1u);
    // Then the row grid is the output.
    if p.out_step == 1u { return there; }
    return gather_row(p, there).out;
}

// The weights' tap that tap (r, s) of the rows of a group stands for.
fn tap_of(p: Gather, r: u32, s: u32, group: u32) -> u32 {
    return (p.first_h + r * p.tap_stride) * p.kernel_w + p.first_w + s * p.tap_stride + group;
}

// Without a branch.
fn inside(h: i32, w: i32, height: u32, width: u32) -> bool {
    return (h >= 0) & (w >= 0) & (h < i32(height)) & (w < i32(width));
}

// The same for GPUs: as an unsigned number, what is negative is large. Processors are slower at comparing those.
fn inside_unsigned(h: i32, w: i32, height: u32, width: u32) -> bool {
    return (u32(h) < height) & (u32(w) < width);
}

// Where something is read, a quad of a tensor, and whether it is there: an input pixel inside its image, a weight, a gradient.
struct Source { start: u32, there: bool }

fn source(p: Gather, row: Row, step: vec2<i32>) -> Source {
    let h = row.h + step.x;
    let w = row.w + step.y;
    let there = inside(h, w, p.in_h, p.in_w);
    let pixel = (row.n * i32(p.in_h) + h) * i32(p.in_w) + w;
    return Source(u32(select(0, pixel, there)) * p.in_quads, there);
}

// `reduce` computes weight[tap, in channel, out channel] = sum over output pixels of in * grad_output. Pixels come in
// segments (rows of the output image, or 64 pixels at a time where the kernel is 1x1); segments are dealt out to `splits` partial
// sums, of which the first is number `first_split` of the whole tensor's.
struct Reduce {
    quads: u32,             // taps * in_quads
    in_quads: u32, out_quads: u32,
    kernel_w: u32, stride: u32, padding: i32,
    in_h: u32, in_w: u32, out_h: u32,
    segments: u32, segment_pixels: u32, pixels: u32,
    splits: u32, first_split: u32, segments_per_split: u32,
    column_tiles: u32, tiles: u32,
    group_rows: u32,        // where not 0, each tap has as many pixels of its own, in order, in place of what it sees of an image
}

// Where WIDTH weight rows read their input: offset of its tap from the output pixel, its channels, and the first pixel of its group.
struct Quad { dh: i32, dw: i32, channel: u32, first: u32 }

fn reduce_quad(p: Reduce, quad: u32) -> Quad {
    let pieces = in_pieces();
    let tap = quad / pieces;
    if p.group_rows > 0u { return Quad(0, 0, quad % pieces, tap * p.group_rows); }
    return Quad(i32(tap / p.kernel_w) - p.padding, i32(tap % p.kernel_w) - p.padding, quad % pieces, 0u);
}
