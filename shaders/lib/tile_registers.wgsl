// Where an invocation keeps a tile between the transforms of its rows and of its columns: in registers, where arrays are only if all their indices are
// known. `tile_shared` has the same functions, and `end`.
const LANES: u32 = 64u;
const WRITTEN_OUT: bool = true;

var<private> kept: array<vec4<f32>, 36>;

fn keep(lane: u32, i: u32, value: vec4<f32>) { kept[i] = value; }

fn kept_at(lane: u32, i: u32) -> vec4<f32> { return kept[i]; }
