//! Faults on purpose: how tests provoke in the real program what otherwise happens in a bad week.
//!
//! The environment variable `SWAV_FAULT` names them, several with commas between: `KIND@PLACE[=NAME][*COUNT|#NUMBER][~SECONDS]`, where `*3` means the
//! first three times only, `#3` the third time only. It is for tests and undocumented elsewhere; the command line reads it, says so on stderr, and
//! refuses what is not in this table. Nothing is looked up while it is unset.
//!
//! | kind | place | what happens |
//! | --- | --- | --- |
//! | `disk-full`, `write-error` | `stepN`, `stepN-M`, `stepN-`, or `start` | files whose path contains NAME cannot be written while the run is in these steps, or before the first |
//! | `fsync-error`, `rename-error` | the same | a file is written, but cannot be flushed, or does not get its name |
//! | `read-error`, `stall`, `panic` | `read` | reading an image whose path contains NAME fails, takes SECONDS (an hour unless said), or panics |
//! | `device-lost`, `out-of-memory` | steps | the device is destroyed, or reports that it has no memory, as the step begins |
//! | `out-of-memory` | `buffer` | a buffer whose label contains NAME cannot be had |
//! | `nan` | steps | a weight of the tensor NAME, or the first one, is not a number |
//! | `overflow` | steps | the loss scale of f16 is so large that gradients overflow |
//! | `panic`, `kill` | steps | the process panics or is killed as the step begins |
//! | `kill-in-checkpoint` | one of [`POINTS`] | the process is killed there, while a checkpoint is written |
//!
//! Steps are counted from 0, as in `metrics.jsonl`.

use crate::error::{Error, Result};
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The environment variable.
pub const VARIABLE: &str = "SWAV_FAULT";

/// Where in the writing of a checkpoint a process can be killed, in order: the temporary file is empty; is half written; is whole; is flushed; has the name;
/// the folder is flushed and the oldest is about to be removed; one was removed; all are.
pub const POINTS: [&str; 8] =
    ["before-write", "half-written", "before-fsync", "before-rename", "after-rename", "before-remove", "between-removals", "after-remove"];

/// The kinds that strike in steps.
const IN_STEPS: [&str; 10] =
    ["disk-full", "write-error", "fsync-error", "rename-error", "device-lost", "out-of-memory", "nan", "overflow", "panic", "kill"];
/// Those that strike while images are read.
const IN_READS: [&str; 3] = ["read-error", "stall", "panic"];
/// Those that concern files that are written.
const OF_FILES: [&str; 4] = ["disk-full", "write-error", "fsync-error", "rename-error"];

static FAULTS: OnceLock<Faults> = OnceLock::new();

/// The step that the run is about to do; [`BEFORE`] before the first.
static STEP: AtomicU64 = AtomicU64::new(BEFORE);
const BEFORE: u64 = u64::MAX;

#[derive(Debug, Default)]
struct Faults(Vec<Fault>);

#[derive(Debug)]
struct Fault {
    kind: String,
    place: Place,
    /// Part of a path or of a name; empty for all.
    name: String,
    times: RangeInclusive<u64>,
    stall: Duration,
    /// How often its place was come by.
    met: AtomicU64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Steps(RangeInclusive<u64>),
    Start,
    Read,
    Buffer,
    Checkpoint(String),
}

/// Arms what `text` asks for, once per process.
///
/// # Errors
/// [`Error::Usage`] where it is not understood.
pub fn arm(text: &str) -> Result<()> {
    let faults: Faults = text.parse().map_err(|what| Error::Usage(format!("{VARIABLE}: {what}")))?;
    FAULTS.set(faults).map_err(|_| Error::Usage(format!("{VARIABLE} is armed already")))
}

/// Whether any fault is armed.
pub fn armed() -> bool {
    FAULTS.get().is_some()
}

