// The scale of the loss in f16 training, kept in one vec4: scale (0 before the first step), clean steps since it last moved, skipped steps in
// all, and how many invocations of `optimizer/norms` met a gradient that is not finite. One workgroup each.
#import reduce

struct Params { chunks: u32, growth_steps: u32, initial: f32, largest: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> state: array<vec4<f32>>;

@compute @workgroup_size(1)
fn begin() {
    let s = state[0];
    state[0] = vec4(select(s.x, params.initial, s.x == 0.0), s.yz, 0.0);
}

// Halves after an overflow, doubles after enough clean steps.
@compute @workgroup_size(1)
fn decide() {
    var s = state[0];
    if s.w > 0.0 {
        s = vec4(max(s.x * 0.5, 1.0), 0.0, s.z + 1.0, s.w);
    } else if s.y + 1.0 >= f32(params.growth_steps) {
        s = vec4(min(s.x * 2.0, params.largest), 0.0, s.z, s.w);
    } else {
        s.y += 1.0;
    }
    state[0] = s;
}

@group(0) @binding(1) var<storage, read> norms: array<vec4<f32>>; // z: invocations that met something not finite
@group(0) @binding(2) var<storage, read_write> found: array<vec4<f32>>;

@compute @workgroup_size(64)
fn inspect(@builtin(local_invocation_index) local: u32) {
    var count = 0.0;
    for (var chunk = local; chunk < params.chunks; chunk += 64u) {
        count += norms[chunk].z;
    }
    let sum = workgroup_sum(local, vec4(count, 0.0, 0.0, 0.0)).x;
    if local == 0u { found[0].w += sum; }
}
