// What a convolution reads, by quads. `input_octs` has it by eight f16 at a time.
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;

fn input_at(at: u32, n: Norm) -> vec4<f32> { return normalized_by(n, vec4<f32>(input[at])); }
