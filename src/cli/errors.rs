//! How errors look, and the exit code they end with.
//!
//! Promise: `error: …`, then a `caused by: …` for each cause, then a `hint: …` where there is one, on stderr, coloured only on a terminal
//! without `NO_COLOR`; nothing on stdout.

use super::text::{printable, printable_lines};
use crate::error::Error;
use std::io::Write;

/// Prints an error on stderr and returns its exit code.
pub fn report(error: &Error) -> u8 {
    let style = super::report::progress::Style::detect(false);
    // Nothing can be done when stderr is closed.
    let _ = write(&mut std::io::stderr().lock(), error, style.color);
    error.exit_code()
}

/// Prints clap's message (help and version on stdout, errors on stderr) and returns the exit code: 0, or 2 for wrong use. Messages quote arguments;
/// `again` reads the arguments once more, with everything in them to be seen.
pub fn report_usage(error: &clap::Error, again: impl FnOnce() -> Option<clap::Error>) -> u8 {
    if !error.use_stderr() {
        let _ = error.print();
        return 0;
    }
    match again() {
        Some(shown) if shown.use_stderr() => _ = shown.print(),
        // What can be seen is no mistake any more: then without the lines that arguments may bring.
        _ => _ = writeln!(std::io::stderr().lock(), "{}", printable_lines(error.render())),
    }
    2
}

fn write(out: &mut dyn Write, error: &Error, color: bool) -> std::io::Result<()> {
    let mark = |word: &str, code: &str| if color { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() };
    writeln!(out, "{}: {}", mark("error", "1;31"), message(error))?;
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        writeln!(out, "{}: {}", mark("caused by", "1"), printable(inner))?;
        cause = inner.source();
    }
    match error.hint() {
        Some(hint) => writeln!(out, "{}: {hint}", mark("hint", "1;36")),
        None => Ok(()),
    }
}

/// An error's message. Only what drivers and wgpu say has lines of its own; in all else a line's end is part of a name.
fn message(error: &Error) -> String {
    match error {
        Error::Gpu { .. } | Error::NoAdapter(_) | Error::CannotOpen { .. } | Error::OutOfMemory(_) | Error::DeviceLost(_) => printable_lines(error),
        _ => printable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(error: &Error, color: bool) -> String {
        let mut out = Vec::new();
        write(&mut out, error, color).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn error_cause_hint() {
        let output = Error::output("runs/a/x")(std::io::Error::other("No space left on device"));
        assert_eq!(text(&output, false), "error: cannot write runs/a/x\ncaused by: No space left on device\n");
        let lost = text(&Error::DeviceLost("reset".into()), false);
        assert!(lost.starts_with("error: the GPU device was lost: reset\nhint: start again with --resume"), "{lost}");
        let closed = Error::CannotOpen { name: "a card".into(), message: "no memory".into() };
        let said = text(&closed, false);
        assert!(
            said.starts_with("error: the GPU adapter a card cannot be opened: no memory\nhint: another program") && !said.contains("install"),
            "{said}"
        );
        assert_eq!(closed.exit_code(), 3);
        let rude = text(&Error::data("a\x1b[2J\r.png", "is empty"), false);
        assert_eq!(rude, "error: a\\u001b[2J\\r.png: is empty\n");
        // Commands without a configuration have none of its keys.
        let full = text(&Error::OutOfMemory("a buffer".into()), false);
        assert!(full.contains("hint: smaller batches") && !full.contains("train."), "{full}");
        assert_eq!(text(&Error::config("a.toml", "seed", "is -1"), true), "\x1b[1;31merror\x1b[0m: a.toml: seed: is -1\n");
    }
}
