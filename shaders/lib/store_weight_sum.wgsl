// As `store_weight`: another gradient of the same weight is added.
const STORE: u32 = 3u;

@group(0) @binding(STORE) var<storage, read> addend: array<vec4<f32>>;
@group(0) @binding(STORE + 1u) var<storage, read_write> partials: array<vec4<f32>>;

fn put(at: u32, value: vec4<f32>) { partials[at] = value + addend[at]; }
