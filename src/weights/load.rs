//! Loads a network from any weight file.
//!
//! Promises: the result has every tensor of the backbone, with the right shape and finite values, or there is an error that names what is
//! missing or wrong; nothing is ever left at random values. A head is complete or absent. Values are the file's, exactly, where it holds
//! f32, f16 or bf16; f64 is rounded to f32.

use super::backbones::remark;
use super::classifier::{Classifier, classifier, drop_other_names};
use super::layout::{self, Layout, Part, Plan};
use super::one_line;
use super::source::Source;
use super::tensor::{DType, HostTensor};
use super::unused::{Unused, group};
use super::whole::check;
use crate::error::{Error, Result};
use crate::nn::architecture::{Backbone, Head, TensorKind, TensorSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A network read from a file, in official names whatever the file used.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Whose names the file used.
    pub layout: Layout,
    /// Weights and running statistics by official name: torchvision's for the backbone, `projection_head.*`, `prototypes.weight` (or `prototypes.prototypes0.weight` and on).
    pub tensors: BTreeMap<String, HostTensor>,
    /// `num_batches_tracked` of each batch norm that has one, by its official name.
    pub counters: BTreeMap<String, i64>,
    /// Classifier, where the file has one: `fc`, `head.fc`.
    pub classifier: Option<Classifier>,
    /// Class names, where the file has as many as the classifier has outputs, or has no classifier.
    pub classes: Option<Vec<String>>,
    /// How many names of the file's model are one of the above.
    pub matched: usize,
    /// Names in the file's model that are none of the above; [`super::why_unmatched`] says why.
    pub unmatched: Vec<String>,
    /// Every tensor of the file that was not used, whether in its model or beside it, in groups.
    pub unused: Vec<Unused>,
    /// Tensors of the file of kinds that no weights here can have (sparse, quantised, …), and what each is, to follow "is" in a sentence.
    pub unusable: BTreeMap<String, String>,
    /// What was not taken as it stands in the file, one sentence each.
    pub remarks: Vec<String>,
    /// Architecture of the backbone.
    pub backbone: Backbone,
    /// Architecture of the SwAV head, where the file has a complete one.
    pub head: Option<Head>,
}

impl Checkpoint {
    /// Specifications of all tensors and counters in official `state_dict` order.
    pub fn specs(&self) -> Vec<TensorSpec> {
        let mut specs = self.backbone.tensors();
        specs.extend(self.head.iter().flat_map(|head| head.tensors(self.backbone.features())));
        specs
    }

    /// The architecture in words.
    pub fn describe(&self) -> String {
        let mut text = describe(&self.backbone);
        if let Some(Head { hidden, feat_dim, prototypes, heads }) = self.head {
            let hidden = if hidden == 0 { String::new() } else { format!("{hidden}-") };
            let heads = heads.map_or_else(String::new, |heads| format!("{heads} times "));
            text += &format!(", SwAV head {}-{hidden}{feat_dim} with {heads}{prototypes} prototypes", self.backbone.features());
        }
        if let Some(classifier) = &self.classifier {
            text += &format!(", classifier of {} classes", classifier.bias.data.len());
        }
        text
    }

    /// An error naming both architectures when the backbone is not this one.
    pub fn expect_backbone(&self, path: impl AsRef<Path>, expected: &Backbone) -> Result<()> {
        if self.backbone == *expected {
            return Ok(());
        }
        Err(Error::weights(path, format!("holds {}, expected {}", describe(&self.backbone), describe(expected))))
    }
}

fn describe(backbone: &Backbone) -> String {
    for depth in [18, 34, 50] {
        for factor in 1..=5 {
            if Backbone::resnet(depth).map(|usual| Backbone { width: usual.width * factor, ..usual }).as_ref() == Some(backbone) {
                return if factor == 1 { format!("a ResNet-{depth}") } else { format!("a ResNet-{depth} of {factor} times the width") };
            }
        }
    }
    let Backbone { block, blocks, width, stem } = backbone;
    format!("a ResNet of {block:?} blocks {blocks:?}, width {width}, {stem:?} stem").to_lowercase().replace("resnet", "ResNet")
}

