//! The one error type of the library.
//!
//! A wrong tensor shape is a bug in the calling code and panics with both shapes. Everything the world can spoil (adapter, memory, file,
//! configuration, weight file, a loss that is not finite) is a variant here, carries the path, key or tensor it is about, and
//! has the exit code that scripts rely on.

use std::path::{Path, PathBuf};

/// Result with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong outside the program's own control.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Wrong use: a flag, a value or a combination that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A configuration file or a `--set` override is wrong.
    #[error("{file}: {key}: {message}")]
    Config {
        /// File name, or `--set`.
        file: String,
        /// Dotted key, for example `optimizer.lr`.
        key: String,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// No adapter can be used.
    #[error("no usable GPU adapter: {0}")]
    NoAdapter(String),
    /// The adapter that was asked for is not there; others are.
    #[error("no such adapter: {0}")]
    UnknownAdapter(String),
    /// An adapter is there, but the driver gives no device of it.
    #[error("the GPU adapter {name} cannot be opened: {message}")]
    CannotOpen {
        /// The adapter.
        name: String,
        /// wgpu's words.
        message: String,
    },
    /// A dataset, shard or image cannot be read.
    #[error("{path}: {message}")]
    Data {
        /// The folder, shard or image.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A weight file or checkpoint cannot be used.
    #[error("{path}: {message}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {path}")]
    Output {
        /// What was to be written.
        path: PathBuf,
        /// Why it was not.
        #[source]
        source: std::io::Error,
    },
    /// A loss, gradient or weight is NaN or infinite.
    #[error("{what} is not finite at step {step}")]
    NonFinite {
        /// The tensor.
        what: String,
        /// The training step, counted from 0.
        step: u64,
    },
    /// What a network makes of an image is NaN or infinite.
    #[error("the output of {layer} is not finite for {image}")]
    NonFiniteOutput {
        /// The first layer whose output is not, with its op.
        layer: String,
        /// The image, or what else was passed.
        image: String,
    },
    /// The adapter has too little memory.
    #[error("out of GPU memory: {0}")]
    OutOfMemory(String),
    /// The driver gave the device up.
    #[error("the GPU device was lost: {0}")]
    DeviceLost(String),
    /// wgpu refused something that should have been right: a bug, reported with its place.
    #[error("{context}: {message}")]
    Gpu {
        /// The kernel or buffer.
        context: String,
        /// wgpu's words.
        message: String,
    },
    /// Another process holds the run folder.
    #[error("{path} is in use by another run ({holder})")]
    Busy {
        /// The run folder.
        path: PathBuf,
        /// Process id of the holder, as it wrote it.
        holder: String,
    },
    /// The program ran, but what it checks does not hold.
    #[error("{0}")]
    Failed(String),
    /// A signal ended the run after a checkpoint, or an evaluation after an epoch: what was done is kept.
    #[error("stopped by a signal; {0}")]
    Stopped(&'static str),
    /// A signal ended it before there was anything to keep.
    #[error("stopped by a signal before anything was complete")]
    StoppedEmpty,
}

impl Error {
    /// A [`Error::Config`].
    pub fn config(file: impl Into<String>, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config { file: file.into(), key: key.into(), message: message.into() }
    }

    /// A [`Error::Data`].
    pub fn data(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Data { path: path.as_ref().to_owned(), message: message.into() }
    }

    /// A [`Error::Weights`].
    pub fn weights(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Weights { path: path.as_ref().to_owned(), message: message.into() }
    }

    /// A [`Error::Output`]; made for `map_err`.
    pub fn output(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Output { path, source }
    }

    /// Whether something cannot be written because the disk, or the user's share of it, is full.
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Output { source, .. } if [StorageFull, QuotaExceeded].contains(&source.kind()))
    }

    /// The process exit code that scripts rely on.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config { .. } | Self::Weights { .. } => 2,
            Self::NoAdapter(_) | Self::UnknownAdapter(_) | Self::CannotOpen { .. } => 3,
            Self::Data { .. } => 4,
            Self::Output { .. } => 5,
            Self::NonFinite { .. } | Self::NonFiniteOutput { .. } => 6,
            Self::OutOfMemory(_) => 7,
            Self::DeviceLost(_) => 8,
            Self::Busy { .. } => 9,
            Self::Stopped(_) => 75,
            Self::StoppedEmpty => 130,
            Self::Gpu { .. } | Self::Failed(_) => 1,
        }
    }

    /// What the user can do about it, where there is something general to say.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoAdapter(_) => {
                Some("install a Vulkan driver (a software one: Debian's mesa-vulkan-drivers); `swav-wgpu devices` lists what is found")
            }
            Self::OutOfMemory(_) => Some("smaller batches and images need less; --adapter chooses another adapter"),
            Self::CannotOpen { .. } => Some("another program may hold it, or its driver may need a restart or an update; --adapter chooses another"),
            Self::DeviceLost(_) => Some("start again with --resume: the last checkpoint is untouched"),
            Self::NonFinite { .. } => Some("lower optimizer.lr (or, in pre-training, raise loss.epsilon); what was saved before is untouched"),
            Self::NonFiniteOutput { .. } => {
                Some("the network overflows or its weights are spoilt: use weights of an earlier checkpoint; `info` looks into a weight file")
            }
            Self::Busy { .. } => Some("wait for the other run, or choose another --out"),
            _ => None,
        }
    }
}
