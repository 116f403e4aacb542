// Convolution for large products on GPUs: a tile of 128 rows by 128 columns per workgroup of 256, or by 64 per workgroup of 128, both operands staged
// through workgroup memory 16 deep, 8 by 8 outputs per invocation: half the loads an output of `conv2d_tile`. For GPUs of few registers there is half as
// much an invocation, 8 by 4, in tiles of 128 by 64 per workgroup of 256.
#import index
#import conv2d
#import depth
#import load_tiles
#import load
#import share_tally
#import store
#import tile_weights

alias Element = f32;
alias Weight = f32;
// Column quads of a tile: 32, or 16.
const QUADS: u32 = 32u;
const INVOCATIONS: u32 = 16u * QUADS / EACH_QUADS;
// Ends of loops that are written out.
const ROW_LOADS: u32 = 2u; // vec4s of a slab's input that an invocation brings
const EACH: u32 = 8u; // rows of an invocation
const EACH_QUADS: u32 = 2u; // its column quads, and vec4s of a slab's weights that it brings: 2, or 1
const AHEAD: u32 = 4u; // results that what they need besides is read for together, and vec4s of a depth quad
const_assert ROW_LOADS * INVOCATIONS == 512u;

@group(0) @binding(0) var<uniform> params: Gather;
@group(0) @binding(2) var<storage, read> weight: array<vec4<Weight>>;

// [row][depth quad], padded against bank conflicts, and [depth][column quad]. TURNED, the weights come a depth quad of a column at a time and keep that
// shape: [which column of its quad, depth quad][column quad], padded as well.
var<workgroup> tile_a: array<array<vec4<f32>, 5>, 128>;
var<workgroup> tile_b: array<array<vec4<f32>, select(QUADS, QUADS + 1u, TURNED)>, 16>;

// sum + x.x b0 + x.y b1 + x.z b2 + x.w b3, in that order and with as few instructions as there are products.
fn add_four(sum: vec4<f32>, x: vec4<f32>, b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>) -> vec4<f32> {
    return fma(vec4(x.w), b3, fma(vec4(x.z), b2, fma(vec4(x.y), b1, fma(vec4(x.x), b0, sum))));
}

// What an invocation brings of a slab: of ROW_LOADS rows the quad at depth `k`, and of a column quad EACH_QUADS depths, one after the other, or TURNED, the
// same quad of as many columns.
struct Loaded { n: Norm, a: array<vec4<f32>, ROW_LOADS>, there: array<bool, ROW_LOADS>, b: array<vec4<f32>, EACH_QUADS> }

// Which of a slab's weights invocation `local` brings: depth and column quad of the first of them, or TURNED, column and depth quad of each.
fn first_depth(local: u32) -> u32 { return local / QUADS * EACH_QUADS; }

fn turned_column(local: u32, i: u32) -> u32 { return local / 4u + i * (INVOCATIONS / 4u); }

// Where they are: `k` is the depth of the input, `weight_k` that of the weights, the tile begins at quad `first_column`.
fn sources_b(local: u32, k: Depth, weight_k: Depth, group: u32, first_column: u32) -> array<u32, EACH_QUADS> {
    var to: array<u32, EACH_QUADS>;
    if TURNED {
        #unroll
        for (var i = 0u; i < EACH_QUADS; i++) { to[i] = source_turned(k, group, first_column * 4u + turned_column(local, i)); }
    } else {
        let first = source_b(weight_k, group, first_column + local % QUADS) + first_depth(local) % 4u * params.out_quads;
        #unroll
        for (var i = 0u; i < EACH_QUADS; i++) { to[i] = first + i * params.out_quads; }
    }
    return to;
}

// Where the one of number `i` goes in `tile_b`.
fn place_b(local: u32, i: u32) -> vec2<u32> {
    if TURNED {
        let column = turned_column(local, i);
        return vec2(column % 4u * 4u + local % 4u, column / 4u);
    }
    return vec2(first_depth(local) + i, local % QUADS);
}