/// Loads a network from a safetensors or PyTorch file of any known layout.
pub fn load(path: impl AsRef<Path>) -> Result<Checkpoint> {
    load_under(path, None)
}

/// The same with the backbone under a prefix, such as `momentum_encoder`; without one that which the file's program means.
pub fn load_under(path: impl AsRef<Path>, prefix: Option<&str>) -> Result<Checkpoint> {
    let source = Source::open(path.as_ref())?;
    let shapes = source.shapes();
    let unusable = source.unusable();
    let error = |message: String| Error::weights(&source.path, one_line(&format!("{message}{}", lacking(&unusable))));
    let mut plan = layout::plan(&shapes, prefix).map_err(error)?;
    source.check_size(plan.names.values().chain(plan.classifier.iter().flatten()))?;

    let mut remarks: Vec<String> = remark(&plan.place, &plan.others).into_iter().collect();
    drop_unusable(&source, &unusable, &mut plan, &mut remarks);
    let official: BTreeMap<String, Vec<usize>> =
        plan.names.iter().filter_map(|(name, file)| Some((name.clone(), shapes.get(file)?.clone()))).collect();
    let backbone = Backbone::infer(&official).map_err(error)?;
    let mut specs = backbone.tensors();
    check(&specs, &official, "backbone").map_err(error)?;
    let head = head(&official, plan.layout, backbone.features()).map_err(error)?;
    specs.extend(head.iter().flat_map(|head| head.tensors(backbone.features())));

    let mut checkpoint = Checkpoint {
        layout: plan.layout,
        tensors: BTreeMap::new(),
        counters: BTreeMap::new(),
        classifier: None,
        classes: source.classes.clone(),
        matched: 0,
        unmatched: Vec::new(),
        unused: Vec::new(),
        unusable: BTreeMap::new(),
        remarks,
        backbone,
        head,
    };
    let used = |plan: &Plan| -> BTreeSet<String> {
        let twins = plan.twins.iter().flat_map(|(_, twin)| [twin]);
        plan.names.values().chain(twins).chain(plan.classifier.iter().flatten()).cloned().collect()
    };
    let mut used = used(&plan);
    let names = used.len() + plan.unmatched.len();
    read_tensors(&source, &specs, &mut plan, &mut checkpoint)?;
    read_classifier(&source, &shapes, &mut plan, &mut checkpoint)?;
    checkpoint.unmatched = plan.unmatched;
    checkpoint.unmatched.extend(plan.names.into_values());
    checkpoint.unmatched.sort();
    checkpoint.matched = names - checkpoint.unmatched.len();
    checkpoint.unmatched.iter().for_each(|name| _ = used.remove(name));
    let left = shapes.keys().chain(unusable.keys()).filter(|name| !used.contains(*name)).map(String::as_str);
    checkpoint.unused = group(left, &plan.place, &plan.others);
    checkpoint.unusable = unusable;
    let rounded = source.rounded();
    if rounded > 0 {
        checkpoint.remarks.push(format!("{rounded} tensors of float64 are rounded to float32"));
    }
    Ok(checkpoint)
}

/// What is to be added to an error of a file that has tensors of unusable kinds.
fn lacking(unusable: &BTreeMap<String, String>) -> String {
    let parts: Vec<String> = unusable.iter().take(3).map(|(name, kind)| format!("{name} is {kind}")).collect();
    match unusable.len() {
        0 => String::new(),
        1..=3 => format!("; {}", parts.join(", ")),
        count => format!("; {}, and {} more are of kinds that are not supported", parts.join(", "), count - 3),
    }
}

