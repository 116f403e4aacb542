//! Loops that are written out before a shader is compiled.
//!
//! A line `#unroll` stands before `for (var NAME = 0u; NAME < END; NAME++) {` or `.. NAME += STEP) {`, where `END` and `STEP` are numbers (`4u`) or
//! top-level constants with plain values (`const END: u32 = 4u;`). `#unroll CONDITION` does so if the top-level constant `CONDITION` is `true`, and
//! nothing if it is `false`; the loop may then be one to `end(END)`, with a function that hides its end from the compiler.
//!
//! Compilers unroll as they please, and keep an array in memory that is walked in a loop that stays one: on an NVIDIA H200 the sums of a weight's
//! gradient were, at less than half the speed.

/// A line `#unroll`, and what is around it.
struct Directive<'a> {
    before: &'a str,
    condition: &'a str,
    rest: &'a str,
}

/// The loop after it, taken apart.
struct Loop<'a> {
    name: &'a str,
    end: u32,
    step: u32,
    body: &'a str,
    after: &'a str,
}

/// `text` with every loop after `#unroll` written out. Errors quote the line that cannot be.
pub(super) fn unroll(mut text: String) -> Result<String, String> {
    while let Some(Directive { before, condition, rest }) = next(&text) {
        let line = rest.lines().next().unwrap_or_default();
        let counts = if condition.is_empty() { Some(true) } else { constant(&text, condition, "bool") };
        let counts = counts.ok_or_else(|| format!("`{condition}` does not say whether this loop is unrolled: {}", line.trim()))?;
        if !counts {
            text = format!("{before}{rest}");
            continue;
        }
        let Loop { name, end, step, body, after } =
            take_apart(&text, rest).ok_or_else(|| format!("this loop cannot be unrolled: {}", line.trim()))?;
        let turns: String = (0..end).step_by(step as usize).map(|value| format!("{{{}}}", with_value(body, name, value))).collect();
        text = format!("{before}{turns}{after}");
    }
    Ok(text)
}

fn next(text: &str) -> Option<Directive<'_>> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let end = at + line.len();
        if let Some(condition) = line.trim_start().strip_prefix("#unroll") {
            return Some(Directive { before: &text[..at], condition: condition.trim(), rest: &text[end..] });
        }
        at = end;
    }
    None
}

fn take_apart<'a>(text: &str, rest: &'a str) -> Option<Loop<'a>> {
    let (head, inside) = rest.trim_start().strip_prefix("for (var ")?.split_once(") {")?;
    let (name, bounds) = head.split_once(" = 0u; ")?;
    let (end, step) = bounds.strip_prefix(name)?.strip_prefix(" < ")?.split_once("; ")?;
    let end = number(text, end.strip_prefix("end(").map_or(Some(end), |end| end.strip_suffix(')'))?)?;
    let step = match step.strip_prefix(name)? {
        "++" => 1,
        other => number(text, other.strip_prefix(" += ")?)?,
    };
    let mut open = 1;
    let close = inside.char_indices().find(|(_, c)| {
        open += i32::from(*c == '{') - i32::from(*c == '}');
        open == 0
    });
    let (body, after) = inside.split_at(close?.0);
    // Neither would leave this loop any more.
    let leaves = ["break", "continue"].iter().any(|word| body.contains(word));
    (step > 0 && !leaves).then_some(Loop { name, end, step, body, after: &after[1..] })
}

/// Value of `4u`, or of `const NAME: u32 = 4u;`.
fn number(text: &str, what: &str) -> Option<u32> {
    let plain = |value: &str| value.strip_suffix('u')?.parse().ok();
    plain(what).or_else(|| plain(&constant::<String>(text, what, "u32")?))
}

/// Value of `const NAME: TYPE = VALUE;`.
fn constant<T: std::str::FromStr>(text: &str, name: &str, of: &str) -> Option<T> {
    let (_, rest) = text.split_once(&format!("const {name}: {of} = "))?;
    rest.split_once(';')?.0.parse().ok()
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
        assert_eq!(unroll("nothing, // not by `#unroll`".into()).unwrap(), "nothing, // not by `#unroll`");
    }

    #[test]
    fn a_constant_says_whether() {
        let text = |on: bool| format!("const ON: bool = {on};\n  #unroll ON\n  for (var i = 0u; i < end(3u); i++) {{ f(i); }}");
        assert_eq!(unroll(text(true)).unwrap(), "const ON: bool = true;\n{ f(0u); }{ f(1u); }{ f(2u); }");
        assert_eq!(unroll(text(false)).unwrap(), "const ON: bool = false;\n  for (var i = 0u; i < end(3u); i++) { f(i); }");
        let unknown = unroll("#unroll ON\nfor (var i = 0u; i < 3u; i++) { }".into()).unwrap_err();
        assert_eq!(unknown, "`ON` does not say whether this loop is unrolled: for (var i = 0u; i < 3u; i++) { }");
    }

    #[test]
    fn names_what_it_cannot_write_out() {
        let unknown = unroll("#unroll\n  for (var i = 0u; i < N; i++) { }".into()).unwrap_err();
        assert_eq!(unknown, "this loop cannot be unrolled: for (var i = 0u; i < N; i++) { }");
        assert!(unroll("#unroll\nfor (var i = 1u; i < 2u; i++) { }".into()).is_err());
        assert!(unroll("#unroll\nfor (var i = 0u; i < 2u; i++) { if i > n { break; } }".into()).is_err());
    }
}
