// Max pooling. `forward`: one output vec4 per invocation; of equal values the first in row-major
// order wins, of NaN the last, as in PyTorch, and its window position is kept, a byte a value.
// `backward`: one input vec4 per invocation gathers from the windows that contain it.
#import index
#import nan

alias Element = f32;

struct Params {
    in_h: u32, in_w: u32, out_h: u32, out_w: u32, quads: u32,
    kernel: u32, stride: u32, padding: u32, count: u32,
    stored: u32, // words of an image's positions
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<vec4<Element>>;
@group(0) @binding(2) var<storage, read_write> output: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read_write> chosen: array<u32>;

// Where the positions of output vec4 `i`, which is of that image, are kept.
fn kept(i: u32, image: u32) -> u32 { return i + image * (params.stored - params.out_h * params.out_w * params.quads); }

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.count { return; }
    let quad = i % params.quads;
    let pixel = i / params.quads;
    let h0 = i32(pixel / params.out_w % params.out_h * params.stride) - i32(params.padding);
    let w0 = i32(pixel % params.out_w * params.stride) - i32(params.padding);
    let image = pixel / (params.out_h * params.out_w);
    var best = vec4<f32>();
    var at = vec4<u32>();
    var empty = true;
    var spoilt = vec4<bool>();
    for (var r = 0u; r < params.kernel; r++) {
        for (var s = 0u; s < params.kernel; s++) {
            let h = h0 + i32(r);
            let w = w0 + i32(s);
            if h < 0 || w < 0 || h >= i32(params.in_h) || w >= i32(params.in_w) { continue; }
            let value = vec4<f32>(input[((image * params.in_h + u32(h)) * params.in_w + u32(w)) * params.quads + quad]);
            let nan = is_nan(value);
            let better = vec4(empty) | nan | ((value > best) & !spoilt);
            spoilt |= nan;
            best = select(best, value, better);
            at = select(at, vec4(r * params.kernel + s), better);
            empty = false;
        }
    }
    output[i] = vec4<Element>(best);
    chosen[kept(i, image)] = at.x | at.y << 8u | at.z << 16u | at.w << 24u;
}

@group(0) @binding(1) var<storage, read> positions: array<u32>;
@group(0) @binding(2) var<storage, read> grad_output: array<vec4<Element>>;
@group(0) @binding(3) var<storage, read_write> grad_input: array<vec4<Element>>;

@compute @workgroup_size(64)
fn backward(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    if i >= params.count { return; }
    let quad = i % params.quads;
    let pixel = i / params.quads;
    // Padded coordinates: window p starts at p * stride.
    let h = pixel / params.in_w % params.in_h + params.padding;
    let w = pixel % params.in_w + params.padding;
    let image = pixel / (params.in_h * params.in_w);
    var sum = vec4<f32>();
    let first_p = (max(h + 1u, params.kernel) - params.kernel + params.stride - 1u) / params.stride;
    let first_q = (max(w + 1u, params.kernel) - params.kernel + params.stride - 1u) / params.stride;
    for (var p = first_p; p < params.out_h && p * params.stride <= h; p++) {
        for (var q = first_q; q < params.out_w && q * params.stride <= w; q++) {
            let window = ((image * params.out_h + p) * params.out_w + q) * params.quads + quad;
            let here = (h - p * params.stride) * params.kernel + w - q * params.stride;
            let at = vec4(positions[kept(window, image)]) >> vec4(0u, 8u, 16u, 24u) & vec4(255u);
            sum += select(vec4<f32>(), vec4<f32>(grad_output[window]), at == vec4(here));
        }
    }
    grad_input[i] = vec4<Element>(sum);
}
