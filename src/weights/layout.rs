//! Recognises in which program's names a file keeps its tensors, and maps them to the official SwAV names.
//!
//! Promises: a file is matched by where its backbone lies ([`choose`]) and what lies beside it. Every tensor inside the model is mapped or
//! listed as unmatched.

use super::backbones::{Core, Place, choose, is_wrapper};
use std::collections::BTreeMap;

/// The program a weight file comes from, or whose names it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// torchvision: plain names, with or without `fc`.
    Torchvision,
    /// Official SwAV names, with or without `module.`, at the top level: the released files.
    Swav,
    /// Official SwAV training checkpoint: the same under `state_dict`.
    SwavTraining,
    /// mmpretrain or mmselfsup pre-training: `backbone`, `neck`, `head`.
    Mmpretrain,
    /// mmpretrain classifier: `backbone` and `head.fc`.
    MmpretrainLinear,
    /// VISSL: `trunk._feature_blocks` and `heads`.
    Vissl,
    /// lightly: `backbone`, `projection_head.layers`, `prototypes.heads`.
    Lightly,
    /// solo-learn: `backbone`, in older files `encoder`, `projector`, weight-normalised `prototypes`.
    SoloLearn,
    /// An encoder among other networks, such as MoCo's `encoder_q`, SimSiam's `encoder`, BYOL's `online_encoder`.
    Encoder,
    /// A checkpoint of this program: official names under `model/`.
    Run,
}

impl Layout {
    /// The name that `convert --json` prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Torchvision => "torchvision",
            Self::Swav => "swav",
            Self::SwavTraining => "swav-training",
            Self::Mmpretrain => "mmpretrain",
            Self::MmpretrainLinear => "mmpretrain-linear",
            Self::Vissl => "vissl",
            Self::Lightly => "lightly",
            Self::SoloLearn => "solo-learn",
            Self::Encoder => "encoder",
            Self::Run => "swav-wgpu",
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Which tensor of a file becomes which one of the network.
#[derive(Debug)]
pub(super) struct Plan {
    pub layout: Layout,
    pub place: Place,
    /// Other backbones of the file.
    pub others: Vec<Place>,
    /// Official name to the file's name.
    pub names: BTreeMap<String, String>,
    /// Pairs of names in the file that must hold the same values (mmpretrain stores the neck's norm twice).
    pub twins: Vec<(String, String)>,
    /// `fc` weight and bias in the file.
    pub classifier: [Option<String>; 2],
    /// Names within the model that nothing here needs.
    pub unmatched: Vec<String>,
}

/// What one name of a model stands for.
enum Role {
    Tensor(String),
    Twin(String),
    Classifier(usize),
    Unmatched,
}

/// Finds the backbone of a file, or the one under a prefix, and maps all names of its model.
pub(super) fn plan(shapes: &BTreeMap<String, Vec<usize>>, wanted: Option<&str>) -> Result<Plan, String> {
    let Some((place, others)) = choose(shapes, wanted)? else {
        if classifier_names(shapes).is_some() {
            return Err("holds a linear classifier only, no backbone (`predict --head` takes it)".to_owned());
        }
        let sample: Vec<&str> = shapes.keys().take(3).map(String::as_str).collect();
        let first = if sample.is_empty() { String::new() } else { format!(" (the first are: {})", sample.join(", ")) };
        return Err(format!("no backbone: none of its {} tensors is a four-dimensional conv1.weight{first}", shapes.len()));
    };
    let mut names = BTreeMap::new();
    let mut twins = Vec::new();
    let mut classifier = [None, None];
    let mut unmatched = Vec::new();
    // Names with a slash in them are the other parts of a run's checkpoint: optimizer, queue, state.
    let scoped: Vec<&str> = shapes.keys().filter_map(|name| name.strip_prefix(&place.wrapper)).filter(|name| !name.contains('/')).collect();
    for &name in &scoped {
        let full = format!("{}{name}", place.wrapper);
        match role(&place, name) {
            Role::Tensor(official) => {
                if let Some(other) = names.insert(official.clone(), full.clone()) {
                    return Err(format!("{other} and {full} both stand for {official}"));
                }
            }
            Role::Twin(official) => twins.push((official, full)),
            Role::Classifier(part) => classifier[part] = Some(full),
            Role::Unmatched => unmatched.push(full),
        }
    }
    // A twin stands in for the tensor it repeats where that one is missing.
    let mut pairs = Vec::new();
    for (official, full) in twins {
        match names.get(&official) {
            Some(other) => pairs.push((other.clone(), full)),
            None => _ = names.insert(official, full),
        }
    }
    let layout = layout(&place, &scoped);
    Ok(Plan { layout, place, others, names, twins: pairs, classifier, unmatched })
}

/// What a network can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Head,
    Classifier,
}

