//! Reading an image's bytes: tried again where the disk failed, and watched by whoever waits for them.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Times to wait before a read that failed is tried again.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

/// How long it may take to notice that nobody waits any more.
const SLICE: Duration = Duration::from_millis(20);

/// What one thread reads at present.
#[derive(Debug, Default)]
pub(super) struct Reading {
    now: Mutex<Option<(u32, Instant)>>,
    /// Set when nobody wants it any more.
    stop: Arc<AtomicBool>,
}

impl Reading {
    /// Of a thread that is told by `stop` when to give up.
    pub fn new(stop: &Arc<AtomicBool>) -> Self {
        Self { now: Mutex::default(), stop: Arc::clone(stop) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(u32, Instant)>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image that is being read, and since when.
    pub fn since(&self) -> Option<(u32, Duration)> {
        self.lock().map(|(image, began)| (image, began.elapsed()))
    }

    /// Reads image `image`; a failure that may pass is tried again after a pause, unless `once`.
    pub fn read(&self, image: u32, once: bool, read: impl Fn() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
        let attempt = || {
            *self.lock() = Some((image, Instant::now()));
            let outcome = read();
            *self.lock() = None;
            outcome
        };
        self.persist(if once { &[] } else { &PAUSES }, attempt)
    }

    fn persist(&self, pauses: &[Duration], mut attempt: impl FnMut() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
        for pause in pauses {
            match attempt() {
                Err(error) if may_pass(&error) => self.rest(*pause),
                outcome => return outcome,
            }
        }
        let outcome = attempt();
        outcome.map_err(|e| if may_pass(&e) && !pauses.is_empty() { tried(&e, pauses.len() + 1) } else { e })
    }

    fn rest(&self, pause: Duration) {
        let end = Instant::now() + pause;
        while Instant::now() < end && !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(SLICE.min(end.saturating_duration_since(Instant::now())));
        }
    }
}

/// The same error, which says how often it came.
fn tried(error: &io::Error, times: usize) -> io::Error {
    io::Error::new(error.kind(), format!("{error} (tried {times} times)"))
}

/// Whether an error may be gone in a second: a disk's or a network's, not that of a file which is not there, not allowed or too short.
fn may_pass(error: &io::Error) -> bool {
    use ErrorKind as K;
    !matches!(
        error.kind(),
        K::NotFound | K::PermissionDenied | K::IsADirectory | K::NotADirectory | K::UnexpectedEof | K::InvalidInput | K::InvalidData | K::Unsupported
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails `failures` times with `kind`; returns what came of it, and how often it was tried.
    fn run(kind: ErrorKind, failures: usize) -> (io::Result<Vec<u8>>, usize) {
        let mut tries = 0;
        let outcome = Reading::default().persist(&[Duration::from_millis(1); 2], || {
            tries += 1;
            if tries > failures { Ok(vec![7]) } else { Err(kind.into()) }
        });
        (outcome, tries)
    }

    #[test]
    fn what_may_pass_is_tried_three_times_and_nothing_else() {
        let (outcome, tries) = run(ErrorKind::TimedOut, 2);
        assert_eq!((outcome.unwrap(), tries), (vec![7], 3));
        let (outcome, tries) = run(ErrorKind::TimedOut, 9);
        assert!(tries == 3 && outcome.unwrap_err().to_string().contains("tried 3 times"));
        for kind in [ErrorKind::NotFound, ErrorKind::PermissionDenied, ErrorKind::UnexpectedEof] {
            let (outcome, tries) = run(kind, 9);
            assert_eq!((outcome.unwrap_err().kind(), tries), (kind, 1));
        }
        // An error of the disk itself has no kind of its own.
        assert!(may_pass(&io::Error::from_raw_os_error(5)));
    }

    #[test]
    fn nobody_who_waits_means_no_pause() {
        let stop = Arc::new(AtomicBool::new(true));
        let began = Instant::now();
        let outcome = Reading::new(&stop).persist(&[Duration::from_secs(60)], || Err(ErrorKind::TimedOut.into()));
        assert!(outcome.is_err() && began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_read_is_seen_while_it_lasts() {
        let reading = Reading::default();
        assert!(reading.since().is_none());
        let seen = reading.read(5, false, || Ok(vec![reading.since().map_or(0, |(image, _)| image as u8)])).unwrap();
        assert!(seen == [5] && reading.since().is_none());
    }
}
