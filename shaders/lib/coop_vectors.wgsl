// Workgroup memory of matrices as vectors, which are stored and loaded in one go. `coop_scalars` has the same.
const UNIT: u32 = 4u;
const STAGE_UNIT: u32 = 4u;

var<workgroup> left: array<vec4<f16>, LEFT>;
var<workgroup> right: array<vec4<f16>, RIGHT>;
var<workgroup> stage: array<vec4<f32>, STAGE>;

fn put_left(at: u32, v: vec4<f16>) { left[at / 4u] = v; }

fn put_right(at: u32, v: vec4<f16>) { right[at / 4u] = v; }

fn staged_at(at: u32) -> vec4<f32> { return stage[at / 4u]; }
