use super::*;
use crate::data::OnBad;
use crate::data::Split;

/// A set of two files that are never read.
fn set() -> (tempfile::TempDir, Arc<Dataset>) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.png", "b.png"] {
        std::fs::write(dir.path().join(name), b"").unwrap();
    }
    let set = Dataset::open(dir.path(), Split::All).unwrap();
    (dir, Arc::new(set))
}

#[test]
fn a_panic_in_a_worker_is_an_error_that_names_the_image() {
    let (_dir, set) = set();
    let schedule = Schedule { images: 2, batch: 1, drop_last: true, shuffle: None };
    let work = |_: u64, index: u32, crops: &mut [&mut [u8]], _: &mut Worker| {
        assert!(index != 1, "on purpose");
        crops[0].fill(7);
        Ok(())
    };
    let mut loader = Loader::start(set, schedule, vec![(1, 2)], 2, 0..9, work).unwrap();
    assert_eq!(loader.next().unwrap().unwrap().groups, [[7; 16]]);
    let error = loader.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("b.png") && error.contains("panicked"), "{error}");
    assert!(loader.next().is_none());
}

#[test]
fn of_several_bad_images_the_first_is_reported() {
    let (_dir, set) = set();
    let paths = Arc::clone(&set);
    let schedule = Schedule { images: 2, batch: 2, drop_last: true, shuffle: None };
    let work = move |_: u64, index: u32, _: &mut [&mut [u8]], _: &mut Worker| {
        // The second image fails long before the first one does.
        std::thread::sleep(std::time::Duration::from_millis(if index == 0 { 100 } else { 20 }));
        Err(Error::data(paths.path(index as usize), "bad"))
    };
    let mut loader = Loader::start(set, schedule, vec![(1, 2)], 2, 0..1, work).unwrap();
    let error = loader.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("a.png"), "{error}");
}

#[test]
fn no_more_than_the_promised_batches_are_made_ahead() {
    let (_dir, set) = set();
    let made = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let schedule = Schedule { images: 2, batch: 2, drop_last: true, shuffle: Some(0) };
    let work = move |_: u64, _: u32, _: &mut [&mut [u8]], _: &mut Worker| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let mut loader = Loader::start(set, schedule, vec![(1, 2)], 2, 0..1000, work).unwrap();
    loader.next().unwrap().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(made.load(Ordering::Relaxed), 2 * (1 + AHEAD + 1));
}

#[test]
fn a_panic_is_replaced_where_bad_images_are() {
    let (_dir, set) = set();
    let set = Arc::new(Arc::into_inner(set).unwrap().on_bad(OnBad::Replace { seed: 1 }, Some(0.5)));
    let schedule = Schedule { images: 2, batch: 2, drop_last: true, shuffle: None };
    let work = |_: u64, index: u32, crops: &mut [&mut [u8]], _: &mut Worker| {
        assert!(index != 1, "on purpose");
        crops[0].fill(7);
        Ok(())
    };
    let mut loader = Loader::start(set, schedule, vec![(1, 1)], 2, 0..9, work).unwrap();
    let first = loader.next().unwrap().unwrap();
    assert_eq!((first.groups, first.indices, first.replaced), (vec![vec![7; 2 * crate::data::crop_bytes(1)]], vec![0, 0], 1));
    assert!(first.bad.len() == 1 && first.bad[0].path.ends_with("b.png") && first.bad[0].reason.contains("panicked"), "{:?}", first.bad);
    let second = loader.next().unwrap().unwrap();
    assert_eq!((second.bad.len(), second.replaced), (0, 1), "known by now");
}

/// Reads that hang for ever: the loader's owner is told, may leave, and does not wait for them.
#[test]
fn a_read_that_does_not_end_is_told_and_left_behind() {
    let (_dir, set) = set();
    let (release, hang) = channel::<()>();
    let hang = std::sync::Mutex::new(hang);
    let schedule = Schedule { images: 2, batch: 2, drop_last: true, shuffle: None };
    let work = move |_: u64, index: u32, _: &mut [&mut [u8]], worker: &mut Worker| {
        let read = || {
            if index == 1 {
                let _ = hang.lock().unwrap().recv();
            }
            Ok(vec![])
        };
        worker.reading.read(index, true, read).map(|_| ()).map_err(|e| Error::Failed(e.to_string()))
    };
    let mut loader = Loader::start(Arc::clone(&set), schedule, vec![(1, 1)], 2, 0..9, work).unwrap();
    loader.patience = Duration::from_millis(100);
    let (stop, mut told) = (AtomicBool::new(false), Vec::new());
    let outcome = loader.next_or_stop(&stop, &mut |notice| {
        told.push(notice.clone());
        stop.store(true, Ordering::Relaxed);
        Ok(())
    });
    assert!(matches!(outcome, Some(Err(Error::StoppedEmpty))));
    assert!(told.len() == 1 && matches!(&told[0], Notice::Stalled { path, time } if path.ends_with("b.png") && *time >= loader.patience), "{told:?}");
    assert!(told[0].to_string().contains("b.png: has been read for 0 s without an end"), "{}", told[0]);
    let began = Instant::now();
    drop(loader);
    assert!(began.elapsed() < 3 * PATIENCE, "{:?}", began.elapsed());
    drop(release);
}
