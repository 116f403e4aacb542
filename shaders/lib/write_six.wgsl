// Writes column `w` of a transformed tile: of `step` vec4s a frequency this invocation has number `i`.
fn write_six(w: u32, i: u32, step: u32, x: Six) {
    let to = w * step + i;
    transformed[to] = x.a;
    transformed[to + 6u * step] = x.b;
    transformed[to + 12u * step] = x.c;
    transformed[to + 18u * step] = x.d;
    transformed[to + 24u * step] = x.e;
    transformed[to + 30u * step] = x.f;
}
