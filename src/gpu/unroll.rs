//! Loops that are written out before a shader is compiled.
//!
//! A line `#unroll` stands before `for (var NAME = 0u; NAME < END; NAME++) {` or `.. NAME += STEP) {`, where `END` and `STEP` are top-level constants
//! with plain values (`const END: u32 = 4u;`). Compilers unroll such loops as they please, and arrays that are walked in those that stay are kept in
//! memory: on an NVIDIA H200 the sums of a weight's gradient were, at less than half the speed.

/// A loop after `#unroll`, taken apart.
struct Loop<'a> {
    /// What precedes the directive, and what follows the loop.
    around: [&'a str; 2],
    name: &'a str,
    end: u32,
    step: u32,
    body: &'a str,
}

/// `text` with every loop after `#unroll` written out. Errors quote the line that cannot be.
pub(super) fn unroll(mut text: String) -> Result<String, String> {
    while let Some(found) = next(&text) {
        let Loop { around: [before, after], name, end, step, body } = found?;
        let turns: String = (0..end).step_by(step as usize).map(|value| format!("{{{}}}", with_value(body, name, value))).collect();
        text = format!("{before}{turns}{after}");
    }
    Ok(text)
}

fn next(text: &str) -> Option<Result<Loop<'_>, String>> {
    let (before, rest) = text.split_once("#unroll\n")?;
    let line = rest.lines().next().unwrap_or_default();
    Some(take_apart(text, before, rest).ok_or_else(|| format!("this loop cannot be unrolled: {}", line.trim())))
}

fn take_apart<'a>(text: &str, before: &'a str, rest: &'a str) -> Option<Loop<'a>> {
    let (head, from) = rest.trim_start().strip_prefix("for (var ")?.split_once(") {")?;
    let (name, bounds) = head.split_once(" = 0u; ")?;
    let (end, step) = bounds.strip_prefix(name)?.strip_prefix(" < ")?.split_once("; ")?;
    let step = match step.strip_prefix(name)? {
        "++" => 1,
        other => constant(text, other.strip_prefix(" += ")?)?,
    };
    let mut open = 1;
    let close = from.char_indices().find(|(_, c)| {
        open += i32::from(*c == '{') - i32::from(*c == '}');
        open == 0
    });
    let (at, _) = close?;
    Some(Loop { around: [before, &from[at + 1..]], name, end: constant(text, end)?, step: (step > 0).then_some(step)?, body: &from[..at] })
}

/// Value of `const NAME: u32 = 4u;`.
fn constant(text: &str, name: &str) -> Option<u32> {
    let (_, rest) = text.split_once(&format!("const {name}: u32 = "))?;
    rest.split_once("u;")?.0.parse().ok()
}

/// `body` with `value` wherever the word `name` stands.
fn with_value(body: &str, name: &str, value: u32) -> String {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.find(name) {
        let (head, tail) = rest.split_at(at);
        let tail = &tail[name.len()..];
        let before = head.chars().last().or_else(|| out.chars().last());
        let word = !before.is_some_and(in_word) && !tail.starts_with(in_word);
        out.push_str(head);
        out.push_str(&if word { format!("{value}u") } else { name.to_owned() });
        rest = tail;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_loops_out_inner_ones_too() {
        let text = "const N: u32 = 2u;\nconst STEP: u32 = 8u;\nconst END: u32 = 16u;\n#unroll\nfor (var i = 0u; i < N; i++) { if x { a[i] = limit; }\n\
            #unroll\n for (var k = 0u; k < END; k += STEP) {f(i, k);}}\nrest";
        let turn = |i: u32| format!("{{ if x {{ a[{i}u] = limit; }}\n{{f({i}u, 0u);}}{{f({i}u, 8u);}}}}");
        let want = format!("const N: u32 = 2u;\nconst STEP: u32 = 8u;\nconst END: u32 = 16u;\n{}{}\nrest", turn(0), turn(1));
        assert_eq!(unroll(text.into()).unwrap(), want);
        assert_eq!(unroll("nothing".into()).unwrap(), "nothing");
    }

    #[test]
    fn names_what_it_cannot_write_out() {
        let unknown = unroll("#unroll\n  for (var i = 0u; i < N; i++) { }".into()).unwrap_err();
        assert_eq!(unknown, "this loop cannot be unrolled: for (var i = 0u; i < N; i++) { }");
        assert!(unroll("const N: u32 = 2u;\n#unroll\nfor (var i = 1u; i < N; i++) { }".into()).is_err());
    }
}
