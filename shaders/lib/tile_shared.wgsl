// As `tile_registers`, in workgroup memory, by loops that stay loops: software devices take seconds to compile a tile in registers.
const LANES: u32 = 16u;
const WRITTEN_OUT: bool = false;

var<workgroup> kept: array<vec4<f32>, 36u * LANES>;

fn keep(lane: u32, i: u32, value: vec4<f32>) { kept[i * LANES + lane] = value; }

fn kept_at(lane: u32, i: u32) -> vec4<f32> { return kept[i * LANES + lane]; }

// The end of a loop that is to stay one.
fn end(last: u32) -> u32 { return last & params.all; }
