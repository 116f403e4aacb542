// How a convolution reads what it convolves. `load_normalized` has the same functions; a kernel imports `load`, and the host says which file that is.
struct Norm { unused: u32 }
const NORMALIZES: bool = false;

@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;

// What is needed to read channel quad `quad`.
fn norm_of(quad: u32) -> Norm { return Norm(); }

fn normalized_by(n: Norm, x: vec4<f32>) -> vec4<f32> { return x; }

fn input_at(at: u32, n: Norm) -> vec4<f32> { return normalized_by(n, vec4<f32>(input[at])); }
