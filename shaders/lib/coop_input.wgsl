// An input as a factor of matrices: rounded to f16, without a way through f32 where it is as it was read.
fn rounded(n: Norm, x: vec4<Element>, there: bool) -> vec4<f16> {
    if NORMALIZES { return select(vec4<f16>(), vec4<f16>(normalized_by(n, vec4<f32>(x))), there); }
    return select(vec4<f16>(), vec4<f16>(x), there);
}