/// Takes note that step `step` is about to begin; panics or kills the process where that is asked for.
pub fn begin_step(step: u64) {
    let Some(faults) = FAULTS.get() else { return };
    STEP.store(step, Ordering::Relaxed);
    if faults.strike("kill", "", None).is_some() {
        kill();
    }
    assert!(faults.strike("panic", "", None).is_none(), "{VARIABLE}: panic at step {step}");
}

/// Whether a fault of this kind strikes in the step that is about to begin; the name it carries.
pub fn in_step(kind: &str) -> Option<&'static str> {
    FAULTS.get()?.strike(kind, "", None).map(|fault| fault.name.as_str())
}

/// Errors when `path` is not to be written now.
pub fn write(path: &Path) -> io::Result<()> {
    let Some(faults) = FAULTS.get() else { return Ok(()) };
    let path = path.to_string_lossy();
    if faults.strike("disk-full", &path, None).is_some() {
        return Err(io::ErrorKind::StorageFull.into());
    }
    fails(faults, "write-error", &path)
}

/// Comes by the point `point` of writing `path` whole: errors, or kills the process, where that is asked for.
pub fn writing(path: &Path, point: &str) -> io::Result<()> {
    let Some(faults) = FAULTS.get() else { return Ok(()) };
    let text = path.to_string_lossy();
    let checkpoint = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("step-"));
    if checkpoint && faults.strike("kill-in-checkpoint", &text, Some(&Place::Checkpoint(point.to_owned()))).is_some() {
        kill();
    }
    match point {
        "before-write" => write(path),
        "before-fsync" => fails(faults, "fsync-error", &text),
        "before-rename" => fails(faults, "rename-error", &text),
        _ => Ok(()),
    }
}

fn fails(faults: &Faults, kind: &str, path: &str) -> io::Result<()> {
    match faults.strike(kind, path, None) {
        Some(_) => Err(io::Error::other(format!("{kind} on purpose"))),
        None => Ok(()),
    }
}

/// Comes by the reading of the image that `path` names: errors, sleeps or panics where that is asked for.
pub fn read(path: impl FnOnce() -> String) -> io::Result<()> {
    let Some(faults) = FAULTS.get() else { return Ok(()) };
    let path = path();
    let strikes = |kind: &str| faults.strike(kind, &path, Some(&Place::Read));
    if let Some(fault) = strikes("stall") {
        std::thread::sleep(fault.stall);
    }
    assert!(strikes("panic").is_none(), "{VARIABLE}: panic while {path} is read");
    match strikes("read-error") {
        Some(_) => Err(io::Error::other("read-error on purpose")),
        None => Ok(()),
    }
}

/// Whether a buffer of this label cannot be had.
pub fn buffer(label: &str) -> bool {
    FAULTS.get().is_some_and(|faults| faults.strike("out-of-memory", label, Some(&Place::Buffer)).is_some())
}

/// Ends the process as a power cut would.
fn kill() -> ! {
    #[cfg(unix)]
    let _ = signal_hook::low_level::raise(signal_hook::consts::SIGKILL);
    std::process::abort()
}

