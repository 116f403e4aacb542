//! Bounds what parsing a pickle can cost, before anything parses it.
//!
//! Promises: nothing is interpreted or built here; the bytes are only walked from one operation to the next. A pickle of more than
//! [`MAX_OPERATIONS`] is refused, because each operation may cost its reader some hundred bytes of memory. A damaged pickle passes: the
//! reader says what is wrong with it.

use std::io::{self, BufRead, Read};

/// Most operations accepted in a pickle: 30 for each of 20,000 tensors. A checkpoint of a ResNet-50 has a few thousand.
pub const MAX_OPERATIONS: usize = 600_000;

/// What follows the byte of an operation.
enum Argument {
    Bytes(u64),
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
    let mut stops = 0;
    for _ in 0..MAX_OPERATIONS {
        match step(&mut reader) {
            Ok(Some(b'.')) => stops += 1,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return Ok(()),
        }
        if stops == pickles {
            return Ok(());
        }
    }
    Err(format!("a pickle of more than {MAX_OPERATIONS} operations, which no weight file needs"))
}

/// Reads one operation and skips its argument; nothing for an unknown one or at the end.
fn step(reader: &mut impl BufRead) -> io::Result<Option<u8>> {
    let mut operation = [0];
    reader.read_exact(&mut operation)?;
    let skip = match argument(operation[0]) {
        None => return Ok(None),
        Some(Argument::Bytes(count)) => count,
        Some(Argument::Lines(count)) => {
            for _ in 0..count {
                reader.skip_until(b'\n')?;
            }
            0
        }
        Some(Argument::Counted(width)) => {
            let mut length = [0; 8];
            reader.read_exact(&mut length[..width])?;
            u64::from_le_bytes(length)
        }
    };
    if skip > 0 && io::copy(&mut reader.take(skip), &mut io::sink())? < skip {
        return Ok(None);
    }
    Ok(Some(operation[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_not_counted_as_operations() {
        // A text of many bytes that look like operations is one operation.
        let long = [&b"\x80\x02X"[..], &2_000_000u32.to_le_bytes(), &[b']'; 2_000_000], b"."].concat();
        assert_eq!(check_pickles(&long[..], 1), Ok(()));
        let many = [&b"\x80\x02"[..], &[b']'; MAX_OPERATIONS], b"."].concat();
        assert!(check_pickles(&many[..], 1).is_err());
        let two = [&b"\x80\x02N."[..], &many].concat();
        assert_eq!((check_pickles(&two[..], 1), check_pickles(&two[..], 2).is_err()), (Ok(()), true));
        assert_eq!(check_pickles(&b"cposix\nsystem\n\xff"[..], 1), Ok(()));
        assert_eq!(check_pickles(&b"X\xff\xff\xff\xff"[..], 1), Ok(()));
    }
}
