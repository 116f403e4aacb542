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
    // Loading: one quad of weight rows and one of columns, of so many pixels one after another. Addresses come before all loads, and what is not there
    // is left out after, so that values may come while others are multiplied.
    let row_slot = local % (ROWS / 4u);
    let row_pixel = local / (ROWS / 4u) * LEFT_LOADS;
    let quad = reduce_quad(params, min(first_quad + row_slot, params.quads - 1u));
    let n = norm_of(quad.channel);
    let column_slot = local % (COLUMNS / 4u);
    let column_pixel = local / (COLUMNS / 4u) * RIGHT_LOADS;
    let column = first_column + column_slot;
    var a: array<vec4<Element>, LEFT_LOADS>;
    var from_a: array<Source, LEFT_LOADS>;
    var b: array<vec4<Element>, RIGHT_LOADS>;
    var from_b: array<Source, RIGHT_LOADS>;
    var sums: array<array<Sum, COLUMN_TILES>, ROW_TILES>;
    let first = split * params.segments_per_split * params.segment_pixels;
    let end = min(min((split + 1u) * params.segments_per_split, params.segments) * params.segment_pixels, params.pixels);
    let slabs = (max(end, first) - first + DEPTH - 1u) / DEPTH;
    var pixel = pixel_of(first + row_pixel);
    // One turn more than there are slabs: turn t loads slab t and multiplies slab t - 1.
    for (var slab = 0u; slab <= slabs; slab++) {
        workgroupBarrier();
        if slab > 0u {
            #unroll
            for (var i = 0u; i < LEFT_LOADS; i++) {
                let x = select(vec4<f32>(), normalized_by(n, vec4<f32>(a[i])), from_a[i].there);
                put_left((row_pixel + i) * ROW_STRIDE + row_slot * 4u, vec4<f16>(x));
            }
            #unroll
            for (var i = 0u; i < RIGHT_LOADS; i++) {
                let g = select(vec4<f32>(), vec4<f32>(b[i]), from_b[i].there);
                put_right((column_pixel + i) * COLUMN_STRIDE + column_slot * 4u, vec4<f16>(g));
            }
        }
        workgroupBarrier();
        if slab < slabs {
            let at = first + slab * DEPTH;
            #unroll
            for (var i = 0u; i < LEFT_LOADS; i++) {
                from_a[i] = seen(pixel, quad, at + row_pixel + i < end);
                pixel = further(pixel, select(1u, DEPTH + 1u - LEFT_LOADS, i + 1u == LEFT_LOADS));
            }
            #unroll
            for (var i = 0u; i < RIGHT_LOADS; i++) { from_b[i] = gradient_of(0u, at + column_pixel + i, end, column); }
            #unroll
            for (var i = 0u; i < LEFT_LOADS; i++) { a[i] = input[from_a[i].start]; }
            #unroll
            for (var i = 0u; i < RIGHT_LOADS; i++) { b[i] = grad_output[from_b[i].start]; }
        }
        if slab > 0u {
            #unroll
            for (var k = 0u; k < DEPTH; k += STEP) {
                multiply(&sums, left_by_depth(subgroup, k), subgroup, k);
            }
        }
    }
    #unroll
    for (var i = 0u; i < ROW_TILES; i++) {
        #unroll
        for (var j = 0u; j < COLUMN_TILES; j++) {
            put_stage(sums[i][j], subgroup);
            #unroll
            for (var e = 0u; e < PUTS; e++) {
                let r = (lane + e * LANES) / (TILE / 4u);
                let q = lane % (TILE / 4u);
                let at = corner(subgroup, i, j);
                let row = first_quad * 4u + at.x + r;
                let target_column = first_column + at.y / 4u + q;
                if r < TILE && row < params.quads * 4u && target_column < params.out_quads {
                    put(((params.first_split + split) * params.quads * 4u + row) * params.out_quads + target_column, staged(subgroup, r, q));
                }
            }
        }
    }
}
