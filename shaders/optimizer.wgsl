// SGD, LARC over SGD (apex) and LARS (mmpretrain) over all parameters at once. Parameters,
// gradients and momentum lie in three arenas of the same layout; `chunks` cuts them into pieces
// (tensor, first vec4, vec4s). `norms` sums squares per chunk, `ratios` merges them per tensor in
// order and decides the factors, `update` applies them. Parameters and momentum are updated in
// place. Gradients are those of a loss times a power of two (see loss_scale.wgsl; 1 where the loss
// is not scaled); where any is not finite, nothing is updated in f16, and in f32 not that tensor,
// but by plain momentum.
#import index
#import reduce
#import columns
#import finite

const LARC: u32 = 1u;
const LARS: u32 = 2u;
const NESTEROV: u32 = 3u;
// 0 SGD, 1 LARC, 2 LARS, 3 SGD with Nesterov's momentum.
const KIND: u32 = 0u;

struct Params { chunks: u32, tensors: u32, momentum: f32, weight_decay: f32, trust: f32, eps: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> table: array<vec4<u32>>; // tensor, first vec4, vec4s, unused
@group(0) @binding(2) var<storage, read> weights: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> gradients: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> scale: array<vec4<f32>>; // scale of the loss, ., ., more than 0 where a gradient is not finite
// Squares of the weights, of the unscaled gradients, invocations that met a gradient that is not finite.
@group(0) @binding(5) var<storage, read_write> partials: array<vec4<f32>>;

// 1 / scale, exact for a power of two, which division need not be.
fn unscale() -> f32 {
    return bitcast<f32>(0x7f000000u - bitcast<u32>(scale[0].x));
}

@compute @workgroup_size(64)
fn norms(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let chunk = workgroup_index(wg, n);
    if chunk >= params.chunks { return; }
    let entry = table[chunk];
    let factor = unscale();
    var p = vec4<f32>();
    var g = vec4<f32>();
    var overflow = 0.0;
    for (var i = local; i < entry.z; i += 64u) {
        let a = weights[entry.y + i];
        let scaled = gradients[entry.y + i];
        if not_finite(scaled) { overflow = 1.0; }
        let b = scaled * factor;
        p += a * a;
        g += b * b;
    }
    let sums = workgroup_sum(local, vec4(sum4(p), sum4(g), overflow, 0.0));
    if local == 0u { partials[chunk] = sums; }
}

@group(0) @binding(1) var<storage, read> tensors: array<vec4<u32>>; // first chunk, chunks, freezable, 1 if it follows the second rate
@group(0) @binding(2) var<storage, read> partials_in: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> step: array<vec4<f32>>; // first learning rate, 1 while freezable tensors are frozen, second learning rate
@group(0) @binding(5) var<storage, read_write> factors: array<vec4<f32>>; // ratio, weight decay, learning rate, 1 / scale of the loss or 0 if left alone

@compute @workgroup_size(64)
fn ratios(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let t = workgroup_index(wg, n) * 64u + local;
    if t >= params.tensors { return; }
    let entry = tensors[t];
    var sums = vec3<f32>();
    for (var c = 0u; c < entry.y; c++) {
        sums += partials_in[entry.x + c].xyz;
    }
    let norm = sqrt(sums.xy);
    let lr = select(step[0].x, step[0].z, entry.w == 1u);
    let both = norm.x > 0.0 && norm.y > 0.0;
    let ratio = params.trust * norm.x / (norm.y + params.weight_decay * norm.x + params.eps);
    var factor = vec4(1.0, params.weight_decay, lr, unscale());
    if KIND == LARC {
        factor.x = select(1.0, ratio, both);
        factor.y = select(0.0, params.weight_decay, both);
    }
    if KIND == LARS {
        // The learning rate goes into the momentum.
        factor.x = select(1.0, ratio, both) * lr;
        factor.z = 1.0;
    }
    // A tensor whose gradient is not finite stays as it is: the run ends, and what spoilt it can
    // still be seen. Else there are no norms in `sums`.
    let spoilt = (KIND == LARC || KIND == LARS) && sums.z > 0.0;
    if spoilt || entry.z == 1u && step[0].y > 0.0 || scale[0].w > 0.0 { factor.w = 0.0; }
    factors[t] = factor;
}

@group(0) @binding(2) var<storage, read> factors_in: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> velocities: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> parameters: array<vec4<f32>>;

@compute @workgroup_size(64)
fn update(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let chunk = workgroup_index(wg, n);
    if chunk >= params.chunks { return; }
    let entry = table[chunk];
    let factor = factors_in[entry.x];
    if factor.w == 0.0 { return; }
    for (var i = entry.y + local; i < entry.y + entry.z; i += 64u) {
        let p = parameters[i];
        let g = (gradients[i] * factor.w + factor.y * p) * factor.x;
        let v = params.momentum * velocities[i] + g;
        velocities[i] = v;
        parameters[i] = p - factor.z * select(v, g + params.momentum * v, KIND == NESTEROV);
    }
}
