// Gradient of a convolution's weight on cooperative matrices: ROWS weight rows by COLUMNS columns per workgroup, 32 pixels at a time
// through workgroup memory; pixels are dealt out to `splits` partial sums. Both factors are rounded to f16, sums are f32. The next slab is
// loaded into registers while the present one is multiplied.
enable wgpu_cooperative_matrix;
#import index
#import conv2d
#import coop
#import load
#import store_weight

alias Element = f32;

@group(0) @binding(0) var<uniform> params: Reduce;
@group(0) @binding(2) var<storage, read> grad_output: array<vec4<Element>>;

// Outside every image.
const OUTSIDE: i32 = -0x20000000;

// For each pixel of a slab: row of its image's first pixel, and the input pixel under the window's first tap. Two slabs in turn.
var<workgroup> pixels: array<array<vec3<i32>, DEPTH>, 2>;

fn find_pixels(slab: u32, first: u32, end: u32, local: u32) {
    for (var d = local; d < DEPTH; d += INVOCATIONS) {
        let at = first + slab * DEPTH + d;
        let segment = at / params.segment_pixels;
        let h = i32(segment % params.out_h * params.stride);
        let w = i32(at % params.segment_pixels * params.stride);
        pixels[slab % 2u][d] = vec3(i32(segment / params.out_h * params.in_h), select(OUTSIDE, h, at < end), w);
    }
}

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
    // Loading: one quad of weight rows and one of columns, at every so many pixels.
    let row_slot = local % (ROWS / 4u);
    let row_pixel = local / (ROWS / 4u);
    let row_step = INVOCATIONS / (ROWS / 4u);
    let quad = reduce_quad(params, min(first_quad + row_slot, params.quads - 1u));
    let n = norm_of(quad.channel);
    let column_slot = local % (COLUMNS / 4u);
    let column_pixel = local / (COLUMNS / 4u);
    let column_step = INVOCATIONS / (COLUMNS / 4u);
    let column = first_column + column_slot;
    var a: array<vec4<f16>, LEFT_LOADS>;
    var b: array<vec4<f16>, RIGHT_LOADS>;
    var sums: array<array<Sum, COLUMN_TILES>, ROW_TILES>;
    let first = split * params.segments_per_split * params.segment_pixels;
    let end = min(min((split + 1u) * params.segments_per_split, params.segments) * params.segment_pixels, params.pixels);
    let slabs = (max(end, first) - first + DEPTH - 1u) / DEPTH;
    find_pixels(0u, first, end, local);
    // One turn more than there are slabs: turn t loads slab t and multiplies slab t - 1.
    for (var slab = 0u; slab <= slabs; slab++) {
        workgroupBarrier();
        if slab > 0u {
            for (var i = 0u; i < LEFT_LOADS; i++) {
                put_left((row_pixel + i * row_step) * ROW_STRIDE + row_slot * 4u, a[i]);
            }
            for (var i = 0u; i < RIGHT_LOADS; i++) {
                put_right((column_pixel + i * column_step) * COLUMN_STRIDE + column_slot * 4u, b[i]);
            }
        }
        workgroupBarrier();
        if slab < slabs {
            find_pixels(slab + 1u, first, end, local);
            for (var i = 0u; i < LEFT_LOADS; i++) {
                let pixel = pixels[slab % 2u][row_pixel + i * row_step];
                let h = pixel.y + quad.dh;
                let w = pixel.z + quad.dw;
                a[i] = vec4<f16>();
                if inside(h, w, params.in_h, params.in_w) {
                    a[i] = vec4<f16>(input_at(u32((pixel.x + h) * i32(params.in_w) + w) * params.in_quads + quad.channel, n));
                }
            }
            for (var i = 0u; i < RIGHT_LOADS; i++) {
                let at = first + slab * DEPTH + column_pixel + i * column_step;
                b[i] = vec4<f16>();
                if at < end && column < params.out_quads {
                    b[i] = vec4<f16>(grad_output[at * params.out_quads + column]);
                }
            }
        }
        if slab > 0u {
            for (var k = 0u; k < DEPTH; k += STEP) {
                multiply(&sums, left_by_depth(subgroup, k), subgroup, k);
            }
        }
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
