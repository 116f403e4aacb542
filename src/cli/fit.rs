//! Whether what a command is given fits together: images as the network knows them, flags that say the same twice.

use super::args::{DataArgs, Weights};
use super::common::{for_size, run_config, warn};
use crate::data::EvalTransform;
use crate::error::{Error, Result};
use crate::train::config::{DataConfig, Kind, LinearConfig, PretrainConfig, kind_of};
use crate::weights::head_metadata;
use std::path::Path;

/// Normalisations that differ by no more than this part are the same: so much lies between mmpretrain's and the official code's.
const SAME: f64 = 0.02;

/// What a network was trained on.
struct TrainedOn {
    size: usize,
    /// The key that says so, and where.
    key: String,
    data: DataConfig,
}

impl TrainedOn {
    fn of(config: &PretrainConfig, source: &Path) -> Self {
        Self { size: config.crops.size[0], key: format!("crops.size[0] of {}", source.display()), data: config.data.clone() }
    }

    /// From the run that weights are of, else from what a checkpoint says of itself; `None` where neither tells.
    fn find(weights: &Path) -> Option<Self> {
        if let Some(path) = run_config(weights) {
            return match kind_of(&path, &[]).ok()? {
                Kind::Pretrain => Some(Self::of(&PretrainConfig::load(&path, &[]).ok()?.0, &path)),
                Kind::Linear => {
                    let config = LinearConfig::load(&path, &[]).ok()?.0;
                    Some(Self { size: config.image.size, key: format!("image.size of {}", path.display()), data: config.data })
                }
            };
        }
        let own = weights.is_file().then(|| head_metadata(weights, "config").ok().flatten()).flatten()?;
        Some(Self::of(&toml::from_str(&own).ok()?, weights))
    }
}

/// Where images are prepared for a network.
#[derive(Clone, Copy)]
pub(super) enum Given {
    /// By a configuration of kind "linear".
    Configuration,
    /// By `--size`, or by a configuration that is not the run's.
    Flags,
}

/// Warns when images are prepared in another way than those that the network of `weights` was trained on, where that is known.
pub(super) fn warn_of_other_images(weights: &Weights, images: EvalTransform, data: &DataConfig, given: Given) {
    let Weights::File(path) = weights else { return };
    let Some(trained) = TrainedOn::find(path) else { return };
    let size = trained.size;
    if size != images.crop {
        let resize = for_size(size).resize.unwrap_or(size);
        let (named, remedy) = match given {
            Given::Configuration => ("image.size", format!("--set image.size={size} --set image.resize={resize}")),
            Given::Flags => ("--size", format!("--size {size}")),
        };
        let crop = images.crop;
        warn(format!("{named}: is {crop}, and the network was trained on {size} pixels ({}): expect worse results than {remedy} gives", trained.key));
    }
    for (key, ours, theirs) in [("data.mean", data.mean, trained.data.mean), ("data.std", data.std, trained.data.std)] {
        if ours.iter().zip(theirs).any(|(a, b)| (a - b).abs() > SAME * b.abs()) {
            warn(format!("{key}: is {ours:?}, and the network was trained on images normalised by {theirs:?}: expect worse results than with that"));
        }
    }
}

/// Refuses a flag beside `--set` of the key that it stands for: one of the two would be dropped.
pub(super) fn said_once(flag: &str, given: bool, key: &str, sets: &[String]) -> Result<()> {
    let set = sets.iter().any(|set| set.split_once('=').is_some_and(|(name, _)| name.trim() == key));
    if given && set {
        return Err(Error::Usage(format!("{flag} and --set {key}=… say the same: give one of them")));
    }
    Ok(())
}

/// The same of the flags that say where images are.
pub(super) fn data_said_once(data: &DataArgs, sets: &[String]) -> Result<()> {
    said_once("--data", !data.data.is_empty(), "data.path", sets)?;
    said_once("--labels", data.labels.is_some(), "data.labels", sets)?;
    said_once("--label-key", data.label_key.is_some(), "data.label_key", sets)
}

/// Warns of `--set model.…` where weights bring their own architecture.
pub(super) fn warn_of_idle_model(weights: &Weights, sets: &[String]) {
    let Weights::File(path) = weights else { return };
    let keys = sets.iter().filter_map(|set| set.split_once('=')).map(|(key, _)| key.trim());
    for key in keys.filter(|key| key.starts_with("model.")) {
        warn(format!("{key}: has no part: {} brings its own architecture", path.display()));
    }
}
