// Where a quad of the depth of a gather's product is: its tap and its quad of input channels. Divided once, then counted up.
struct Depth { r: u32, s: u32, channel: u32 }

fn depth_of(k: u32) -> Depth {
    let tap = k / params.in_quads;
    let taps_w = max(params.taps_w, 1u); // a class of pixels may see no tap
    return Depth(tap / taps_w, tap % taps_w, k % params.in_quads);
}

// So many quads further.
fn deeper(k: Depth, by: u32) -> Depth {
    var next = k;
    next.channel += by;
    while next.channel >= params.in_quads {
        next.channel -= params.in_quads;
        next.s++;
        if next.s >= params.taps_w {
            next.s = 0u;
            next.r++;
        }
    }
    return next;
}
