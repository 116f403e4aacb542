// What Winograd's minimal filtering (lib/winograd.wgsl) does with weights, and for their gradients.
#import index
#import conv2d
#import winograd
#import tile_registers
#import kept_six
#import write_six
#import store_weight

@group(0) @binding(0) var<uniform> params: Visit;

// ---- transform: G w Gt of 3x3 weights (tap, in, out), as (36, in, out); one invocation per input channel and column quad. `count` is their number.

@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> transformed: array<vec4<f32>>;

// For the gradient of the input the window is turned by half a turn: `origin` is 8, the last tap, in place of 0.
fn tap(h: u32, w: u32, i: u32) -> vec4<f32> {
    return weight[u32(abs(params.origin - i32(h * 3u + w))) * params.count + i];
}

@compute @workgroup_size(LANES)
fn transform(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, groups) * LANES + local;
    if i >= params.count { return; }
    #unroll WRITTEN_OUT
    for (var h = 0u; h < end(3u); h++) {
        let u = weight_six(Three(tap(h, 0u, i), tap(h, 1u, i), tap(h, 2u, i)));
        keep(local, h, u.a); keep(local, 3u + h, u.b); keep(local, 6u + h, u.c); keep(local, 9u + h, u.d); keep(local, 12u + h, u.e); keep(local, 15u + h, u.f);
    }
    #unroll WRITTEN_OUT
    for (var w = 0u; w < end(6u); w++) {
        write_six(w, i, params.count, weight_six(Three(kept_at(local, 3u * w), kept_at(local, 3u * w + 1u), kept_at(local, 3u * w + 2u))));
    }
}

// ---- grad_output: A dy At of every tile of 4x4 pixels, one invocation per tile and column quad

@group(0) @binding(1) var<storage, read> grad: array<vec4<f32>>;

fn load(at: Corner, h: u32, w: i32, quad: u32) -> vec4<f32> {
    let place = pixel(at, i32(h), w);
    return select(vec4<f32>(), grad[u32(max(place, 0)) * params.out_quads + quad], place >= 0);
}

@compute @workgroup_size(LANES)
fn grad_output(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, groups) * LANES + local;
    if i >= params.count * params.out_quads { return; }
    let quad = i % params.out_quads;
    let at = corner(i / params.out_quads);
    #unroll WRITTEN_OUT
    for (var h = 0u; h < end(4u); h++) {
        let e = gradient_six(Four(load(at, h, 0, quad), load(at, h, 1, quad), load(at, h, 2, quad), load(at, h, 3, quad)));
        keep(local, h, e.a); keep(local, 4u + h, e.b); keep(local, 8u + h, e.c); keep(local, 12u + h, e.d); keep(local, 16u + h, e.e); keep(local, 20u + h, e.f);
    }
    #unroll WRITTEN_OUT
    for (var w = 0u; w < end(6u); w++) {
        write_six(w, i, params.stride * params.out_quads, gradient_six(Four(kept_at(local, 4u * w), kept_at(local, 4u * w + 1u), kept_at(local, 4u * w + 2u), kept_at(local, 4u * w + 3u))));
    }
}

// ---- finish: Gt m G of a weight's gradient, as 3x3 (tap, in, out); one invocation per input channel and column quad. Partial sums are added in
// order first.

@group(0) @binding(1) var<storage, read> products: array<vec4<f32>>;

// Column `w` of what was summed.
fn column(w: u32, i: u32) -> Six {
    let step = 6u * params.count;
    var sum = Six();
    for (var split = 0u; split < params.splits; split++) {
        let at = (split * 36u + w) * params.count + i;
        sum.a += products[at];
        sum.b += products[at + step];
        sum.c += products[at + 2u * step];
        sum.d += products[at + 3u * step];
        sum.e += products[at + 4u * step];
        sum.f += products[at + 5u * step];
    }
    return sum;
}

@compute @workgroup_size(LANES)
fn finish(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, groups) * LANES + local;
    if i >= params.count { return; }
    #unroll WRITTEN_OUT
    for (var w = 0u; w < end(6u); w++) {
        let m = weight_three(column(w, i));
        keep(local, w, m.a); keep(local, 6u + w, m.b); keep(local, 12u + w, m.c);
    }
    #unroll WRITTEN_OUT
    for (var h = 0u; h < end(3u); h++) {
        let m = weight_three(kept_six(local, 6u * h));
        put(3u * h * params.count + i, m.a);
        put((3u * h + 1u) * params.count + i, m.b);
        put((3u * h + 2u) * params.count + i, m.c);
    }
}
