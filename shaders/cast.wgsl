// Copies with a change of element type, and of position: `count` vec4s from `source_offset` to `target_offset`. One invocation per vec4.
#import index

alias Source = f32;
alias Target = f32;

struct Params { count: u32, source_offset: u32, target_offset: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<vec4<Source>>;
@group(0) @binding(2) var<storage, read_write> destination: array<vec4<Target>>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.count { return; }
    destination[params.target_offset + i] = vec4<Target>(vec4<f32>(source[params.source_offset + i]));
}
