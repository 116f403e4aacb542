//! Stopping a run from outside.
//!
//! Promise: the first SIGINT, SIGTERM, SIGHUP or, as clusters send it, SIGUSR1 (Ctrl-C and closing the console on Windows) sets a flag: a run ends its step,
//! writes a checkpoint and exits 75, an evaluation tells and keeps its best epoch and does the same,
//! what has nothing to keep, as a run before its first step, ends with 130; a further one ends the process at once with 130. SIGUSR1 does
//! not count towards that, and those that come together are one: a closed terminal and `timeout` send each of theirs twice.

use crate::error::{Error, Result};
use crate::train::event::{Event, Observer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// Exit code when a second signal ends the process at once.
pub const EXIT_AT_ONCE: i32 = 130;

/// Signals within this time of the first are the same request.
const TOGETHER: Duration = Duration::from_millis(250);

/// A stop is honoured in so much time while there is nothing to keep, and looked for so often.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Ends the process now. Not by `exit`: drivers wait there for what they compile.
fn end(code: i32) -> ! {
    #[cfg(unix)]
    signal_hook::low_level::exit(code);
    #[cfg(not(unix))]
    std::process::exit(code);
}

/// See [`Signals::watch`].
#[must_use = "it watches until it is dropped"]
#[derive(Debug)]
pub struct Watch {
    over: Arc<Mutex<bool>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.over.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
    }
}

/// Lets go of a watch once a run has something to keep.
pub struct UntilKept {
    watch: Option<Watch>,
    /// A training keeps steps, an evaluation epochs.
    steps: bool,
}

impl UntilKept {
    /// For a training.
    pub fn a_step(watch: Watch) -> Self {
        Self { watch: Some(watch), steps: true }
    }

    /// For an evaluation.
    pub fn an_epoch(watch: Watch) -> Self {
        Self { watch: Some(watch), steps: false }
    }
}

impl Observer for UntilKept {
    fn event(&mut self, event: &Event) -> Result<()> {
        let kept = match event {
            Event::Step(_) => self.steps,
            Event::Evaluated(_) | Event::Stopped { .. } | Event::Failed { .. } | Event::Finished(_) => true,
            _ => false,
        };
        if kept {
            self.watch = None;
        }
        Ok(())
    }
}

/// The flag that signals set.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    requested: Arc<AtomicBool>,
    first: Arc<OnceLock<Instant>>,
}

