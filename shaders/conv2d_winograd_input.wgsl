// Bt x B of every tile of 6x6 pixels of a convolution's input (lib/winograd.wgsl), one invocation per tile and channel quad. Pixels outside are zeros.
#import index
#import norm
#import conv2d
#import winograd
#import tile_registers
#import kept_six
#import write_six

@group(0) @binding(0) var<uniform> params: Visit;
@group(0) @binding(1) var<storage, read> input: array<vec4<f32>>;
// Of the batch norm in between, where inputs are normalised; else anything.
@group(0) @binding(2) var<storage, read> moments: array<vec4<f32>>; // mean, then 1/sqrt(variance + eps)
@group(0) @binding(3) var<storage, read> gamma: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> beta: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> transformed: array<vec4<f32>>;

// What makes relu(batch_norm(x)) of x, or leaves it as it is: one kernel for both, because software devices take long to compile it.
fn norm_of(quad: u32) -> BatchNorm {
    if params.normalizes == 0u { return BatchNorm(vec4<f32>(), vec4(1.0), vec4<f32>()); }
    return batch_norm(moments[quad], moments[params.in_quads + quad], gamma[quad], beta[quad]);
}

fn load(at: Corner, h: u32, w: i32, quad: u32, n: BatchNorm) -> vec4<f32> {
    let place = pixel(at, i32(h), w);
    let x = input[u32(max(place, 0)) * params.in_quads + quad];
    let y = normalized(n, x - n.mean);
    return select(vec4<f32>(), select(y, relu(y), params.normalizes > 0u), place >= 0);
}

@compute @workgroup_size(LANES)
fn tiles(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, groups) * LANES + local;
    if i >= params.count * params.in_quads { return; }
    let quad = i % params.in_quads;
    let at = corner(i / params.in_quads);
    let n = norm_of(quad);
    #unroll WRITTEN_OUT
    for (var h = 0u; h < end(6u); h++) {
        let x = input_six(Six(
            load(at, h, 0, quad, n), load(at, h, 1, quad, n), load(at, h, 2, quad, n),
            load(at, h, 3, quad, n), load(at, h, 4, quad, n), load(at, h, 5, quad, n),
        ));
        keep(local, h, x.a); keep(local, 6u + h, x.b); keep(local, 12u + h, x.c); keep(local, 18u + h, x.d); keep(local, 24u + h, x.e); keep(local, 30u + h, x.f);
    }
    let step = params.stride * params.in_quads;
    #unroll WRITTEN_OUT
    for (var w = 0u; w < end(6u); w++) {
        write_six(w, i, step, input_six(kept_six(local, 6u * w)));
    }
}
