// Gradient of a convolution's weight for large products on GPUs: 128 weight rows (32 quads of input channels) by 128 columns per workgroup of
// 256, 16 pixels at a time through workgroup memory, 8 by 8 sums per invocation; pixels are dealt out to `splits` partial sums. The next
// slab is loaded into registers while the present one is multiplied.
#import index
#import conv2d
#import load
#import store_weight
#import store_quad

alias Element = f32;

@group(0) @binding(0) var<uniform> params: Reduce;
@group(0) @binding(2) var<storage, read> grad_output: array<vec4<Element>>;

var<workgroup> tile_a: array<array<vec4<f32>, 32>, 16>;
var<workgroup> tile_b: array<array<vec4<f32>, 32>, 16>;

// What a quad of weight rows sees under output pixel `at`.
fn load_a(at: u32, end: u32, quad: Quad, n: Norm) -> vec4<f32> {
    if at >= end { return vec4<f32>(); }
    let segment = at / params.segment_pixels;
    let h = i32(segment % params.out_h * params.stride) + quad.dh;
    let w = i32(at % params.segment_pixels * params.stride) + quad.dw;
    if !inside(h, w, params.in_h, params.in_w) { return vec4<f32>(); }
    return input_at(u32((i32(segment / params.out_h * params.in_h) + h) * i32(params.in_w) + w + i32(quad.first)) * params.in_quads + quad.channel, n);
}

fn load_b(group: u32, at: u32, end: u32, column: u32) -> vec4<f32> {
    if at >= end || column >= params.out_quads { return vec4<f32>(); }
    return vec4<f32>(grad_output[(group + at) * params.out_quads + column]);
}

@compute @workgroup_size(256)
fn reduce(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = workgroup_index(wg, groups);
    if tile >= params.tiles { return; }
    let first_column = tile % params.column_tiles * 32u;
    let split = tile / params.column_tiles % params.splits;
    let first_quad = tile / (params.column_tiles * params.splits) * 32u;
    // Loading: pixels local / 32 of the slab and 8 further; weight quad and column quad local % 32.
    let slot = local % 32u;
    let lane_pixel = local / 32u;
    let quad = reduce_quad(params, min(first_quad + slot, params.quads - 1u));
    let n = norm_of(quad.channel);
    // A tile's rows have one tap where taps are groups.
    let group = reduce_quad(params, first_quad).first;
    let column = first_column + slot;
    // Computing: weight quads local / 16 and 16 further, column quads local % 16 and 16 further.
    let my_quad = local / 16u;
    let my_column = local % 16u;
    // Slabs run over the split's pixels as one sequence, so that short image rows waste nothing.
    let last = min(split * params.segments_per_split + params.segments_per_split, params.segments);
    let end = min(last * params.segment_pixels, params.pixels);
    let first = split * params.segments_per_split * params.segment_pixels;
    var x0 = load_a(first + lane_pixel, end, quad, n);
    var x1 = load_a(first + lane_pixel + 8u, end, quad, n);
    var g0 = load_b(group, first + lane_pixel, end, column);
    var g1 = load_b(group, first + lane_pixel + 8u, end, column);
    var p0 = vec4<f32>(); var q0 = vec4<f32>();
    var p1 = vec4<f32>(); var q1 = vec4<f32>();
    var p2 = vec4<f32>(); var q2 = vec4<f32>();
    var p3 = vec4<f32>(); var q3 = vec4<f32>();
    var p4 = vec4<f32>(); var q4 = vec4<f32>();
    var p5 = vec4<f32>(); var q5 = vec4<f32>();
    var p6 = vec4<f32>(); var q6 = vec4<f32>();
    var p7 = vec4<f32>(); var q7 = vec4<f32>();
    for (var pixel = first; pixel < end; pixel += 16u) {
        workgroupBarrier();
        tile_a[lane_pixel][slot] = x0;
        tile_a[lane_pixel + 8u][slot] = x1;
        tile_b[lane_pixel][slot] = g0;
        tile_b[lane_pixel + 8u][slot] = g1;
        workgroupBarrier();
        let next = pixel + 16u + lane_pixel;
        x0 = load_a(next, end, quad, n);
        x1 = load_a(next + 8u, end, quad, n);
        g0 = load_b(group, next, end, column);
        g1 = load_b(group, next + 8u, end, column);
        for (var d = 0u; d < 16u; d++) {
            let x = tile_a[d][my_quad];
            let y = tile_a[d][my_quad + 16u];
            let b = tile_b[d][my_column];
            let c = tile_b[d][my_column + 16u];
            p0 += x.x * b; q0 += x.x * c;
            p1 += x.y * b; q1 += x.y * c;
            p2 += x.z * b; q2 += x.z * c;
            p3 += x.w * b; q3 += x.w * c;
            p4 += y.x * b; q4 += y.x * c;
            p5 += y.y * b; q5 += y.y * c;
            p6 += y.z * b; q6 += y.z * c;
            p7 += y.w * b; q7 += y.w * c;
        }
    }
    store(split, first_quad + my_quad + 0u, first_column + my_column + 0u, p0, p1, p2, p3);
    store(split, first_quad + my_quad + 0u, first_column + my_column + 16u, q0, q1, q2, q3);
    store(split, first_quad + my_quad + 16u, first_column + my_column + 0u, p4, p5, p6, p7);
    store(split, first_quad + my_quad + 16u, first_column + my_column + 16u, q4, q5, q6, q7);
}
