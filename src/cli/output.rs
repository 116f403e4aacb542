//! Data on stdout: text lines, or one JSON document.

use super::text::{self, printable};
use crate::error::{Error, Result};
use serde::Serialize;
use std::io::Write;

/// Prints one line for people on stdout, with everything in it to be seen.
pub(super) fn line(text: &str) -> Result<()> {
    raw(&printable(text))
}

/// Prints what is no text for people, but a script for a shell, as it is.
pub(super) fn raw(text: &str) -> Result<()> {
    closed(writeln!(std::io::stdout().lock(), "{text}"))
}

/// Prints one JSON document on a line of its own on stdout.
pub(super) fn json(value: &impl Serialize) -> Result<()> {
    raw(&text::json(value).map_err(|e| Error::Failed(format!("the result cannot be written as JSON: {e}")))?)
}

/// A reader that went away (`| head`) is no error.
fn closed(outcome: std::io::Result<()>) -> Result<()> {
    match outcome {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::output("standard output")),
    }
}
