//! Flags that say where images are and which class they have, alike in every command that reads them.

use super::values::named;
use crate::data::{Layout, Places, Split};
use crate::error::{Error, Result};
use crate::train::config::DataConfig;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Where the images are.
#[derive(Args, Clone, Debug, Default)]
pub struct DataArgs {
    /// Images: a folder (train/CLASS/…, val/CLASS/…), tar shards (train-{000..099}.tar), CIFAR or STL-10; may be repeated; overrides data.path
    #[arg(long, value_name = "PATH|PATTERN")]
    pub data: Vec<PathBuf>,
    /// File that says which class each image has: lines `name class`, CSV, or a class number a line; overrides data.labels
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// What the class is called in .json members of shards, metadata and tables [default: label]; overrides data.label_key
    #[arg(long, value_name = "KEY")]
    pub label_key: Option<String>,
    /// What names of folders and shards mean: auto (train, val, … are parts unless they are classes), parts, classes; overrides data.layout
    #[arg(long, value_name = "HOW", value_parser = named::<Layout>)]
    pub data_layout: Option<Layout>,
}

impl DataArgs {
    /// Overrides what a configuration says of the data. One that is kept in a file holds text.
    pub fn apply(&self, config: &mut DataConfig) -> Result<()> {
        for (flag, path) in self.data.iter().map(|path| ("--data", path)).chain(self.labels.iter().map(|path| ("--labels", path))) {
            if path.to_str().is_none() {
                let message = format!("{flag} {}: the name is not UTF-8, and a configuration, which keeps it, is", path.display());
                return Err(Error::Usage(message));
            }
        }
        self.apply_unkept(config);
        Ok(())
    }

    /// The same for a command that keeps no configuration: any name will do.
    pub fn apply_unkept(&self, config: &mut DataConfig) {
        if !self.data.is_empty() {
            config.path = Places::new(&self.data);
        }
        if let Some(labels) = &self.labels {
            config.labels = Some(labels.clone());
        }
        config.layout = self.data_layout.unwrap_or(config.layout);
        if let Some(key) = &self.label_key {
            config.label_key = Some(key.clone());
        }
    }
}

/// Which part of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PartArg {
    /// Training, validation and unlabelled images, in this order
    #[default]
    All,
    /// Images of the training part
    Train,
    /// Images of the validation part
    Val,
    /// Images of the unlabelled part
    #[value(alias = "unlabeled")]
    Unlabelled,
}

impl PartArg {
    /// What a set is opened as.
    pub fn split(self) -> Split {
        match self {
            Self::All => Split::All,
            Self::Train => Split::AllTrain,
            Self::Val => Split::AllVal,
            Self::Unlabelled => Split::Unlabelled,
        }
    }
}
