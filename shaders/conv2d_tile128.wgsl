// Convolution for large products on GPUs: a tile of 128 rows by 128 columns per workgroup of 256, both operands staged through workgroup memory
// 16 deep, 8 by 8 outputs per invocation: half the loads an output of `conv2d_tile`. The next slab is loaded into registers while the present
// one is multiplied.
#import index
#import conv2d
#import load
#import share_tally
#import store

alias Element = f32;
alias Weight = f32;

@group(0) @binding(0) var<uniform> params: Gather;
@group(0) @binding(2) var<storage, read> weight: array<vec4<Weight>>;

// [row][depth quad], padded against bank conflicts, and [depth][column quad].
var<workgroup> tile_a: array<array<vec4<f32>, 5>, 128>;
var<workgroup> tile_b: array<array<vec4<f32>, 32>, 16>;

// The input of a row at depth quad `k`.
fn load_a(row: Row, k: u32, wanted: bool) -> vec4<f32> {
    let t = k / params.in_quads;
    let channel = k % params.in_quads;
    let h = row.h + i32(t / max(params.taps_w, 1u)) * params.tap_step; // a class of pixels may see no tap
    let w = row.w + i32(t % max(params.taps_w, 1u)) * params.tap_step;
    if !wanted || !inside(h, w, params.in_h, params.in_w) { return vec4<f32>(); }
    return input_at(u32((row.n * i32(params.in_h) + h) * i32(params.in_w) + w) * params.in_quads + channel, norm_of(channel));
}

// The weights of a column quad at depth `d` of depth quad `k`.
fn load_b(first_row: u32, k: u32, d: u32, column: u32, wanted: bool) -> vec4<f32> {
    if !wanted || column >= params.out_quads { return vec4<f32>(); }
    let t = k / params.in_quads;
    let taps_w = max(params.taps_w, 1u);
    let tap = tap_of(params, t / taps_w, t % taps_w, first_row);
    return vec4<f32>(weight[((tap * params.in_quads + k % params.in_quads) * 4u + d) * params.out_quads + column]);
}

