//! Where things are kept from one run of the program to the next.

use std::path::PathBuf;

/// The folder: `SWAV_WGPU_CACHE`, else `swav-wgpu` in the platform's folder for caches. `None` when the variable is empty, or when there is
/// no such folder: then nothing is kept.
pub fn cache_folder() -> Option<PathBuf> {
    match std::env::var_os("SWAV_WGPU_CACHE") {
        Some(own) => (!own.is_empty()).then(|| own.into()),
        None => Some(platform()?.join("swav-wgpu")),
    }
}

/// `XDG_CACHE_HOME` or `~/.cache`, `~/Library/Caches`, `%LOCALAPPDATA%`.
fn platform() -> Option<PathBuf> {
    // A relative path in these variables counts as none: so says the XDG specification.
    let folder = |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|p| p.is_absolute());
    if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        Some(folder("HOME")?.join("Library/Caches"))
    } else {
        folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))
    }
}
