//! Files that are either old or new, never half.
//!
//! Promise: the bytes go to a temporary file in the same folder, are flushed to the disk, and take the name in one step; the folder
//! is flushed too. A crash or full disk at any point leaves the old file as it was and at most a temporary file, whose name starts
//! with [`TEMPORARY`].

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// How names of temporary files start.
pub const TEMPORARY: &str = ".tmp-";

/// The folder that `path` lies in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Replaces `path` by what `write` writes.
pub fn write_with(path: &Path, write: impl FnOnce(&mut BufWriter<&mut File>) -> std::io::Result<()>) -> Result<()> {
    let folder = folder_of(path);
    let go = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY);
        #[cfg(unix)]
        {
            // The default is for the owner alone; the umask takes away what it should.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let mut temporary = builder.tempfile_in(folder)?;
        let mut buffered = BufWriter::with_capacity(1 << 20, temporary.as_file_mut());
        write(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|e| e.error)?;
        sync_folder(folder)
    };
    go().map_err(Error::output(path))
}

/// Whether a file could be written at `path`: its folder, or the nearest that is there above it, takes a temporary one.
pub fn can_write(path: &Path) -> Result<()> {
    let folder = path.ancestors().skip(1).find(|p| p.exists() && !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Err(Error::output(path)(std::io::Error::other("is a folder")));
    }
    tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder).map(drop).map_err(Error::output(path))
}

/// Replaces `path` by `bytes`.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |out| out.write_all(bytes))
}

/// Flushes a folder's entries, where the system can do that.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Deletes temporary files that a killed process left in `folder`. Only for the one who holds the run folder.
pub fn remove_leftovers(folder: &Path) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(Error::output(folder))?;
    for entry in entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(TEMPORARY)) {
        std::fs::remove_file(entry.path()).map_err(Error::output(entry.path()))?;
    }
    Ok(())
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
            Err(std::io::Error::other("disk full"))
        });
        assert_eq!(error.unwrap_err().exit_code(), 5);
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        assert!(write(&dir.path().join("no/folder"), b"").unwrap_err().to_string().contains("no/folder"));
    }

    #[test]
    fn leftovers_go() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".tmp-x", "keep"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        remove_leftovers(dir.path()).unwrap();
        assert!(dir.path().join("keep").exists() && !dir.path().join(".tmp-x").exists());
    }
}
