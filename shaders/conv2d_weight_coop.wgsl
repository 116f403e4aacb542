// Gradient of a convolution's weight on cooperative matrices: ROWS weight rows by COLUMNS columns per workgroup, DEPTH pixels at a time
// through workgroup memory; pixels are dealt out to `splits` partial sums. Both factors are rounded to f16, sums are f32. The next slab is
// loaded into registers while the present one is multiplied.
enable wgpu_cooperative_matrix;
#import index
#import conv2d
#import coop
#import load
#import pixels
#import store_weight

alias Element = f32;

@group(0) @binding(0) var<uniform> params: Reduce;
@group(0) @binding(2) var<storage, read> grad_output: array<vec4<Element>>;

@compute @workgroup_size(INVOCATIONS)
fn reduce(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let tile = workgroup_index(wg, groups);
    if tile >= params.tiles { return; }
    let first_column = tile % params.column_tiles * (COLUMNS / 4u);
    let split = tile / params.column_tiles % params.splits;
    let first_quad = tile / (params.column_tiles * params.splits) * (ROWS / 4u);
    // Loading: quads of weight rows and of columns, of four pixels one after another. Addresses come before all loads, and what is not there is left
    // out after, so that values may come while others are multiplied.
    var quads: array<Quad, LEFT_BLOCKS>;
    var norms: array<Norm, LEFT_BLOCKS>;
    for (var i = 0u; i < LEFT_BLOCKS; i++) {
        quads[i] = reduce_quad(params, min(first_quad + slot(local, i), params.quads - 1u));
        norms[i] = norm_of(quads[i].channel);
    }
    var a: array<vec4<Element>, LEFT_BLOCKS * 4u>;
    var from_a: array<Source, LEFT_BLOCKS * 4u>;
    var b: array<vec4<Element>, RIGHT_BLOCKS * 4u>;
    var from_b: array<Source, RIGHT_BLOCKS * 4u>;
    var sums: array<array<Sum, COLUMN_TILES>, ROW_TILES>;
    let first = split * params.segments_per_split * params.segment_pixels;
    let end = min(min((split + 1u) * params.segments_per_split, params.segments) * params.segment_pixels, params.pixels);
    let slabs = (max(end, first) - first + DEPTH - 1u) / DEPTH;
    let four = local % QUADS;
    var at = first + four * 4u;
    var pixel = pixel_of(at);
    // One turn more than there are slabs: turn t loads slab t and multiplies slab t - 1.
    for (var slab = 0u; slab <= slabs; slab++) {
        workgroupBarrier();
        if slab > 0u {
            for (var i = 0u; i < LEFT_BLOCKS; i++) {
                let x0 = vec4<f16>(select(vec4<f32>(), normalized_by(norms[i], vec4<f32>(a[4u * i])), from_a[4u * i].there));
                let x1 = vec4<f16>(select(vec4<f32>(), normalized_by(norms[i], vec4<f32>(a[4u * i + 1u])), from_a[4u * i + 1u].there));
                let x2 = vec4<f16>(select(vec4<f32>(), normalized_by(norms[i], vec4<f32>(a[4u * i + 2u])), from_a[4u * i + 2u].there));
                let x3 = vec4<f16>(select(vec4<f32>(), normalized_by(norms[i], vec4<f32>(a[4u * i + 3u])), from_a[4u * i + 3u].there));
                put_left_block(slot(local, i), four, x0, x1, x2, x3);
            }
            for (var i = 0u; i < RIGHT_BLOCKS; i++) {
                let g0 = vec4<f16>(select(vec4<Element>(), b[4u * i], from_b[4u * i].there));
                let g1 = vec4<f16>(select(vec4<Element>(), b[4u * i + 1u], from_b[4u * i + 1u].there));
                let g2 = vec4<f16>(select(vec4<Element>(), b[4u * i + 2u], from_b[4u * i + 2u].there));
                let g3 = vec4<f16>(select(vec4<Element>(), b[4u * i + 3u], from_b[4u * i + 3u].there));
                put_right_block(slot(local, i), four, g0, g1, g2, g3);
            }
        }
        workgroupBarrier();
        if slab < slabs {
            for (var p = 0u; p < 4u; p++) {
                let counts = at + p < end;
                for (var i = 0u; i < LEFT_BLOCKS; i++) { from_a[4u * i + p] = seen(pixel, quads[i], counts); }
                for (var i = 0u; i < RIGHT_BLOCKS; i++) {
                    let column = first_column + slot(local, i);
                    let there = counts && column < params.out_quads;
                    from_b[4u * i + p] = Source(select(0u, (at + p) * params.out_quads + column, there), there);
                }
                pixel = further(pixel, select(1u, DEPTH - 3u, p == 3u));
            }
            for (var i = 0u; i < LEFT_BLOCKS * 4u; i++) { a[i] = input[from_a[i].start]; }
            for (var i = 0u; i < RIGHT_BLOCKS * 4u; i++) { b[i] = grad_output[from_b[i].start]; }
            at += DEPTH;
        }
        if slab > 0u { multiply(&sums, subgroup); }
    }
    for (var i = 0u; i < ROW_TILES; i++) {
        for (var j = 0u; j < COLUMN_TILES; j++) {
            put_stage(sums[i][j], subgroup);
            for (var e = lane; e < TILE * TILE / 4u; e += LANES) {
                let r = e / (TILE / 4u);
                let q = e % (TILE / 4u);
                let at = corner(subgroup, i, j);
                let row = first_quad * 4u + at.x + r;
                let target_column = first_column + at.y / 4u + q;
                if row < params.quads * 4u && target_column < params.out_quads {
                    put(((params.first_split + split) * params.quads * 4u + row) * params.out_quads + target_column, staged(subgroup, r, q));
                }
            }
        }
    }
}