/// Gives up head and classifier where a tensor of theirs is of no use: of a kind that is not supported, or of integers.
fn drop_unusable(source: &Source, unusable: &BTreeMap<String, String>, plan: &mut Plan, remarks: &mut Vec<String>) {
    let is_float = |name: &String| matches!(source.dtype(name), Some(DType::F64 | DType::F32 | DType::F16 | DType::BF16));
    let integers = plan.names.iter().filter(|(official, _)| !official.ends_with("num_batches_tracked")).map(|(_, name)| name);
    let integers = integers.chain(plan.classifier.iter().flatten()).filter(|name| !is_float(name));
    let integers: Vec<(String, String)> = integers.map(|name| (name.clone(), "of integers".to_owned())).collect();
    let mut gone = [false; 2];
    for (name, kind) in integers.iter().map(|(name, kind)| (name, kind)).chain(unusable) {
        let Some(part) = plan.part_of(name) else { continue };
        match part {
            Part::Head => plan.drop_head(),
            Part::Classifier => plan.drop_classifier(),
        }
        if !std::mem::replace(&mut gone[part as usize], true) {
            remarks.push(format!("the {} is left out, for {} is {kind}", part.name(), one_line(name)));
        }
    }
}

/// Recognises the head; without all of its three matrices (two for a linear projection) there is none.
fn head(shapes: &BTreeMap<String, Vec<usize>>, layout: Layout, features: usize) -> Result<Option<Head>, String> {
    let matrix = |name: &str| match shapes.get(name).map(Vec::as_slice) {
        Some(&[rows, columns]) => Some((rows, columns)),
        _ => None,
    };
    let (prototypes, heads) = match matrix("prototypes.weight").or_else(|| matrix("prototypes.weight_v")) {
        Some(single) => (Some(single), None),
        None => {
            let several: Vec<_> = (0..).map_while(|i| matrix(&format!("prototypes.prototypes{i}.weight"))).collect();
            // Heads of different sizes are no head of this program's, and stay unmatched.
            (several.first().copied().filter(|first| several.iter().all(|m| m == first)), Some(several.len()))
        }
    };
    let hidden = matrix("projection_head.0.weight").zip(matrix("projection_head.3.weight"));
    let head = match (prototypes, hidden, matrix("projection_head.weight")) {
        (Some((prototypes, _)), Some(((hidden, _), (feat_dim, _))), _) => Head { hidden, feat_dim, prototypes, heads },
        (Some((prototypes, _)), None, Some((feat_dim, _))) => Head { hidden: 0, feat_dim, prototypes, heads },
        _ => return Ok(None),
    };
    let mut specs = head.tensors(features);
    if layout == Layout::SoloLearn && shapes.contains_key("prototypes.weight_v") {
        specs.retain(|spec| spec.name != "prototypes.weight");
        let part = |name: &str, columns| TensorSpec { name: name.to_owned(), shape: vec![head.prototypes, columns], kind: TensorKind::LinearWeight };
        specs.extend([part("prototypes.weight_v", head.feat_dim), part("prototypes.weight_g", 1)]);
    }
    // A batch norm follows the first projection, so that its bias has no effect, and lightly leaves it out.
    let optional = |spec: &TensorSpec| spec.name == "projection_head.0.bias" && layout == Layout::Lightly;
    specs.retain(|spec| !optional(spec) || shapes.contains_key(&spec.name));
    check(&specs, shapes, "SwAV head")?;
    Ok(Some(head))
}

/// Reads a tensor as finite 32-bit floats.
pub(super) fn read_f32(source: &Source, name: &str) -> Result<HostTensor> {
    let error = |message: String| Error::weights(&source.path, format!("tensor {} {message}", one_line(name)));
    let tensor = source.read(name)?;
    let data = tensor.to_f32().map_err(error)?;
    if tensor.dtype() == DType::F64 && tensor.to_f64().map_err(error)?.iter().zip(&data).any(|(wide, narrow)| *wide != f64::from(*narrow)) {
        source.count_rounded();
    }
    match data.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(error(format!("is not finite: element {index} is {}", data[index]))),
        None => Ok(HostTensor { shape: tensor.shape().to_vec(), data }),
    }
}

