// Workgroup memory of matrices as vectors of eight f16, which are stored and loaded in one go: in the bits of four f32, because naga has matrices be of what
// memory is of. `spirv_repair` has them of f16. `coop_scalars` has the same.
const UNIT: u32 = 8u;
const STAGE_UNIT: u32 = 4u;

var<workgroup> left: array<vec4<f32>, LEFT>;
var<workgroup> right: array<vec4<f32>, RIGHT>;
var<workgroup> stage: array<vec4<f32>, STAGE>;

fn put_left(at: u32, v: vec4<u32>) { left[at / 8u] = bitcast<vec4<f32>>(v); }

fn put_right(at: u32, v: vec4<u32>) { right[at / 8u] = bitcast<vec4<f32>>(v); }

fn staged_at(at: u32) -> vec4<f32> { return stage[at / 4u]; }
