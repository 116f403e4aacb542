// Workgroup memory of matrices as scalars: of vectors, Metal cannot load matrices. `coop_vectors` and `coop_octs` have the same.
const UNIT: u32 = 1u;
const STAGE_UNIT: u32 = 1u;

var<workgroup> left: array<f16, LEFT>;
var<workgroup> right: array<f16, RIGHT>;
var<workgroup> stage: array<f32, STAGE>;

fn put_left(at: u32, v: vec4<f16>) {
    left[at] = v.x;
    left[at + 1u] = v.y;
    left[at + 2u] = v.z;
    left[at + 3u] = v.w;
}

fn put_right(at: u32, v: vec4<f16>) {
    right[at] = v.x;
    right[at + 1u] = v.y;
    right[at + 2u] = v.z;
    right[at + 3u] = v.w;
}

fn staged_at(at: u32) -> vec4<f32> { return vec4(stage[at], stage[at + 1u], stage[at + 2u], stage[at + 3u]); }