/// Moves the tensors of the network from the file, and their names out of the plan.
fn read_tensors(source: &Source, specs: &[TensorSpec], plan: &mut Plan, checkpoint: &mut Checkpoint) -> Result<()> {
    for (first, second) in &plan.twins {
        if source.read(first)?.bytes() != source.read(second)?.bytes() {
            return Err(Error::weights(&source.path, format!("{first} and {second} are one tensor, but differ")));
        }
    }
    let mut uncounted = 0;
    for spec in specs {
        let Some(name) = plan.names.remove(&spec.name) else {
            match (spec.kind, spec.name.as_str()) {
                (TensorKind::NumBatchesTracked, _) => uncounted += 1,
                (_, "prototypes.weight") => {
                    let weight = weight_norm(source, plan)?;
                    checkpoint.tensors.insert(spec.name.clone(), weight);
                    checkpoint.remarks.push("prototypes.weight is multiplied out of weight_v and weight_g".to_owned());
                }
                (_, name) => {
                    checkpoint.remarks.push(format!("{name} is not in the file and taken as 0, which is the same: a batch norm follows it"));
                    checkpoint.tensors.insert(name.to_owned(), HostTensor::zeros(spec.shape.clone()));
                }
            }
            continue;
        };
        if spec.kind == TensorKind::NumBatchesTracked {
            let error = |message: String| Error::weights(&source.path, format!("tensor {} {message}", one_line(&name)));
            let count = source.read(&name)?.to_i64().map_err(error)?;
            checkpoint.counters.extend(count.first().map(|&count| (spec.name.clone(), count)));
        } else {
            let tensor = read_f32(source, &name)?;
            // Its root would be no number, which ReLUs turn into 0 on many devices.
            if spec.kind == TensorKind::RunningVar
                && let Some(value) = tensor.data.iter().find(|v| **v < 0.0)
            {
                return Err(Error::weights(&source.path, format!("tensor {} has a variance of {value}", one_line(&name))));
            }
            checkpoint.tensors.insert(spec.name.clone(), tensor);
        }
    }
    if uncounted > 0 {
        checkpoint.remarks.push(format!("{uncounted} batch norms have no num_batches_tracked; files written from them say 0"));
    }
    Ok(())
}

/// PyTorch's weight normalisation: rows of `weight_v` scaled to the lengths in `weight_g`.
fn weight_norm(source: &Source, plan: &mut Plan) -> Result<HostTensor> {
    let mut part = |name: &str| {
        let file = plan.names.remove(name).ok_or_else(|| Error::weights(&source.path, format!("{name} is missing")))?;
        read_f32(source, &file)
    };
    let (mut rows, lengths) = (part("prototypes.weight_v")?, part("prototypes.weight_g")?);
    let columns = (rows.data.len() / lengths.data.len().max(1)).max(1);
    for (row, &length) in rows.data.chunks_mut(columns).zip(&lengths.data) {
        let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        row.iter_mut().for_each(|x| *x = (f64::from(*x) * f64::from(length) / norm) as f32);
    }
    Ok(rows)
}

/// Reads the classifier of a network; half of one is unmatched.
fn read_classifier(source: &Source, shapes: &BTreeMap<String, Vec<usize>>, plan: &mut Plan, checkpoint: &mut Checkpoint) -> Result<()> {
    match std::mem::take(&mut plan.classifier) {
        [Some(weight), Some(bias)] => {
            let classifier = classifier(source, shapes, &weight, &bias, Some(checkpoint.backbone.features()))?;
            checkpoint.remarks.extend(drop_other_names(&mut checkpoint.classes, &classifier));
            checkpoint.classifier = Some(classifier);
        }
        parts => plan.unmatched.extend(parts.into_iter().flatten()),
    }
    Ok(())
}
