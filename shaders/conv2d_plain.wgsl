// Convolution, one output vec4 per invocation: the oracle of the faster variants and the fallback everywhere.
#import index
#import conv2d

alias Element = f32;
alias Weight = f32;

@group(0) @binding(0) var<uniform> params: Gather;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<Weight>>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<Element>>;

@compute @workgroup_size(64)
fn gather(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.rows * params.out_quads { return; }
    let column = i % params.out_quads;
    let row = gather_row(params, i / params.out_quads);
    var sum = vec4<f32>();
    for (var r = 0u; r < params.taps_h; r++) {
        for (var s = 0u; s < params.taps_w; s++) {
            let h = row.h + i32(r) * params.tap_step;
            let w = row.w + i32(s) * params.tap_step;
            if !inside(h, w, params.in_h, params.in_w) { continue; }
            let tap = (params.first_h + r * params.tap_stride) * params.kernel_w + params.first_w + s * params.tap_stride;
            let start = u32((row.n * i32(params.in_h) + h) * i32(params.in_w) + w) * params.in_quads;
            for (var k = 0u; k < params.in_quads; k++) {
                let x = vec4<f32>(input[start + k]);
                let at = (tap * params.in_quads + k) * 4u * params.out_quads + column;
                sum += x.x * vec4<f32>(weight[at]) + x.y * vec4<f32>(weight[at + params.out_quads]);
                sum += x.z * vec4<f32>(weight[at + 2u * params.out_quads]) + x.w * vec4<f32>(weight[at + 3u * params.out_quads]);
            }
        }
    }
    output[row.out * params.out_quads + column] = vec4<Element>(sum);
}
