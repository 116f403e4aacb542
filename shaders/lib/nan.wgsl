// max(x, 0), where it lets through, and NaN: by the bits, because max and comparisons of floats
// answer with a number where one operand is NaN, and compilers may assume that there is none.

// Of bits taken as signed integers those of -0 down to -infinity are the least; NaN with a sign lie
// above.
const MINUS_INFINITY: i32 = -8388608;

// max(x, 0); NaN stays NaN.
fn relu(v: vec4<f32>) -> vec4<f32> {
    return select(v, vec4<f32>(), bitcast<vec4<i32>>(v) <= vec4(MINUS_INFINITY));
}

// Where relu(v) follows v: where v is more than 0, or NaN.
fn relu_follows(v: vec4<f32>) -> vec4<bool> {
    let bits = bitcast<vec4<i32>>(v);
    return (bits != vec4<i32>()) & (bits > vec4(MINUS_INFINITY));
}

// The same of y = relu(v), which is no -0.
fn relu_followed(y: vec4<f32>) -> vec4<bool> { return bitcast<vec4<u32>>(y) != vec4<u32>(); }

fn is_nan(v: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(v) & vec4(0x7fffffffu)) > vec4(0x7f800000u);
}
