//! Finds the backbones in a file, and chooses the one that the file's program means, or that the user names.
//!
//! Promises: of several, the one is taken that the field takes: the query encoder, the online network, DINO's teacher, the weights
//! themselves rather than their moving average; of several of the same standing none is guessed. The others are listed.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Parts of prefixes that say nothing about what is under them.
const WRAPPERS: &[&str] = &["module", "model", "state_dict", "model_state_dict", "classy_state_dict", "base_model", "net", "network", "_orig_mod"];

/// Such parts between an encoder's name and its tensors.
const INNER_WRAPPERS: &[&str] = &["module", "model", "net", "_orig_mod"];

/// VISSL's places, for training and for features.
const VISSL: [&str; 2] = ["trunk._feature_blocks.", "trunk.base_model._feature_blocks."];

/// Where a backbone is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Prefix of the model, whose other parts are heads.
    pub wrapper: String,
    /// Prefix of the backbone inside the model.
    pub inside: String,
    pub core: Core,
    /// The number of the first stage in a `Sequential` of a ResNet's children, which has numbers for names.
    pub first_stage: Option<u32>,
}

/// How a model calls its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Core {
    /// Backbone and heads side by side.
    Plain,
    /// The backbone under a name of its own.
    Within,
    Vissl,
}

/// How likely a backbone is the one that is meant, most likely first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Main,
    /// DINO evaluates the teacher; elsewhere it is another network.
    Teacher,
    Student,
    /// A moving average of another one.
    Average,
}

fn segments(prefix: &str) -> impl Iterator<Item = &str> {
    prefix.split(['.', '/']).filter(|segment| !segment.is_empty())
}

fn standing(prefix: &str) -> Standing {
    let words = || segments(prefix).flat_map(|segment| segment.split('_'));
    let has = |listed: &[&str]| words().any(|word| listed.contains(&word));
    if has(&["momentum", "ema", "target", "averaged", "average", "swa", "k", "key", "shadow"]) {
        Standing::Average
    } else if has(&["teacher"]) {
        Standing::Teacher
    } else if has(&["student"]) {
        Standing::Student
    } else {
        Standing::Main
    }
}

/// Whether something under this prefix is at the top of a model.
pub(super) fn is_wrapper(prefix: &str) -> bool {
    segments(prefix).all(|segment| WRAPPERS.contains(&segment))
}

impl Place {
    /// The backbone whose tensors stand under `root`.
    pub fn at(root: &str, first_stage: Option<u32>) -> Self {
        let new = |wrapper: &str, core| Self { wrapper: wrapper.to_owned(), inside: root[wrapper.len()..].to_owned(), core, first_stage };
        if let Some(wrapper) = VISSL.iter().find_map(|inside| root.strip_suffix(inside)) {
            return new(wrapper, Core::Vissl);
        }
        // The last part that is no wrapper, if it is called an encoder.
        let mut end = root;
        loop {
            let outer = end.trim_end_matches(['.', '/']);
            let start = outer.rfind(['.', '/']).map_or(0, |dot| dot + 1);
            let segment = &outer[start..];
            if segment.split('_').any(|word| matches!(word, "backbone" | "encoder")) {
                return new(&root[..start], Core::Within);
            }
            if !INNER_WRAPPERS.contains(&segment) {
                return new(root, Core::Plain);
            }
            end = &root[..start];
        }
    }

    /// What stands before the backbone's names.
    pub fn root(&self) -> String {
        format!("{}{}", self.wrapper, self.inside)
    }

    /// Whether the model's heads belong to this backbone: those beside an averaged one are another's.
    pub fn has_heads(&self) -> bool {
        standing(&self.inside) == Standing::Main
    }

    /// A place that some program uses goes before any other.
    fn order(&self, other: &Self) -> Ordering {
        let key = |place: &Self| (standing(&place.root()), !is_wrapper(&place.wrapper));
        key(self).cmp(&key(other))
    }
}

