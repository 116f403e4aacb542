//! Says what of a file was not used: every tensor, in few words.

use super::backbones::Place;
use super::one_line;
use std::collections::BTreeMap;

/// Most groups that a sentence names.
const MOST_GROUPS: usize = 12;

/// Tensors of a file that were not used and whose names begin alike.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unused {
    /// What all their names begin with, with a dot or slash at its end; the whole name of a single one.
    pub prefix: String,
    /// How many they are.
    pub tensors: usize,
}

/// Groups names: the other backbones each; of a model the parts beside its backbone, and of this those that are no ResNet's; of the rest of
/// the file the outermost parts.
pub(super) fn group<'a>(names: impl Iterator<Item = &'a str>, backbone: &Place, others: &[Place]) -> Vec<Unused> {
    let whole: Vec<String> = others.iter().map(Place::root).collect();
    let split: Vec<String> = [backbone.root()].into_iter().chain([backbone].into_iter().chain(others).map(|place| place.wrapper.clone())).collect();
    let longest = |prefixes: &[String], name: &str| prefixes.iter().filter(|prefix| name.starts_with(*prefix)).map(String::len).max();
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        let base = longest(&split, name).unwrap_or_default();
        let end = match longest(&whole, name).filter(|end| *end >= base.max(1)) {
            Some(end) => end,
            None => name[base..].find(['.', '/']).map_or(name.len(), |separator| base + separator + 1),
        };
        groups.entry(&name[..end]).or_default().push(name);
    }
    groups
        .into_values()
        .map(|names| {
            let first = names[0];
            let common = names.iter().fold(first.len(), |length, name| {
                let same = first.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
                length.min(same)
            });
            let end = if names.len() == 1 {
                first.len()
            } else {
                first.as_bytes()[..common].iter().rposition(|b| b"./".contains(b)).map_or(0, |dot| dot + 1)
            };
            Unused { prefix: first[..end].to_owned(), tensors: names.len() }
        })
        .collect()
}

impl Unused {
    /// `13 tensors: projector. (9), prototypes. (4)`; nothing where all was used.
    pub fn describe(groups: &[Self]) -> Option<String> {
        let total: usize = groups.iter().map(|group| group.tensors).sum();
        if total == 0 {
            return None;
        }
        let mut parts: Vec<String> = groups
            .iter()
            .take(MOST_GROUPS)
            .map(|group| {
                let prefix = one_line(&group.prefix);
                if group.tensors == 1 { prefix } else { format!("{prefix} ({})", group.tensors) }
            })
            .collect();
        let rest = groups.iter().skip(MOST_GROUPS).map(|group| group.tensors).sum::<usize>();
        if rest > 0 {
            parts.push(format!("{rest} more elsewhere"));
        }
        Some(format!("{total} tensor{}: {}", if total == 1 { "" } else { "s" }, parts.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_grouped_where_models_part() {
        let names = [
            "optimizer.state.0.momentum_buffer",
            "optimizer.state.1.momentum_buffer",
            "state_dict.backbone.fc.bias",
            "state_dict.backbone.fc.weight",
            "state_dict.projector.0.weight",
            "state_dict.projector.2.weight",
            "state_dict.queue",
            "state_dict_ema.conv1.weight",
            "state_dict_ema.layer1.0.conv1.weight",
            "step",
        ];
        let (place, other, top) = (Place::at("state_dict.backbone.", None), Place::at("state_dict_ema.", None), Place::at("", None));
        let groups = group(names.into_iter(), &place, &[other]);
        assert_eq!(
            Unused::describe(&groups).unwrap(),
            "10 tensors: optimizer.state. (2), state_dict.backbone.fc. (2), state_dict.projector. (2), state_dict.queue, state_dict_ema. (2), step"
        );
        assert_eq!(Unused::describe(&[]), None);
        let many: Vec<String> = (0..20).map(|i| format!("part{i}.weight")).collect();
        assert!(Unused::describe(&group(many.iter().map(String::as_str), &top, &[])).unwrap().ends_with(", 8 more elsewhere"));
        assert_eq!(Unused::describe(&group(["é.a", "è.b", "conv1.é", "conv1.è"].into_iter(), &top, &[])).unwrap(), "4 tensors: conv1. (2), è.b, é.a");
    }
}
