// Factors of matrices from quads, rounded to f16 if need be. `coop_input_octs` has the same for eight f16 at a time.
fn norms_of(quad: u32) -> array<Norm, 1> { return array(norm_of(quad)); }

// Of the input, without a way through f32 where it is as it was read.
fn rounded(n: array<Norm, 1>, x: vec4<Element>, there: bool) -> vec4<f16> {
    if NORMALIZES { return select(vec4<f16>(), vec4<f16>(normalized_by(n[0], vec4<f32>(x))), there); }
    return select(vec4<f16>(), vec4<f16>(x), there);
}

fn rounded_right(x: RightPiece) -> vec4<f16> { return vec4<f16>(x); }
