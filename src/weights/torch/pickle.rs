//! Reads a pickle of any protocol (0 to 5) as a tree of plain values. Nothing that it names is imported or called.
//!
//! Promises: every operation that a Python 3 pickler writes is known; an object of any class is a node with its parts, however
//! odd they are; memory is bounded by the budget of [`Tree`], time by the length of the pickle; the reader is left just behind
//! the end of the pickle.

use super::value::{Node, Tree, Value};
use std::collections::HashMap;
use std::io::{self, BufRead, Read};

/// Longest text that is kept, in bytes: names of tensors and classes are shorter. Of a longer one only that it was there.
const MAX_TEXT: u64 = 4096;
/// What an operation, a value on the stack or in a list, and an entry of the memo count for.
const OPERATION: u64 = 16;
const VALUE: u64 = 32;
const MEMO: u64 = 64;

/// Reads one pickle.
pub(super) fn read(input: &mut impl BufRead, tree: &mut Tree) -> Result<Value, String> {
    let mut machine = Machine { input, tree, stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    loop {
        let [operation] = machine.bytes()?;
        machine.tree.spend(OPERATION)?;
        if operation == b'.' {
            return machine.pop();
        }
        machine.step(operation)?;
    }
}

/// The stack machine of Python's `pickle` module.
struct Machine<'a, R> {
    input: &'a mut R,
    tree: &'a mut Tree,
    stack: Vec<Value>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
}

fn cut(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "a pickle is cut short".to_owned(),
        _ => format!("a pickle cannot be read: {error}"),
    }
}

