//! `--bad stop|skip`: what commands that look at every image once do about those that cannot be read.

use super::args::BadArgs;
use super::args::OnBadImage;
use crate::data::{Dataset, OnBad};
use crate::error::{Error, Result};
use serde_json::{Value, json};

/// The set with its bad images treated as the user wants. Whoever leaves them out is told of each, so there is no limit to them.
pub(super) fn treated(data: Dataset, args: &BadArgs) -> Dataset {
    match args.bad {
        OnBadImage::Stop => data,
        OnBadImage::Skip => data.on_bad(OnBad::Skip, Some(1.0)),
    }
}

/// Says which flag goes on without an image that cannot be read.
pub(super) fn hinted(error: Error, args: &BadArgs) -> Error {
    match error {
        Error::Data { path, message } if args.bad == OnBadImage::Stop => {
            Error::Data { path, message: format!("{message}; --bad skip leaves out what cannot be read") }
        }
        other => other,
    }
}

/// Refuses a result of nothing.
pub(super) fn expect_some(done: usize, data: &Dataset) -> Result<()> {
    match data.bad().found().into_iter().next() {
        Some((path, reason)) if done == 0 => Err(Error::data(path, format!("{reason}, nor can any of the {} images be read", data.len()))),
        _ => Ok(()),
    }
}

/// The bad images of these sets, for JSON.
pub(super) fn listed(sets: &[&Dataset]) -> Value {
    sets.iter().flat_map(|data| data.bad().found()).map(|(path, reason)| json!({"path": path, "reason": reason})).collect()
}
