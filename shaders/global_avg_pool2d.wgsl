// Mean over the pixels of every image, and its derivative. `forward`: one channel quad of a part of
// an image per invocation, for no driver need allow a loop over all pixels: where there are several
// parts, it is run again on their sums. `backward`: one vec4.
#import index

alias Element = f32;

struct Params { count: u32, quads: u32, pixels: u32, parts: u32, part: u32, divisor: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<f32>>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.count { return; }
    let image = i / params.quads / params.parts;
    let begin = i / params.quads % params.parts * params.part;
    let end = min(begin + params.part, params.pixels);
    var sum = vec4<f32>();
    for (var pixel = begin; pixel < end; pixel++) {
        sum += vec4<f32>(input[(image * params.pixels + pixel) * params.quads + i % params.quads]);
    }
    output[i] = sum / params.divisor;
}

@group(0) @binding(1) var<storage, read> grad_output: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> grad_input: array<vec4<Element>>;

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.count { return; }
    let image = i / (params.quads * params.pixels);
    grad_input[i] = vec4<Element>(grad_output[image * params.quads + i % params.quads] / params.divisor);
}
