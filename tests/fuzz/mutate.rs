//! Mutations: what disks, downloads, editors and people do to files.

use swav_wgpu::data::rng::Stream;

/// Pieces that parsers stumble over.
const TOKENS: &[&[u8]] = &[
    b"-1",
    b"0",
    b"18446744073709551615",
    b"9223372036854775808",
    b"4294967296",
    b"1e400",
    b"nan",
    b"inf",
    b"null",
    b"\"",
    b"'",
    b"\\u0000",
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b",",
    b"=",
    b"{",
    b"}",
    b"[",
    b"]",
    b"{0..99999999}",
    b"{000..999}{000..999}",
    b"{a,{b,c}}",
    b"*",
    b"**/",
    b"../",
    b"/",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    "\u{202e}".as_bytes(),
    b"\x1b[2J",
    b"\xff\xd9",
    b"\xff\xda",
    b"\xff\xc0",
    b"__metadata__",
];

/// Bytes at the edges of their types.
const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xfe, 0xff, 0x20, 0x30];

/// One of `seeds` with one mutation, or up to eight.
pub fn mutated(seeds: &[Vec<u8>], random: &mut Stream) -> Vec<u8> {
    let mut bytes = seeds[pick(random, seeds.len())].clone();
    let more = if random.chance(0.5) { 0 } else { random.below(8) };
    for _ in 0..=more {
        mutate(&mut bytes, seeds, random);
    }
    bytes
}

fn pick(random: &mut Stream, n: usize) -> usize {
    random.below(n.max(1) as u64) as usize
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Stream) {
    let at = place(bytes.len(), random);
    // Mostly short, sometimes long.
    let length = 1 + if random.chance(0.2) { pick(random, 4096) } else { pick(random, 16) };
    let end = (at + length).min(bytes.len());
    match random.below(10) {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << random.below(8)),
        1 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = EDGES[pick(random, EDGES.len())]),
        2 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = random.below(256) as u8),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..end)),
        5 => {
            let copy = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, copy));
        }
        6 => drop(bytes.splice(at..at, TOKENS[pick(random, TOKENS.len())].iter().copied())),
        7 => {
            let token = TOKENS[pick(random, TOKENS.len())];
            drop(bytes.splice(at..(at + token.len()).min(bytes.len()), token.iter().copied()));
        }
        8 => {
            // A 32-bit number at an edge, in either order.
            let value = [u32::MAX, i32::MAX as u32, 1 << 31, 1 << 16, 0, random.below(1 << 32) as u32][pick(random, 6)];
            let value = if random.chance(0.5) { value.to_le_bytes() } else { value.to_be_bytes() };
            bytes.iter_mut().skip(at).zip(value).for_each(|(b, v)| *b = v);
        }
        _ => {
            let other = &seeds[pick(random, seeds.len())];
            let from = place(other.len(), random);
            drop(bytes.splice(at..end, other[from..(from + length).min(other.len())].iter().copied()));
        }
    }
}

/// Somewhere in a file: as often in its first bytes, where its structure is, as anywhere.
fn place(length: usize, random: &mut Stream) -> usize {
    let near = if random.chance(0.5) { length.min(512) } else { length };
    pick(random, near + 1).min(length)
}
