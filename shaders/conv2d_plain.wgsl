// Convolution, one column quad of SPAN rows per invocation: the oracle of the faster variants and the fallback everywhere.
#import index
#import conv2d
#import load
#import store

alias Element = f32;
alias Weight = f32;
// More than one row where tallies are to be worth it.
const SPAN: u32 = 1u;

@group(0) @binding(0) var<uniform> params: Gather;
@group(0) @binding(2) var<storage, read> weight: array<vec4<Weight>>;

fn sum_of(row: Row, index: u32, column: u32) -> vec4<f32> {
    var sum = vec4<f32>();
    for (var r = 0u; r < params.taps_h; r++) {
        for (var s = 0u; s < params.taps_w; s++) {
            let h = row.h + i32(r) * params.tap_step;
            let w = row.w + i32(s) * params.tap_step;
            if !inside(h, w, params.in_h, params.in_w) { continue; }
            let tap = tap_of(params, r, s, index / params.group_rows);
            let start = u32((row.n * i32(params.in_h) + h) * i32(params.in_w) + w) * params.in_quads;
            for (var k = 0u; k < params.in_quads; k++) {
                let x = input_at(start + k, norm_of(k));
                let at = (tap * params.in_quads + k) * 4u * params.out_quads + column;
                sum += x.x * vec4<f32>(weight[at]) + x.y * vec4<f32>(weight[at + params.out_quads]);
                sum += x.z * vec4<f32>(weight[at + 2u * params.out_quads]) + x.w * vec4<f32>(weight[at + 3u * params.out_quads]);
            }
        }
    }
    return sum;
}

@compute @workgroup_size(64)
fn gather(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) n: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, n) * 64u + local;
    let column = i % params.out_quads;
    let first = i / params.out_quads * SPAN;
    for (var row = first; row < min(first + SPAN, params.rows); row++) {
        let at = gather_row(params, row);
        let sum = sum_of(at, row, column);
        if row == first { begin(column, sum); }
        put(row, at.out, column, sum, beside(at.out, column));
    }
    write_tally(first, i / params.out_quads, column, tally());
}
