// Gradient of a convolution's weight for large products on GPUs: 128 weight rows (32 quads of input channels) by 128 columns per workgroup of
// 256, 16 pixels at a time through workgroup memory, 8 by 8 sums per invocation; pixels are dealt out to `splits` partial sums. The next
// slab is loaded into registers while the present one is multiplied.
#import index
#import conv2d
#import load
#import pixels
#import store_weight
#import store_quad

alias Element = f32;
// Ends of loops that are written out.
const EACH: u32 = 8u; // weight rows of an invocation
const HALVES: u32 = 2u; // its column quads

@group(0) @binding(0) var<uniform> params: Reduce;
@group(0) @binding(2) var<storage, read> grad_output: array<vec4<Element>>;

var<workgroup> tile_a: array<array<vec4<f32>, 32>, 16>;
var<workgroup> tile_b: array<array<vec4<f32>, 32>, 16>;

// What an invocation brings of a slab: two pixels of a quad of weight rows, and of a column quad.
struct Loaded { a: array<vec4<f32>, 2>, there: array<bool, 2>, b: array<vec4<f32>, 2> }

// Addresses come before all loads, so that none waits for another.
fn load(pixel: Pixel, next: Pixel, quad: Quad, group: u32, at: u32, end: u32, column: u32) -> Loaded {
    let from_a = array(seen(pixel, quad, at, end), seen(further(pixel, next), quad, at + 1u, end));
    let from_b = array(gradient_of(group, at, column), gradient_of(group, at + 1u, column));
    return Loaded(
        array(vec4<f32>(input[from_a[0].start]), vec4<f32>(input[from_a[1].start])),
        array(from_a[0].there, from_a[1].there),
        array(vec4<f32>(grad_output[from_b[0]]), vec4<f32>(grad_output[from_b[1]])),
    );
}

@compute @workgroup_size(256)
fn reduce(@builtin(workgroup_id) wg: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = workgroup_index(wg, groups);
    if tile >= params.tiles { return; }
    let first_column = tile % params.column_tiles * 32u;
    let split = tile / params.column_tiles % params.splits;
    let first_quad = tile / (params.column_tiles * params.splits) * 32u;
    // Loading: two pixels of the slab, of which the first is local / 32 * 2; weight quad and column quad local % 32. Addresses come before all loads,
    // and what is not there is left out after, so that values may come while others are multiplied.
    let slot = local % 32u;
    let lane_pixel = local / 32u * 2u;
    let quad = reduce_quad(params, min(first_quad + slot, params.quads - 1u));
    let n = norm_of(quad.channel);
    // A tile's rows have one tap where taps are groups.
    let group = reduce_quad(params, first_quad).first;
    let column = first_column + slot;
    // Computing: weight quads local / 16 and 16 further, column quads local % 16 and 16 further.
    let my_quad = local / 16u;
    let my_column = local % 16u;
    // Slabs run over the split's pixels as one sequence, so that short image rows waste nothing.
    let last = min(split * params.segments_per_split + params.segments_per_split, params.segments);
    let end = min(last * params.segment_pixels, params.pixels);
    let first = split * params.segments_per_split * params.segment_pixels;
    var at = first + lane_pixel;
    let next = pixel_of(1u);
    let next_slab = pixel_of(16u);
    var pixel = pixel_of(at);
    var loaded = load(pixel, next, quad, group, at, end, column);
    var sums: array<array<vec4<f32>, HALVES>, EACH>;
    for (var slab = first; slab < end; slab += 16u) {
        workgroupBarrier();
        tile_a[lane_pixel][slot] = select(vec4<f32>(), normalized_by(n, loaded.a[0]), loaded.there[0]);
        tile_a[lane_pixel + 1u][slot] = select(vec4<f32>(), normalized_by(n, loaded.a[1]), loaded.there[1]);
        tile_b[lane_pixel][slot] = loaded.b[0];
        tile_b[lane_pixel + 1u][slot] = loaded.b[1];
        workgroupBarrier();
        // The next slab comes while this one is multiplied; behind the last comes what is not used.
        at += 16u;
        pixel = further(pixel, next_slab);
        loaded = load(pixel, next, quad, group, at, end, column);
        for (var d = 0u; d < 16u; d++) {
            let x = array(tile_a[d][my_quad], tile_a[d][my_quad + 16u]);
            let y = array(tile_b[d][my_column], tile_b[d][my_column + 16u]);
            #unroll
            for (var i = 0u; i < EACH; i++) {
                #unroll
                for (var half = 0u; half < HALVES; half++) { sums[i][half] = fma(vec4(x[i / 4u][i % 4u]), y[half], sums[i][half]); }
            }
        }
    }
    #unroll
    for (var i = 0u; i < EACH; i += 4u) {
        #unroll
        for (var half = 0u; half < HALVES; half++) {
            let column = first_column + my_column + 16u * half;
            store(split, first_quad + my_quad + 4u * i, column, sums[i][half], sums[i + 1u][half], sums[i + 2u][half], sums[i + 3u][half]);
        }
    }
}
