// Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray 2016): 4x4 outputs of a 3x3 window from 36 products instead of 144, as 36 matrix products
// over tiles. y = At [(G w Gt) * (Bt x B)] A, with the points 0, 1, -1, 2, -1/2 and infinity, which round a third as much as 0, +-1, +-2.
//
// A transformed tensor is (36, stride, channels): for each of the 6x6 frequencies `stride` rows, of which the first are the tiles, image by image, row
// by row. A tile is 4x4 outputs, and begins 4 pixels after the one before.
struct Visit {
    rows: u32,                     // pixels of what is read or written
    tiles_h: u32, tiles_w: u32, count: u32, stride: u32, // tiles of an image, of all, and rows of a frequency
    height: u32, width: u32,       // pixels of an image of what is read or written
    origin: i32,                   // the first tile's first pixel, in height and width
    in_quads: u32, out_quads: u32,
    splits: u32,                   // partial sums of a weight's gradient
    first_chunk: u32,              // number of this launch's first chunk of rows, where chunks are tallied
    normalizes: u32,               // whether inputs are normalised while they are read
    all: u32,                      // all bits, which the compiler does not know
}

struct Three { a: vec4<f32>, b: vec4<f32>, c: vec4<f32> }
struct Four { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }
struct Six { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32> }

// The first pixel of a tile, and its image.
struct Corner { image: u32, h: i32, w: i32 }

fn corner(tile: u32) -> Corner {
    let rest = tile % (params.tiles_h * params.tiles_w);
    return Corner(tile / (params.tiles_h * params.tiles_w), i32(rest / params.tiles_w * 4u) + params.origin, i32(rest % params.tiles_w * 4u) + params.origin);
}

// Where pixel (h, w) of a tile is, in pixels; -1 outside of the image.
fn pixel(at: Corner, h: i32, w: i32) -> i32 {
    let there = inside(at.h + h, at.w + w, params.height, params.width);
    return select(-1, (i32(at.image * params.height) + at.h + h) * i32(params.width) + at.w + w, there);
}

// Bt x.
fn input_six(x: Six) -> Six {
    let near = x.e - x.c;
    return Six(
        x.a + 1.5 * (x.b - x.d) - 2.0 * x.c + x.e,
        x.e - 0.5 * x.d - 2.5 * x.c - x.b,
        x.e - 2.5 * x.d + 0.5 * x.c + x.b,
        near + 0.5 * (x.d - x.b),
        near + 2.0 * (x.b - x.d),
        x.b + 1.5 * (x.c - x.e) - 2.0 * x.d + x.f,
    );
}

// G w.
fn weight_six(w: Three) -> Six {
    let even = (w.a + w.c) / 3.0;
    let odd = w.b / 3.0;
    return Six(w.a, -even - odd, even - odd, (w.a + 2.0 * w.b + 4.0 * w.c) / 15.0, (8.0 * w.b - 16.0 * w.a - 4.0 * w.c) / 15.0, w.c);
}

// At m.
fn output_four(m: Six) -> Four {
    let sum = m.b + m.c;
    let difference = m.b - m.c;
    return Four(m.a + sum + m.d + m.e, difference + 2.0 * m.d - 0.5 * m.e, sum + 4.0 * m.d + 0.25 * m.e, difference + 8.0 * m.d - 0.125 * m.e + m.f);
}

// A dy.
fn gradient_six(y: Four) -> Six {
    let even = y.a + y.c;
    let odd = y.b + y.d;
    return Six(y.a, even + odd, even - odd, y.a + 2.0 * y.b + 4.0 * y.c + 8.0 * y.d, y.a - 0.5 * y.b + 0.25 * y.c - 0.125 * y.d, y.d);
}

// Gt m.
fn weight_three(m: Six) -> Three {
    let difference = (m.c - m.b) / 3.0;
    return Three(
        m.a + difference + (m.d - 16.0 * m.e) / 15.0,
        (2.0 * m.d + 8.0 * m.e) / 15.0 - (m.b + m.c) / 3.0,
        difference + 4.0 * (m.d - m.e) / 15.0 + m.f,
    );
}
