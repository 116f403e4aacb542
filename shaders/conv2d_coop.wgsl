// Convolution on cooperative matrices: ROWS rows by COLUMNS columns per workgroup, DEPTH deep through workgroup memory. Both factors are
// rounded to f16, sums are f32. The next slab is loaded into registers while the present one is multiplied.
enable wgpu_cooperative_matrix;
#import index
#import conv2d
#import coop
#import coop_input
#import coop_weights
#import depth
#import load
#import load_tiles
#import shuffle_tally
#import store

alias Element = f32;
alias Weight = f32;
// What a load brings.
alias LeftPiece = vec4<Element>;
alias RightPiece = vec4<Weight>;

@group(0) @binding(0) var<uniform> params: Gather;
@group(0) @binding(2) var<storage, read> weight: array<RightPiece>;

// What an invocation brings of a slab: of LEFT_LOADS rows a piece of the depth, and weights.
struct Loaded { n: array<Norm, WIDTH / 4u>, a: array<LeftPiece, LEFT_LOADS>, there: array<bool, LEFT_LOADS>, b: array<RightPiece, RIGHT_LOADS> }

// Of the input the depth `at`. Addresses come before all loads, so that none waits for another.
fn load(rows: array<InputRow, LEFT_LOADS>, at: Depth, weights: Weights, next: Depth, local: u32) -> Loaded {
    var from_a: array<Source, LEFT_LOADS>;
    let step = step_of(at);
    #unroll
    for (var i = 0u; i < LEFT_LOADS; i++) { from_a[i] = source_a(rows[i], step); }
    let from_b = sources_b(weights, next, local);
    var to: Loaded;
    to.n = norms_of(at.channel);
    #unroll
    for (var i = 0u; i < LEFT_LOADS; i++) {
        to.a[i] = input[from_a[i].start];
        to.there[i] = from_a[i].there;
    }
    #unroll
    for (var i = 0u; i < RIGHT_LOADS; i++) { to.b[i] = weight[from_b[i]]; }
    return to;
}

@compute @workgroup_size(INVOCATIONS)
fn gather(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup_id: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    // Subgroups may turn out smaller than LANES, of which there are more then: results are no numbers, but nothing leaves its place.
    let subgroup = subgroup_id % (SUBGROUP_ROWS * SUBGROUP_COLUMNS);
    let tile = workgroup_index(wg, groups);
    if tile >= params.tiles { return; }
    let first_row = tile / params.column_tiles * ROWS;
    let first_column = tile % params.column_tiles * (COLUMNS / 4u);
    // Loading the input: rows local / PIECES and every INVOCATIONS / PIECES further, piece local % PIECES of the depth.
    var rows: array<InputRow, LEFT_LOADS>;
    #unroll
    for (var i = 0u; i < LEFT_LOADS; i++) {
        rows[i] = input_row(min(first_row + local / PIECES + i * ROW_STEP, params.rows - 1u));
    }
    let next = depth_of(1u);
    let next_slab = depth_of(PIECES);
    var at = depth_of(local % PIECES);
    var weights = weights_of(local, first_column * 4u);
    var loaded = load(rows, at, weights, next, local);
    let left_at_first = first_left_by_rows(subgroup);
    let right_at_first = first_right(subgroup);
    var sums: array<array<Sum, COLUMN_TILES>, ROW_TILES>;
    let slabs = (params.taps_h * params.taps_w * in_pieces() + PIECES - 1u) / PIECES;
    for (var slab = 0u; slab < slabs; slab++) {
        workgroupBarrier();
        #unroll
        for (var i = 0u; i < LEFT_LOADS; i++) {
            put_left((local / PIECES + i * ROW_STEP) * DEPTH_STRIDE + local % PIECES * WIDTH, rounded(loaded.n, loaded.a[i], loaded.there[i]));
        }
        #unroll
        for (var i = 0u; i < RIGHT_LOADS; i++) { put_right(place_b(local, i), rounded_right(loaded.b[i])); }
        workgroupBarrier();
        // The next slab comes while this one is multiplied; behind the last comes what is not used.
        at = deeper(at, next_slab);
        weights.at = weights_at(at, weights.at, next_slab);
        loaded = load(rows, at, weights, next, local);
        #unroll
        for (var k = 0u; k < DEPTH; k += STEP) {
            multiply(&sums, left_by_rows(left_at_first, k), right_at_first, k);
        }
    }
    var ats: array<array<u32, PUTS>, ROW_TILES>;
    #unroll
    for (var i = 0u; i < ROW_TILES; i++) {
        #unroll
        for (var e = 0u; e < PUTS; e++) { ats[i][e] = out_of(params, first_row + corner(subgroup, i, 0u).x + (lane + e * LANES) / (TILE / 4u)); }
    }
    #unroll
    for (var j = 0u; j < COLUMN_TILES; j++) {
        let corner = corner(subgroup, 0u, j);
        // An invocation writes one column quad of a matrix: LANES is a multiple of the quads.
        let quad = first_column + corner.y / 4u + lane % (TILE / 4u);
        // What the results need besides is read before any of them is written.
        var besides: array<array<Beside, PUTS>, ROW_TILES>;
        #unroll
        for (var i = 0u; i < ROW_TILES; i++) {
            #unroll
            for (var e = 0u; e < PUTS; e++) { besides[i][e] = beside(ats[i][e], quad); }
        }
        #unroll
        for (var i = 0u; i < ROW_TILES; i++) {
            put_stage(sums[i][j], subgroup);
            #unroll
            for (var e = 0u; e < PUTS; e++) {
                let r = (lane + e * LANES) / (TILE / 4u);
                // There may be more lanes than vec4s of a matrix.
                if PUTS * LANES == TILE * TILE / 4u || r < TILE {
                    let value = staged(subgroup, r, lane % (TILE / 4u)) + poison(lanes);
                    if i + e == 0u { begin(quad, subgroupShuffle(value, lane % (TILE / 4u))); }
                    put(first_row + corner.x + i * TILE + r, ats[i][e], quad, value, besides[i][e]);
                }
            }
        }
        if TALLIES {
            let all = shuffle_tally(LANES, TILE / 4u);
            let chunk = tile / params.column_tiles * SUBGROUP_ROWS + subgroup / SUBGROUP_COLUMNS;
            if lane < TILE / 4u { write_tally(first_row + corner.x, chunk, quad, all); }
        }
    }
}
