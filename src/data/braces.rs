//! Braces in paths, as shells and WebDataset write them: `shard-{000000..001281}.tar`, `{train,extra}-{0..9}.tar`, nested.
//!
//! Promise: what a pattern would expand to is counted before anything of it is made, so that `{0..9999999999}` and products of such are refused at once.
//! Braces that hold neither a comma nor a range are letters like any others, as in bash.

use std::collections::HashMap;

/// Most paths that one pattern may stand for.
const MOST: u64 = 1 << 20;

/// Deepest nesting of braces.
const DEEPEST: usize = 16;

/// Longest pattern, in bytes.
const LONGEST: usize = 1 << 16;

/// A piece of a pattern.
#[derive(Debug)]
enum Piece {
    Text(String),
    /// `{a,b}`: each is a sequence of pieces.
    Choice(Vec<Vec<Self>>),
    /// `{first..last..step}` of numbers, filled with zeros to `width`.
    Numbers {
        first: i64,
        last: i64,
        step: u64,
        width: usize,
    },
}

/// Every text that `pattern` stands for, in its order; itself where it has no braces. The error says what is wrong with it.
pub(super) fn expand(pattern: &str) -> Result<Vec<String>, String> {
    if !pattern.contains('{') {
        return Ok(vec![pattern.to_owned()]);
    }
    if pattern.len() > LONGEST {
        return Err(format!("has {} letters: a pattern has at most {LONGEST}", pattern.len()));
    }
    let letters: Vec<char> = pattern.chars().collect();
    let pieces = sequence(&letters, 0)?;
    let (count, length) = size(&pieces);
    if count > MOST || count.saturating_mul(length) > MOST * 256 {
        return Err(format!("stands for {} paths: at most {MOST} are taken", if count == u64::MAX { "too many".into() } else { count.to_string() }));
    }
    Ok(write(&pieces))
}

/// Braces that close: from where one opens to where it closes, and to the commas at its own level.
fn spans(letters: &[char]) -> HashMap<usize, (usize, Vec<usize>)> {
    let (mut open, mut found) = (Vec::<(usize, Vec<usize>)>::new(), HashMap::new());
    for (at, letter) in letters.iter().enumerate() {
        match letter {
            '{' => open.push((at, Vec::new())),
            '}' => drop(open.pop().map(|(from, commas)| found.insert(from, (at, commas)))),
            ',' => open.last_mut().into_iter().for_each(|(_, commas)| commas.push(at)),
            _ => {}
        }
    }
    found
}

fn sequence(letters: &[char], depth: usize) -> Result<Vec<Piece>, String> {
    if depth > DEEPEST {
        return Err(format!("has braces within braces more than {DEEPEST} deep"));
    }
    let (mut pieces, mut text, mut at) = (Vec::new(), String::new(), 0);
    let spans = spans(letters);
    while at < letters.len() {
        let Some((close, commas)) = spans.get(&at) else {
            text.push(letters[at]);
            at += 1;
            continue;
        };
        let inside = &letters[at + 1..*close];
        let piece = if commas.is_empty() { range(&inside.iter().collect::<String>())? } else { Some(choice(letters, (at, *close), commas, depth)?) };
        match piece {
            Some(piece) => {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
                pieces.push(piece);
            }
            // Letters, in which there may be braces that are more.
            None => {
                text.push('{');
                pieces.push(Piece::Text(std::mem::take(&mut text)));
                pieces.extend(sequence(inside, depth + 1)?);
                text.push('}');
            }
        }
        at = close + 1;
    }
    pieces.push(Piece::Text(text));
    Ok(pieces)
}

fn choice(letters: &[char], (open, close): (usize, usize), commas: &[usize], depth: usize) -> Result<Piece, String> {
    let starts = std::iter::once(open).chain(commas.iter().copied());
    let ends = commas.iter().copied().chain([close]);
    let each = starts.zip(ends).map(|(start, end)| sequence(&letters[start + 1..end], depth + 1));
    Ok(Piece::Choice(each.collect::<Result<_, _>>()?))
}

/// `0..9` or `000..100..10`; `None` where it is no range.
fn range(inside: &str) -> Result<Option<Piece>, String> {
    let parts: Vec<&str> = inside.split("..").collect();
    let number = |text: &str| -> Option<Result<i64, String>> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse().map_err(|_| format!("{{{inside}}}: {text} is too large a number")))
    };
    let (first, last, step) = match parts[..] {
        [first, last] => (first, last, "1"),
        [first, last, step] => (first, last, step),
        _ => return Ok(None),
    };
    let (Some(low), Some(high), Some(by)) = (number(first), number(last), number(step)) else { return Ok(None) };
    let padded = |text: &str| text.strip_prefix('-').unwrap_or(text).len() > 1 && text.trim_start_matches('-').starts_with('0');
    let width = if padded(first) || padded(last) { first.len().max(last.len()) } else { 0 };
    let step = by?.unsigned_abs();
    if step == 0 {
        return Err(format!("{{{inside}}}: the step is 0"));
    }
    Ok(Some(Piece::Numbers { first: low?, last: high?, step, width }))
}

