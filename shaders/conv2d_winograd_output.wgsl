// At M A of every tile (lib/winograd.wgsl), and what becomes of it: one invocation per row of an image's tiles and column quad. The pixels of
// a row of tiles are a chunk, where chunks are tallied.
#import index
#import conv2d
#import winograd
#import tile_registers
#import kept_six
#import store

alias Element = f32;

@group(0) @binding(0) var<uniform> params: Visit;
@group(0) @binding(1) var<storage, read> products: array<vec4<f32>>;

@compute @workgroup_size(LANES)
fn pixels(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let i = workgroup_index(wg, groups) * LANES + local;
    let column = i % params.out_quads;
    let line = i / params.out_quads;
    if line * params.tiles_w >= params.count { return; }
    let step = params.stride * params.out_quads;
    let first = line / params.tiles_h * params.height + line % params.tiles_h * 4u;
    let rows = min(4u, params.height - line % params.tiles_h * 4u);
    for (var tile = 0u; tile < params.tiles_w; tile++) {
        #unroll WRITTEN_OUT
        for (var w = 0u; w < end(6u); w++) {
            let place = w * step + (line * params.tiles_w + tile) * params.out_quads + column;
            let y = output_four(Six(
                products[place], products[place + 6u * step], products[place + 12u * step],
                products[place + 18u * step], products[place + 24u * step], products[place + 30u * step],
            ));
            keep(local, w, y.a); keep(local, 6u + w, y.b); keep(local, 12u + w, y.c); keep(local, 18u + w, y.d);
        }
        let columns = min(4u, params.width - tile * 4u);
        #unroll WRITTEN_OUT
        for (var h = 0u; h < end(4u); h++) {
            let y = output_four(kept_six(local, 6u * h));
            let at = (first + min(h, rows - 1u)) * params.width + tile * 4u;
            if tile + h == 0u { begin(column, y.a); }
            let b0 = beside(at, column);
            let b1 = beside(at + min(1u, columns - 1u), column);
            let b2 = beside(at + min(2u, columns - 1u), column);
            let b3 = beside(at + columns - 1u, column);
            if h < rows {
                put(at, at, column, y.a, b0);
                if columns > 1u { put(at + 1u, at + 1u, column, y.b, b1); }
                if columns > 2u { put(at + 2u, at + 2u, column, y.c, b2); }
                if columns > 3u { put(at + 3u, at + 3u, column, y.d, b3); }
            }
        }
    }
    write_tally(first * params.width, line, column, tally());
}