impl Signals {
    /// Takes over the signals; once per process.
    pub fn install() -> Result<Self> {
        let this = Self::default();
        let flag = this.clone();
        let handler = move || {
            if flag.raise(Instant::now()) {
                end(EXIT_AT_ONCE);
            }
        };
        let failed = |e: &dyn std::error::Error| Error::Failed(format!("signals cannot be handled: {e}"));
        ctrlc::set_handler(handler).map_err(|e| failed(&e))?;
        #[cfg(unix)]
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, this.flag()).map_err(|e| failed(&e))?;
        Ok(this)
    }

    /// Whether the run should stop after this step.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// An error once a stop was asked for, for work that has nothing to keep before it is complete.
    pub fn check(&self) -> Result<()> {
        if self.requested() { Err(Error::StoppedEmpty) } else { Ok(()) }
    }

    /// The flag itself, for training code that knows nothing of signals.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.requested.clone()
    }

    /// Until the answer is dropped there is nothing to keep: a stop that is not honoured within
    /// `PATIENCE` ends the process, with the exit code and words of `outcome`, after `clean`. A
    /// driver that compiles, or a disk that hangs, asks nobody.
    pub fn watch(&self, outcome: Error, clean: impl FnOnce() + Send + 'static) -> Watch {
        let (over, signals) = (Arc::new(Mutex::new(false)), self.clone());
        let watched = Arc::clone(&over);
        let watch = move || {
            let mut asked = None;
            loop {
                std::thread::sleep(LOOK_EVERY);
                // Held to the end of the process: what is over stays as it is.
                let over = watched.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if *over {
                    return;
                }
                if signals.requested() && asked.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                    clean();
                    end(super::errors::report(&outcome).into());
                }
            }
        };
        // Without the thread a stop waits, as a driver makes it.
        let _ = std::thread::Builder::new().name("stop".into()).spawn(watch);
        Watch { over }
    }

    /// Sets the flag; true if it was set before, and not just now.
    fn raise(&self, now: Instant) -> bool {
        self.requested.store(true, Ordering::Relaxed);
        now.duration_since(*self.first.get_or_init(|| now)) > TOGETHER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_asks_second_ends() {
        let signals = Signals::default();
        assert!(!signals.requested() && signals.check().is_ok());
        let now = Instant::now();
        assert!(!signals.raise(now) && !signals.raise(now + TOGETHER));
        assert_eq!(signals.check().unwrap_err().exit_code(), 130);
        assert!(signals.requested() && signals.flag().load(Ordering::Relaxed));
        assert!(signals.raise(now + 2 * TOGETHER));
    }

    /// Runs only as the child of the next test: says when it is ready and when it was asked to stop, then waits.
    #[test]
    fn child() {
        if std::env::var_os("SIGNALS_TEST_CHILD").is_some() {
            use std::io::Write;
            let signals = Signals::install().unwrap();
            let mut out = std::io::stdout();
            out.write_all(b"\nready\n").unwrap();
            let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
            let mut asked = false;
            while std::time::Instant::now() < end {
                if !asked && signals.requested() {
                    asked = true;
                    out.write_all(b"\nasked\n").unwrap();
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }

    #[test]
    fn what_there_is_to_keep_ends_the_watch() {
        let watched = |watch: &UntilKept| watch.watch.is_some();
        let (mut training, mut evaluation) = {
            let signals = Signals::default();
            let watch = || signals.watch(Error::StoppedEmpty, || ());
            (UntilKept::a_step(watch()), UntilKept::an_epoch(watch()))
        };
        let step = Event::Step(crate::train::event::Step::default());
        for (watch, kept) in [(&mut training, true), (&mut evaluation, false)] {
            watch.event(&Event::QueueUsed { step: 0 }).unwrap();
            assert!(watched(watch));
            watch.event(&step).unwrap();
            assert_eq!(watched(watch), !kept);
        }
        evaluation.event(&Event::Evaluated(crate::train::event::Evaluated::default())).unwrap();
        assert!(!watched(&evaluation));
    }

    #[cfg(unix)]
    #[test]
    fn a_real_process_stops_as_promised() {
        use std::io::{BufRead, BufReader};
        use std::process::{Command, Stdio};
        for first in ["-INT", "-TERM", "-HUP", "-USR1"] {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "cli::signals::tests::child", "--nocapture"])
                .env("SIGNALS_TEST_CHILD", "1")
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(|l| l.ok());
            let pid = child.id().to_string();
            // The shell's own: there may be no program of that name.
            let send = |signals: [&str; 2]| {
                let both = signals.map(|signal| format!("kill {signal} {pid}")).join("; ");
                assert!(Command::new("sh").args(["-c", &both]).status().unwrap().success());
            };
            assert!(lines.any(|l| l == "ready"));
            // As a closed terminal does.
            send([first, first]);
            assert!(lines.any(|l| l == "asked"));
            std::thread::sleep(2 * TOGETHER);
            assert!(child.try_wait().unwrap().is_none(), "the first signal must not end the process, nor one that comes with it");
            // After SIGUSR1 this is the first that counts.
            if first == "-USR1" {
                send(["-INT", "-INT"]);
                std::thread::sleep(2 * TOGETHER);
                assert!(child.try_wait().unwrap().is_none());
            }
            send(["-INT", "-INT"]);
            assert_eq!(child.wait().unwrap().code(), Some(EXIT_AT_ONCE));
        }
    }
}
