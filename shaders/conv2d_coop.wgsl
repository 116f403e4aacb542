// Convolution on cooperative matrices: ROWS rows by COLUMNS columns per workgroup, 32 deep through workgroup memory. Both factors are
// rounded to f16, sums are f32. The next slab is loaded into registers while the present one is multiplied.
enable wgpu_cooperative_matrix;
#import index
#import conv2d
#import coop
#import load
#import shuffle_tally
#import store

alias Element = f32;
alias Weight = f32;

@group(0) @binding(0) var<uniform> params: Gather;
@group(0) @binding(2) var<storage, read> weight: array<vec4<Weight>>;

const QUADS: u32 = DEPTH / 4u;
// vec4s of a matrix that an invocation writes.
const PUTS: u32 = max(TILE * TILE / 4u / LANES, 1u);
// Outside every image, also twice.
const OUTSIDE: i32 = -0x20000000;

// For each vec4 of a slab's depth: step from a row's pixel in h and w, quad of input channels, weight row or -1. Two slabs in turn.
var<workgroup> taps: array<array<vec4<i32>, QUADS>, 2>;

fn find_taps(slab: u32, local: u32) {
    for (var q = local; q < QUADS; q += INVOCATIONS) {
        let k = slab * QUADS + q;
        let t = k / params.in_quads;
        let r = t / max(params.taps_w, 1u); // a class of pixels may see no tap
        let s = t % max(params.taps_w, 1u);
        let tap = tap_of(params, r, s, 0u);
        let channel = k % params.in_quads;
        let at = vec4(i32(r) * params.tap_step, i32(s) * params.tap_step, i32(channel), i32((tap * params.in_quads + channel) * 4u));
        taps[slab % 2u][q] = select(vec4(OUTSIDE, OUTSIDE, 0, -1), at, t < params.taps_h * params.taps_w);
    }
}

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
    // Loading the input: rows local / QUADS and every INVOCATIONS / QUADS further, vec4 local % QUADS of the depth.
    let row_step = INVOCATIONS / QUADS;
    var rows: array<vec3<i32>, LEFT_LOADS>;
    for (var i = 0u; i < LEFT_LOADS; i++) {
        let at = first_row + local / QUADS + i * row_step;
        let row = gather_row(params, min(at, params.rows - 1u));
        rows[i] = vec3(row.n, select(OUTSIDE, row.h, at < params.rows), row.w);
    }
    // Loading weights: depths local / (COLUMNS / 4) and every depth_step further.
    let depth_step = INVOCATIONS / (COLUMNS / 4u);
    let depth = local / (COLUMNS / 4u);
    let slot = local % (COLUMNS / 4u);
    let column = first_column + slot;
    var a: array<vec4<f16>, LEFT_LOADS>;
    var b: array<vec4<f16>, RIGHT_LOADS>;
    var sums: array<array<Sum, COLUMN_TILES>, ROW_TILES>;
    let slabs = (params.taps_h * params.taps_w * params.in_quads + QUADS - 1u) / QUADS;
    find_taps(0u, local);
    // One turn more than there are slabs: turn t loads slab t and multiplies slab t - 1.
    for (var slab = 0u; slab <= slabs; slab++) {
        workgroupBarrier();
        if slab > 0u {
            for (var i = 0u; i < LEFT_LOADS; i++) {
                put_left((local / QUADS + i * row_step) * DEPTH_STRIDE + local % QUADS * 4u, a[i]);
            }
            for (var i = 0u; i < RIGHT_LOADS; i++) {
                put_right((depth + i * depth_step) * COLUMN_STRIDE + slot * 4u, b[i]);
            }
        }
        workgroupBarrier();
        if slab < slabs {
            find_taps(slab + 1u, local);
            let tap = taps[slab % 2u][local % QUADS];
            let n = norm_of(u32(tap.z));
            for (var i = 0u; i < LEFT_LOADS; i++) {
                let h = rows[i].y + tap.x;
                let w = rows[i].z + tap.y;
                a[i] = vec4<f16>();
                if inside(h, w, params.in_h, params.in_w) {
                    a[i] = vec4<f16>(input_at(u32((rows[i].x * i32(params.in_h) + h) * i32(params.in_w) + w) * params.in_quads + u32(tap.z), n));
                }
            }
            for (var i = 0u; i < RIGHT_LOADS; i++) {
                let d = depth + i * depth_step;
                let first = taps[slab % 2u][d / 4u].w;
                b[i] = vec4<f16>();
                if first >= 0 && column < params.out_quads {
                    b[i] = vec4<f16>(weight[(u32(first) + d % 4u) * params.out_quads + column]);
                }
            }
        }
        if slab > 0u {
            for (var k = 0u; k < DEPTH; k += STEP) {
                multiply(&sums, left_by_rows(subgroup, k), subgroup, k);
            }
        }
    }
    for (var j = 0u; j < COLUMN_TILES; j++) {
        let corner = corner(subgroup, 0u, j);
        // An invocation writes one column quad of a matrix: LANES is a multiple of the quads.
        let quad = first_column + corner.y / 4u + lane % (TILE / 4u);
        // What the results need besides is read before any of them is written.
        var ats: array<array<u32, PUTS>, ROW_TILES>;
        var besides: array<array<Beside, PUTS>, ROW_TILES>;
        for (var i = 0u; i < ROW_TILES; i++) {
            for (var e = 0u; e < PUTS; e++) {
                ats[i][e] = out_of(params, first_row + corner.x + i * TILE + (lane + e * LANES) / (TILE / 4u));
                besides[i][e] = beside(ats[i][e], quad);
            }
        }
        for (var i = 0u; i < ROW_TILES; i++) {
            put_stage(sums[i][j], subgroup);
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
