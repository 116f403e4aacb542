//! Runs cases of one parser for a number or a time, and says what became of them.

use super::mutate::mutated;
use cpu_time::ProcessTime;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use swav_wgpu::data::rng::Stream;

/// Cases of a parser in a normal run of the tests.
const CASES: u64 = 150;

/// The most processor time that one case may take, and a tenth of the time that it may take in all:
/// on a busy machine everything is slow. A build without optimisation is several times slower.
pub const SLOWEST: Duration = Duration::from_secs(if cfg!(debug_assertions) { 15 } else { 3 });

/// The most memory that one case may take beyond what the process has, in bytes.
pub const MOST_MEMORY: u64 = 512 << 20;

/// Memory belongs to the whole process: one parser at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Feeds `parse` with mutations of `seeds`, written to a file called `name` in a folder of its own.
/// `parse` gets the file; what it returns tells whether the input was taken or refused.
#[track_caller]
#[expect(clippy::print_stdout, reason = "a long run says what it tried; tests show it with --nocapture")]
pub fn fuzz(name: &str, seeds: &[Vec<u8>], parse: impl Fn(&Path) -> bool) {
    let _alone = alone();
    assert!(!seeds.is_empty(), "nothing to begin with");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    for (i, seed) in seeds.iter().enumerate() {
        std::fs::write(&file, seed).unwrap();
        assert!(parse(&file), "seed {i} of {name} is refused: its mutations would show little");
    }
    let seconds = std::env::var("SWAV_FUZZ_SECONDS").ok().map(|s| s.parse().expect("SWAV_FUZZ_SECONDS is a number"));
    let time = Duration::from_secs(seconds.unwrap_or(0));
    let first = first_case(seconds.is_some());
    let (began, mut taken, mut case) = (Instant::now(), 0u64, first);
    while if seconds.is_some() { began.elapsed() < time } else { case < first + CASES } {
        let input = mutated(seeds, &mut Stream::new(1, 0, case, 0));
        std::fs::write(&file, &input).unwrap();
        let (outcome, elapsed, memory) = costs(|| catch_unwind(AssertUnwindSafe(|| parse(&file))));
        let wrong = match outcome {
            Err(_) => Some("it panicked".to_owned()),
            Ok(_) if elapsed > SLOWEST => Some(format!("it took {elapsed:?}")),
            Ok(_) if memory > MOST_MEMORY => Some(format!("it took {} MiB", memory >> 20)),
            Ok(fine) => {
                taken += u64::from(fine);
                None
            }
        };
        if let Some(wrong) = wrong {
            let kept = keep(name, case, &input);
            panic!("case {case} of {name}: {wrong}; the input is {} (SWAV_FUZZ_FIRST={case} tries it again)", kept.display());
        }
        case += 1;
    }
    println!("{name}: {} cases, {taken} taken, in {:.0} s", case - first, began.elapsed().as_secs_f64());
}

/// Keeps other tests of this kind from working until it is dropped: time and memory are those of
/// the process.
pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `work` gives, the processor time that it takes, or a tenth of all its time where that is
/// more, and by how many bytes the process's memory grows at most. Whoever asks is [`alone`].
pub fn costs<T>(work: impl FnOnce() -> T) -> (T, Duration, u64) {
    let (before, start, processor) = (reset_peak(), Instant::now(), ProcessTime::now());
    let done = work();
    let time = processor.elapsed().max(start.elapsed() / 10);
    (done, time, peak().saturating_sub(before))
}

/// The case to begin with: a long run tries others each time.
fn first_case(long: bool) -> u64 {
    let asked = std::env::var("SWAV_FUZZ_FIRST").ok().map(|s| s.parse().expect("SWAV_FUZZ_FIRST is a number"));
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() << 20);
    asked.unwrap_or_else(|| if long { now() } else { 0 })
}

/// Leaves an input behind.
fn keep(name: &str, case: u64, input: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("fuzz");
    let path = folder.join(format!("{case}-{name}"));
    std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input)).unwrap();
    path
}

/// Lets the peak of the process's memory begin anew, where the system can, and gives what it has.
fn reset_peak() -> u64 {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    peak()
}

/// Largest resident memory since the peak was reset, in bytes; 0 on other systems than Linux.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap_or_default() << 10
}