/// How many texts a sequence stands for and at most how long they are, at most `u64::MAX` each.
fn size(pieces: &[Piece]) -> (u64, u64) {
    pieces.iter().fold((1, 0), |(count, length): (u64, u64), piece| {
        let (more, longer) = match piece {
            Piece::Text(text) => (1, text.len() as u64),
            Piece::Numbers { first, last, step, width } => ((first.abs_diff(*last) / step).saturating_add(1), (*width).max(20) as u64),
            Piece::Choice(each) => each.iter().map(|one| size(one)).fold((0, 0), |(n, l): (u64, u64), (m, k)| (n.saturating_add(m), l.max(k))),
        };
        (count.saturating_mul(more), length.saturating_add(longer))
    })
}

fn write(pieces: &[Piece]) -> Vec<String> {
    let mut all = vec![String::new()];
    for piece in pieces {
        let ends: Vec<String> = match piece {
            Piece::Text(text) => {
                all.iter_mut().for_each(|begun| begun.push_str(text));
                continue;
            }
            Piece::Numbers { first, last, step, width } => {
                let count = first.abs_diff(*last) / step;
                let at = |i: u64| if last >= first { first.saturating_add_unsigned(i * step) } else { first.saturating_sub_unsigned(i * step) };
                (0..=count).map(|i| format!("{:0width$}", at(i))).collect()
            }
            Piece::Choice(each) => each.iter().flat_map(|one| write(one)).collect(),
        };
        all = all.iter().flat_map(|begun| ends.iter().map(move |end| format!("{begun}{end}"))).collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::rng::Stream;

    fn all(pattern: &str) -> Vec<String> {
        expand(pattern).unwrap()
    }

    #[test]
    fn as_bash_has_it() {
        assert_eq!(all("s-{000..002}.tar"), ["s-000.tar", "s-001.tar", "s-002.tar"]);
        assert_eq!(all("{a,b}{1..2}"), ["a1", "a2", "b1", "b2"]);
        assert_eq!(all("{a,b{0..1},}x"), ["ax", "b0x", "b1x", "x"]);
        assert_eq!(all("{3..1}"), ["3", "2", "1"]);
        assert_eq!(all("{08..12..2}"), ["08", "10", "12"]);
        assert_eq!(all("{9..10}"), ["9", "10"]);
        assert_eq!(all("{-1..1}"), ["-1", "0", "1"]);
        // What stands for nothing stands for itself.
        for own in ["plain", "{}", "{a}", "a{b", "a}b", "{a..}", "{1..b}", "{..}"] {
            assert_eq!(all(own), [own]);
        }
        assert_eq!(all("{x{1..2}}"), ["{x1}", "{x2}"]);
        assert_eq!(all("{{a,b}"), ["{a", "{b"]);
        assert_eq!(all("é{ü,ß}"), ["éü", "éß"]);
    }

    #[test]
    fn bombs_are_refused_before_they_go_off() {
        for bomb in [
            "{0..9999999999}".to_owned(),
            "{0..9223372036854775807}".to_owned(),
            "{-9223372036854775808..9223372036854775807}".to_owned(),
            "{0..99999999999999999999999}".to_owned(),
            "{0..999}".repeat(30),
            "{a,b}".repeat(1000),
            format!("{{0..1000000}}{}", "x".repeat(10_000)),
            "{".repeat(1 << 17),
            format!("{}a,b{}", "{".repeat(40), "}".repeat(40)),
            "{1..5..0}".to_owned(),
        ] {
            let began = std::time::Instant::now();
            assert!(expand(&bomb).is_err(), "{bomb:.60}");
            assert!(began.elapsed().as_secs() < 2);
        }
        // Many that do not close are no work either.
        let began = std::time::Instant::now();
        assert_eq!(all(&"{".repeat(1 << 15)).len(), 1);
        assert!(began.elapsed().as_secs() < 2);
    }

    #[test]
    fn any_text_expands_or_is_refused() {
        let letters = ['{', '}', ',', '.', '0', '1', '9', '-', 'a', '/', 'é'];
        for case in 0..20_000 {
            let mut stream = Stream::new(17, case, 0, 0);
            let length = stream.below(24);
            let pattern: String = (0..length).map(|_| letters[stream.below(letters.len() as u64) as usize]).collect();
            if let Ok(texts) = expand(&pattern) {
                assert!(!texts.is_empty(), "{pattern}");
            }
        }
    }
}
