// Convolution for software devices: 16 or 32 rows by 8 column quads per subgroup of 8, without barriers. Every lane loads the inputs of
// two or four rows once and hands them round with subgroupBroadcast, so a load costs an eighth; each lane keeps its own column quad
// of weights. 32 rows (`tile_rows`) load the weights half as often and are a fifth faster where there are enough of them; products are the same to the
// last bit. It is one kernel for both, because software devices take half a second to compile it.
#import index
#import conv2d
#import load
#import store

alias Element = f32;
alias Weight = f32;

@group(0) @binding(0) var<uniform> params: Gather;
@group(0) @binding(2) var<storage, read> weight: array<vec4<Weight>>;

fn load(at: Source, quad: u32, n: Norm) -> vec4<f32> {
    return select(vec4<f32>(), input_at(at.start + quad, n), at.there);
}

@compute @workgroup_size(8)
fn gather(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let tile = workgroup_index(wg, groups);
    if tile >= params.tiles { return; }
    let row_tile = tile / params.column_tiles;
    let column = tile % params.column_tiles * 8u + lane;
    let loaded = min(column, params.out_quads - 1u);
    let first = row_tile * params.tile_rows;
    let group = first / params.group_rows;
    let many = params.tile_rows == 32u;
    let row0 = gather_row(params, min(first + lane, params.rows - 1u));
    let row1 = gather_row(params, min(first + 8u + lane, params.rows - 1u));
    let row2 = gather_row(params, min(first + 16u + lane, params.rows - 1u));
    let row3 = gather_row(params, min(first + 24u + lane, params.rows - 1u));
    let quads = params.out_quads;
    var c0 = vec4<f32>(); var c1 = vec4<f32>(); var c2 = vec4<f32>(); var c3 = vec4<f32>();
    var c4 = vec4<f32>(); var c5 = vec4<f32>(); var c6 = vec4<f32>(); var c7 = vec4<f32>();
    var c8 = vec4<f32>(); var c9 = vec4<f32>(); var c10 = vec4<f32>(); var c11 = vec4<f32>();
    var c12 = vec4<f32>(); var c13 = vec4<f32>(); var c14 = vec4<f32>(); var c15 = vec4<f32>();
    var c16 = vec4<f32>(); var c17 = vec4<f32>(); var c18 = vec4<f32>(); var c19 = vec4<f32>();
    var c20 = vec4<f32>(); var c21 = vec4<f32>(); var c22 = vec4<f32>(); var c23 = vec4<f32>();
    var c24 = vec4<f32>(); var c25 = vec4<f32>(); var c26 = vec4<f32>(); var c27 = vec4<f32>();
    var c28 = vec4<f32>(); var c29 = vec4<f32>(); var c30 = vec4<f32>(); var c31 = vec4<f32>();
    for (var r = 0u; r < params.taps_h; r++) {
        for (var s = 0u; s < params.taps_w; s++) {
            let step = vec2(i32(r), i32(s)) * params.tap_step;
            let s0 = source(params, row0, step);
            let s1 = source(params, row1, step);
            let s2 = source(params, row2, step);
            let s3 = source(params, row3, step);
            // Small images: a tap that sees nothing but padding costs nothing.
            if !subgroupAny(s0.there || s1.there || (many && (s2.there || s3.there))) { continue; }
            let tap = tap_of(params, r, s, group);
            var at = tap * params.in_quads * 4u * quads + loaded;
            var stride = quads;
            if params.turned > 0u {
                at = (tap * quads + loaded) * 4u * params.in_quads;
                stride = params.in_quads;
            }
            // Tested at the end: with one quad, as images have, a test in front would cost nearly half as much as the sum.
            var k = 0u;
            loop {
                let n = norm_of(k);
                let x0 = load(s0, k, n);
                let x1 = load(s1, k, n);
                var b0 = vec4<f32>(weight[at]);
                var b1 = vec4<f32>(weight[at + stride]);
                var b2 = vec4<f32>(weight[at + 2u * stride]);
                var b3 = vec4<f32>(weight[at + 3u * stride]);
                if params.turned > 0u {
                    let t = transpose(mat4x4(b0, b1, b2, b3));
                    b0 = t[0]; b1 = t[1]; b2 = t[2]; b3 = t[3];
                    at += 1u;
                } else {
                    at += 4u * quads;
                }
                var a: vec4<f32>;
                a = subgroupBroadcast(x0, 0u); c0 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                a = subgroupBroadcast(x0, 1u); c1 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                a = subgroupBroadcast(x0, 2u); c2 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                a = subgroupBroadcast(x0, 3u); c3 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                a = subgroupBroadcast(x0, 4u); c4 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                a = subgroupBroadcast(x0, 5u); c5 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                a = subgroupBroadcast(x0, 6u); c6 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                a = subgroupBroadcast(x0, 7u); c7 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                a = subgroupBroadcast(x1, 0u); c8 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                a = subgroupBroadcast(x1, 1u); c9 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                a = subgroupBroadcast(x1, 2u); c10 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                a = subgroupBroadcast(x1, 3u); c11 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                a = subgroupBroadcast(x1, 4u); c12 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                a = subgroupBroadcast(x1, 5u); c13 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                a = subgroupBroadcast(x1, 6u); c14 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                a = subgroupBroadcast(x1, 7u); c15 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                if many {
                    let x2 = load(s2, k, n);
                    let x3 = load(s3, k, n);
                    a = subgroupBroadcast(x2, 0u); c16 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                    a = subgroupBroadcast(x2, 1u); c17 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                    a = subgroupBroadcast(x2, 2u); c18 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                    a = subgroupBroadcast(x2, 3u); c19 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                    a = subgroupBroadcast(x2, 4u); c20 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                    a = subgroupBroadcast(x2, 5u); c21 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                    a = subgroupBroadcast(x2, 6u); c22 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                    a = subgroupBroadcast(x2, 7u); c23 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                    a = subgroupBroadcast(x3, 0u); c24 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                    a = subgroupBroadcast(x3, 1u); c25 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                    a = subgroupBroadcast(x3, 2u); c26 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                    a = subgroupBroadcast(x3, 3u); c27 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                    a = subgroupBroadcast(x3, 4u); c28 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                    a = subgroupBroadcast(x3, 5u); c29 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                    a = subgroupBroadcast(x3, 6u); c30 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                    a = subgroupBroadcast(x3, 7u); c31 += a.x * b0 + a.y * b1 + a.z * b2 + a.w * b3;
                }
                k++;
                if k >= params.in_quads { break; }
            }
        }
    }
    // Rows leave eight at a time, of these one at a time, by loops whose ends the compiler does not know: all at once, they would take it several
    // times as long as the product.
    begin(column, c0);
    for (var row = first; row < min(first + params.tile_rows, params.rows); row += 8u) {
        let eight = (row - first) / 8u;
        var at = row0.out;
        var v0 = c0; var v1 = c1; var v2 = c2; var v3 = c3; var v4 = c4; var v5 = c5; var v6 = c6; var v7 = c7;
        if eight == 1u {
            at = row1.out;
            v0 = c8; v1 = c9; v2 = c10; v3 = c11; v4 = c12; v5 = c13; v6 = c14; v7 = c15;
        }
        if eight == 2u {
            at = row2.out;
            v0 = c16; v1 = c17; v2 = c18; v3 = c19; v4 = c20; v5 = c21; v6 = c22; v7 = c23;
        }
        if eight == 3u {
            at = row3.out;
            v0 = c24; v1 = c25; v2 = c26; v3 = c27; v4 = c28; v5 = c29; v6 = c30; v7 = c31;
        }
        let a0 = subgroupBroadcast(at, 0u); let a1 = subgroupBroadcast(at, 1u); let a2 = subgroupBroadcast(at, 2u); let a3 = subgroupBroadcast(at, 3u);
        let a4 = subgroupBroadcast(at, 4u); let a5 = subgroupBroadcast(at, 5u); let a6 = subgroupBroadcast(at, 6u); let a7 = subgroupBroadcast(at, 7u);
        for (var one = row; one < min(row + 8u, params.rows); one++) {
            let i = one - row;
            var v = v0; var to = a0;
            if i == 1u { v = v1; to = a1; }
            if i == 2u { v = v2; to = a2; }
            if i == 3u { v = v3; to = a3; }
            if i == 4u { v = v4; to = a4; }
            if i == 5u { v = v5; to = a5; }
            if i == 6u { v = v6; to = a6; }
            if i == 7u { v = v7; to = a7; }
            put(one, to, column, v, beside(to, column));
        }
    }
    write_tally(first, row_tile, column, tally());
}
