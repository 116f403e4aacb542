// Convolution on cooperative matrices: ROWS rows by COLUMNS columns per workgroup, DEPTH deep through workgroup memory. Both factors are
// rounded to f16, sums are f32. The next slab is loaded into registers while the present one is multiplied.
enable wgpu_cooperative_matrix;
#import index
#import conv2d
#import coop
#import depth
#import load
#import load_tiles
#import shuffle_tally
#import store

alias Element = f32;
alias Weight = f32;

@group(0) @binding(0) var<uniform> params: Gather;
@group(0) @binding(2) var<storage, read> weight: array<vec4<Weight>>;

const QUADS: u32 = DEPTH / 4u;

@compute @workgroup_size(INVOCATIONS)
fn gather(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let tile = workgroup_index(wg, groups);
    if tile >= params.tiles { return; }
    let first_row = tile / params.column_tiles * ROWS;
    let first_column = tile % params.column_tiles * (COLUMNS / 4u);
    // Loading the input: rows local / QUADS and every INVOCATIONS / QUADS further, vec4 local % QUADS of the depth. Addresses come before all loads,
    // and what is not there is left out after, so that values may come while others are multiplied.
    let row_step = INVOCATIONS / QUADS;
    var rows: array<Row, LEFT_LOADS>;
    #unroll
    for (var i = 0u; i < LEFT_LOADS; i++) {
        rows[i] = gather_row(params, min(first_row + local / QUADS + i * row_step, params.rows - 1u));
    }
    // Loading weights: RIGHT_LOADS depths, one after another, of a column quad.
    let depth = local / (COLUMNS / 4u) * RIGHT_LOADS;
    let slot = local % (COLUMNS / 4u);
    let column = first_column + slot;
    var a: array<vec4<Element>, LEFT_LOADS>;
    var from_a: array<Source, LEFT_LOADS>;
    var b: array<vec4<Weight>, RIGHT_LOADS>;
    var from_b: array<Source, RIGHT_LOADS>;
    var sums: array<array<Sum, COLUMN_TILES>, ROW_TILES>;
    let slabs = (params.taps_h * params.taps_w * params.in_quads + QUADS - 1u) / QUADS;
    var left_at = depth_of(local % QUADS);
    var right_at = depth_of(depth / 4u);
    var n = norm_of(left_at.channel);
    // One turn more than there are slabs: turn t loads slab t and multiplies slab t - 1.
    for (var slab = 0u; slab <= slabs; slab++) {
        workgroupBarrier();
        if slab > 0u {
            #unroll
            for (var i = 0u; i < LEFT_LOADS; i++) {
                let x = select(vec4<f32>(), normalized_by(n, vec4<f32>(a[i])), from_a[i].there);
                put_left((local / QUADS + i * row_step) * DEPTH_STRIDE + local % QUADS * 4u, vec4<f16>(x));
            }
            #unroll
            for (var i = 0u; i < RIGHT_LOADS; i++) {
                let w = select(vec4<f32>(), vec4<f32>(b[i]), from_b[i].there);
                put_right((depth + i) * COLUMN_STRIDE + slot * 4u, vec4<f16>(w));
            }
        }
        workgroupBarrier();
        if slab < slabs {
            n = norm_of(left_at.channel);
            #unroll
            for (var i = 0u; i < LEFT_LOADS; i++) { from_a[i] = source_a(rows[i], left_at); }
            #unroll
            for (var i = 0u; i < RIGHT_LOADS; i++) {
                from_b[i] = source_b(0u, deeper(right_at, (depth % 4u + i) / 4u), (depth + i) % 4u, column);
            }
            #unroll
            for (var i = 0u; i < LEFT_LOADS; i++) { a[i] = input[from_a[i].start]; }
            #unroll
            for (var i = 0u; i < RIGHT_LOADS; i++) { b[i] = weight[from_b[i].start]; }
            left_at = deeper(left_at, QUADS);
            right_at = deeper(right_at, QUADS);
        }
        if slab > 0u {
            #unroll
            for (var k = 0u; k < DEPTH; k += STEP) {
                multiply(&sums, left_by_rows(subgroup, k), subgroup, k);
            }
        }
    }
    #unroll
    for (var j = 0u; j < COLUMN_TILES; j++) {
        let corner = corner(subgroup, 0u, j);
        // An invocation writes one column quad of a matrix: LANES is a multiple of the quads.
        let quad = first_column + corner.y / 4u + lane % (TILE / 4u);
        // What the results need besides is read before any of them is written.
        var ats: array<array<u32, PUTS>, ROW_TILES>;
        var besides: array<array<Beside, PUTS>, ROW_TILES>;
        #unroll
        for (var i = 0u; i < ROW_TILES; i++) {
            #unroll
            for (var e = 0u; e < PUTS; e++) {
                ats[i][e] = out_of(params, first_row + corner.x + i * TILE + (lane + e * LANES) / (TILE / 4u));
                besides[i][e] = beside(ats[i][e], quad);
            }
        }
        #unroll
        for (var i = 0u; i < ROW_TILES; i++) {
            put_stage(sums[i][j], subgroup);
            #unroll
            for (var e = 0u; e < PUTS; e++) {
                let r = (lane + e * LANES) / (TILE / 4u);
                // There may be more lanes than vec4s of a matrix.
                if r < TILE {
                    let value = staged(subgroup, r, lane % (TILE / 4u));
                    if i + e == 0u { begin(quad, value); }
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
