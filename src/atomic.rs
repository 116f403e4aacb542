//! Files and folders that are either old or new, never half.
//!
//! Promise: the bytes go to a temporary file in the same folder, are flushed to the disk, and take the name in one step; the folder
//! is flushed too. A crash or full disk at any point leaves the old file as it was and at most a temporary file, whose name starts
//! with [`TEMPORARY`] and which is locked as long as its process lives. [`NewFolder`] does the same for a folder of files.

use crate::error::{Error, Result};
use crate::fault;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// How names of temporary files and folders start.
pub const TEMPORARY: &str = ".swav-wgpu-tmp-";

/// Beside a folder in the making: the file whose lock says that it is.
const LOCK: &str = "lock";

/// A builder of temporary files, or of folders, that others may read as far as the umask lets them: the default is for the owner alone.
fn builder(folder: bool) -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(if folder { 0o777 } else { 0o666 }));
    }
    #[cfg(not(unix))]
    let _ = folder;
    builder
}

/// The folder that `path` lies in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Replaces `path` by what `write` writes.
pub fn write_with(path: &Path, write: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>) -> Result<()> {
    let folder = folder_of(path);
    let go = || {
        let mut temporary = builder(false).tempfile_in(folder)?;
        // Where there are no locks, nobody takes it for a leftover either.
        let _ = temporary.as_file().try_lock();
        fault::writing(path, "before-write")?;
        let mut buffered = BufWriter::with_capacity(1 << 20, temporary.as_file_mut());
        write(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        fault::writing(path, "before-fsync")?;
        temporary.as_file().sync_all()?;
        fault::writing(path, "before-rename")?;
        temporary.persist(path).map_err(|e| e.error)?;
        fault::writing(path, "after-rename")?;
        sync_folder(folder)
    };
    go().map_err(Error::output(path))
}

/// Whether a file could be written at `path`: its folder, or the nearest that is there above it, takes a temporary one.
pub fn can_write(path: &Path) -> Result<()> {
    let folder = path.ancestors().skip(1).find(|p| p.exists() && !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Err(Error::output(path)(io::Error::other("is a folder")));
    }
    // It would be replaced, not written to.
    if path.metadata().is_ok_and(|about| !about.is_file()) {
        return Err(Error::output(path)(io::Error::other("is no regular file")));
    }
    builder(false).tempfile_in(folder).map(drop).map_err(Error::output(path))
}

/// Errors where there is something at `path` that is no file of its own: a link, a folder, a FIFO, a device.
pub fn expect_own_file(path: &Path) -> io::Result<()> {
    let about = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    match (about.is_symlink(), about.is_dir(), about.is_file()) {
        (true, ..) => Err(io::Error::other("is a link, and none is followed")),
        (_, true, _) => Err(io::Error::other("is a folder")),
        (.., true) => Ok(()),
        _ => Err(io::Error::other("is no regular file")),
    }
}

/// Opens `path` as `options` say, but neither follows a link nor waits for what is no file.
pub fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    expect_own_file(path)?;
    // Another process may have put something else there since.
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    #[cfg(windows)]
    {
        use std::os::windows::fs::OpenOptionsExt;
        /// Opens a link itself.
        const FILE_FLAG_OPEN_REPARSE_POINT: u32 = 0x0020_0000;
        options.custom_flags(FILE_FLAG_OPEN_REPARSE_POINT);
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("is no regular file")) }
}

/// Whether `path` still is the name of `file`. Where the system does not tell files apart, whether there is a file.
pub fn is_at(file: &File, path: &Path) -> bool {
    let Ok(there) = path.symlink_metadata() else { return false };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        file.metadata().is_ok_and(|here| (here.dev(), here.ino()) == (there.dev(), there.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        there.is_file()
    }
}

/// Makes the file `path` with these bytes, locked, or `None` if something of that name is there. It is never there without them.
pub fn create_locked(path: &Path, bytes: &[u8]) -> io::Result<Option<File>> {
    let mut temporary = builder(false).tempfile_in(folder_of(path))?;
    temporary.as_file().try_lock()?;
    fault::write(path)?;
    temporary.as_file_mut().write_all(bytes)?;
    match temporary.persist_noclobber(path) {
        Ok(file) => Ok(Some(file)),
        Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        // File systems without hard links.
        Err(_) => {
            let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
            file.try_lock()?;
            file.write_all(bytes)?;
            Ok(Some(file))
        }
    }
}

/// Replaces `path` by `bytes`.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |out| out.write_all(bytes))
}