/// Every backbone of a file; those that are more than a first convolution, where there are such.
fn all(shapes: &BTreeMap<String, Vec<usize>>) -> Vec<Place> {
    let mut places = Vec::new();
    let mut whole = Vec::new();
    for (name, shape) in shapes.iter().filter(|(_, shape)| shape.len() == 4) {
        let first = |inner: &str| name.strip_suffix(inner).filter(|root| root.is_empty() || root.ends_with(['.', '/']));
        if let Some(root) = first("0.weight")
            && let Some(stage) = (2..=5).find(|stage| shapes.contains_key(&format!("{root}{stage}.0.conv1.weight")))
        {
            whole.push(Place::at(root, Some(stage)));
        }
        let Some(root) = first("conv1.weight") else { continue };
        let parent = segments(root).last().unwrap_or_default();
        if shapes.contains_key(&format!("{root}layer1.0.conv1.weight")) {
            whole.push(Place::at(root, None));
        } else if shape.len() == 4 && (parent.is_empty() || !parent.bytes().all(|byte| byte.is_ascii_digit())) {
            places.push(Place::at(root, None));
        }
    }
    let mut found = if whole.is_empty() { places } else { whole };
    // Momentum buffers bear the names of what they belong to.
    let is_optimizer = |place: &Place| segments(&place.wrapper).any(|segment| segment.starts_with("optim"));
    if !found.iter().all(is_optimizer) {
        found.retain(|place| !is_optimizer(place));
    }
    found
}

/// Prefixes in words.
fn listed(places: &[Place]) -> String {
    let quoted: Vec<String> = places.iter().take(6).map(|place| quoted(&place.root())).collect();
    let more = places.len().saturating_sub(quoted.len());
    let last = if more > 0 { Some(format!("{more} more")) } else { None };
    let parts: Vec<String> = quoted.into_iter().chain(last).collect();
    match &parts[..] {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => parts.join(""),
    }
}

fn quoted(root: &str) -> String {
    if root.is_empty() { "the top level (`.`)".to_owned() } else { format!("`{root}`") }
}

/// The backbone that is meant and the others, if there is any. With a prefix that one; of the prefix's parts the outer or inner ones may be
/// left out.
pub(super) fn choose(shapes: &BTreeMap<String, Vec<usize>>, wanted: Option<&str>) -> Result<Option<(Place, Vec<Place>)>, String> {
    let mut places = all(shapes);
    if places.is_empty() {
        return Ok(None);
    }
    let mut fitting = places.clone();
    if let Some(prefix) = wanted {
        let parts: Vec<&str> = segments(prefix).collect();
        let exact = |place: &Place| segments(&place.root()).eq(parts.iter().copied());
        let within = |place: &Place| {
            let root = place.root();
            let root: Vec<&str> = segments(&root).collect();
            !parts.is_empty() && root.windows(parts.len()).any(|window| window == parts)
        };
        fitting.retain(exact);
        if fitting.is_empty() {
            fitting = places.iter().filter(|place| within(place)).cloned().collect();
        }
        if fitting.is_empty() {
            return Err(format!("has no backbone under `{prefix}`; there is one under {}", listed(&places)));
        }
    }
    fitting.sort_by(Place::order);
    let same: Vec<Place> = fitting.iter().filter(|place| place.order(&fitting[0]) == Ordering::Equal).cloned().collect();
    if same.len() > 1 {
        return Err(format!("ambiguous: it has {} backbones, under {}; `--backbone PREFIX` chooses", same.len(), listed(&same)));
    }
    let chosen = fitting.remove(0);
    places.retain(|place| *place != chosen);
    Ok(Some((chosen, places)))
}

