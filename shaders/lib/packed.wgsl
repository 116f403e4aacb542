// f16 storage for adapters without f16 in shaders: four values in two words. `compose` puts these conversions where a kernel has its own.
fn widen(v: vec2<u32>) -> vec4<f32> {
    return vec4(unpack2x16float(v.x), unpack2x16float(v.y));
}

// pack2x16float leaves open what becomes of values beyond f16; here they are infinite, as in a conversion, so that an overflow is seen.
fn narrow(v: vec4<f32>) -> vec2<u32> {
    let bits = bitcast<vec4<u32>>(v);
    let size = bits & vec4(0x7fffffffu);
    // 65520 and more rounds to infinity.
    let beyond = size >= vec4(0x477ff000u);
    let inside = select(v, vec4<f32>(), beyond);
    let special = ((bits >> vec4(16u)) & vec4(0x8000u)) | select(vec4(0x7c00u), vec4(0x7e00u), size > vec4(0x7f800000u));
    let outside = select(vec4<u32>(), special, beyond);
    return vec2(pack2x16float(inside.xy), pack2x16float(inside.zw)) | outside.xz | (outside.yw << vec2(16u));
}
