// What a convolution reads, by eight f16 at a time, as they are in memory.
@group(0) @binding(1) var<storage, read> input: array<vec4<u32>>;