/// A sentence about a choice; nothing where there was none.
pub(super) fn remark(chosen: &Place, others: &[Place]) -> Option<String> {
    let others = match others.len() {
        0 => return None,
        1 => format!("there is another one under {}", listed(others)),
        count => format!("there are {count} others, under {}", listed(others)),
    };
    Some(format!("the backbone is the one under {}; {others} (`--backbone PREFIX` chooses)", quoted(&chosen.root())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(roots: &[&str]) -> BTreeMap<String, Vec<usize>> {
        roots
            .iter()
            .flat_map(|root| {
                ["conv1.weight", "layer1.0.conv1.weight", "layer4.1.conv2.weight"].map(|name| (format!("{root}{name}"), vec![8, 3, 3, 3]))
            })
            .collect()
    }

    fn chosen(roots: &[&str], wanted: Option<&str>) -> Result<String, String> {
        choose(&file(roots), wanted).map(|found| found.unwrap().0.root())
    }

    #[test]
    fn the_conventional_backbone_is_taken() {
        for (roots, expected) in [
            (&["state_dict.module.encoder_k.", "state_dict.module.encoder_q."][..], "state_dict.module.encoder_q."),
            (&["state_dict.module.base_encoder.", "state_dict.module.momentum_encoder."], "state_dict.module.base_encoder."),
            (&["student.module.backbone.", "teacher.backbone."], "teacher.backbone."),
            (&["teacher.", "backbone."], "backbone."),
            (&["online_encoder.net.", "target_encoder.net."], "online_encoder.net."),
            (&["online_network.encoder.", "target_network.encoder."], "online_network.encoder."),
            (&["state_dict.backbone.", "state_dict.momentum_backbone."], "state_dict.backbone."),
            (&["state_dict.", "state_dict_ema."], "state_dict."),
            (&["model.module.encoder.", "model_ema.module.encoder."], "model.module.encoder."),
            (&["model/", "optimizer/", "optimizer.state."], "model/"),
            (&["backbone.", "online_net.0.", "target_net.0."], "backbone."),
            (&["0."], "0."),
            (&["optimizer/"], "optimizer/"),
        ] {
            assert_eq!(chosen(roots, None), Ok(expected.to_owned()));
        }
        let message = chosen(&["left.", "right."], None).unwrap_err();
        assert_eq!(message, "ambiguous: it has 2 backbones, under `left.` and `right.`; `--backbone PREFIX` chooses");
        assert!(chosen(&["", "module."], None).unwrap_err().contains("the top level (`.`) and `module.`"));
        let said = |roots: &[&str]| {
            let (place, others) = choose(&file(roots), None).unwrap().unwrap();
            remark(&place, &others)
        };
        assert_eq!(
            said(&["encoder_q.", "encoder_k."]).as_deref(),
            Some("the backbone is the one under `encoder_q.`; there is another one under `encoder_k.` (`--backbone PREFIX` chooses)")
        );
        assert_eq!(said(&["module."]), None);
    }

    #[test]
    fn a_prefix_chooses() {
        let roots = &["student.module.backbone.", "teacher.backbone.", "state_dict.", "state_dict_ema."];
        for (wanted, expected) in [
            ("student", "student.module.backbone."),
            ("student.module.backbone.", "student.module.backbone."),
            ("module.backbone", "student.module.backbone."),
            ("state_dict_ema", "state_dict_ema."),
            ("state_dict.", "state_dict."),
        ] {
            assert_eq!(chosen(roots, Some(wanted)), Ok(expected.to_owned()));
        }
        let none = chosen(&roots[..2], Some("encoder")).unwrap_err();
        assert_eq!(none, "has no backbone under `encoder`; there is one under `student.module.backbone.` and `teacher.backbone.`");
        assert_eq!(chosen(&["", "module."], Some(".")), Ok(String::new()));
        assert!(chosen(&["a.left.", "a.right."], Some("a")).unwrap_err().contains("ambiguous"));
    }

    #[test]
    fn models_are_split_where_their_heads_begin() {
        for (root, wrapper, core) in [
            ("module.encoder_q.", "module.", Core::Within),
            ("encoder.module.", "", Core::Within),
            ("state_dict.backbone.", "state_dict.", Core::Within),
            ("online_encoder.net.", "", Core::Within),
            ("model.trunk._feature_blocks.", "model.", Core::Vissl),
            ("trunk.base_model._feature_blocks.", "", Core::Vissl),
            ("state_dict.module.", "state_dict.module.", Core::Plain),
            ("model/", "model/", Core::Plain),
            ("", "", Core::Plain),
        ] {
            let place = Place::at(root, None);
            assert_eq!((place.wrapper.as_str(), place.core, place.root().as_str()), (wrapper, core, root));
        }
        assert!(Place::at("encoder_q.", None).has_heads() && !Place::at("momentum_encoder.", None).has_heads());
    }
}
