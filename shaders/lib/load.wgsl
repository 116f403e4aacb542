// How a convolution reads what it convolves. `load_normalized` has the same functions; a kernel imports `load`, and the host says which file that is.
#import input

struct Norm { unused: u32 }
const NORMALIZES: bool = false;

// What is needed to read channel quad `quad`.
fn norm_of(quad: u32) -> Norm { return Norm(); }

fn normalized_by(n: Norm, x: vec4<f32>) -> vec4<f32> { return x; }
