// z = x + y; `accumulate` is total += x, `clear` total = 0. One invocation per vec4.
#import index

alias Element = f32;

struct Params { count: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> y: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read_write> z: array<vec4<Element>>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.count { return; }
    z[i] = vec4<Element>(vec4<f32>(x[i]) + vec4<f32>(y[i]));
}

@group(0) @binding(2) var<storage, read_write> total: array<vec4<Element>>;

@compute @workgroup_size(64)
fn accumulate(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.count { return; }
    total[i] = vec4<Element>(vec4<f32>(total[i]) + vec4<f32>(x[i]));
}

@group(0) @binding(1) var<storage, read_write> cleared: array<vec4<Element>>;

@compute @workgroup_size(64)
fn clear(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.count { return; }
    cleared[i] = vec4<Element>(vec4<f32>());
}
