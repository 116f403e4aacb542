// Gradient of a convolution's weight for software devices: 16 weight rows (four quads of input channels) by 8 column quads per
// subgroup of 8. Lane l loads quad l % 4 of pixel l / 4 of a pair; subgroupBroadcast hands the quads round.
#import index
#import conv2d

alias Element = f32;

@group(0) @binding(0) var<uniform> params: Reduce;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> grad_output: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read_write> partials: array<vec4<f32>>;

fn store(split: u32, quad: u32, column: u32, c0: vec4<f32>, c1: vec4<f32>, c2: vec4<f32>, c3: vec4<f32>) {
    if quad < params.quads && column < params.out_quads {
        let at = ((params.first_split + split) * params.quads + quad) * 4u * params.out_quads + column;
        partials[at] = c0;
        partials[at + params.out_quads] = c1;
        partials[at + 2u * params.out_quads] = c2;
        partials[at + 3u * params.out_quads] = c3;
    }
}

@compute @workgroup_size(8)
fn reduce(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let tile = workgroup_index(wg, n);
    if tile >= params.tiles { return; }
    let column = tile % params.column_tiles * 8u + lane;
    let loaded = min(column, params.out_quads - 1u);
    let split = tile / params.column_tiles % params.splits;
    let row_tile = tile / (params.column_tiles * params.splits);
    let quad = reduce_quad(params, min(row_tile * 4u + lane % 4u, params.quads - 1u));
    let pair = lane / 4u;
    let end = min((split + 1u) * params.segments_per_split, params.segments);
    var c00 = vec4<f32>(); var c01 = vec4<f32>(); var c02 = vec4<f32>(); var c03 = vec4<f32>();
    var c10 = vec4<f32>(); var c11 = vec4<f32>(); var c12 = vec4<f32>(); var c13 = vec4<f32>();
    var c20 = vec4<f32>(); var c21 = vec4<f32>(); var c22 = vec4<f32>(); var c23 = vec4<f32>();
    var c30 = vec4<f32>(); var c31 = vec4<f32>(); var c32 = vec4<f32>(); var c33 = vec4<f32>();
    for (var segment = split * params.segments_per_split; segment < end; segment++) {
        let image = segment / params.out_h;
        let h = i32(segment % params.out_h * params.stride) + quad.dh;
        // Rows of padding add nothing.
        if !subgroupAny(h >= 0 && h < i32(params.in_h)) { continue; }
        let row = (i32(image * params.in_h) + h) * i32(params.in_w);
        let first = segment * params.segment_pixels;
        let length = min(params.segment_pixels, params.pixels - first);
        for (var q = 0u; q < length; q += 2u) {
            let w = i32((q + pair) * params.stride) + quad.dw;
            let loads = inside(h, w, params.in_h, params.in_w) && q + pair < length;
            let start = u32(select(0, row + w, loads)) * params.in_quads + quad.channel;
            let x = select(vec4<f32>(), vec4<f32>(input[start]), loads);
            let b0 = vec4<f32>(grad_output[(first + q) * params.out_quads + loaded]);
            let b1 = vec4<f32>(grad_output[(first + min(q + 1u, length - 1u)) * params.out_quads + loaded]);
            var a: vec4<f32>;
                a = subgroupBroadcast(x, 0u); c00 += a.x * b0; c01 += a.y * b0; c02 += a.z * b0; c03 += a.w * b0;
                a = subgroupBroadcast(x, 1u); c10 += a.x * b0; c11 += a.y * b0; c12 += a.z * b0; c13 += a.w * b0;
                a = subgroupBroadcast(x, 2u); c20 += a.x * b0; c21 += a.y * b0; c22 += a.z * b0; c23 += a.w * b0;
                a = subgroupBroadcast(x, 3u); c30 += a.x * b0; c31 += a.y * b0; c32 += a.z * b0; c33 += a.w * b0;
                a = subgroupBroadcast(x, 4u); c00 += a.x * b1; c01 += a.y * b1; c02 += a.z * b1; c03 += a.w * b1;
                a = subgroupBroadcast(x, 5u); c10 += a.x * b1; c11 += a.y * b1; c12 += a.z * b1; c13 += a.w * b1;
                a = subgroupBroadcast(x, 6u); c20 += a.x * b1; c21 += a.y * b1; c22 += a.z * b1; c23 += a.w * b1;
                a = subgroupBroadcast(x, 7u); c30 += a.x * b1; c31 += a.y * b1; c32 += a.z * b1; c33 += a.w * b1;
        }
    }
    store(split, row_tile * 4u + 0u, column, c00, c01, c02, c03);
    store(split, row_tile * 4u + 1u, column, c10, c11, c12, c13);
    store(split, row_tile * 4u + 2u, column, c20, c21, c22, c23);
    store(split, row_tile * 4u + 3u, column, c30, c31, c32, c33);
}