@compute @workgroup_size(256)
fn gather(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = workgroup_index(wg, n);
    if tile >= params.tiles { return; }
    let first_row = tile / params.column_tiles * 128u;
    let first_column = tile % params.column_tiles * 32u;
    // Loading: depth quad local % 4 of rows local / 4 and 64 further; column quad local % 32 of depths local / 32 and 8 further.
    let load_row = first_row + local / 4u;
    let row0 = gather_row(params, min(load_row, params.rows - 1u));
    let row1 = gather_row(params, min(load_row + 64u, params.rows - 1u));
    let depth = local / 32u;
    let load_column = first_column + local % 32u;
    // Computing: rows local / 16 and every 16 further, column quads local % 16 and 16 further.
    let my_row = local / 16u;
    let my_column = local % 16u;
    let quads = params.taps_h * params.taps_w * params.in_quads;
    var a0 = load_a(row0, local % 4u, local % 4u < quads);
    var a1 = load_a(row1, local % 4u, local % 4u < quads);
    var w0 = load_b(first_row, depth / 4u, depth % 4u, load_column, depth / 4u < quads);
    var w1 = load_b(first_row, depth / 4u + 2u, depth % 4u, load_column, depth / 4u + 2u < quads);
    var p0 = vec4<f32>(); var q0 = vec4<f32>();
    var p1 = vec4<f32>(); var q1 = vec4<f32>();
    var p2 = vec4<f32>(); var q2 = vec4<f32>();
    var p3 = vec4<f32>(); var q3 = vec4<f32>();
    var p4 = vec4<f32>(); var q4 = vec4<f32>();
    var p5 = vec4<f32>(); var q5 = vec4<f32>();
    var p6 = vec4<f32>(); var q6 = vec4<f32>();
    var p7 = vec4<f32>(); var q7 = vec4<f32>();
    for (var base = 0u; base < quads; base += 4u) {
        workgroupBarrier();
        tile_a[local / 4u][local % 4u] = a0;
        tile_a[local / 4u + 64u][local % 4u] = a1;
        tile_b[depth][local % 32u] = w0;
        tile_b[depth + 8u][local % 32u] = w1;
        workgroupBarrier();
        let k = base + 4u + local % 4u;
        let kb = base + 4u + depth / 4u;
        a0 = load_a(row0, k, k < quads);
        a1 = load_a(row1, k, k < quads);
        w0 = load_b(first_row, kb, depth % 4u, load_column, kb < quads);
        w1 = load_b(first_row, kb + 2u, depth % 4u, load_column, kb + 2u < quads);
        for (var d = 0u; d < 4u; d++) {
            let b0 = tile_b[d * 4u][my_column];
            let b1 = tile_b[d * 4u + 1u][my_column];
            let b2 = tile_b[d * 4u + 2u][my_column];
            let b3 = tile_b[d * 4u + 3u][my_column];
            let b4 = tile_b[d * 4u][my_column + 16u];
            let b5 = tile_b[d * 4u + 1u][my_column + 16u];
            let b6 = tile_b[d * 4u + 2u][my_column + 16u];
            let b7 = tile_b[d * 4u + 3u][my_column + 16u];
            var x: vec4<f32>;
            x = tile_a[my_row + 0u][d];
            p0 += x.x * b0 + x.y * b1 + x.z * b2 + x.w * b3;
            q0 += x.x * b4 + x.y * b5 + x.z * b6 + x.w * b7;
            x = tile_a[my_row + 16u][d];
            p1 += x.x * b0 + x.y * b1 + x.z * b2 + x.w * b3;
            q1 += x.x * b4 + x.y * b5 + x.z * b6 + x.w * b7;
            x = tile_a[my_row + 32u][d];
            p2 += x.x * b0 + x.y * b1 + x.z * b2 + x.w * b3;
            q2 += x.x * b4 + x.y * b5 + x.z * b6 + x.w * b7;
            x = tile_a[my_row + 48u][d];
            p3 += x.x * b0 + x.y * b1 + x.z * b2 + x.w * b3;
            q3 += x.x * b4 + x.y * b5 + x.z * b6 + x.w * b7;
            x = tile_a[my_row + 64u][d];
            p4 += x.x * b0 + x.y * b1 + x.z * b2 + x.w * b3;
            q4 += x.x * b4 + x.y * b5 + x.z * b6 + x.w * b7;
            x = tile_a[my_row + 80u][d];
            p5 += x.x * b0 + x.y * b1 + x.z * b2 + x.w * b3;
            q5 += x.x * b4 + x.y * b5 + x.z * b6 + x.w * b7;
            x = tile_a[my_row + 96u][d];
            p6 += x.x * b0 + x.y * b1 + x.z * b2 + x.w * b3;
            q6 += x.x * b4 + x.y * b5 + x.z * b6 + x.w * b7;
            x = tile_a[my_row + 112u][d];
            p7 += x.x * b0 + x.y * b1 + x.z * b2 + x.w * b3;
            q7 += x.x * b4 + x.y * b5 + x.z * b6 + x.w * b7;
        }
    }
    let column = first_column + my_column;
    begin(column, p0);
    put(first_row + my_row + 0u, gather_row(params, first_row + my_row + 0u).out, column, p0);
    put(first_row + my_row + 16u, gather_row(params, first_row + my_row + 16u).out, column, p1);
    put(first_row + my_row + 32u, gather_row(params, first_row + my_row + 32u).out, column, p2);
    put(first_row + my_row + 48u, gather_row(params, first_row + my_row + 48u).out, column, p3);
    put(first_row + my_row + 64u, gather_row(params, first_row + my_row + 64u).out, column, p4);
    put(first_row + my_row + 80u, gather_row(params, first_row + my_row + 80u).out, column, p5);
    put(first_row + my_row + 96u, gather_row(params, first_row + my_row + 96u).out, column, p6);
    put(first_row + my_row + 112u, gather_row(params, first_row + my_row + 112u).out, column, p7);
    if TALLIES {
        let all = share_tally(local, 16u);
        if local < 16u { write_tally(first_row, tile / params.column_tiles, column, all); }
    }
    begin(column + 16u, q0);
    put(first_row + my_row + 0u, gather_row(params, first_row + my_row + 0u).out, column + 16u, q0);
    put(first_row + my_row + 16u, gather_row(params, first_row + my_row + 16u).out, column + 16u, q1);
    put(first_row + my_row + 32u, gather_row(params, first_row + my_row + 32u).out, column + 16u, q2);
    put(first_row + my_row + 48u, gather_row(params, first_row + my_row + 48u).out, column + 16u, q3);
    put(first_row + my_row + 64u, gather_row(params, first_row + my_row + 64u).out, column + 16u, q4);
    put(first_row + my_row + 80u, gather_row(params, first_row + my_row + 80u).out, column + 16u, q5);
    put(first_row + my_row + 96u, gather_row(params, first_row + my_row + 96u).out, column + 16u, q6);
    put(first_row + my_row + 112u, gather_row(params, first_row + my_row + 112u).out, column + 16u, q7);
    if TALLIES {
        let all = share_tally(local, 16u);
        if local < 16u { write_tally(first_row, tile / params.column_tiles, column + 16u, all); }
    }
}
