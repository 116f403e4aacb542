// Lanes of a vec4 at column `quad` that lie within a row of `columns` values: 1, else 0. Keeps padding at zero.
fn column_mask(quad: u32, columns: u32) -> vec4<f32> {
    let first = quad * 4u;
    return select(vec4(0.0), vec4(1.0), vec4(first, first + 1u, first + 2u, first + 3u) < vec4(columns));
}

// The lanes of `v` within a row, 0 in the padding, whatever is there.
fn within(v: vec4<f32>, quad: u32, columns: u32) -> vec4<f32> {
    return select(vec4<f32>(), v, column_mask(quad, columns) > vec4<f32>());
}

// exp of the lanes within a row, 0 in the padding: masked before, since the exponential of a padding lane may overflow.
fn masked_exp(v: vec4<f32>, quad: u32, columns: u32) -> vec4<f32> {
    return exp(select(vec4(LOWEST), v, column_mask(quad, columns) > vec4<f32>()));
}

fn sum4(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

fn max4(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

// The least number there is, for masked lanes: no infinities, which Metal's fast arithmetic may
// assume away.
const LOWEST: f32 = -3.4028234663852886e38;