impl Part {
    /// In a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "SwAV head",
            Self::Classifier => "classifier",
        }
    }
}

impl Plan {
    /// Which part a tensor of this name in the file belongs to, be it in the plan or not.
    pub fn part_of(&self, name: &str) -> Option<Part> {
        match role(&self.place, name.strip_prefix(&self.place.wrapper)?) {
            Role::Tensor(official) | Role::Twin(official) => (!is_backbone(&official)).then_some(Part::Head),
            Role::Classifier(_) => Some(Part::Classifier),
            Role::Unmatched => None,
        }
    }

    /// Gives up the head: its names are unmatched.
    pub fn drop_head(&mut self) {
        let head: Vec<String> = self.names.keys().filter(|official| !is_backbone(official)).cloned().collect();
        self.unmatched.extend(head.iter().filter_map(|official| self.names.remove(official)));
        self.unmatched.extend(std::mem::take(&mut self.twins).into_iter().map(|(_, twin)| twin));
    }

    /// Gives up the classifier.
    pub fn drop_classifier(&mut self) {
        self.unmatched.extend(std::mem::take(&mut self.classifier).into_iter().flatten());
    }
}

/// Weight and bias of a file that holds a classifier, whatever else it holds: `fc`, `head.fc`, `linear` or `classifier` at the top of a model.
pub(super) fn classifier_names(shapes: &BTreeMap<String, Vec<usize>>) -> Option<(String, String)> {
    shapes.iter().find_map(|(name, shape)| {
        let stem = name.strip_suffix(".weight").filter(|_| shape.len() == 2)?;
        let wrapper = ["head.fc", "fc", "linear", "classifier"].iter().find_map(|core| stem.strip_suffix(core))?;
        let bias = format!("{stem}.bias");
        (is_wrapper(wrapper) && shapes.contains_key(&bias)).then(|| (name.clone(), bias))
    })
}

/// The prefix of the batch norm that the official linear evaluation can put before its `linear`, when the file of this classifier has one.
pub(super) fn norm_before(shapes: &BTreeMap<String, Vec<usize>>, weight: &str) -> Option<String> {
    let norm = format!("{}bn.", weight.strip_suffix("linear.weight")?);
    shapes.range(norm.clone()..).next().is_some_and(|(name, _)| name.starts_with(&norm)).then_some(norm)
}

/// Why a name of a file's model is left out, where there is more to say than that nothing here has this name.
pub fn why_unmatched(name: &str) -> Option<&'static str> {
    let name = name.rsplit_once("prototypes").map_or(name, |(_, rest)| if rest.ends_with(".bias") { "prototypes.bias" } else { name });
    match name {
        "prototypes.bias" => Some("SwAV's prototypes have no bias, so scores differ by it"),
        _ if name.contains("prototypes") || name.contains("project") => Some("there is no whole head of one set of prototypes"),
        _ if name.rsplit('.').next().is_some_and(|last| last.contains("queue")) => Some("the queue belongs to a training run, not to the network"),
        _ => None,
    }
}

