// Gradient of a convolution's weight for GPUs: 64 weight rows (16 quads of input channels) by 64 columns per workgroup of 256, 16 pixels
// at a time through workgroup memory; pixels are dealt out to `splits` partial sums.
#import index
#import conv2d
#import load
#import pixels
#import store_weight
#import store_quad

alias Element = f32;

@group(0) @binding(0) var<uniform> params: Reduce;
@group(0) @binding(2) var<storage, read> grad_output: array<vec4<Element>>;

var<workgroup> tile_a: array<array<vec4<f32>, 16>, 16>;
var<workgroup> tile_b: array<array<vec4<f32>, 16>, 16>;

@compute @workgroup_size(256)
fn reduce(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = workgroup_index(wg, groups);
    if tile >= params.tiles { return; }
    let first_column = tile % params.column_tiles * 16u;
    let split = tile / params.column_tiles % params.splits;
    let first_quad = tile / (params.column_tiles * params.splits) * 16u;
    // Loading: pixel local / 16 of the slab; weight quad and column local % 16.
    let slot = local % 16u;
    let lane_pixel = local / 16u;
    let quad = reduce_quad(params, min(first_quad + slot, params.quads - 1u));
    let n = norm_of(quad.channel);
    // A tile's rows have one tap where taps are groups.
    let group = reduce_quad(params, first_quad).first;
    let column = first_column + slot;
    let my_quad = local / 16u;
    var sum = mat4x4<f32>();
    let end = min((split + 1u) * params.segments_per_split, params.segments);
    // Slabs run over the split's pixels as one sequence, so that short image rows waste nothing.
    let last_pixel = min(end * params.segment_pixels, params.pixels);
    let first = split * params.segments_per_split * params.segment_pixels;
    var at = first + lane_pixel;
    let all = pixel_of(16u);
    var pixel = pixel_of(at);
    for (var slab = first; slab < last_pixel; slab += 16u) {
        let from_a = seen(pixel, quad, at, last_pixel);
        let b = vec4<f32>(grad_output[gradient_of(group, at, column)]);
        let a = select(vec4<f32>(), input_at(from_a.start, n), from_a.there);
        at += 16u;
        pixel = further(pixel, all);
        workgroupBarrier();
        tile_a[lane_pixel][slot] = a;
        tile_b[lane_pixel][slot] = b;
        workgroupBarrier();
        for (var d = 0u; d < 16u; d++) {
            let x = tile_a[d][my_quad];
            let y = tile_b[d][slot];
            sum[0] = fma(vec4(x.x), y, sum[0]);
            sum[1] = fma(vec4(x.y), y, sum[1]);
            sum[2] = fma(vec4(x.z), y, sum[2]);
            sum[3] = fma(vec4(x.w), y, sum[3]);
        }
    }
    store(split, first_quad + my_quad, column, sum[0], sum[1], sum[2], sum[3]);
}
