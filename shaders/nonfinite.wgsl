// Whether a tensor holds anything that is not finite: of `groups` workgroups each looks at every
// `groups`-th stretch of 64 vec4s, and writes how many of its invocations found something.
#import index
#import finite
#import reduce

alias Element = f32;

struct Params { count: u32, groups: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> found: array<vec4<f32>>;

@compute @workgroup_size(64)
fn look(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let group = workgroup_index(wg, n);
    if group >= params.groups { return; }
    var bad = 0.0;
    for (var i = group * 64u + local; i < params.count; i += params.groups * 64u) {
        if not_finite(vec4<f32>(input[i])) { bad = 1.0; }
    }
    let sum = workgroup_sum(local, vec4(bad, 0.0, 0.0, 0.0));
    if local == 0u { found[group] = sum; }
}
