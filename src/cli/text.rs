//! Text for people. Names of files, classes and tensors, and metadata, can hold anything, and terminals and browsers obey some of it.
//!
//! Promise: what may hide in a text is decided here and nowhere else, and applied where text leaves the program, not where it comes from: by
//! [`super::output::line`], the error, the notes, the progress lines and the log on their way to a terminal, by [`html`] on its way to a page. A name
//! cannot begin a line of its own, colour or erase anything, link anywhere, or be shown in another order than it has. In JSON such characters are
//! escaped too, so that every string decodes to exactly what it was.

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::fmt::{Display, Write as _};
use std::io::{self, Write};

/// Whether a character does something, or hides, where a reader expects a mark: C0 and C1 controls (escape sequences, links and line ends begin with
/// them), what sets the direction of writing (Unicode's Bidi_Control), what has no width, line and paragraph separators, fillers and tags.
fn hides(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}')
        || matches!(c, '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// One line in which everything can be seen: what hides is written as in TOML and JSON, `\n`, `\u001b`, `\U000e0001`. A backslash stays what it is:
/// paths of Windows are full of them.
pub(super) fn printable(text: impl Display) -> String {
    let text = text.to_string();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if hides(c) => {
                let code = u32::from(c);
                let _ = if code > 0xffff { write!(out, "\\U{code:08x}") } else { write!(out, "\\u{code:04x}") };
            }
            c => out.push(c),
        }
    }
    out
}

/// The same for text that has lines of its own, as a graphics driver's words: those after the first are indented, so that none can be taken for a
/// line of the program's.
pub(super) fn printable_lines(text: impl Display) -> String {
    let text = text.to_string();
    let lines: Vec<String> = text.trim_end().lines().map(printable).collect();
    lines.join("\n  ")
}

/// One line for the content or an attribute of a page.
pub(super) fn html(text: &str) -> String {
    markup(&printable(text))
}

/// The same with the lines of a `<pre>`.
pub(super) fn html_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(html).collect();
    lines.join("\n")
}

fn markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// `value` as JSON on one line, with what hides in its strings escaped.
pub(super) fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let mut out = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut out, Escaping))?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// serde_json's compact form; it escapes C0 controls itself.
struct Escaping;

impl Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut from = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| hides(*c)) {
            out.write_all(&fragment.as_bytes()[from..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            from = at + c.len_utf8();
        }
        out.write_all(&fragment.as_bytes()[from..])
    }
}

/// Where the log goes: an event comes as one line, and leaves as one.
pub(super) struct Log<W: Write>(pub(super) W);

impl<W: Write> Write for Log<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        writeln!(self.0, "{}", printable(text.trim_end_matches('\n')))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Colours, a title, a link, erasing, C1's own sequence, a line of its own, directions, no width, a tag.
    const RUDE: &str =
        "\x1b[31m\x1b]0;t\x07\x1b]8;;http://x\x1b\\a\x08\u{9b}2J\r\n\terror: b\u{202e}gnp\u{2066}\u{200b}\u{feff}\u{2028}\u{e0001}\u{7f}";

    #[test]
    fn nothing_hides_in_a_line() {
        let seen = printable(RUDE);
        assert!(!seen.chars().any(hides), "{seen:?}");
        assert!(seen.starts_with("\\u001b[31m\\u001b]0;t\\u0007\\u001b]8;;http://x\\u001b\\a\\u0008\\u009b2J\\r\\n\\terror: b\\u202egnp"), "{seen}");
        assert!(seen.ends_with("\\u2066\\u200b\\ufeff\\u2028\\U000e0001\\u007f"), "{seen}");
        let plain = "C:\\new\\träning/кошка/猫 \u{1f431}/é.png";
        assert_eq!(printable(plain), plain);
        assert_eq!(
            printable_lines("Validation Error\n\nCaused by:\r\n  a\x1b[2J\nerror: no\n"),
            "Validation Error\n  \n  Caused by:\n    a\\u001b[2J\n  error: no"
        );
    }

    #[test]
    fn pages_get_neither_markup_nor_what_hides() {
        assert_eq!(html("a\"<b>&'\n\u{202e}"), "a&quot;&lt;b&gt;&amp;&#39;\\n\\u202e");
        assert_eq!(html_lines("a = 1\nb = \"\u{202e}<\""), "a = 1\nb = &quot;\\u202e&lt;&quot;");
    }

    #[test]
    fn json_is_exact_and_shows_everything() {
        let text = json(&serde_json::json!({RUDE: [RUDE, 1.5, f64::NAN]})).unwrap();
        assert!(!text.chars().any(hides), "{text:?}");
        let back: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back[RUDE][0], RUDE);
        assert!(text.contains("\\udb40\\udc01") && text.ends_with(",1.5,null]}"), "{text}");
    }

    #[test]
    fn an_event_of_the_log_is_one_line() {
        let mut out = Vec::new();
        Log(&mut out).write_all(b" WARN swav_wgpu: a\nerror: b\x1b[2J\n").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), " WARN swav_wgpu: a\\nerror: b\\u001b[2J\n");
    }
}
