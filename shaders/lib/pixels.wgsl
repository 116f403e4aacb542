// Where the output pixel of a sum over pixels is: its image, row and column. Divided before a loop, then counted up.
#import count_up

// Whether a pixel may look beside its image, or a slab beyond a split's last pixel. The host says where neither is so, with a single tap and without a stride.
const PADDED: bool = true;

struct Pixel { image: u32, h: u32, w: u32 }

fn pixel_of(at: u32) -> Pixel {
    let segment = at / params.segment_pixels;
    return Pixel(segment / params.out_h, segment % params.out_h, at % params.segment_pixels);
}

// As many pixels further as `by` is from the first.
fn further(p: Pixel, by: Pixel) -> Pixel {
    let next = count_up(vec3(p.image, p.h, p.w), vec3(by.image, by.h, by.w), vec2(params.out_h, params.segment_pixels));
    return Pixel(next.x, next.y, next.z);
}

// Where the gradient of output pixel `at` is that of a piece of columns, behind the first of its `group`. Another that exists beyond the last pixel, where the
// input is left out, and beyond the last column, where the sum is.
fn gradient_of(group: u32, at: u32, column: u32) -> u32 {
    return (group + min(at, params.pixels - 1u)) * out_pieces() + min(column, out_pieces() - 1u);
}

// Where WIDTH weight rows read under pixel `at`, which is `p`; those of the split end at `end`.
fn seen(p: Pixel, quad: Quad, at: u32, end: u32) -> Source {
    if !PADDED { return Source((u32(quad.first) + min(at, params.pixels - 1u)) * in_pieces() + quad.channel, true); }
    let h = i32(p.h * params.stride) + quad.dh;
    let w = i32(p.w * params.stride) + quad.dw;
    let there = (at < end) & inside_unsigned(h, w, params.in_h, params.in_w);
    let start = u32((i32(p.image * params.in_h) + h) * i32(params.in_w) + w + i32(quad.first)) * in_pieces() + quad.channel;
    return Source(select(0u, start, there), there);
}
