// y = max(x, 0), and its derivative from y. One invocation per vec4; outputs are `=`.
#import index
#import nan

alias Element = f32;

struct Params { count: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<Element>>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.count { return; }
    output[i] = vec4<Element>(relu(vec4<f32>(input[i])));
}

@group(0) @binding(1) var<storage, read> result: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read> grad_output: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read_write> grad_input: array<vec4<Element>>;

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.count { return; }
    grad_input[i] = vec4<Element>(select(vec4<f32>(), vec4<f32>(grad_output[i]), relu_followed(vec4<f32>(result[i]))));
}