/// Whether a name is one of a backbone's in torchvision's naming.
fn is_backbone(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    matches!(first, "conv1" | "bn1") || first.strip_prefix("layer").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A name relative to the backbone: a tensor of it, or of no use.
fn backbone(name: &str) -> Role {
    if is_backbone(name) { Role::Tensor(name.to_owned()) } else { Role::Unmatched }
}

fn role(place: &Place, name: &str) -> Role {
    let tensor = |prefix: &str, rest: &str| Role::Tensor(format!("{prefix}{rest}"));
    if let Some(rest) = name.strip_prefix(&place.inside) {
        let role = place.first_stage.map_or_else(|| backbone(rest), |first| sequential(first, rest));
        if place.core != Core::Plain || matches!(role, Role::Tensor(_)) {
            return role;
        }
    }
    if !place.has_heads() {
        return Role::Unmatched;
    }
    match place.core {
        Core::Plain => match name {
            "fc.weight" => Role::Classifier(0),
            "fc.bias" => Role::Classifier(1),
            _ if name.starts_with("projection_head.") || name.starts_with("prototypes.") => tensor("", name),
            _ => Role::Unmatched,
        },
        Core::Vissl => {
            if let Some(rest) = name.strip_prefix("heads.0.projection_head.") {
                tensor("projection_head.", rest)
            } else if name == "heads.0.prototypes0.weight" {
                tensor("prototypes.weight", "")
            } else {
                Role::Unmatched
            }
        }
        Core::Within => {
            let heads =
                [("neck.projection_neck.", "projection_head."), ("projection_head.layers.", "projection_head."), ("projector.", "projection_head.")];
            if let Some(role) = heads.iter().find_map(|(from, to)| name.strip_prefix(from).map(|rest| tensor(to, rest))) {
                return role;
            }
            if name.starts_with("head.loss_module.prototypes.prototypes") {
                return tensor("", &name["head.loss_module.".len()..]);
            }
            if let Some(rest) = name.strip_prefix("neck.norm.") {
                return Role::Twin(format!("projection_head.1.{rest}"));
            }
            match name {
                "head.loss_module.prototypes.weight" | "head.prototypes.weight" | "prototypes.heads.0.weight" => tensor("prototypes.weight", ""),
                "prototypes.weight" | "prototypes.weight_g" | "prototypes.weight_v" => tensor("", name),
                "prototypes.parametrizations.weight.original0" => tensor("prototypes.weight_g", ""),
                "prototypes.parametrizations.weight.original1" => tensor("prototypes.weight_v", ""),
                "head.fc.weight" | "classifier.weight" => Role::Classifier(0),
                "head.fc.bias" | "classifier.bias" => Role::Classifier(1),
                _ => Role::Unmatched,
            }
        }
    }
}

/// A name inside a `Sequential` of a ResNet's children: conv1 and bn1, then what has no weights, then four stages.
fn sequential(first_stage: u32, name: &str) -> Role {
    let Some((number, rest)) = name.split_once('.') else { return Role::Unmatched };
    let module = match number.parse::<u32>() {
        Ok(0) => "conv1".to_owned(),
        Ok(1) => "bn1".to_owned(),
        Ok(number) if (first_stage..first_stage + 4).contains(&number) => format!("layer{}", number - first_stage + 1),
        _ => return Role::Unmatched,
    };
    Role::Tensor(format!("{module}.{rest}"))
}

fn layout(place: &Place, names: &[&str]) -> Layout {
    let any = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
    match place.core {
        Core::Vissl => Layout::Vissl,
        _ if place.first_stage.is_some() => Layout::Lightly,
        Core::Plain if place.wrapper == "model/" => Layout::Run,
        Core::Plain if !any("projection_head.") && !any("prototypes.") && !place.wrapper.ends_with("module.") => Layout::Torchvision,
        Core::Plain if place.wrapper.starts_with("state_dict.") => Layout::SwavTraining,
        Core::Plain => Layout::Swav,
        Core::Within if any("head.fc.") => Layout::MmpretrainLinear,
        Core::Within if any("projection_head.layers.") || any("prototypes.heads.") => Layout::Lightly,
        Core::Within if any("projector.") || any("prototypes.weight_v") => Layout::SoloLearn,
        Core::Within if place.inside == "backbone." => Layout::Mmpretrain,
        Core::Within => Layout::Encoder,
    }
}
