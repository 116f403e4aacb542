// Targets of the swapped prediction: row (view, sample) gets the sum of the codes of every assigned crop but the view itself.
// `codes` holds `assigned` blocks of `batch` rows; `predicts` tells which view predicts which crop. One invocation
// per vec4 of the targets.
#import index

struct Params { views: u32, batch: u32, quads: u32, assigned: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> codes: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> predicts: array<u32>; // views x assigned: 1 or 0
@group(0) @binding(3) var<storage, read_write> targets: array<vec4<f32>>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    let per_view = params.batch * params.quads;
    if i >= params.views * per_view { return; }
    let view = i / per_view;
    var sum = vec4<f32>();
    for (var a = 0u; a < params.assigned; a++) {
        if predicts[view * params.assigned + a] == 1u {
            sum += codes[a * per_view + i % per_view];
        }
    }
    targets[i] = sum;
}