// Addresses come before all loads, so that none waits for another. `weights` are those of the weights.
fn load(rows: array<InputRow, ROW_LOADS>, k: Depth, weights: array<u32, EACH_QUADS>) -> Loaded {
    var sources: array<Source, ROW_LOADS>;
    let step = step_of(k);
    #unroll
    for (var i = 0u; i < ROW_LOADS; i++) { sources[i] = source_a(rows[i], step); }
    var to: Loaded;
    to.n = norm_of(k.channel);
    #unroll
    for (var i = 0u; i < ROW_LOADS; i++) {
        to.a[i] = vec4<f32>(input[sources[i].start]);
        to.there[i] = sources[i].there;
    }
    #unroll
    for (var i = 0u; i < EACH_QUADS; i++) { to.b[i] = vec4<f32>(weight[weights[i]]); }
    return to;
}

@compute @workgroup_size(INVOCATIONS)
fn gather(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = workgroup_index(wg, n);
    if tile >= params.tiles { return; }
    let first_row = tile / params.column_tiles * 128u;
    let first_column = tile % params.column_tiles * QUADS;
    // Loading: depth quad local % 4 of rows local / 4 and every INVOCATIONS / 4 further.
    let load_row = local / 4u;
    var rows: array<InputRow, ROW_LOADS>;
    #unroll
    for (var i = 0u; i < ROW_LOADS; i++) { rows[i] = input_row(min(first_row + load_row + i * (INVOCATIONS / 4u), params.rows - 1u)); }
    let group = first_row / params.group_rows;
    // Computing: rows local / (QUADS / 2) and every 16 further, column quads local % (QUADS / 2) and as many further.
    let my_row = local / (QUADS / EACH_QUADS);
    let my_column = local % (QUADS / EACH_QUADS);
    let quads = params.taps_h * params.taps_w * params.in_quads;
    let next_slab = depth_of(4u);
    var k = depth_of(local % 4u);
    var weight_k = depth_of(first_depth(local) / 4u);
    var loaded = load(rows, k, sources_b(local, k, weight_k, group, first_column));
    var sums: array<array<vec4<f32>, EACH>, EACH_QUADS>;
    for (var base = 0u; base < quads; base += 4u) {
        workgroupBarrier();
        #unroll
        for (var i = 0u; i < ROW_LOADS; i++) {
            tile_a[load_row + i * (INVOCATIONS / 4u)][local % 4u] = select(vec4<f32>(), normalized_by(loaded.n, loaded.a[i]), loaded.there[i]);
        }
        #unroll
        for (var i = 0u; i < EACH_QUADS; i++) {
            let place = place_b(local, i);
            tile_b[place.x][place.y] = loaded.b[i];
        }
        workgroupBarrier();
        // The next slab comes while this one is multiplied; behind the last comes what is not used.
        k = deeper(k, next_slab);
        weight_k = deeper(weight_k, next_slab);
        loaded = load(rows, k, sources_b(local, k, weight_k, group, first_column));
        for (var d = 0u; d < 4u; d++) {
            var b: array<array<vec4<f32>, AHEAD>, EACH_QUADS>;
            #unroll
            for (var q = 0u; q < EACH_QUADS; q++) {
                #unroll
                for (var e = 0u; e < AHEAD; e++) { b[q][e] = tile_b[weight_row(d, e)][my_column + q * (QUADS / EACH_QUADS)]; }
                b[q] = by_depth(b[q]);
            }
            #unroll
            for (var i = 0u; i < EACH; i++) {
                let x = tile_a[my_row + 16u * i][d];
                #unroll
                for (var q = 0u; q < EACH_QUADS; q++) {
                    sums[q][i] = add_four(sums[q][i], x, b[q][0], b[q][1], b[q][2], b[q][3]);
                }
            }
        }
    }
    var at: array<u32, EACH>;
    #unroll
    for (var i = 0u; i < EACH; i++) { at[i] = out_of(params, first_row + my_row + 16u * i); }
    #unroll
    for (var q = 0u; q < EACH_QUADS; q++) {
        let column = first_column + my_column + q * (QUADS / EACH_QUADS);
        begin(column, sums[q][0]);
        #unroll
        for (var first = 0u; first < EACH; first += AHEAD) {
            var by: array<Beside, AHEAD>;
            #unroll
            for (var i = 0u; i < AHEAD; i++) { by[i] = beside(at[first + i], column); }
            #unroll
            for (var i = 0u; i < AHEAD; i++) { put(first_row + my_row + 16u * (first + i), at[first + i], column, sums[q][first + i], by[i]); }
        }
        if TALLIES {
            let all = share_tally(local, QUADS / EACH_QUADS);
            if local < QUADS / EACH_QUADS { write_tally(first_row, tile / params.column_tiles, column, all); }
        }
    }
}
