//! Writes networks under the names other programs load.
//!
//! Promises: a file appears whole or not at all; the same network gives the same bytes; what was read is written bit for bit. Per target:
//!
//! * [`Target::Torchvision`]: the backbone in torchvision's names, with `fc` if there is a classifier. A SwAV head has no place and is left out.
//! * [`Target::Swav`]: official names with `projection_head` and `prototypes`, in a `.pth` flat with `module.` before every name, as the
//!   released files have it and the official loaders strip it; in safetensors without it. A classifier, which official networks have in
//!   a file of its own, is added as `fc`; the official loaders pass over it.
//! * [`Target::Mmpretrain`]: `backbone`, `neck`, `head.loss_module`, with the neck's batch norm under both of its names (one storage in a
//!   `.pth`), or `head.fc` for a classifier; a `.pth` is `{'meta': …, 'state_dict': …}`.
//!
//! In both containers every batch norm has its `num_batches_tracked`; one that the source lacked is 0.

use super::load::Checkpoint;
use super::safetensors::write_safetensors;
use super::tensor::AnyTensor;
use super::torch::{Pickle, WrittenStorages, write_torch};
use super::unused::Unused;
use crate::atomic::write_with;
use crate::error::{Error, Result};
use crate::nn::architecture::TensorKind;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::str::FromStr;

/// Whose names a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// torchvision.
    Torchvision,
    /// The official SwAV code.
    Swav,
    /// mmpretrain and mmselfsup.
    Mmpretrain,
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "torchvision" => Ok(Self::Torchvision),
            "swav" => Ok(Self::Swav),
            "mmpretrain" => Ok(Self::Mmpretrain),
            _ => Err(Error::Usage(format!("unknown layout {text}; known are torchvision, swav, mmpretrain"))),
        }
    }
}

/// What [`convert`] did.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ConvertSummary {
    /// Layout of the input, as [`super::Layout::name`] has it.
    pub source_layout: String,
    /// Names of the input that were understood.
    pub matched: usize,
    /// Entries in the output.
    pub tensors: usize,
    /// Trainable numbers in the output, each counted once.
    pub parameters: usize,
    /// Names in the input's model that were not understood.
    pub unmatched: Vec<String>,
    /// Every tensor of the input that was not used, whether in its model or beside it, in groups.
    pub unused: Vec<Unused>,
    /// Tensors of the input of kinds that no weights here can have: name and kind.
    pub unusable: BTreeMap<String, String>,
    /// What was not taken as it stands in the input, one sentence each.
    pub remarks: Vec<String>,
    /// Tensors that were understood but have no place in the output's layout, in official names, and `classes` for the names of classes.
    pub dropped: Vec<String>,
}

/// Container, told by the file name.
#[derive(Clone, Copy, PartialEq)]
enum Container {
    Safetensors,
    Torch,
}

fn container(path: &Path) -> Result<Container> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    if name.ends_with(".safetensors") {
        Ok(Container::Safetensors)
    } else if [".pth", ".pt", ".pth.tar"].iter().any(|end| name.ends_with(end)) {
        Ok(Container::Torch)
    } else {
        Err(Error::Usage(format!("{}: the name of a weight file to write must end in .safetensors or .pth", path.display())))
    }
}

/// One name of an output file.
struct Entry<'a> {
    name: String,
    tensor: AnyTensor<'a>,
    /// Trainable, and not a second name of an earlier entry.
    parameter: bool,
    /// Index of the earlier entry whose storage this one shares.
    twin: Option<usize>,
}

/// The entries of a layout in its own order.
fn entries<'a>(path: &Path, checkpoint: &'a Checkpoint, target: Target, container: Container) -> Result<(Vec<Entry<'a>>, Vec<String>)> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut dropped = Vec::new();
    let mut norm = Vec::new();
    for spec in checkpoint.specs() {
        let backbone = !spec.name.starts_with("projection_head.") && !spec.name.starts_with("prototypes.");
        let tensor = if spec.kind == TensorKind::NumBatchesTracked {
            let count = checkpoint.counters.get(&spec.name).unwrap_or(&0);
            AnyTensor::from_i64(&[], std::slice::from_ref(count))
        } else {
            let tensor = checkpoint.tensors.get(&spec.name).filter(|tensor| tensor.shape == spec.shape);
            let tensor =
                tensor.ok_or_else(|| Error::weights(path, format!("tensor {} is missing or has another shape than {:?}", spec.name, spec.shape)))?;
            AnyTensor::from_f32(&tensor.shape, &tensor.data)
        };
        let name = match target {
            Target::Torchvision if backbone => spec.name,
            Target::Torchvision => {
                dropped.push(spec.name);
                continue;
            }
            Target::Swav if container == Container::Torch => format!("module.{}", spec.name),
            Target::Swav => spec.name,
            Target::Mmpretrain if backbone => format!("backbone.{}", spec.name),
            Target::Mmpretrain => match spec.name.strip_prefix("projection_head.") {
                Some(rest) => format!("neck.projection_neck.{rest}"),
                None => format!("head.loss_module.{}", spec.name),
            },
        };
        if let Some(rest) = name.strip_prefix("neck.projection_neck.1.") {
            norm.push(Entry { name: format!("neck.norm.{rest}"), tensor: tensor.clone(), parameter: spec.kind.is_parameter(), twin: None });
        }
        entries.push(Entry { name, tensor, parameter: spec.kind.is_parameter(), twin: None });
    }
    // mmpretrain registers the neck's norm before the projection that contains it.
    if let Some(place) = entries.iter().position(|entry| entry.name.starts_with("neck.")) {
        entries.splice(place..place, norm);
        for index in place..entries.len() {
            let first = entries[index].name.strip_prefix("neck.projection_neck.1.").map(|rest| format!("neck.norm.{rest}"));
            entries[index].twin = first.and_then(|first| entries.iter().position(|entry| entry.name == first));
        }
    }
    if let Some(classifier) = &checkpoint.classifier {
        let prefix = match target {
            Target::Swav if container == Container::Torch => "module.fc",
            Target::Mmpretrain => "head.fc",
            _ => "fc",
        };
        for (part, tensor) in [("weight", &classifier.weight), ("bias", &classifier.bias)] {
            let tensor = AnyTensor::from_f32(&tensor.shape, &tensor.data);
            entries.push(Entry { name: format!("{prefix}.{part}"), tensor, parameter: true, twin: None });
        }
    }
    Ok((entries, dropped))
}

