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
// Whether there are 128 columns.
const WIDE: bool = true;
const QUADS: u32 = select(16u, 32u, WIDE);
const INVOCATIONS: u32 = 8u * QUADS;

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
    let load_row = first_row + local / 4u;
    let row0 = gather_row(params, min(load_row, params.rows - 1u));
    let row1 = gather_row(params, min(load_row + INVOCATIONS / 4u, params.rows - 1u));
    // Where columns are few, an invocation loads two more rows.
    let row2 = gather_row(params, min(load_row + 64u, params.rows - 1u));
    let row3 = gather_row(params, min(load_row + 96u, params.rows - 1u));
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
    var from_a0 = source_a(row0, k);
    var from_a1 = source_a(row1, k);
    var from_w0 = source_b(first_row, k0, depth % 4u, load_column);
    var from_w1 = source_b(first_row, k1, depth % 4u, load_column);
    var from_a2 = source_a(row2, k);
    var from_a3 = source_a(row3, k);
    var a0 = vec4<f32>(input[from_a0.start]);
    var a1 = vec4<f32>(input[from_a1.start]);
    var w0 = vec4<f32>(weight[from_w0.start]);
    var w1 = vec4<f32>(weight[from_w1.start]);
    var a2 = vec4<f32>(); var a3 = vec4<f32>();
    if !WIDE {
        a2 = vec4<f32>(input[from_a2.start]);
        a3 = vec4<f32>(input[from_a3.start]);
    }
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
        tile_a[local / 4u][local % 4u] = select(vec4<f32>(), normalized_by(norm, a0), from_a0.there);
        tile_a[local / 4u + INVOCATIONS / 4u][local % 4u] = select(vec4<f32>(), normalized_by(norm, a1), from_a1.there);
        if !WIDE {
            tile_a[local / 4u + 64u][local % 4u] = select(vec4<f32>(), normalized_by(norm, a2), from_a2.there);
            tile_a[local / 4u + 96u][local % 4u] = select(vec4<f32>(), normalized_by(norm, a3), from_a3.there);
        }
        tile_b[depth][local % QUADS] = select(vec4<f32>(), w0, from_w0.there);
        tile_b[depth + 8u][local % QUADS] = select(vec4<f32>(), w1, from_w1.there);
        workgroupBarrier();
        k = deeper(k, 4u);
        k0 = deeper(k0, 4u);
        from_a0 = source_a(row0, k);
        from_a1 = source_a(row1, k);
        k1 = deeper(k1, 4u);
        from_w0 = source_b(first_row, k0, depth % 4u, load_column);
        from_w1 = source_b(first_row, k1, depth % 4u, load_column);
        norm = norm_of(k.channel);
        a0 = vec4<f32>(input[from_a0.start]);
        a1 = vec4<f32>(input[from_a1.start]);
        w0 = vec4<f32>(weight[from_w0.start]);
        w1 = vec4<f32>(weight[from_w1.start]);
        if !WIDE {
            from_a2 = source_a(row2, k);
            from_a3 = source_a(row3, k);
            a2 = vec4<f32>(input[from_a2.start]);
            a3 = vec4<f32>(input[from_a3.start]);
        }
        for (var d = 0u; d < 4u; d++) {
            let b0 = tile_b[d * 4u][my_column];
            let b1 = tile_b[d * 4u + 1u][my_column];
            let b2 = tile_b[d * 4u + 2u][my_column];
            let b3 = tile_b[d * 4u + 3u][my_column];
            let b4 = tile_b[d * 4u][my_column + QUADS / 2u];
            let b5 = tile_b[d * 4u + 1u][my_column + QUADS / 2u];
            let b6 = tile_b[d * 4u + 2u][my_column + QUADS / 2u];
            let b7 = tile_b[d * 4u + 3u][my_column + QUADS / 2u];
            var x: vec4<f32>;
            x = tile_a[my_row + 0u][d];
            p0 = add_four(p0, x, b0, b1, b2, b3);
            q0 = add_four(q0, x, b4, b5, b6, b7);
            x = tile_a[my_row + 16u][d];
            p1 = add_four(p1, x, b0, b1, b2, b3);
            q1 = add_four(q1, x, b4, b5, b6, b7);
            x = tile_a[my_row + 32u][d];
            p2 = add_four(p2, x, b0, b1, b2, b3);
            q2 = add_four(q2, x, b4, b5, b6, b7);
            x = tile_a[my_row + 48u][d];
            p3 = add_four(p3, x, b0, b1, b2, b3);
            q3 = add_four(q3, x, b4, b5, b6, b7);
            x = tile_a[my_row + 64u][d];
            p4 = add_four(p4, x, b0, b1, b2, b3);
            q4 = add_four(q4, x, b4, b5, b6, b7);
            x = tile_a[my_row + 80u][d];
            p5 = add_four(p5, x, b0, b1, b2, b3);
            q5 = add_four(q5, x, b4, b5, b6, b7);
            x = tile_a[my_row + 96u][d];
            p6 = add_four(p6, x, b0, b1, b2, b3);
            q6 = add_four(q6, x, b4, b5, b6, b7);
            x = tile_a[my_row + 112u][d];
            p7 = add_four(p7, x, b0, b1, b2, b3);
            q7 = add_four(q7, x, b4, b5, b6, b7);
        }
    }
    let column = first_column + my_column;
    begin(column, p0);
    let pat0 = out_of(params, first_row + my_row + 0u);
    let pat1 = out_of(params, first_row + my_row + 16u);
    let pat2 = out_of(params, first_row + my_row + 32u);
    let pat3 = out_of(params, first_row + my_row + 48u);
    let pby0 = beside(pat0, column);
    let pby1 = beside(pat1, column);
    let pby2 = beside(pat2, column);
    let pby3 = beside(pat3, column);
    put(first_row + my_row + 0u, pat0, column, p0, pby0);
    put(first_row + my_row + 16u, pat1, column, p1, pby1);
    put(first_row + my_row + 32u, pat2, column, p2, pby2);
    put(first_row + my_row + 48u, pat3, column, p3, pby3);
    let pat4 = out_of(params, first_row + my_row + 64u);
    let pat5 = out_of(params, first_row + my_row + 80u);
    let pat6 = out_of(params, first_row + my_row + 96u);
    let pat7 = out_of(params, first_row + my_row + 112u);
    let pby4 = beside(pat4, column);
    let pby5 = beside(pat5, column);
    let pby6 = beside(pat6, column);
    let pby7 = beside(pat7, column);
    put(first_row + my_row + 64u, pat4, column, p4, pby4);
    put(first_row + my_row + 80u, pat5, column, p5, pby5);
    put(first_row + my_row + 96u, pat6, column, p6, pby6);
    put(first_row + my_row + 112u, pat7, column, p7, pby7);
    if TALLIES {
        let all = share_tally(local, QUADS / 2u);
        if local < QUADS / 2u { write_tally(first_row, tile / params.column_tiles, column, all); }
    }
    let next = column + QUADS / 2u;
    begin(next, q0);
    let qat0 = out_of(params, first_row + my_row + 0u);
    let qat1 = out_of(params, first_row + my_row + 16u);
    let qat2 = out_of(params, first_row + my_row + 32u);
    let qat3 = out_of(params, first_row + my_row + 48u);
    let qby0 = beside(qat0, next);
    let qby1 = beside(qat1, next);
    let qby2 = beside(qat2, next);
    let qby3 = beside(qat3, next);
    put(first_row + my_row + 0u, qat0, next, q0, qby0);
    put(first_row + my_row + 16u, qat1, next, q1, qby1);
    put(first_row + my_row + 32u, qat2, next, q2, qby2);
    put(first_row + my_row + 48u, qat3, next, q3, qby3);
    let qat4 = out_of(params, first_row + my_row + 64u);
    let qat5 = out_of(params, first_row + my_row + 80u);
    let qat6 = out_of(params, first_row + my_row + 96u);
    let qat7 = out_of(params, first_row + my_row + 112u);
    let qby4 = beside(qat4, next);
    let qby5 = beside(qat5, next);
    let qby6 = beside(qat6, next);
    let qby7 = beside(qat7, next);
    put(first_row + my_row + 64u, qat4, next, q4, qby4);
    put(first_row + my_row + 80u, qat5, next, q5, qby5);
    put(first_row + my_row + 96u, qat6, next, q6, qby6);
    put(first_row + my_row + 112u, qat7, next, q7, qby7);
    if TALLIES {
        let all = share_tally(local, QUADS / 2u);
        if local < QUADS / 2u { write_tally(first_row, tile / params.column_tiles, next, all); }
    }
}
