// Gradient of a convolution's weight, one quad of input channels by one quad of output channels per invocation and split.
#import index
#import conv2d
#import load
#import store_weight
#import store_quad

alias Element = f32;

@group(0) @binding(0) var<uniform> params: Reduce;
@group(0) @binding(2) var<storage, read> grad_output: array<vec4<Element>>;

@compute @workgroup_size(64)
fn reduce(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, groups) * 64u + local;
    if i >= params.splits * params.quads * params.out_quads { return; }
    let column = i % params.out_quads;
    let row = i / params.out_quads % params.quads;
    let split = i / (params.out_quads * params.quads);
    let quad = reduce_quad(params, row);
    let n = norm_of(quad.channel);
    var sum = mat4x4<f32>();
    let end = min((split + 1u) * params.segments_per_split, params.segments);
    for (var segment = split * params.segments_per_split; segment < end; segment++) {
        let image = segment / params.out_h;
        let h = i32(segment % params.out_h * params.stride) + quad.dh;
        let first = segment * params.segment_pixels;
        let length = min(params.segment_pixels, params.pixels - first);
        for (var q = 0u; q < length; q++) {
            let w = i32(q * params.stride) + quad.dw;
            if !inside(h, w, params.in_h, params.in_w) { continue; }
            let x = input_at(u32((i32(image * params.in_h) + h) * i32(params.in_w) + w + i32(quad.first)) * params.in_quads + quad.channel, n);
            let g = vec4<f32>(grad_output[(quad.first + first + q) * params.out_quads + column]);
            sum[0] += x.x * g;
            sum[1] += x.y * g;
            sum[2] += x.z * g;
            sum[3] += x.w * g;
        }
    }
    store(split, row, column, sum[0], sum[1], sum[2], sum[3]);
}
