// Factors of matrices from eight f16 at a time: their bits go from memory to memory, but where they are normalised.
fn norms_of(piece: u32) -> array<Norm, 2> { return array(norm_of(2u * piece), norm_of(2u * piece + 1u)); }

fn rounded(n: array<Norm, 2>, x: vec4<u32>, there: bool) -> vec4<u32> {
    if NORMALIZES {
        let first = normalized_by(n[0], vec4(unpack2x16float(x.x), unpack2x16float(x.y)));
        let second = normalized_by(n[1], vec4(unpack2x16float(x.z), unpack2x16float(x.w)));
        let packed = vec4(pack2x16float(first.xy), pack2x16float(first.zw), pack2x16float(second.xy), pack2x16float(second.zw));
        return select(vec4<u32>(), packed, there);
    }
    return select(vec4<u32>(), x, there);
}

fn rounded_right(x: vec4<u32>) -> vec4<u32> { return x; }
