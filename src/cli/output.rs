//! Data on stdout: text lines, or one JSON document.

use crate::error::{Error, Result};
use serde::Serialize;
use std::io::Write;

/// Prints one line on stdout.
pub(super) fn line(text: &str) -> Result<()> {
    closed(writeln!(std::io::stdout().lock(), "{text}"))
}

/// Prints one JSON document on a line of its own on stdout.
pub(super) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| Error::Failed(format!("the result cannot be written as JSON: {e}")))?;
    line(&text)
}

/// A reader that went away (`| head`) is no error.
fn closed(outcome: std::io::Result<()>) -> Result<()> {
    match outcome {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::output("standard output")),
    }
}
