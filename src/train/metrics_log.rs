//! JSON-lines logs that stay right over kills and resumes.
//!
//! Promises: each line is one whole JSON object with a `step`, written in one call; when a run goes on from step s, lines of steps from
//! s on (of the future that was lost) and a half-written last line are removed, so every step stands there once; a full disk is waited out ([`LogFile`]).

use super::event::Warning;
use super::log_file::LogFile;
use crate::atomic;
use crate::error::{Error, Result};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// An open log.
#[derive(Debug)]
pub struct MetricsLog {
    file: LogFile,
}

impl MetricsLog {
    /// Opens `path` to go on from `start_step`: 0 starts afresh, else lines of steps before it stay.
    pub fn open(path: impl Into<PathBuf>, start_step: u64) -> Result<Self> {
        let path = path.into();
        if start_step == 0 {
            atomic::expect_own_file(&path).map_err(Error::output(&path))?;
            atomic::write(&path, b"")?;
        } else if path.is_file() {
            let step = |line: &str| serde_json::from_str::<Value>(line).ok()?.get("step")?.as_u64();
            let keep = |line: &str| step(line).is_some_and(|s| s < start_step);
            atomic::write_with(&path, |out| each_line(&path, |line| if keep(line) { writeln!(out, "{line}") } else { Ok(()) }))?;
        }
        Ok(Self { file: LogFile::append_to(path)? })
    }

    /// Adds one object; it must have a `step`. Numbers that are not finite become `null`.
    pub fn append(&mut self, object: &Map<String, Value>) -> Result<()> {
        debug_assert!(object.contains_key("step"));
        let mut line = Value::Object(object.clone()).to_string();
        line.push('\n');
        self.file.append(line.as_bytes())
    }

    /// What there is to say of the log itself ([`LogFile::notices`]).
    pub fn notices(&mut self, end: bool) -> Vec<Warning> {
        self.file.notices(end)
    }
}

/// Calls `f` on every line without its end; bytes that are not UTF-8 (a damaged disk) are replaced.
fn each_line(path: &Path, mut f: impl FnMut(&str) -> std::io::Result<()>) -> std::io::Result<()> {
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        f(&String::from_utf8_lossy(&line?))?;
    }
    Ok(())
}

/// Calls `f` on every whole object of a log, in order; an absent file is an empty log.
pub fn read_each(path: &Path, mut f: impl FnMut(Map<String, Value>)) -> Result<()> {
    let parsed = |line: &str| {
        if let Ok(object) = serde_json::from_str(line) {
            f(object);
        }
        Ok(())
    };
    if !path.exists() {
        return Ok(());
    }
    each_line(path, parsed).map_err(|e| Error::data(path, format!("cannot be read: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs::OpenOptions;

    fn line(step: u64, loss: f64) -> Map<String, Value> {
        json!({"step": step, "loss": loss}).as_object().unwrap().clone()
    }

    fn read(path: &Path) -> Vec<Map<String, Value>> {
        let mut all = Vec::new();
        read_each(path, |object| all.push(object)).unwrap();
        all
    }

    #[test]
    fn resume_removes_the_lost_future_and_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, 0).unwrap();
        for step in 0..5 {
            log.append(&line(step, step as f64)).unwrap();
        }
        let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
        torn.write_all(b"{\"step\":5,\"lo").unwrap();
        drop((log, torn));
        let mut log = MetricsLog::open(&path, 3).unwrap();
        log.append(&line(3, 30.0)).unwrap();
        let all: Vec<(u64, f64)> = read(&path).iter().map(|o| (o["step"].as_u64().unwrap(), o["loss"].as_f64().unwrap())).collect();
        assert_eq!(all, [(0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0)]);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().next(), Some("{\"step\":0,\"loss\":0.0}"));
        drop(MetricsLog::open(&path, 0).unwrap());
        assert_eq!(read(&path).len(), 0);
    }

    #[test]
    fn infinity_is_still_json_and_errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        MetricsLog::open(&path, 0).unwrap().append(&line(0, f64::NAN)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"step\":0,\"loss\":null}\n");
        assert!(read(&dir.path().join("absent")).is_empty());
        let error = MetricsLog::open(dir.path().join("no/such"), 0).unwrap_err();
        assert!(error.exit_code() == 5 && error.to_string().contains("no/such"), "{error}");
    }
}
