//! Bounds what parsing a pickle can cost, before anything parses it.
//!
//! Promises: no value is built here; the bytes are walked from one operation to the next, and of every value only its size is known. A
//! pickle whose reading would take more than [`BUDGET`] bytes, and more than [`GROWTH`] times its own, is refused. A damaged pickle
//! passes: the reader says what is wrong with it.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};

/// Memory that reading a pickle may take: that of 7,000 tensors. A training checkpoint of a ResNet-50 needs a tenth of it.
const BUDGET: u64 = 80_000_000;
/// What may come on top for each byte of a pickle: training logs of millions of steps are strings, each held twice.
const GROWTH: u64 = 3;
/// Measured cost of an operation at worst: an entry of a dictionary, or of the memo, with the growth of its table.
const OPERATION: u64 = 350;
/// Measured size of a value within another one, without the bytes of its text.
const VALUE: u64 = 80;

/// What follows the byte of an operation.
enum Argument {
    Bytes(usize),
    Lines(usize),
    /// So many bytes of length, then as many bytes as they say.
    Counted(usize),
}

fn argument(operation: u8) -> Option<Argument> {
    Some(match operation {
        b'(' | b'.' | b'0' | b'1' | b'2' | b')' | b']' | b'}' | b'l' | b'd' | b't' | b'a' | b'e' | b's' | b'u' | b'b' | b'R' | b'o' | b'Q' | b'N' => {
            Argument::Bytes(0)
        }
        0x81 | 0x85..=0x89 | 0x8f..=0x94 => Argument::Bytes(0),
        b'K' | b'h' | b'q' | 0x80 | 0x82 => Argument::Bytes(1),
        b'M' | 0x83 => Argument::Bytes(2),
        b'J' | b'j' | b'r' | 0x84 => Argument::Bytes(4),
        b'G' | 0x95 => Argument::Bytes(8),
        b'I' | b'L' | b'F' | b'S' | b'V' | b'P' | b'p' | b'g' => Argument::Lines(1),
        b'c' | b'i' => Argument::Lines(2),
        b'U' | b'C' | 0x8a | 0x8c => Argument::Counted(1),
        b'X' | b'T' | b'B' | 0x8b => Argument::Counted(4),
        0x8d | 0x8e | 0x96 => Argument::Counted(8),
        _ => return None,
    })
}

/// Walks so many pickles that follow each other; the error says that there is too much in them.
pub fn check_pickles(mut reader: impl BufRead, pickles: usize) -> Result<(), String> {
    let mut sizes = Sizes::default();
    let (mut stops, mut consumed) = (0, 0u64);
    while stops < pickles {
        let Ok(Some((operation, number, length))) = step(&mut reader) else { break };
        consumed += 1 + length;
        match operation {
            b'.' => {
                stops += 1;
                // Each pickle has a stack of its own; what it cost is not given back.
                sizes = Sizes { spent: sizes.spent, ..Sizes::default() };
            }
            _ => sizes.apply(operation, number, length),
        }
        let limit = BUDGET + GROWTH * consumed;
        if sizes.spent > limit {
            return Err(format!("a pickle that would take more than {limit} bytes to read, which no weight file needs"));
        }
    }
    Ok(())
}

/// Reads one operation and skips its argument: the operation, its number where that is short, and its length. Nothing for an unknown one
/// or at the end.
fn step(reader: &mut impl BufRead) -> io::Result<Option<(u8, u64, u64)>> {
    let mut operation = [0];
    reader.read_exact(&mut operation)?;
    let mut number = [0; 8];
    let length = match argument(operation[0]) {
        None => return Ok(None),
        Some(Argument::Bytes(count)) => {
            reader.read_exact(&mut number[..count])?;
            count as u64
        }
        Some(Argument::Lines(count)) => {
            let mut length = 0;
            let mut line = Vec::new();
            for _ in 0..count {
                line.clear();
                // A number of the memo is short; of a longer line only the length matters.
                length += Read::by_ref(reader).take(20).read_until(b'\n', &mut line)? as u64;
                if line.last() != Some(&b'\n') {
                    length += reader.skip_until(b'\n')? as u64;
                }
            }
            let text = String::from_utf8_lossy(&line);
            number = text.trim().parse::<u64>().unwrap_or_default().to_le_bytes();
            length
        }
        Some(Argument::Counted(width)) => {
            reader.read_exact(&mut number[..width])?;
            let length = u64::from_le_bytes(number);
            if io::copy(&mut reader.take(length), &mut io::sink())? < length {
                return Ok(None);
            }
            length
        }
    };
    Ok(Some((operation[0], u64::from_le_bytes(number), length)))
}

/// A pickle's stack and memo, with sizes for values.
#[derive(Default)]
struct Sizes {
    stack: Vec<u64>,
    marks: Vec<usize>,
    memo: HashMap<u64, u64>,
    spent: u64,
}

impl Sizes {
    fn push(&mut self, size: u64) {
        self.stack.push(size);
    }

    /// The sum of the topmost values. What is not there has no size: the reader will refuse it.
    fn pop(&mut self, count: usize) -> u64 {
        let from = self.stack.len().saturating_sub(count);
        self.stack.drain(from..).fold(0, u64::saturating_add)
    }

