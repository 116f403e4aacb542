// Gradient of a convolution's weight on cooperative matrices: ROWS weight rows by COLUMNS columns per workgroup, DEPTH pixels at a time
// through workgroup memory; pixels are dealt out to `splits` partial sums. Both factors are rounded to f16, sums are f32. The next slab is
// loaded into registers while the present one is multiplied.
enable wgpu_cooperative_matrix;
#import index
#import conv2d
#import coop
#import coop_input
#import load
#import pixels
#import store_weight

alias Element = f32;
// What a load brings.
alias LeftPiece = vec4<Element>;
alias RightPiece = vec4<Element>;

@group(0) @binding(0) var<uniform> params: Reduce;
@group(0) @binding(2) var<storage, read> grad_output: array<RightPiece>;

// What an invocation brings of a slab: LEFT_LOADS pixels of a piece of weight rows, and RIGHT_LOADS of one of columns, one after another.
struct Loaded { a: array<LeftPiece, LEFT_LOADS>, there: array<bool, LEFT_LOADS>, b: array<RightPiece, RIGHT_LOADS> }

// From pixel `row_at` on, which is `at`, and from `column_at` on. Addresses come before all loads, so that none waits for another.
fn load(at: Pixel, next: Pixel, quad: Quad, row_at: u32, end: u32, column_at: u32, column: u32) -> Loaded {
    var from_a: array<Source, LEFT_LOADS>;
    var from_b: array<u32, RIGHT_LOADS>;
    var pixel = at;
    #unroll
    for (var i = 0u; i < LEFT_LOADS; i++) {
        from_a[i] = seen(pixel, quad, row_at + i, end);
        pixel = further(pixel, next);
    }
    #unroll
    for (var i = 0u; i < RIGHT_LOADS; i++) { from_b[i] = gradient_of(0u, column_at + i, column); }
    var to: Loaded;
    #unroll
    for (var i = 0u; i < LEFT_LOADS; i++) {
        to.a[i] = input[from_a[i].start];
        to.there[i] = from_a[i].there;
    }
    #unroll
    for (var i = 0u; i < RIGHT_LOADS; i++) { to.b[i] = grad_output[from_b[i]]; }
    return to;
}

@compute @workgroup_size(INVOCATIONS)
fn reduce(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup_id: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
) {
    // Subgroups may turn out smaller than LANES, of which there are more then: results are no numbers, but nothing leaves its place.
    let subgroup = subgroup_id % (SUBGROUP_ROWS * SUBGROUP_COLUMNS);
    let tile = workgroup_index(wg, groups);
    if tile >= params.tiles { return; }
    let first_column = tile % params.column_tiles * (COLUMNS / 4u);
    let split = tile / params.column_tiles % params.splits;
    let first_quad = tile / (params.column_tiles * params.splits) * (ROWS / 4u);
    // Loading: one piece of weight rows and one of columns, of so many pixels one after another.
    let row_slot = local % (ROWS / WIDTH);
    let row_pixel = local / (ROWS / WIDTH) * LEFT_LOADS;
    let quad = reduce_quad(params, min(first_quad * 4u / WIDTH + row_slot, params.quads * 4u / WIDTH - 1u));
    let n = norms_of(quad.channel);
    let column_slot = local % (COLUMNS / WIDTH);
    let column_pixel = local / (COLUMNS / WIDTH) * RIGHT_LOADS;
    let column = first_column * 4u / WIDTH + column_slot;
    let first = split * params.segments_per_split * params.segment_pixels;
    let end = min(min((split + 1u) * params.segments_per_split, params.segments) * params.segment_pixels, params.pixels);
    let next = pixel_of(1u);
    let next_slab = pixel_of(DEPTH);
    var pixel = pixel_of(first + row_pixel);
    var loaded = load(pixel, next, quad, first + row_pixel, end, first + column_pixel, column);
    let left_at_first = first_left_by_depth(subgroup);
    let right_at_first = first_right(subgroup);
    var sums: array<array<Sum, COLUMN_TILES>, ROW_TILES>;
    for (var at = first; at < end; at += DEPTH) {
        workgroupBarrier();
        #unroll
        for (var i = 0u; i < LEFT_LOADS; i++) {
            put_left((row_pixel + i) * ROW_STRIDE + row_slot * WIDTH, rounded(n, loaded.a[i], loaded.there[i]));
        }
        #unroll
        for (var i = 0u; i < RIGHT_LOADS; i++) { put_right((column_pixel + i) * COLUMN_STRIDE + column_slot * WIDTH, rounded_right(loaded.b[i])); }
        workgroupBarrier();
        // The next slab comes while this one is multiplied; behind the last comes what is not used.
        pixel = further(pixel, next_slab);
        loaded = load(pixel, next, quad, at + DEPTH + row_pixel, end, at + DEPTH + column_pixel, column);
        #unroll
        for (var k = 0u; k < DEPTH; k += STEP) {
            multiply(&sums, left_by_depth(left_at_first, k), right_at_first, k);
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
                if (PUTS * LANES == TILE * TILE / 4u || r < TILE) & (row < params.quads * 4u) & (target_column < params.out_quads) {
                    put(((params.first_split + split) * params.quads * 4u + row) * params.out_quads + target_column, staged(subgroup, r, q) + poison(lanes));
                }
            }
        }
    }
}
