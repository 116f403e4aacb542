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

// vec4s of a slab's input that an invocation brings.
const LEFT_LOADS: u32 = LEFT_BLOCKS * 4u;
// vec4s of a matrix that an invocation writes.
const PUTS: u32 = max(TILE * TILE / 4u / LANES, 1u);

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
    for (var i = 0u; i < LEFT_LOADS; i++) {
        rows[i] = gather_row(params, min(first_row + local / QUADS + i * row_step, params.rows - 1u));
    }
    var a: array<vec4<Element>, LEFT_LOADS>;
    var from_a: array<Source, LEFT_LOADS>;
    var b: array<vec4<Weight>, RIGHT_BLOCKS * 4u>;
    var from_b: array<Source, RIGHT_BLOCKS * 4u>;
    var sums: array<array<Sum, COLUMN_TILES>, ROW_TILES>;
    let slabs = (params.taps_h * params.taps_w * params.in_quads + QUADS - 1u) / QUADS;
    let quad = local % QUADS;
    var at = depth_of(quad);
    var n = norm_of(at.channel);
    // One turn more than there are slabs: turn t loads slab t and multiplies slab t - 1.
    for (var slab = 0u; slab <= slabs; slab++) {
        workgroupBarrier();
        if slab > 0u {
            for (var i = 0u; i < LEFT_LOADS; i++) {
                let x = select(vec4<f32>(), normalized_by(n, vec4<f32>(a[i])), from_a[i].there);
                put_left((local / QUADS + i * row_step) * DEPTH_STRIDE + quad * 4u, vec4<f16>(x));
            }
            for (var i = 0u; i < RIGHT_BLOCKS; i++) {
                let w0 = vec4<f16>(select(vec4<Weight>(), b[4u * i], from_b[4u * i].there));
                let w1 = vec4<f16>(select(vec4<Weight>(), b[4u * i + 1u], from_b[4u * i + 1u].there));
                let w2 = vec4<f16>(select(vec4<Weight>(), b[4u * i + 2u], from_b[4u * i + 2u].there));
                let w3 = vec4<f16>(select(vec4<Weight>(), b[4u * i + 3u], from_b[4u * i + 3u].there));
                put_right_block(slot(local, i), quad, w0, w1, w2, w3);
            }
        }
        workgroupBarrier();
        if slab < slabs {
            n = norm_of(at.channel);
            for (var i = 0u; i < LEFT_LOADS; i++) { from_a[i] = source_a(rows[i], at); }
            for (var i = 0u; i < RIGHT_BLOCKS * 4u; i++) { from_b[i] = source_b(0u, at, i % 4u, first_column + slot(local, i / 4u)); }
            for (var i = 0u; i < LEFT_LOADS; i++) { a[i] = input[from_a[i].start]; }
            for (var i = 0u; i < RIGHT_BLOCKS * 4u; i++) { b[i] = weight[from_b[i].start]; }
            at = deeper(at, QUADS);
        }
        if slab > 0u { multiply(&sums, subgroup); }
    }
    for (var j = 0u; j < COLUMN_TILES; j++) {
        let corner = corner(subgroup, 0u, j);
        // An invocation writes one column quad of a matrix: LANES is a multiple of the quads.
        let column = first_column + corner.y / 4u + lane % (TILE / 4u);
        // What the results need besides is read before any of them is written.
        var ats: array<array<u32, PUTS>, ROW_TILES>;
        var besides: array<array<Beside, PUTS>, ROW_TILES>;
        for (var i = 0u; i < ROW_TILES; i++) {
            for (var e = 0u; e < PUTS; e++) {
                ats[i][e] = out_of(params, first_row + corner.x + i * TILE + (lane + e * LANES) / (TILE / 4u));
                besides[i][e] = beside(ats[i][e], column);
            }
        }
        for (var i = 0u; i < ROW_TILES; i++) {
            put_stage(sums[i][j], subgroup);
            for (var e = 0u; e < PUTS; e++) {
                let r = (lane + e * LANES) / (TILE / 4u);
                // There may be more lanes than vec4s of a matrix.
                if r < TILE {
                    let value = staged(subgroup, r, lane % (TILE / 4u));
                    if i + e == 0u { begin(column, value); }
                    put(first_row + corner.x + i * TILE + r, ats[i][e], column, value, besides[i][e]);
                }
            }
        }
        if TALLIES {
            let all = shuffle_tally(LANES, TILE / 4u);
            let chunk = tile / params.column_tiles * SUBGROUP_ROWS + subgroup / SUBGROUP_COLUMNS;
            if lane < TILE / 4u { write_tally(first_row + corner.x, chunk, column, all); }
        }
    }
}