/// Flushes a folder's entries, where the system can do that.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Deletes temporary files and folders that killed processes left in `folder`. What a living process holds stays, and so does what cannot be
/// removed: it is in nobody's way.
pub fn remove_leftovers(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.filter(|e| e.file_name().to_string_lossy().starts_with(TEMPORARY)).map(|e| e.path()) {
        let removed = if path.is_dir() {
            let free = !path.join(LOCK).exists() || is_free(&path.join(LOCK));
            if free { std::fs::remove_dir_all(&path) } else { Ok(()) }
        } else if is_free(&path) {
            std::fs::remove_file(&path)
        } else {
            Ok(())
        };
        if let Err(error) = removed {
            tracing::info!("{} is left over and cannot be removed: {error}", path.display());
        }
    }
}

/// Whether no living process has locked the file.
fn is_free(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// A folder in the making: it takes its name when it is complete, and goes when it is dropped before.
#[derive(Debug)]
pub struct NewFolder {
    _lock: File,
    /// Holds the lock and, as `content`, what will take the name.
    temporary: tempfile::TempDir,
    place: PathBuf,
}

impl NewFolder {
    /// Begins a folder that will be `place`, where there may be an empty one.
    pub fn begin(place: &Path) -> Result<Self> {
        let go = || {
            if place.symlink_metadata().is_ok() && !place.is_dir() {
                return Err(io::Error::other("is no folder"));
            }
            // A folder that is linked to is replaced itself.
            let place = if place.is_dir() { place.canonicalize()? } else { place.to_owned() };
            let parent = folder_of(&place);
            std::fs::create_dir_all(parent)?;
            let temporary = builder(true).tempdir_in(parent)?;
            let lock = File::create(temporary.path().join(LOCK))?;
            let _ = lock.try_lock();
            std::fs::create_dir(temporary.path().join("content"))?;
            Ok(Self { _lock: lock, temporary, place })
        };
        go().map_err(Error::output(place))
    }

    /// Where to write what belongs into it.
    pub fn path(&self) -> PathBuf {
        self.temporary.path().join("content")
    }

    /// What goes when it is dropped, and must be removed where a process ends without that.
    pub fn temporary(&self) -> &Path {
        self.temporary.path()
    }

    /// Flushes the files in it, and gives it its name.
    pub fn finish(self) -> Result<()> {
        let go = || {
            for entry in std::fs::read_dir(self.path())? {
                OpenOptions::new().write(true).open(entry?.path())?.sync_all()?;
            }
            sync_folder(&self.path())?;
            if self.place.is_dir() {
                std::fs::remove_dir(&self.place)?;
            }
            std::fs::rename(self.path(), &self.place)?;
            sync_folder(folder_of(&self.place))
        };
        go().map_err(Error::output(&self.place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        let error = write_with(&path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("disk full"))
        });
        assert_eq!(error.unwrap_err().exit_code(), 5);
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        assert!(write(&dir.path().join("no/folder"), b"").unwrap_err().to_string().contains("no/folder"));
    }

    #[test]
    fn leftovers_go_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let ours = |name: &str| path(&format!("{TEMPORARY}{name}"));
        for file in [path(".tmp-notes"), ours("left")] {
            std::fs::write(file, "").unwrap();
        }
        std::fs::create_dir_all(ours("folder").join("content")).unwrap();
        std::fs::write(ours("folder").join("content/x"), "").unwrap();
        std::fs::write(ours("folder").join("lock"), "").unwrap();
        let making = NewFolder::begin(&path("gallery")).unwrap();
        std::fs::write(making.path().join("x"), "1").unwrap();
        // A file in the making is not taken for a leftover.
        write_with(&path("file"), |out| {
            remove_leftovers(dir.path());
            out.write_all(b"1")
        })
        .unwrap();
        assert!(!ours("left").exists() && !ours("folder").exists() && path(".tmp-notes").exists());
        making.finish().unwrap();
        assert_eq!(std::fs::read(path("gallery/x")).unwrap(), b"1");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 3, "the notes, the file and the gallery");
        remove_leftovers(&path("nowhere"));
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a/gallery");
        let left = NewFolder::begin(&place).unwrap();
        std::fs::write(left.path().join("x"), "1").unwrap();
        drop(left);
        assert!(!place.exists() && std::fs::read_dir(dir.path().join("a")).unwrap().next().is_none());
        std::fs::create_dir(&place).unwrap();
        let done = NewFolder::begin(&place).unwrap();
        std::fs::write(done.path().join("x"), "1").unwrap();
        done.finish().unwrap();
        assert_eq!(std::fs::read_to_string(place.join("x")).unwrap(), "1");
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 1);
        assert_eq!(NewFolder::begin(&place.join("x")).unwrap_err().exit_code(), 5, "a file is there");
        assert_eq!(NewFolder::begin(&place.join("x/below")).unwrap_err().exit_code(), 5);
    }
}