/// Writes a network to `.safetensors` or `.pth` in a layout. Class names go into safetensors' metadata (`classes`, a JSON list) and
/// mmpretrain's `meta.dataset_meta.classes`; the other layouts have no place for them in a `.pth`.
pub fn save(path: impl AsRef<Path>, checkpoint: &Checkpoint, target: Target) -> Result<()> {
    let path = path.as_ref();
    let container = container(path)?;
    write(path, checkpoint, target, container, &entries(path, checkpoint, target, container)?.0)
}

fn write(path: &Path, checkpoint: &Checkpoint, target: Target, container: Container, entries: &[Entry]) -> Result<()> {
    if container == Container::Safetensors {
        let tensors = entries.iter().map(|entry| (entry.name.clone(), entry.tensor.clone())).collect();
        let mut metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        metadata.extend(checkpoint.classes.iter().map(|classes| ("classes".to_owned(), serde_json::json!(classes).to_string())));
        return write_safetensors(path, &tensors, &metadata);
    }
    let mut storages = WrittenStorages::default();
    let keys: Vec<usize> = entries
        .iter()
        .scan(Vec::new(), |keys: &mut Vec<usize>, entry| {
            let key = entry.twin.and_then(|twin| keys.get(twin).copied()).unwrap_or_else(|| storages.add(&entry.tensor));
            keys.push(key);
            Some(key)
        })
        .collect();
    let pickle = storages.pickle(|pickle| {
        let state = |pickle: &mut Pickle| {
            pickle.ordered_dict(|pickle| {
                for (entry, &key) in entries.iter().zip(&keys) {
                    pickle.text(&entry.name);
                    pickle.tensor(&entry.tensor, key);
                }
            });
        };
        if target != Target::Mmpretrain {
            return state(pickle);
        }
        pickle.dict(|pickle| {
            pickle.text("meta");
            pickle.dict(|pickle| {
                pickle.text("producer");
                pickle.text(concat!("swav-wgpu ", env!("CARGO_PKG_VERSION")));
                if let Some(classes) = &checkpoint.classes {
                    pickle.text("dataset_meta");
                    pickle.dict(|pickle| {
                        pickle.text("classes");
                        pickle.list(|pickle| classes.iter().for_each(|class| pickle.text(class)));
                    });
                }
            });
            pickle.text("state_dict");
            state(pickle);
        });
    });
    write_with(path, |file| write_torch(file, &pickle, &storages).map_err(io::Error::from))
}

/// Gives the path back when its name says which container to write.
pub fn check_output(path: &Path) -> Result<&Path> {
    container(path).map(|_| path)
}

/// The same for tensors that are no network, which only safetensors files take.
pub fn check_tensor_output(path: &Path) -> Result<&Path> {
    match container(path) {
        Ok(Container::Safetensors) => Ok(path),
        _ => Err(Error::Usage(format!("{}: the name of a file of tensors to write must end in .safetensors", path.display()))),
    }
}

/// Writes a network that was read in one layout in another, and says what became of it.
pub fn convert(checkpoint: &Checkpoint, output: impl AsRef<Path>, target: Target) -> Result<ConvertSummary> {
    let output = output.as_ref();
    let container = container(output)?;
    let (entries, mut dropped) = entries(output, checkpoint, target, container)?;
    write(output, checkpoint, target, container, &entries)?;
    if checkpoint.classes.is_some() && container == Container::Torch && target != Target::Mmpretrain {
        dropped.push("classes".to_owned());
    }
    Ok(ConvertSummary {
        source_layout: checkpoint.layout.name().to_owned(),
        matched: checkpoint.matched,
        tensors: entries.len(),
        parameters: entries.iter().filter(|e| e.parameter && e.twin.is_none()).map(|e| e.tensor.shape().iter().product::<usize>()).sum(),
        unmatched: checkpoint.unmatched.clone(),
        unused: checkpoint.unused.clone(),
        unusable: checkpoint.unusable.clone(),
        remarks: checkpoint.remarks.clone(),
        dropped,
    })
}
