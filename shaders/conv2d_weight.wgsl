// Around the convolution kernels: `transpose_blocks` turns weights (tap, in, out) into (tap, out, in) for the gradient of the input, one
// invocation per 4x4 block; `sum_splits` adds the partial sums of a weight gradient in a fixed order.
#import index
#import store_weight

alias Weight = f32;

struct Params { count: u32, in_quads: u32, out_quads: u32, splits: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weight: array<vec4<Weight>>;
@group(0) @binding(2) var<storage, read_write> transposed: array<vec4<Weight>>;

@compute @workgroup_size(64)
fn transpose_blocks(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.count { return; }
    let column = i % params.out_quads;
    let row = i / params.out_quads % params.in_quads;
    let tap = i / (params.out_quads * params.in_quads);
    let at = (tap * params.in_quads + row) * 4u * params.out_quads + column;
    let a = vec4<f32>(weight[at]);
    let b = vec4<f32>(weight[at + params.out_quads]);
    let c = vec4<f32>(weight[at + 2u * params.out_quads]);
    let d = vec4<f32>(weight[at + 3u * params.out_quads]);
    let to = (tap * params.out_quads + column) * 4u * params.in_quads + row;
    transposed[to] = vec4<Weight>(vec4(a.x, b.x, c.x, d.x));
    transposed[to + params.in_quads] = vec4<Weight>(vec4(a.y, b.y, c.y, d.y));
    transposed[to + 2u * params.in_quads] = vec4<Weight>(vec4(a.z, b.z, c.z, d.z));
    transposed[to + 3u * params.in_quads] = vec4<Weight>(vec4(a.w, b.w, c.w, d.w));
}

// Sums of `splits` parts, each of `count` vec4s: LANES invocations a sum, of which each takes every LANES-th part, then a tree of fixed shape.
const LANES: u32 = 1u;

@group(0) @binding(1) var<storage, read> parts: array<vec4<f32>>;

var<workgroup> lanes: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn sum_splits(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // Neighbours have neighbouring sums.
    let i = workgroup_index(wg, n) * (64u / LANES) + local % (64u / LANES);
    let lane = local / (64u / LANES);
    var sum = vec4<f32>();
    if i < params.count {
        for (var split = lane; split < params.splits; split += LANES) {
            sum += parts[split * params.count + i];
        }
    }
    if LANES > 1u {
        lanes[local] = sum;
        for (var half = LANES / 2u; half > 0u; half >>= 1u) {
            workgroupBarrier();
            if lane < half { lanes[local] += lanes[local + half * (64u / LANES)]; }
        }
        sum = lanes[local];
    }
    if lane == 0u && i < params.count { put(i, sum); }
}
