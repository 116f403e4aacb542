// What becomes of the sums of a weight's gradient: they are written. `store_weight_sum` has the same function.
const STORE: u32 = 3u;

@group(0) @binding(STORE) var<storage, read_write> partials: array<vec4<f32>>;

fn put(at: u32, value: vec4<f32>) { partials[at] = value; }
