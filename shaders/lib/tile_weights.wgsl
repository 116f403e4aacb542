// Weights in workgroup memory as f32 tiles keep them: [depth][column quad], or TURNED, [column of its quad, depth quad][column quad].

// The row of depth `e` of depth quad `d`, or TURNED, of column `e` there.
fn weight_row(d: u32, e: u32) -> u32 { return select(d * 4u + e, e * 4u + d, TURNED); }

// The weights of four depths and a column quad, of the four rows that hold them.
fn by_depth(rows: array<vec4<f32>, 4>) -> array<vec4<f32>, 4> {
    if !TURNED { return rows; }
    let depths = transpose(mat4x4(rows[0], rows[1], rows[2], rows[3]));
    return array(depths[0], depths[1], depths[2], depths[3]);
}
