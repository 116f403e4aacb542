// Convolution into few channels for software devices, such as the gradient of an image: 32 rows by one column quad per subgroup of 8.
// Lanes hold four rows each and load their own inputs; each loads an eighth of the weights, which subgroupBroadcast hands round.
#import index
#import conv2d

alias Element = f32;
alias Weight = f32;

@group(0) @binding(0) var<uniform> params: Gather;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<Weight>>;
@group(0) @binding(3) var<storage, read_write> output: array<vec4<Element>>;

fn load(at: Source, quad: u32) -> vec4<f32> {
    return select(vec4<f32>(), vec4<f32>(input[at.start + quad]), at.there);
}

@compute @workgroup_size(8)
fn gather(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let tile = workgroup_index(wg, n);
    if tile >= params.tiles { return; }
    let first = tile / params.column_tiles * 32u + lane;
    let column = tile % params.column_tiles;
    let last = params.rows - 1u;
    let row0 = gather_row(params, min(first, last));
    let row1 = gather_row(params, min(first + 8u, last));
    let row2 = gather_row(params, min(first + 16u, last));
    let row3 = gather_row(params, min(first + 24u, last));
    var c0 = vec4<f32>(); var c1 = vec4<f32>(); var c2 = vec4<f32>(); var c3 = vec4<f32>();
    for (var r = 0u; r < params.taps_h; r++) {
        for (var s = 0u; s < params.taps_w; s++) {
            let step = vec2(i32(r), i32(s)) * params.tap_step;
            let s0 = source(params, row0, step);
            let s1 = source(params, row1, step);
            let s2 = source(params, row2, step);
            let s3 = source(params, row3, step);
            if !subgroupAny(s0.there || s1.there || s2.there || s3.there) { continue; }
            let tap = tap_of(params, r, s, 0u);
            for (var k = 0u; k < params.in_quads; k += 2u) {
                // Lanes 0 to 3 load the rows of one input quad's weights, lanes 4 to 7 the next quad's.
                let next = min(k + 1u, params.in_quads - 1u);
                let b = vec4<f32>(weight[((tap * params.in_quads + select(k, next, lane >= 4u)) * 4u + lane % 4u) * params.out_quads + column]);
                // Left out, not multiplied by 0, which makes NaN of infinity.
                let second = k + 1u < params.in_quads;
                let b0 = subgroupBroadcast(b, 0u); let b1 = subgroupBroadcast(b, 1u);
                let b2 = subgroupBroadcast(b, 2u); let b3 = subgroupBroadcast(b, 3u);
                let b4 = subgroupBroadcast(b, 4u); let b5 = subgroupBroadcast(b, 5u); let b6 = subgroupBroadcast(b, 6u); let b7 = subgroupBroadcast(b, 7u);
                var x: vec4<f32>;
                x = load(s0, k); c0 += x.x * b0 + x.y * b1 + x.z * b2 + x.w * b3;
                x = load(s1, k); c1 += x.x * b0 + x.y * b1 + x.z * b2 + x.w * b3;
                x = load(s2, k); c2 += x.x * b0 + x.y * b1 + x.z * b2 + x.w * b3;
                x = load(s3, k); c3 += x.x * b0 + x.y * b1 + x.z * b2 + x.w * b3;
                if second {
                    x = load(s0, next); c0 += x.x * b4 + x.y * b5 + x.z * b6 + x.w * b7;
                    x = load(s1, next); c1 += x.x * b4 + x.y * b5 + x.z * b6 + x.w * b7;
                    x = load(s2, next); c2 += x.x * b4 + x.y * b5 + x.z * b6 + x.w * b7;
                    x = load(s3, next); c3 += x.x * b4 + x.y * b5 + x.z * b6 + x.w * b7;
                }
            }
        }
    }
    if first < params.rows { output[row0.out * params.out_quads + column] = vec4<Element>(c0); }
    if first + 8u < params.rows { output[row1.out * params.out_quads + column] = vec4<Element>(c1); }
    if first + 16u < params.rows { output[row2.out * params.out_quads + column] = vec4<Element>(c2); }
    if first + 24u < params.rows { output[row3.out * params.out_quads + column] = vec4<Element>(c3); }
}