    fn pop_to_mark(&mut self) -> u64 {
        let mark = self.marks.pop().unwrap_or_default();
        self.pop(self.stack.len().saturating_sub(mark))
    }

    fn grow(&mut self, by: u64) {
        if let Some(top) = self.stack.last_mut() {
            *top = top.saturating_add(by);
        }
    }

    /// The reader's memo holds copies, and gives copies.
    fn copy(&mut self, size: u64) -> u64 {
        self.spent = self.spent.saturating_add(size);
        size
    }

    fn apply(&mut self, operation: u8, number: u64, length: u64) {
        self.spent = self.spent.saturating_add(OPERATION + length);
        match operation {
            b'(' => self.marks.push(self.stack.len()),
            b'0' => _ = self.pop(1),
            b'1' => _ = self.pop_to_mark(),
            b'a' | b'e' | b's' | b'u' | 0x90 => {
                let items = match operation {
                    b'a' => self.pop(1),
                    b's' => self.pop(2),
                    _ => self.pop_to_mark(),
                };
                self.grow(items);
            }
            b'l' | b't' | b'd' | b'o' | b'i' | 0x91 => {
                let items = self.pop_to_mark();
                self.push(items.saturating_add(VALUE));
            }
            0x85..=0x87 | b'R' | b'b' | b'Q' | 0x81 | 0x92 | 0x93 => {
                let parts = match operation {
                    0x85 | b'Q' => 1,
                    0x87 | 0x92 => 3,
                    _ => 2,
                };
                let parts = self.pop(parts);
                self.push(parts.saturating_add(VALUE));
            }
            b'2' | b'h' | b'j' | b'g' => {
                let size = if operation == b'2' { self.stack.last() } else { self.memo.get(&number) }.copied().unwrap_or_default();
                let size = self.copy(size);
                self.push(size);
            }
            b'q' | b'r' | b'p' | 0x94 => {
                let size = self.stack.last().copied().unwrap_or_default();
                let size = self.copy(size);
                let place = if operation == 0x94 { self.memo.len() as u64 } else { number };
                self.memo.insert(place, size);
            }
            0x80 | 0x95 => {}
            _ => self.push(VALUE.saturating_add(length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pickle(parts: &[&[u8]]) -> Vec<u8> {
        [&b"\x80\x02"[..], &parts.concat(), b"."].concat()
    }

    #[test]
    fn arguments_are_not_counted_as_operations() {
        // A text of many bytes that look like operations is one operation.
        let long = pickle(&[b"X", &40_000_000u32.to_le_bytes(), &[b']'; 40_000_000], b"q\0"]);
        assert_eq!(check_pickles(&long[..], 1), Ok(()));
        let many = pickle(&[&[b']'; 240_000]]);
        assert!(check_pickles(&many[..], 1).is_err());
        let two = [&b"\x80\x02N."[..], &many].concat();
        assert_eq!((check_pickles(&two[..], 1), check_pickles(&two[..], 2).is_err()), (Ok(()), true));
        assert_eq!(check_pickles(&b"cposix\nsystem\n\xff"[..], 1), Ok(()));
        assert_eq!(check_pickles(&b"X\xff\xff\xff\xff"[..], 1), Ok(()));
        // Values that are not there are the reader's business.
        assert_eq!(check_pickles(&pickle(&[b"0a)eu1\x87Rh\x07g3\n2q\x01p1\n"])[..], 1), Ok(()));
    }

    #[test]
    fn copies_count_as_often_as_they_are_made() {
        let text = pickle(&[b"X", &1_000_000u32.to_le_bytes(), &[b'a'; 1_000_000], b"q\x05"]);
        let fetched = |times: usize, how: &[u8]| {
            let body = [&text[2..text.len() - 1], &how.repeat(times)].concat();
            check_pickles(&pickle(&[&body])[..], 1).is_ok()
        };
        for how in [&b"h\x05"[..], b"j\x05\0\0\0", b"g5\n", b"2", b"r\x06\0\0\0", b"p7\n", b"\x94"] {
            assert!(fetched(70, how) && !fetched(85, how), "{how:?}");
        }
        // Each list holds the one before it twice.
        let doubling = |times: u8| (0..times).flat_map(|i| [b'(', b'h', i, b'h', i, b'l', b'q', i + 1]).collect::<Vec<u8>>();
        assert_eq!(check_pickles(&pickle(&[b"]q\0", &doubling(15)])[..], 1), Ok(()));
        assert!(check_pickles(&pickle(&[b"]q\0", &doubling(25)])[..], 1).is_err());
        // So do tuples, dictionaries and what is appended to.
        let doubling = |how: &[u8]| (0..25).flat_map(|i| [&[b'h', i, b'h', i][..], how, &[b'q', i + 1]].concat()).collect::<Vec<u8>>();
        for how in [&b"\x86"[..], b"a", b"R", b"b"] {
            assert!(check_pickles(&pickle(&[b"]q\0", &doubling(how)])[..], 1).is_err(), "{how:?}");
        }
    }
}
