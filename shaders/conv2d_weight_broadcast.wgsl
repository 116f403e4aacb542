// Gradient of a convolution's weight for software devices: 32 weight rows (eight quads of input channels) by 8 column quads per
// subgroup of 8, two output pixels at a time. Lane l loads quad l of both pixels; subgroupBroadcast hands the quads round.
#import index
#import conv2d
#import load
#import store_weight
#import store_quad

alias Element = f32;

@group(0) @binding(0) var<uniform> params: Reduce;
@group(0) @binding(2) var<storage, read> grad_output: array<vec4<Element>>;

// The quad's input under an output pixel: `row` is the first pixel of the image row, `q` the column without the tap's offset.
fn load(row: i32, q: i32, h: i32, quad: Quad, n: Norm, wanted: bool) -> vec4<f32> {
    let w = q + quad.dw;
    let there = wanted && inside(h, w, params.in_h, params.in_w);
    let start = u32(select(0, row + w + i32(quad.first), there)) * params.in_quads + quad.channel;
    return select(vec4<f32>(), input_at(start, n), there);
}

@compute @workgroup_size(8)
fn reduce(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let tile = workgroup_index(wg, groups);
    if tile >= params.tiles { return; }
    let column = tile % params.column_tiles * 8u + lane;
    let loaded = min(column, params.out_quads - 1u);
    let split = tile / params.column_tiles % params.splits;
    let row_tile = tile / (params.column_tiles * params.splits);
    let quad = reduce_quad(params, min(row_tile * 8u + lane, params.quads - 1u));
    let n = norm_of(quad.channel);
    // A tile's rows have one tap where taps are groups.
    let group = reduce_quad(params, row_tile * 8u).first;
    let end = min((split + 1u) * params.segments_per_split, params.segments);
    var c00 = vec4<f32>(); var c01 = vec4<f32>(); var c02 = vec4<f32>(); var c03 = vec4<f32>();
    var c10 = vec4<f32>(); var c11 = vec4<f32>(); var c12 = vec4<f32>(); var c13 = vec4<f32>();
    var c20 = vec4<f32>(); var c21 = vec4<f32>(); var c22 = vec4<f32>(); var c23 = vec4<f32>();
    var c30 = vec4<f32>(); var c31 = vec4<f32>(); var c32 = vec4<f32>(); var c33 = vec4<f32>();
    var c40 = vec4<f32>(); var c41 = vec4<f32>(); var c42 = vec4<f32>(); var c43 = vec4<f32>();
    var c50 = vec4<f32>(); var c51 = vec4<f32>(); var c52 = vec4<f32>(); var c53 = vec4<f32>();
    var c60 = vec4<f32>(); var c61 = vec4<f32>(); var c62 = vec4<f32>(); var c63 = vec4<f32>();
    var c70 = vec4<f32>(); var c71 = vec4<f32>(); var c72 = vec4<f32>(); var c73 = vec4<f32>();
    for (var segment = split * params.segments_per_split; segment < end; segment++) {
        let image = segment / params.out_h;
        let h = i32(segment % params.out_h * params.stride) + quad.dh;
        // Rows of padding add nothing.
        if !subgroupAny(h >= 0 && h < i32(params.in_h)) { continue; }
        let row = (i32(image * params.in_h) + h) * i32(params.in_w);
        let first = segment * params.segment_pixels;
        let length = min(params.segment_pixels, params.pixels - first);
        // Tested at the end, which saves a fifth where lines are short.
        var q = 0u;
        loop {
            let x0 = load(row, i32(q * params.stride), h, quad, n, true);
            let x1 = load(row, i32((q + 1u) * params.stride), h, quad, n, q + 1u < length);
            let b0 = vec4<f32>(grad_output[(group + first + q) * params.out_quads + loaded]);
            let b1 = vec4<f32>(grad_output[(group + first + min(q + 1u, length - 1u)) * params.out_quads + loaded]);
            var a: vec4<f32>; var e: vec4<f32>;
            a = subgroupBroadcast(x0, 0u); e = subgroupBroadcast(x1, 0u);
            c00 = (c00 + a.x * b0) + e.x * b1;
            c01 = (c01 + a.y * b0) + e.y * b1;
            c02 = (c02 + a.z * b0) + e.z * b1;
            c03 = (c03 + a.w * b0) + e.w * b1;
            a = subgroupBroadcast(x0, 1u); e = subgroupBroadcast(x1, 1u);
            c10 = (c10 + a.x * b0) + e.x * b1;
            c11 = (c11 + a.y * b0) + e.y * b1;
            c12 = (c12 + a.z * b0) + e.z * b1;
            c13 = (c13 + a.w * b0) + e.w * b1;
            a = subgroupBroadcast(x0, 2u); e = subgroupBroadcast(x1, 2u);
            c20 = (c20 + a.x * b0) + e.x * b1;
            c21 = (c21 + a.y * b0) + e.y * b1;
            c22 = (c22 + a.z * b0) + e.z * b1;
            c23 = (c23 + a.w * b0) + e.w * b1;
            a = subgroupBroadcast(x0, 3u); e = subgroupBroadcast(x1, 3u);
            c30 = (c30 + a.x * b0) + e.x * b1;
            c31 = (c31 + a.y * b0) + e.y * b1;
            c32 = (c32 + a.z * b0) + e.z * b1;
            c33 = (c33 + a.w * b0) + e.w * b1;
            a = subgroupBroadcast(x0, 4u); e = subgroupBroadcast(x1, 4u);
            c40 = (c40 + a.x * b0) + e.x * b1;
            c41 = (c41 + a.y * b0) + e.y * b1;
            c42 = (c42 + a.z * b0) + e.z * b1;
            c43 = (c43 + a.w * b0) + e.w * b1;
            a = subgroupBroadcast(x0, 5u); e = subgroupBroadcast(x1, 5u);
            c50 = (c50 + a.x * b0) + e.x * b1;
            c51 = (c51 + a.y * b0) + e.y * b1;
            c52 = (c52 + a.z * b0) + e.z * b1;
            c53 = (c53 + a.w * b0) + e.w * b1;
            a = subgroupBroadcast(x0, 6u); e = subgroupBroadcast(x1, 6u);
            c60 = (c60 + a.x * b0) + e.x * b1;
            c61 = (c61 + a.y * b0) + e.y * b1;
            c62 = (c62 + a.z * b0) + e.z * b1;
            c63 = (c63 + a.w * b0) + e.w * b1;
            a = subgroupBroadcast(x0, 7u); e = subgroupBroadcast(x1, 7u);
            c70 = (c70 + a.x * b0) + e.x * b1;
            c71 = (c71 + a.y * b0) + e.y * b1;
            c72 = (c72 + a.z * b0) + e.z * b1;
            c73 = (c73 + a.w * b0) + e.w * b1;
            q += 2u;
            if q >= length { break; }
        }
    }
    // In a loop whose end the compiler does not know: one after another, stores would take it as long as the product.
    for (var to = row_tile * 8u; to < min(row_tile * 8u + 8u, params.quads); to++) {
        let q = to - row_tile * 8u;
        var r0 = c00; var r1 = c01; var r2 = c02; var r3 = c03;
        if q == 1u { r0 = c10; r1 = c11; r2 = c12; r3 = c13; }
        if q == 2u { r0 = c20; r1 = c21; r2 = c22; r3 = c23; }
        if q == 3u { r0 = c30; r1 = c31; r2 = c32; r3 = c33; }
        if q == 4u { r0 = c40; r1 = c41; r2 = c42; r3 = c43; }
        if q == 5u { r0 = c50; r1 = c51; r2 = c52; r3 = c53; }
        if q == 6u { r0 = c60; r1 = c61; r2 = c62; r3 = c63; }
        if q == 7u { r0 = c70; r1 = c71; r2 = c72; r3 = c73; }
        store(split, to, column, r0, r1, r2, r3);
    }
}
