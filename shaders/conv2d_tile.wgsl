// Convolution for GPUs: a tile of 64 rows by 64 columns per workgroup of 256, both operands staged through workgroup memory 16 deep,
// 4 by 4 outputs per invocation.
#import index
#import conv2d
#import load
#import share_tally
#import store

alias Element = f32;
alias Weight = f32;

@group(0) @binding(0) var<uniform> params: Gather;
@group(0) @binding(2) var<storage, read> weight: array<vec4<Weight>>;

// Transposed: [depth][row], padded against bank conflicts. Scalars, because four invocations fill what would be one vec4, and a write
// to one component of a vector may touch the others.
var<workgroup> tile_a: array<array<f32, 68>, 16>;
var<workgroup> tile_b: array<array<vec4<f32>, 16>, 16>;

@compute @workgroup_size(256)
fn gather(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = workgroup_index(wg, n);
    if tile >= params.tiles { return; }
    let first_row = tile / params.column_tiles * 64u;
    let first_column = tile % params.column_tiles * 16u;
    // Loading: invocation `local` brings quad local % 4 of row local / 4, and column local % 16 of depth local / 16.
    let load_row = first_row + local / 4u;
    let load_quad = local % 4u;
    let row = gather_row(params, min(load_row, params.rows - 1u));
    let depth = local / 16u;
    let load_column = first_column + local % 16u;
    // Computing: rows 4 * (local / 16) .., column quad local % 16.
    let my_rows = local / 16u;
    let my_column = local % 16u;
    var sum = mat4x4<f32>();
    let quads = params.taps_h * params.taps_w * params.in_quads;
    for (var base = 0u; base < quads; base += 4u) {
        let k = base + load_quad;
        var a = vec4<f32>();
        if k < quads && load_row < params.rows {
            let t = k / params.in_quads;
            let h = row.h + i32(t / params.taps_w) * params.tap_step;
            let w = row.w + i32(t % params.taps_w) * params.tap_step;
            if inside(h, w, params.in_h, params.in_w) {
                let channel = k % params.in_quads;
                a = input_at(u32((row.n * i32(params.in_h) + h) * i32(params.in_w) + w) * params.in_quads + channel, norm_of(channel));
            }
        }
        var b = vec4<f32>();
        let kb = base + depth / 4u;
        if kb < quads && load_column < params.out_quads {
            let t = kb / params.in_quads;
            let tap = tap_of(params, t / params.taps_w, t % params.taps_w, first_row);
            b = vec4<f32>(weight[((tap * params.in_quads + kb % params.in_quads) * 4u + depth % 4u) * params.out_quads + load_column]);
        }
        workgroupBarrier();
        for (var c = 0u; c < 4u; c++) {
            tile_a[load_quad * 4u + c][local / 4u] = a[c];
        }
        tile_b[depth][local % 16u] = b;
        workgroupBarrier();
        for (var d = 0u; d < 16u; d++) {
            let r = my_rows * 4u;
            let x = vec4(tile_a[d][r], tile_a[d][r + 1u], tile_a[d][r + 2u], tile_a[d][r + 3u]);
            let y = tile_b[d][my_column];
            sum[0] += x.x * y;
            sum[1] += x.y * y;
            sum[2] += x.z * y;
            sum[3] += x.w * y;
        }
    }
    let column = first_column + my_column;
    begin(column, sum[0]);
    for (var i = 0u; i < 4u; i++) {
        let out_row = first_row + my_rows * 4u + i;
        put(out_row, gather_row(params, out_row).out, column, sum[i]);
    }
    if TALLIES {
        let all = share_tally(local, 16u);
        if local < 16u { write_tally(first_row, tile / params.column_tiles, column, all); }
    }
}
