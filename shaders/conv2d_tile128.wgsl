// Convolution for large products on GPUs: a tile of 128 rows by 128 columns per workgroup of 256, or by 64 per workgroup of 128, both operands staged
// through workgroup memory 16 deep, 8 by 8 outputs per invocation: half the loads an output of `conv2d_tile`. The next slab is loaded into registers
// while the present one is multiplied.
#import index
#import conv2d
#import depth
#import load_tiles
#import load
#import share_tally
#import store

alias Element = f32;
alias Weight = f32;
// Column quads of a tile: 32, or 16.
const QUADS: u32 = 32u;
const INVOCATIONS: u32 = 8u * QUADS;
// Ends of loops that are written out.
const ROW_LOADS: u32 = 2u; // vec4s of a slab's input that an invocation brings, and two of weights
const EACH: u32 = 8u; // rows of an invocation
const HALVES: u32 = 2u; // its column quads
const AHEAD: u32 = 4u; // results that what they need besides is read for together, and vec4s of a depth quad
const_assert ROW_LOADS * INVOCATIONS == 512u;

@group(0) @binding(0) var<uniform> params: Gather;
@group(0) @binding(2) var<storage, read> weight: array<vec4<Weight>>;

// [row][depth quad], padded against bank conflicts, and [depth][column quad].
var<workgroup> tile_a: array<array<vec4<f32>, 5>, 128>;
var<workgroup> tile_b: array<array<vec4<f32>, QUADS>, 16>;

// sum + x.x b0 + x.y b1 + x.z b2 + x.w b3, in that order and with as few instructions as there are products.
fn add_four(sum: vec4<f32>, x: vec4<f32>, b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>) -> vec4<f32> {
    return fma(vec4(x.w), b3, fma(vec4(x.z), b2, fma(vec4(x.y), b1, fma(vec4(x.x), b0, sum))));
}

@compute @workgroup_size(INVOCATIONS)
fn gather(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = workgroup_index(wg, n);
    if tile >= params.tiles { return; }
    let first_row = tile / params.column_tiles * 128u;
    let first_column = tile % params.column_tiles * QUADS;
    // Loading: depth quad local % 4 of rows local / 4 and every INVOCATIONS / 4 further; column quad local % QUADS of depth local / QUADS and 8 further.
    let load_row = local / 4u;
    var rows: array<Row, ROW_LOADS>;
    #unroll
    for (var i = 0u; i < ROW_LOADS; i++) { rows[i] = gather_row(params, min(first_row + load_row + i * (INVOCATIONS / 4u), params.rows - 1u)); }
    let depth = local / QUADS;
    let load_column = first_column + local % QUADS;
    // Computing: rows local / (QUADS / 2) and every 16 further, column quads local % (QUADS / 2) and as many further.
    let my_row = local / (QUADS / 2u);
    let my_column = local % (QUADS / 2u);
    let quads = params.taps_h * params.taps_w * params.in_quads;
    var k = depth_of(local % 4u);
    var k0 = depth_of(depth / 4u);
    var k1 = depth_of(depth / 4u + 2u);
    var norm = norm_of(k.channel);
    var from_a: array<Source, ROW_LOADS>;
    var a: array<vec4<f32>, ROW_LOADS>;
    #unroll
    for (var i = 0u; i < ROW_LOADS; i++) { from_a[i] = source_a(rows[i], k); }
    var from_w0 = source_b(first_row, k0, depth % 4u, load_column);
    var from_w1 = source_b(first_row, k1, depth % 4u, load_column);
    #unroll
    for (var i = 0u; i < ROW_LOADS; i++) { a[i] = vec4<f32>(input[from_a[i].start]); }
    var w0 = vec4<f32>(weight[from_w0.start]);
    var w1 = vec4<f32>(weight[from_w1.start]);
    var sums: array<array<vec4<f32>, EACH>, HALVES>;
    for (var base = 0u; base < quads; base += 4u) {
        workgroupBarrier();
        #unroll
        for (var i = 0u; i < ROW_LOADS; i++) {
            tile_a[load_row + i * (INVOCATIONS / 4u)][local % 4u] = select(vec4<f32>(), normalized_by(norm, a[i]), from_a[i].there);
        }
        tile_b[depth][local % QUADS] = select(vec4<f32>(), w0, from_w0.there);
        tile_b[depth + 8u][local % QUADS] = select(vec4<f32>(), w1, from_w1.there);
        workgroupBarrier();
        k = deeper(k, 4u);
        k0 = deeper(k0, 4u);
        k1 = deeper(k1, 4u);
        #unroll
        for (var i = 0u; i < ROW_LOADS; i++) { from_a[i] = source_a(rows[i], k); }
        from_w0 = source_b(first_row, k0, depth % 4u, load_column);
        from_w1 = source_b(first_row, k1, depth % 4u, load_column);
        norm = norm_of(k.channel);
        #unroll
        for (var i = 0u; i < ROW_LOADS; i++) { a[i] = vec4<f32>(input[from_a[i].start]); }
        w0 = vec4<f32>(weight[from_w0.start]);
        w1 = vec4<f32>(weight[from_w1.start]);
        for (var d = 0u; d < 4u; d++) {
            var b: array<array<vec4<f32>, AHEAD>, HALVES>;
            #unroll
            for (var half = 0u; half < HALVES; half++) {
                #unroll
                for (var e = 0u; e < AHEAD; e++) { b[half][e] = tile_b[d * 4u + e][my_column + half * (QUADS / 2u)]; }
            }
            #unroll
            for (var i = 0u; i < EACH; i++) {
                let x = tile_a[my_row + 16u * i][d];
                #unroll
                for (var half = 0u; half < HALVES; half++) {
                    sums[half][i] = add_four(sums[half][i], x, b[half][0], b[half][1], b[half][2], b[half][3]);
                }
            }
        }
    }
    #unroll
    for (var half = 0u; half < HALVES; half++) {
        let column = first_column + my_column + half * (QUADS / 2u);
        begin(column, sums[half][0]);
        #unroll
        for (var first = 0u; first < EACH; first += AHEAD) {
            var at: array<u32, AHEAD>;
            var by: array<Beside, AHEAD>;
            #unroll
            for (var i = 0u; i < AHEAD; i++) { at[i] = out_of(params, first_row + my_row + 16u * (first + i)); }
            #unroll
            for (var i = 0u; i < AHEAD; i++) { by[i] = beside(at[i], column); }
            #unroll
            for (var i = 0u; i < AHEAD; i++) { put(first_row + my_row + 16u * (first + i), at[i], column, sums[half][first + i], by[i]); }
        }
        if TALLIES {
            let all = share_tally(local, QUADS / 2u);
            if local < QUADS / 2u { write_tally(first_row, tile / params.column_tiles, column, all); }
        }
    }
}
