// Where a piece of the depth of a gather's product is: its tap and its piece of input channels. Divided before a loop, then counted up.
#import count_up

// Whether a row may look beside its image, or a slab beyond the last channel. The host says where neither is so, with a single tap: then nothing is looked
// for, and behind the last slab comes the first again.
const PADDED: bool = true;

struct Depth { r: u32, s: u32, channel: u32 }

fn depth_of(k: u32) -> Depth {
    if !PADDED { return Depth(0u, 0u, k); }
    let tap = k / in_pieces();
    let taps_w = max(params.taps_w, 1u); // a class of pixels may see no tap
    return Depth(tap / taps_w, tap % taps_w, k % in_pieces());
}

// As many pieces further as `by` has from the first.
fn deeper(k: Depth, by: Depth) -> Depth {
    if !PADDED {
        let channel = k.channel + by.channel;
        return Depth(0u, 0u, select(channel, channel - in_pieces(), channel >= in_pieces()));
    }
    let next = count_up(vec3(k.r, k.s, k.channel), vec3(by.r, by.s, by.channel), vec2(params.taps_w, in_pieces()));
    return Depth(next.x, next.y, next.z);
}
