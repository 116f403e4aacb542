//! Compressed shards: images are read at random, which a compressed file does not allow, so they are unpacked once.
//!
//! Into the cache folder, under a name made of the shard's path, size and time of change, so that later runs find it there; or, where
//! nothing is kept, into a temporary file that lives as long as the set. What a file is compressed with its first bytes say.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use tempfile::TempPath;

use super::Stamp;
use crate::atomic;
use crate::error::{Error, Result};

/// A shard may be so many times as large as its compressed file, and [`FREE_BYTES`] more: images hardly shrink, what goes beyond is no shard.
const MOST_TIMES: u64 = 32;

/// See [`MOST_TIMES`].
const FREE_BYTES: u64 = 64 << 20;

/// A plain tar file with a shard's members.
#[derive(Clone, Debug)]
pub(super) struct Unpacked {
    pub path: PathBuf,
    /// Deletes a temporary file with the last of its users.
    _temporary: Option<Arc<TempPath>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// What a shard is compressed with. Leaves the file at its beginning.
pub(super) fn compression(file: &mut File, path: &Path) -> Result<Compression> {
    let failed = |e: std::io::Error| Error::data(path, format!("cannot be read: {e}"));
    let mut first = Vec::new();
    Read::by_ref(file).take(262).read_to_end(&mut first).map_err(failed)?;
    file.rewind().map_err(failed)?;
    // A member's name may begin with anything.
    if first.ends_with(b"ustar") {
        return Ok(Compression::None);
    }
    first.truncate(4);
    let (packed, tool) = match first[..] {
        [0x1f, 0x8b, ..] => return Ok(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => return Ok(Compression::Zstd),
        [b'B', b'Z', b'h', b'1'..=b'9'] => ("bzip2", "bzip2"),
        [0xfd, b'7', b'z', b'X'] => ("xz", "xz"),
        _ => return Ok(Compression::None),
    };
    Err(Error::data(
        path,
        format!("is compressed with {packed}, which is not read: unpack it with `{tool} -d`; plain tar files, gzip and zstd are read"),
    ))
}

/// Where the shard lies unpacked in `cache`, or will.
pub(super) fn place(path: &Path, stamp: &Stamp, cache: &Path) -> PathBuf {
    cache.join("shards").join(format!("{}-{}.tar", super::index::hash(path), stamp.hash()))
}

/// Unpacks a shard.
pub(super) fn unpack(path: &Path, file: File, how: Compression, stamp: &Stamp, cache: Option<&Path>) -> Result<Unpacked> {
    let most = stamp.size.saturating_mul(MOST_TIMES).saturating_add(FREE_BYTES);
    if let Some(cache) = cache {
        let place = place(path, stamp, cache);
        let folder = atomic::folder_of(&place);
        if fs::create_dir_all(folder).is_ok() {
            let mut read = Ok(());
            let written = atomic::write_with(&place, |out| copy(path, &file, how, most, out, &mut read));
            read.and(written)?;
            remove_older(folder, path, &place);
            return Ok(Unpacked { path: place, _temporary: None });
        }
        tracing::warn!("{} cannot be written: compressed shards are unpacked anew in every run", folder.display());
    }
    let failed = Error::output(std::env::temp_dir());
    let mut temporary = match tempfile::Builder::new().prefix(atomic::TEMPORARY).suffix(".tar").tempfile() {
        Ok(temporary) => temporary,
        Err(e) => return Err(failed(e)),
    };
    let mut read = Ok(());
    let written = copy(path, &file, how, most, temporary.as_file_mut(), &mut read);
    read?;
    written.map_err(failed)?;
    let kept = temporary.into_temp_path();
    Ok(Unpacked { path: kept.to_path_buf(), _temporary: Some(Arc::new(kept)) })
}

/// A shard that was unpacked before.
pub(super) fn found(place: PathBuf) -> Unpacked {
    Unpacked { path: place, _temporary: None }
}

/// Copies what a file holds; an error of the shard goes to `read`, one of `out` is returned.
fn copy(path: &Path, file: &File, how: Compression, most: u64, out: &mut impl Write, read: &mut Result<()>) -> std::io::Result<()> {
    let mut source = BufReader::with_capacity(1 << 17, file);
    let damaged = |e: String| Err(Error::data(path, format!("cannot be unpacked: {e}")));
    let mut sink = Sink { out, left: most, failed: None };
    let outcome = match how {
        Compression::Zstd => zstd(&mut source, &mut sink),
        _ => std::io::copy(&mut flate2::bufread::MultiGzDecoder::new(source), &mut sink).map(drop),
    };
    match (sink.failed, outcome) {
        (Some(error), _) => return Err(error),
        (None, Err(e)) => *read = damaged(e.to_string()),
        (None, Ok(())) => {}
    }
    // Nothing takes the name when the shard is damaged.
    if read.is_err() { Err(std::io::Error::other("the shard is damaged")) } else { Ok(()) }
}

/// Every frame of a zstd file.
fn zstd(source: &mut impl BufRead, sink: &mut impl Write) -> std::io::Result<()> {
    while !source.fill_buf()?.is_empty() {
        match StreamingDecoder::new(&mut *source) {
            Ok(mut frame) => {
                std::io::copy(&mut frame, sink)?;
                let decoder = &frame.decoder;
                if let (Some(written), Some(computed)) = (decoder.get_checksum_from_data(), decoder.get_calculated_checksum())
                    && written != computed
                {
                    return Err(std::io::Error::other("its checksum is wrong"));
                }
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let skipped = std::io::copy(&mut source.by_ref().take(length.into()), &mut std::io::sink())?;
                if skipped < u64::from(length) {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(e) => return Err(std::io::Error::other(e)),
        }
    }
    Ok(())
}

/// Where unpacked bytes go, so many at most.
struct Sink<'a, W> {
    out: &'a mut W,
    left: u64,
    /// What the other side said, to be told from an error of the shard.
    failed: Option<std::io::Error>,
}

impl<W: Write> Write for Sink<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            return Err(std::io::Error::other(format!("it is more than {MOST_TIMES} times as large as its file, which no shard of images is")));
        };
        self.left = left;
        self.out.write_all(bytes).map_err(|e| {
            let told = e.to_string();
            self.failed = Some(e);
            std::io::Error::other(told)
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Removes what the shard held before it changed.
fn remove_older(folder: &Path, path: &Path, now: &Path) {
    let prefix = format!("{}-", super::index::hash(path));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) && entry.path() != now {
            // It is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
    atomic::remove_leftovers(folder);
}
