//! Recognises in which program's names a file keeps its tensors, and maps them to the official SwAV names.
//!
//! Promises: a file is matched by where its backbone lies and what lies beside it. A place that some known program uses goes before any
//! other; of several places of the same standing none is guessed, and the file is refused. Every tensor inside the recognised scope is
//! mapped or listed as unmatched.

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
    /// solo-learn: `backbone`, `projector`, weight-normalised `prototypes`.
    SoloLearn,
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
            Self::Run => "swav-wgpu",
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Places in which whole models are found, before an optional `module.`.
const WRAPPERS: &[&str] = &["", "model/", "state_dict.", "model.", "state_dict.model.", "model_state_dict.", "classy_state_dict.base_model.model."];

/// Where the backbone lies inside a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Core {
    Plain,
    Backbone,
    /// lightly's `Sequential(*children)` of a torchvision network: numbers instead of names.
    Sequential,
    Vissl,
}

const CORES: [(Core, &str); 3] = [(Core::Backbone, "backbone."), (Core::Vissl, "trunk._feature_blocks."), (Core::Plain, "")];

/// Which tensor of a file becomes which one of the network.
#[derive(Debug)]
pub(crate) struct Plan {
    pub layout: Layout,
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

/// Finds the backbone of a file and maps all names of its model.
pub(crate) fn plan(shapes: &BTreeMap<String, Vec<usize>>) -> Result<Plan, String> {
    let (wrapper, core) = locate(shapes)?;
    let mut names = BTreeMap::new();
    let mut twins = Vec::new();
    let mut classifier = [None, None];
    let mut unmatched = Vec::new();
    // Names with a slash in them are the other parts of a run's checkpoint: optimizer, queue, state.
    let scoped: Vec<&str> = shapes.keys().filter_map(|name| name.strip_prefix(&wrapper)).filter(|name| !name.contains('/')).collect();
    for &name in &scoped {
        let full = format!("{wrapper}{name}");
        match role(core, name) {
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
    Ok(Plan { layout: layout(core, &wrapper, &scoped), names, twins: pairs, classifier, unmatched })
}

/// The prefix of the model and where in it the backbone is.
fn locate(shapes: &BTreeMap<String, Vec<usize>>) -> Result<(String, Core), String> {
    let mut known = Vec::new();
    let mut foreign = Vec::new();
    for (name, shape) in shapes {
        let sequential = name
            .strip_suffix("backbone.0.weight")
            .filter(|wrapper| (wrapper.is_empty() || wrapper.ends_with('.')) && shapes.contains_key(&format!("{wrapper}backbone.4.0.conv1.weight")));
        if let Some(wrapper) = sequential {
            known.push((wrapper.to_owned(), Core::Sequential));
            continue;
        }
        let Some(root) = name.strip_suffix("conv1.weight") else { continue };
        let parent = root.trim_end_matches(['.', '/']).rsplit(['.', '/']).next().unwrap_or_default();
        let inside_block = !parent.is_empty() && parent.bytes().all(|byte| byte.is_ascii_digit());
        if inside_block || shape.len() != 4 || !(root.is_empty() || root.ends_with(['.', '/'])) {
            continue;
        }
        match place(root, is_wrapper) {
            Some(found) => known.push(found),
            None => foreign.push(root),
        }
    }
    // A single backbone in a place of its own is as good as one in a known place.
    if known.is_empty() {
        known = foreign.iter().filter_map(|root| place(root, |_| true)).collect();
    }
    match known.len() {
        1 => Ok(known.remove(0)),
        0 if classifier_names(shapes).is_some() => Err("holds a linear classifier only, no backbone (`predict --head` takes it)".to_owned()),
        0 => {
            let sample: Vec<&str> = shapes.keys().take(3).map(String::as_str).collect();
            let first = sample.join(", ");
            Err(format!("no backbone: none of its {} tensors is a four-dimensional conv1.weight (the first are: {first})", shapes.len()))
        }
        count => Err(format!("ambiguous: it has {count} backbones, under `{}` and `{}`", known[0].0, known[1].0)),
    }
}

/// Splits what comes before a backbone's first name into the model's prefix and the place inside the model.
fn place(root: &str, accept: impl Fn(&str) -> bool) -> Option<(String, Core)> {
    CORES.iter().find_map(|&(core, prefix)| root.strip_suffix(prefix).filter(|wrapper| accept(wrapper)).map(|wrapper| (wrapper.to_owned(), core)))
}

fn is_wrapper(prefix: &str) -> bool {
    WRAPPERS.contains(&prefix) || prefix.strip_suffix("module.").is_some_and(|rest| WRAPPERS.contains(&rest))
}

/// Weight and bias of a file that holds a classifier, whatever else it holds: `fc`, `head.fc`, `linear` or `classifier` at the top of a model.
pub(crate) fn classifier_names(shapes: &BTreeMap<String, Vec<usize>>) -> Option<(String, String)> {
    shapes.iter().find_map(|(name, shape)| {
        let stem = name.strip_suffix(".weight").filter(|_| shape.len() == 2)?;
        let wrapper = ["head.fc", "fc", "linear", "classifier"].iter().find_map(|core| stem.strip_suffix(core))?;
        let bias = format!("{stem}.bias");
        (is_wrapper(wrapper) && shapes.contains_key(&bias)).then(|| (name.clone(), bias))
    })
}

/// The prefix of the batch norm that the official linear evaluation can put before its `linear`, when the file of this classifier has one.
pub(crate) fn norm_before(shapes: &BTreeMap<String, Vec<usize>>, weight: &str) -> Option<String> {
    let norm = format!("{}bn.", weight.strip_suffix("linear.weight")?);
    shapes.range(norm.clone()..).next().is_some_and(|(name, _)| name.starts_with(&norm)).then_some(norm)
}

/// Why a name of a file is left out, to follow the name in a sentence.
pub fn why_unmatched(name: &str) -> &'static str {
    let name = name.rsplit_once("prototypes").map_or(name, |(_, rest)| if rest.ends_with(".bias") { "prototypes.bias" } else { name });
    match name {
        "prototypes.bias" => "is left out: SwAV's prototypes have no bias, so scores differ by it",
        _ if name.contains("prototypes") || name.contains("project") => "is left out: it makes no whole head of one set of prototypes",
        _ if name.rsplit('.').next().is_some_and(|last| last.contains("queue")) => {
            "is left out: the queue belongs to a training run, not to the network"
        }
        _ => "is left out: no part of a ResNet with a SwAV head or a classifier has this name",
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

fn role(core: Core, name: &str) -> Role {
    let tensor = |prefix: &str, rest: &str| Role::Tensor(format!("{prefix}{rest}"));
    match core {
        Core::Plain => match name {
            "fc.weight" => Role::Classifier(0),
            "fc.bias" => Role::Classifier(1),
            _ if name.starts_with("projection_head.") || name.starts_with("prototypes.") => tensor("", name),
            _ => backbone(name),
        },
        Core::Vissl => {
            if let Some(rest) = name.strip_prefix("trunk._feature_blocks.") {
                backbone(rest)
            } else if let Some(rest) = name.strip_prefix("heads.0.projection_head.") {
                tensor("projection_head.", rest)
            } else if name == "heads.0.prototypes0.weight" {
                tensor("prototypes.weight", "")
            } else {
                Role::Unmatched
            }
        }
        Core::Backbone | Core::Sequential => {
            if let Some(rest) = name.strip_prefix("backbone.") {
                return if core == Core::Sequential { sequential(rest) } else { backbone(rest) };
            }
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
                "prototypes.weight_g" | "prototypes.weight_v" => tensor("", name),
                "head.fc.weight" | "classifier.weight" => Role::Classifier(0),
                "head.fc.bias" | "classifier.bias" => Role::Classifier(1),
                _ => Role::Unmatched,
            }
        }
    }
}

/// A name inside a `Sequential` of torchvision's children: conv1, bn1, relu, maxpool, layer1 to layer4.
fn sequential(name: &str) -> Role {
    let Some((number, rest)) = name.split_once('.') else { return Role::Unmatched };
    let module = match number {
        "0" => "conv1",
        "1" => "bn1",
        "4" => "layer1",
        "5" => "layer2",
        "6" => "layer3",
        "7" => "layer4",
        _ => return Role::Unmatched,
    };
    Role::Tensor(format!("{module}.{rest}"))
}

fn layout(core: Core, wrapper: &str, names: &[&str]) -> Layout {
    let any = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
    match core {
        Core::Vissl => Layout::Vissl,
        Core::Sequential => Layout::Lightly,
        Core::Plain if wrapper == "model/" => Layout::Run,
        Core::Plain if !any("projection_head.") && !any("prototypes.") && !wrapper.ends_with("module.") => Layout::Torchvision,
        Core::Plain if wrapper.starts_with("state_dict.") => Layout::SwavTraining,
        Core::Plain => Layout::Swav,
        Core::Backbone if any("head.fc.") => Layout::MmpretrainLinear,
        Core::Backbone if any("projection_head.layers.") || any("prototypes.heads.") => Layout::Lightly,
        Core::Backbone if any("projector.") || any("prototypes.weight_v") => Layout::SoloLearn,
        Core::Backbone => Layout::Mmpretrain,
    }
}
