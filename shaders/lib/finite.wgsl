// Infinities and NaN have all exponent bits set. Comparisons of floats would not do: compilers may assume that there are no such values.
fn not_finite(v: vec4<f32>) -> bool {
    return any((bitcast<vec4<u32>>(v) & vec4(0x7f800000u)) == vec4(0x7f800000u));
}