impl Faults {
    /// The fault of this kind that strikes at `place` (the present step unless said), where `subject` contains its name. Counts the occasion.
    fn strike(&self, kind: &str, subject: &str, place: Option<&Place>) -> Option<&Fault> {
        let now = || match STEP.load(Ordering::Relaxed) {
            BEFORE => Place::Start,
            step => Place::Steps(step..=step),
        };
        let place = place.cloned().unwrap_or_else(now);
        self.0.iter().find(|fault| {
            let here = match (&fault.place, &place) {
                (Place::Steps(steps), Place::Steps(now)) => steps.contains(now.start()),
                (of, now) => of == now,
            };
            let named = OF_FILES.contains(&kind) || !subject.is_empty();
            here && fault.kind == kind
                && (!named || subject.contains(&fault.name))
                && fault.times.contains(&(fault.met.fetch_add(1, Ordering::Relaxed) + 1))
        })
    }
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let faults: Vec<Fault> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
        if faults.is_empty() { Err("is empty".into()) } else { Ok(Self(faults)) }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("`{text}`: {what}");
        let (kind, rest) = text.split_once('@').ok_or_else(|| wrong("is no KIND@PLACE"))?;
        let number = |n: &str| n.parse::<u64>().map_err(|_| wrong(&format!("`{n}` is no number")));
        let (rest, stall) = match rest.rsplit_once('~') {
            Some((rest, seconds)) => (rest, Duration::from_secs(number(seconds)?)),
            None => (rest, Duration::from_secs(3600)),
        };
        let (rest, times) = if let Some((rest, count)) = rest.rsplit_once('*') {
            (rest, 1..=number(count)?)
        } else if let Some((rest, which)) = rest.rsplit_once('#') {
            (rest, number(which)?..=number(which)?)
        } else {
            (rest, 1..=u64::MAX)
        };
        let (place, name) = rest.split_once('=').unwrap_or((rest, ""));
        let steps = place.strip_prefix("step").map(|steps| -> Result<Place, String> {
            let (first, last) = match steps.split_once('-') {
                Some((first, "")) => (number(first)?, BEFORE - 1),
                Some((first, last)) => (number(first)?, number(last)?),
                None => (number(steps)?, number(steps)?),
            };
            Ok(Place::Steps(first..=last))
        });
        let place = match (steps, kind) {
            (Some(steps), _) if IN_STEPS.contains(&kind) => steps?,
            (None, "kill-in-checkpoint") if POINTS.contains(&place) => Place::Checkpoint(place.into()),
            (None, "out-of-memory") if place == "buffer" => Place::Buffer,
            (None, _) if place == "read" && IN_READS.contains(&kind) => Place::Read,
            (None, _) if place == "start" && OF_FILES.contains(&kind) => Place::Start,
            _ => return Err(wrong("there is no such fault, or not at such a place")),
        };
        Ok(Self { kind: kind.into(), place, name: name.into(), times, stall, met: AtomicU64::new(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_understood_and_what_is_not() {
        for text in [
            "disk-full@step12",
            "disk-full@step3-9=metrics.jsonl",
            "write-error@start",
            "stall@read=00.png*1~2",
            "kill-in-checkpoint@half-written#3",
            "nan@step2=layer1,panic@read",
            "out-of-memory@buffer=weights",
        ] {
            text.parse::<Faults>().unwrap_or_else(|e| panic!("{e}"));
        }
        for text in [
            "",
            "x",
            "disk-full",
            "disk-full@12",
            "disk-full@stepx",
            "fire@step1",
            "stall@step1",
            "kill-in-checkpoint@noon",
            "nan@start",
            "kill@step1*x",
        ] {
            assert!(text.parse::<Faults>().is_err(), "{text}");
        }
    }

    #[test]
    fn faults_strike_where_and_as_often_as_they_should() {
        let faults: Faults = "stall@read=b.png*2,panic@read#2,disk-full@start=log".parse().unwrap();
        let strikes = |kind: &str, name: &str, place: Option<&Place>| faults.strike(kind, name, place).is_some();
        let read = |kind: &str, name: &str| strikes(kind, name, Some(&Place::Read));
        assert!(!read("stall", "a.png") && read("stall", "b.png") && read("stall", "b.png") && !read("stall", "b.png"));
        assert!(!read("panic", "a") && read("panic", "a") && !read("panic", "a"));
        assert!(strikes("disk-full", "the/log", None) && !strikes("disk-full", "other", None) && !strikes("write-error", "the/log", None));
        // Nothing is armed in this process.
        assert!(!armed() && write(Path::new("log")).is_ok() && read_is_fine());
    }

    fn read_is_fine() -> bool {
        super::read(|| "b.png".to_owned()).is_ok()
    }
}
