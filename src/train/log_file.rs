//! A log that grows by whole records, and waits where the disk is full.
//!
//! Promises: a record is written in one call, whole or not at all; a full disk is no error, but told once, with what becomes of the records: they wait in
//! memory, up to 4 MiB, and are written as soon as there is room, which is told too, with what did not fit; no link is followed, and no FIFO waited for.

use super::event::Warning;
use crate::atomic;
use crate::error::{Error, Result};
use crate::fault;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Bytes of records that wait at most.
const MOST_WAITING: usize = 4 << 20;

/// An open log.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    waiting: Vec<u8>,
    /// Records in `waiting`.
    records: u64,
    /// Records that did not fit there.
    lost: u64,
    full: bool,
    notices: Vec<Warning>,
}

impl LogFile {
    /// Opens a log to go on with it, or begins it.
    pub fn append_to(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open(path.into(), OpenOptions::new().append(true).create(true))
    }

    /// Begins a log of which there must be nothing yet.
    pub fn create_new(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open(path.into(), OpenOptions::new().append(true).create_new(true))
    }

    fn open(path: PathBuf, options: &mut OpenOptions) -> Result<Self> {
        let file = atomic::open_own(&path, options).map_err(Error::output(&path))?;
        Ok(Self { path, file, waiting: Vec::new(), records: 0, lost: 0, full: false, notices: Vec::new() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a record.
    pub fn append(&mut self, record: &[u8]) -> Result<()> {
        if !atomic::is_at(&self.file, &self.path) {
            self.open_again()?;
        }
        let fits = self.waiting.len() + record.len() <= MOST_WAITING;
        if fits {
            self.waiting.extend_from_slice(record);
            self.records += 1;
        } else {
            self.lost += 1;
        }
        match self.write() {
            Ok(()) if self.full => {
                let missing = match std::mem::take(&mut self.lost) {
                    0 => "nothing is missing".to_owned(),
                    lost => format!("{lost} records before this are missing"),
                };
                self.full = false;
                self.notices.push(Warning::new(self.path.display(), format!("there is room on the disk again, and the log goes on: {missing}")));
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(error) if error.is_full() => {
                if !std::mem::replace(&mut self.full, true) {
                    let message = "the disk is full; the run goes on, and this log when there is room again";
                    self.notices.push(Warning::new(self.path.display(), message));
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Goes on in a new file where somebody took the log away.
    fn open_again(&mut self) -> Result<()> {
        let folder = atomic::folder_of(&self.path);
        if !folder.is_dir() {
            return Err(Error::output(folder)(io::Error::other("it was removed or renamed while the run went on")));
        }
        self.file = Self::append_to(&self.path)?.file;
        self.notices.push(Warning::new(self.path.display(), "was removed or renamed while the run went on, and begins anew"));
        Ok(())
    }

    /// Writes what waits, all of it or nothing.
    fn write(&mut self) -> Result<()> {
        let (file, bytes, failed) = (&mut self.file, &self.waiting, || Error::output(&self.path));
        let before = file.metadata().map_err(failed())?.len();
        let written = match fault::write(&self.path) {
            // As disks do: they fill up in the middle of something.
            Err(error) => file.write_all(&bytes[..bytes.len() / 2]).and(Err(error)),
            Ok(()) => file.write_all(bytes),
        };
        if let Err(error) = written {
            // No torn record stays. Where it cannot be cut off, neither can anything be added.
            file.set_len(before).map_err(failed())?;
            return Err(failed()(error));
        }
        self.waiting.clear();
        self.records = 0;
        Ok(())
    }

    /// What there is to say of the log since the last call. At the `end` of a run also what could not be written at all.
    pub fn notices(&mut self, end: bool) -> Vec<Warning> {
        let unwritten = self.records + self.lost;
        if end && unwritten > 0 {
            // Whoever frees room by now has the rest.
            if self.write().is_err() || self.lost > 0 {
                let message = format!("what was last to be added to this log cannot be written, and is lost: {unwritten} records");
                self.notices.push(Warning::new(self.path.display(), message));
            }
            (self.records, self.lost, self.full) = (0, 0, false);
            self.waiting.clear();
        }
        std::mem::take(&mut self.notices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_by_whole_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogFile::create_new(&path).unwrap();
        log.append(b"one\n").unwrap();
        drop(log);
        assert_eq!(LogFile::create_new(&path).unwrap_err().exit_code(), 5);
        let mut log = LogFile::append_to(&path).unwrap();
        log.append(b"two\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\n");
        assert!(log.notices(true).is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn neither_links_nor_devices_are_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (own, link) = (dir.path().join("own"), dir.path().join("link"));
        std::fs::write(&own, "mine").unwrap();
        std::os::unix::fs::symlink(&own, &link).unwrap();
        let error = LogFile::append_to(&link).unwrap_err();
        assert!(error.exit_code() == 5 && std::error::Error::source(&error).unwrap().to_string().contains("is a link"), "{error:?}");
        assert!(LogFile::append_to("/dev/full").is_err() && LogFile::append_to(dir.path()).is_err());
        assert_eq!(std::fs::read(&own).unwrap(), b"mine");
    }
}