impl<R: BufRead> Machine<'_, R> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(cut)?;
        self.tree.consume(N as u64);
        Ok(bytes)
    }

    /// An unsigned number of so many bytes.
    fn number(&mut self, width: usize) -> Result<u64, String> {
        let mut bytes = [0; 8];
        self.input.read_exact(&mut bytes[..width]).map_err(cut)?;
        self.tree.consume(width as u64);
        Ok(u64::from_le_bytes(bytes))
    }

    fn skip(&mut self, length: u64) -> Result<(), String> {
        let skipped = io::copy(&mut Read::by_ref(self.input).take(length), &mut io::sink()).map_err(cut)?;
        self.tree.consume(skipped);
        if skipped < length { Err("a pickle is cut short".to_owned()) } else { Ok(()) }
    }

    /// The bytes of a value that is kept where it is short; nothing for a long one.
    fn short(&mut self, length: u64) -> Result<Option<Vec<u8>>, String> {
        if length > MAX_TEXT {
            return self.skip(length).map(|()| None);
        }
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes).map_err(cut)?;
        self.tree.consume(length);
        Ok(Some(bytes))
    }

    fn text(&mut self, width: usize) -> Result<(), String> {
        let length = self.number(width)?;
        match self.short(length)? {
            Some(bytes) => self.push_text(&String::from_utf8_lossy(&bytes)),
            None => self.push(Value::Opaque),
        }
    }

    fn push_text(&mut self, text: &str) -> Result<(), String> {
        self.push_node(Node::Text(text.into()))
    }

    fn blob(&mut self, width: usize) -> Result<(), String> {
        let length = self.number(width)?;
        self.skip(length)?;
        self.push(Value::Opaque)
    }

    /// The rest of a line, without its end; nothing for a long one.
    fn line(&mut self) -> Result<Option<String>, String> {
        let mut line = Vec::new();
        Read::by_ref(self.input).take(MAX_TEXT + 1).read_until(b'\n', &mut line).map_err(cut)?;
        self.tree.consume(line.len() as u64);
        if line.pop_if(|last| *last == b'\n').is_some() {
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
        if line.len() as u64 <= MAX_TEXT {
            return Err("a pickle is cut short".to_owned());
        }
        let skipped = self.input.skip_until(b'\n').map_err(cut)?;
        self.tree.consume(skipped as u64);
        Ok(None)
    }

    fn push(&mut self, value: Value) -> Result<(), String> {
        self.tree.spend(VALUE)?;
        self.stack.push(value);
        Ok(())
    }

    fn push_node(&mut self, node: Node) -> Result<(), String> {
        let value = self.tree.add(node)?;
        self.push(value)
    }

    fn pop(&mut self) -> Result<Value, String> {
        let floor = self.marks.last().copied().unwrap_or_default();
        if self.stack.len() <= floor {
            return Err("a pickle takes a value that is not there".to_owned());
        }
        self.stack.pop().ok_or_else(|| "a pickle takes a value that is not there".to_owned())
    }

    fn top(&self) -> Result<Value, String> {
        self.stack.last().copied().ok_or_else(|| "a pickle takes a value that is not there".to_owned())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().ok_or("a pickle goes back to a mark that is not there")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    /// A tuple of the topmost values.
    fn tuple(&mut self, count: usize) -> Result<(), String> {
        let mut items = vec![Value::None; count];
        for item in items.iter_mut().rev() {
            *item = self.pop()?;
        }
        self.push_node(Node::List(items))
    }

    /// Pairs of keys and values; an error where one is missing.
    fn pairs(items: &[Value]) -> Result<Vec<(Value, Value)>, String> {
        match items.as_chunks::<2>() {
            (pairs, []) => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
            _ => Err("a pickle has a key without a value".to_owned()),
        }
    }

    fn remember(&mut self, place: u64) -> Result<(), String> {
        let value = self.top()?;
        self.tree.spend(MEMO)?;
        self.memo.insert(place, value);
        Ok(())
    }

    fn recall(&mut self, place: u64) -> Result<(), String> {
        let value = *self.memo.get(&place).ok_or("a pickle recalls a value that it never had")?;
        self.push(value)
    }

    fn class(&mut self) -> Result<Value, String> {
        let (module, name) = (self.line()?.unwrap_or_default(), self.line()?.unwrap_or_default());
        self.tree.add(Node::Global(format!("{module}.{name}").into()))
    }

    /// An object of a class, from its arguments.
    fn object(&mut self, class: Value, arguments: Vec<Value>) -> Result<(), String> {
        let arguments = self.tree.add(Node::List(arguments))?;
        let object = self.tree.call(class, arguments)?;
        self.push(object)
    }

    fn step(&mut self, operation: u8) -> Result<(), String> {
        match operation {
            b'(' => {
                self.tree.spend(VALUE)?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            // A mark can be dropped like a value.
            b'0' if self.marks.last() == Some(&self.stack.len()) => {
                self.marks.pop();
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.pop_to_mark().map(drop),
            b'2' => self.top().and_then(|value| self.push(value)),
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' => self.number(1).and_then(|number| self.push(Value::Int(number as i64))),
            b'M' => self.number(2).and_then(|number| self.push(Value::Int(number as i64))),
            b'J' => self.bytes().and_then(|bytes| self.push(Value::Int(i32::from_le_bytes(bytes).into()))),
            b'G' => self.bytes().and_then(|bytes| self.push(Value::Float(f64::from_be_bytes(bytes)))),
            0x8a => self.long(1),
            0x8b => self.long(4),
            b'I' | b'L' | b'F' | b'S' | b'V' => self.written(operation),
            b'X' | b'T' => self.text(4),
            0x8c | b'U' => self.text(1),
            0x8d => self.text(8),
            b'C' => self.blob(1),
            b'B' => self.blob(4),
            0x8e | 0x96 => self.blob(8),
            b']' | b')' | 0x8f => self.push_node(Node::List(Vec::new())),
            b'}' => self.push_node(Node::Dict(Vec::new())),
            b'l' | b't' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.push_node(Node::List(items))
            }
            b'd' => {
                let pairs = Self::pairs(&self.pop_to_mark()?)?;
                self.push_node(Node::Dict(pairs))
            }
            0x85..=0x87 => self.tuple(usize::from(operation - 0x84)),
            b'a' => {
                let item = self.pop()?;
                self.top().and_then(|list| self.tree.append(list, &[item]))
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.top().and_then(|list| self.tree.append(list, &items))
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.top().and_then(|dict| self.tree.insert(dict, &[(key, value)]))
            }
            b'u' => {
                let pairs = Self::pairs(&self.pop_to_mark()?)?;
                self.top().and_then(|dict| self.tree.insert(dict, &pairs))
            }
            b'p' => {
                let place = self.line()?.and_then(|line| line.trim().parse().ok()).ok_or("a pickle has no number where one must be")?;
                self.remember(place)
            }
            b'g' => {
                let place = self.line()?.and_then(|line| line.trim().parse().ok()).ok_or("a pickle has no number where one must be")?;
                self.recall(place)
            }
            b'q' => self.number(1).and_then(|place| self.remember(place)),
            b'r' => self.number(4).and_then(|place| self.remember(place)),
            b'h' => self.number(1).and_then(|place| self.recall(place)),
            b'j' => self.number(4).and_then(|place| self.recall(place)),
            0x94 => self.remember(self.memo.len() as u64),
            b'c' => self.class().and_then(|class| self.push(class)),
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let global = format!("{}.{}", self.tree.text(module).unwrap_or_default(), self.tree.text(name).unwrap_or_default());
                self.push_node(Node::Global(global.into()))
            }
            b'R' | 0x81 => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                let object = self.tree.call(class, arguments)?;
                self.push(object)
            }
            0x92 => {
                let (named, arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.object(class, vec![arguments, named])
            }
            b'i' => {
                let class = self.class()?;
                let arguments = self.pop_to_mark()?;
                self.object(class, arguments)
            }
            b'o' => {
                let mut arguments = self.pop_to_mark()?;
                if arguments.is_empty() {
                    return Err("a pickle makes an object of no class".to_owned());
                }
                let class = arguments.remove(0);
                self.object(class, arguments)
            }
            b'b' => {
                let state = self.pop()?;
                self.top().and_then(|object| self.tree.build(object, state))
            }
            b'Q' => {
                let id = self.pop()?;
                let value = self.tree.persistent(id)?;
                self.push(value)
            }
            // Names of things that are kept elsewhere: as text, by number, in buffers of their own.
            b'P' => self.line().and_then(|_| self.push(Value::Opaque)),
            0x82 => self.number(1).and_then(|_| self.push(Value::Opaque)),
            0x83 => self.number(2).and_then(|_| self.push(Value::Opaque)),
            0x84 => self.number(4).and_then(|_| self.push(Value::Opaque)),
            0x97 => self.push(Value::Opaque),
            0x98 => Ok(()),
            0x80 => match self.bytes()? {
                [..=5] => Ok(()),
                [newer] => Err(format!("a pickle of protocol {newer}; known are 0 to 5")),
            },
            0x95 => self.number(8).map(drop),
            _ => Err(format!("a pickle with an unknown operation 0x{operation:02x}")),
        }
    }

    /// An integer of any length; one beyond 64 bits is no size of anything.
    fn long(&mut self, width: usize) -> Result<(), String> {
        let length = self.number(width)?;
        let value = self.short(length)?.filter(|bytes| bytes.len() <= 16).map(|bytes| {
            let fill = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
            let mut wide = [fill; 16];
            wide[..bytes.len()].copy_from_slice(&bytes);
            i128::from_le_bytes(wide)
        });
        self.push(value.and_then(|wide| i64::try_from(wide).ok()).map_or(Value::Opaque, Value::Int))
    }

    /// A value that is written as a line of text.
    fn written(&mut self, operation: u8) -> Result<(), String> {
        let Some(line) = self.line()? else { return self.push(Value::Opaque) };
        match operation {
            b'I' if matches!(&line[..], "00" | "01") => self.push(Value::Bool(line == "01")),
            b'I' | b'L' => {
                let digits = line.trim().trim_end_matches('L');
                self.push(digits.parse().map_or(Value::Opaque, Value::Int))
            }
            b'F' => self.push(line.trim().parse().map_or(Value::Opaque, Value::Float)),
            b'V' => self.push_text(&unescaped(&line)),
            _ => {
                let inside = line.trim();
                let inside = inside.get(1..inside.len().saturating_sub(1)).unwrap_or_default();
                self.push_text(&unescaped(inside))
            }
        }
    }
}

/// Resolves `\uXXXX`, `\xXX` and the other escapes that picklers write.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    while let Some(part) = parts.next() {
        let digits = match part.bytes().next() {
            Some(b'x') => 2,
            Some(b'u') => 4,
            Some(b'U') => 8,
            _ => 0,
        };
        let coded = part.get(1..=digits).filter(|_| digits > 0).and_then(|code| u32::from_str_radix(code, 16).ok()).and_then(char::from_u32);
        match (coded, part.chars().next()) {
            (Some(character), _) => {
                plain.push(character);
                plain += &part[1 + digits..];
            }
            // Two backslashes in a row.
            (None, None) => {
                plain.push('\\');
                plain += parts.next().unwrap_or_default();
            }
            (None, Some(quote @ ('\'' | '"'))) => {
                plain.push(quote);
                plain += &part[1..];
            }
            (None, Some(_)) => {
                plain.push('\\');
                plain += part;
            }
        }
    }
    plain
}
