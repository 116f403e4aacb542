//! Compiled pipelines on disk, where the backend can give them out: Vulkan.
//!
//! Promises: a file is used only if its checksum says that it holds, whole, what an earlier run was given; wgpu and the driver then
//! check that it was made for this adapter and driver. Anything else is as if there were no file.

use super::Gpu;
use crate::atomic;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of the checksum at the start of a file.
const SUM: usize = blake3::OUT_LEN;

/// While many programs are built, as checks and tuning do, the file is written no more often.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// The pipelines an adapter compiled, in memory and in a file.
pub(super) struct PipelineFile {
    pub(super) cache: wgpu::PipelineCache,
    path: PathBuf,
    written: Mutex<Written>,
}

/// When the file was last written, and whether something was built after that.
#[derive(Default)]
struct Written {
    at: Option<Instant>,
    behind: bool,
}

impl PipelineFile {
    /// Opens the file of this adapter in `folder`; `None` where the backend has no such thing.
    #[expect(unsafe_code, reason = "wgpu leaves it to the caller that the data are its own")]
    pub(super) fn open(gpu: &Gpu, info: &wgpu::AdapterInfo, folder: &Path) -> Option<Self> {
        let key = wgpu::util::pipeline_cache_key(info).filter(|_| gpu.device.features().contains(wgpu::Features::PIPELINE_CACHE))?;
        let path = folder.join(format!("{key}.bin"));
        let data = std::fs::read(&path).ok().and_then(|file| checked(&path, file));
        let descriptor = wgpu::PipelineCacheDescriptor { label: Some("pipelines"), data: data.as_deref(), fallback: true };
        // SAFETY: the data are what `get_data` gave to an earlier run: `checked` has compared them with the checksum that `save` wrote.
        let opened = gpu.scoped("pipeline cache", || unsafe { gpu.device.create_pipeline_cache(&descriptor) });
        match opened {
            Ok(cache) => Some(Self { cache, path, written: Mutex::default() }),
            Err(error) => {
                tracing::warn!("{}: not used: {error}", path.display());
                None
            }
        }
    }

    /// Told that pipelines were built: writes them, now or with later ones. Without the file the next start is slower, no more.
    pub(super) fn built(&self) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.behind = written.at.is_some_and(|at| at.elapsed() < SAVE_EVERY);
        if !written.behind {
            self.save();
            written.at = Some(Instant::now());
        }
    }

    fn save(&self) {
        self.replace().unwrap_or_else(|error| tracing::warn!("compiled pipelines are not kept: {error}"));
    }

    /// Replaces the file, when the driver has something new.
    fn replace(&self) -> Result<()> {
        let Some(data) = self.cache.get_data() else { return Ok(()) };
        let file = [blake3::hash(&data).as_bytes(), data.as_slice()].concat();
        if std::fs::read(&self.path).is_ok_and(|old| old == file) {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(Error::output(folder))?;
        atomic::write(&self.path, &file)
    }
}

impl Drop for PipelineFile {
    fn drop(&mut self) {
        if self.written.get_mut().unwrap_or_else(PoisonError::into_inner).behind {
            self.save();
        }
    }
}

/// What follows a right checksum.
fn checked(path: &Path, mut file: Vec<u8>) -> Option<Vec<u8>> {
    let right = file.len() >= SUM && blake3::hash(&file[SUM..]).as_bytes() == &file[..SUM];
    if !right {
        tracing::warn!("{}: damaged, not used", path.display());
        return None;
    }
    Some(file.split_off(SUM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_or_a_cut_end_is_seen() {
        let data = b"pipelines".to_vec();
        let file = [blake3::hash(&data).as_bytes(), data.as_slice()].concat();
        let path = Path::new("x.bin");
        assert_eq!(checked(path, file.clone()), Some(data));
        for at in 0..file.len() {
            let mut flipped = file.clone();
            flipped[at] ^= 1;
            assert_eq!(checked(path, flipped), None, "byte {at}");
            assert_eq!(checked(path, file[..at].to_vec()), None, "cut at {at}");
        }
    }
}
