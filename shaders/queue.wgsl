// A ring of rows whose position the host sends: `push` writes the newest rows over the oldest, `rows_at` reads. One invocation per vec4.
#import finite
#import index

struct Params { rows: u32, quads: u32, queue_rows: u32, first_row: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> features: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> position: array<u32>; // first row to overwrite
@group(0) @binding(3) var<storage, read_write> queue: array<vec4<f32>>;

@compute @workgroup_size(64)
fn push(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.rows * params.quads { return; }
    let row = (position[0] + i / params.quads) % params.queue_rows;
    // A step that overflowed is skipped, and must not go on in later codes: its features count as none.
    let feature = features[params.first_row * params.quads + i];
    queue[row * params.quads + i % params.quads] = select(feature, vec4<f32>(), not_finite(feature));
}

@group(0) @binding(1) var<storage, read> ring: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> rows: array<vec4<f32>>;

@compute @workgroup_size(64)
fn rows_at(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.rows * params.quads { return; }
    let row = (position[0] + i / params.quads) % params.queue_rows;
    rows[i] = ring[row * params.quads + i % params.quads];
}
