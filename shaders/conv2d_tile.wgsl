// Convolution for GPUs: a tile of 64 rows by 64 columns per workgroup of 256, both operands staged through workgroup memory 16 deep,
// 4 by 4 outputs per invocation.
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
const INVOCATIONS: u32 = 256u;

@group(0) @binding(0) var<uniform> params: Gather;
@group(0) @binding(2) var<storage, read> weight: array<vec4<Weight>>;

// Transposed: [depth][row], padded against bank conflicts. Scalars, because four invocations fill what would be one vec4, and a write
// to one component of a vector may touch the others.
var<workgroup> tile_a: array<array<f32, 68>, 16>;
// [depth][column quad], or TURNED, [which column of its quad, depth quad][column quad].
var<workgroup> tile_b: array<array<vec4<f32>, select(16u, 17u, TURNED)>, 16>;

@compute @workgroup_size(INVOCATIONS)
fn gather(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = workgroup_index(wg, n);
    if tile >= params.tiles { return; }
    let first_row = tile / params.column_tiles * 64u;
    let first_column = tile % params.column_tiles * 16u;
    // Loading: invocation `local` brings quad local % 4 of row local / 4, and column quad local % 16 of depth local / 16, or TURNED, depth quad local % 4
    // of column local / 4.
    let load_row = first_row + local / 4u;
    let load_quad = local % 4u;
    let row = input_row(min(load_row, params.rows - 1u));
    let group = first_row / params.group_rows;
    let depth = local / 16u;
    let place_b = select(vec2(depth, local % 16u), vec2(local / 4u % 4u * 4u + load_quad, local / 16u), TURNED);
    // Computing: rows 4 * (local / 16) .., column quad local % 16.
    let my_rows = local / 16u;
    let my_column = local % 16u;
    var sum = mat4x4<f32>();
    let quads = params.taps_h * params.taps_w * params.in_quads;
    let slab = depth_of(4u);
    var k = depth_of(load_quad);
    var kb = depth_of(depth / 4u);
    for (var base = 0u; base < quads; base += 4u) {
        let from_a = source_a(row, step_of(k));
        var from_b: u32;
        if TURNED { from_b = source_turned(k, group, first_column * 4u + local / 4u); }
        else { from_b = source_b(kb, group, first_column + local % 16u) + depth % 4u * params.out_quads; }
        let a = select(vec4<f32>(), input_at(from_a.start, norm_of(k.channel)), from_a.there);
        let b = vec4<f32>(weight[from_b]);
        k = deeper(k, slab);
        kb = deeper(kb, slab);
        workgroupBarrier();
        for (var c = 0u; c < 4u; c++) {
            tile_a[load_quad * 4u + c][local / 4u] = a[c];
        }
        tile_b[place_b.x][place_b.y] = b;
        workgroupBarrier();
        for (var d = 0u; d < 4u; d++) {
            var y: array<vec4<f32>, 4>;
            #unroll
            for (var e = 0u; e < 4u; e++) { y[e] = tile_b[weight_row(d, e)][my_column]; }
            y = by_depth(y);
            #unroll
            for (var e = 0u; e < 4u; e++) {
                let r = my_rows * 4u;
                let x = array(tile_a[d * 4u + e][r], tile_a[d * 4u + e][r + 1u], tile_a[d * 4u + e][r + 2u], tile_a[d * 4u + e][r + 3u]);
                #unroll
                for (var i = 0u; i < 4u; i++) { sum[i] = fma(vec4(x[i]), y[e], sum[i]); }
            }
        }
    }
    let column = first_column + my_column;
    begin(column, sum[0]);
    let row0 = first_row + my_rows * 4u;
    let at0 = out_of(params, row0);
    let at1 = out_of(params, row0 + 1u);
    let at2 = out_of(params, row0 + 2u);
    let at3 = out_of(params, row0 + 3u);
    let by0 = beside(at0, column);
    let by1 = beside(at1, column);
    let by2 = beside(at2, column);
    let by3 = beside(at3, column);
    put(row0, at0, column, sum[0], by0);
    put(row0 + 1u, at1, column, sum[1], by1);
    put(row0 + 2u, at2, column, sum[2], by2);
    put(row0 + 3u, at3, column, sum[3], by3);
    if TALLIES {
        let all = share_tally(local, 16u);
        if local < 16u { write_tally(first_row, tile / params.column_tiles, column, all); }
    }
}
