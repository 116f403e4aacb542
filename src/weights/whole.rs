//! Compares the tensors there are with those there must be, and says shortly what is missing.

use crate::nn::architecture::{TensorKind, TensorSpec};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The error of a part of a network that is not whole, or has a tensor of another shape than the rest implies.
pub(crate) fn check(specs: &[TensorSpec], shapes: &BTreeMap<String, Vec<usize>>, part: &str) -> Result<(), String> {
    let required: Vec<&str> = specs.iter().filter(|spec| spec.kind != TensorKind::NumBatchesTracked).map(|spec| spec.name.as_str()).collect();
    let missing: BTreeSet<&str> = required.iter().copied().filter(|name| !shapes.contains_key(*name)).collect();
    if !missing.is_empty() {
        let list = summary(&required, &missing).join(", ");
        return Err(format!("the {part} is not whole: {} of {} tensors are missing: {list}", missing.len(), required.len()));
    }
    match specs.iter().find(|spec| shapes.get(&spec.name).is_some_and(|shape| *shape != spec.shape && !is_counter(spec, shape))) {
        Some(spec) => Err(format!("tensor {} has shape {:?}, expected {:?}", spec.name, shapes[&spec.name], spec.shape)),
        None => Ok(()),
    }
}

/// Counters are scalars, or single elements in some converted files.
fn is_counter(spec: &TensorSpec, shape: &[usize]) -> bool {
    spec.kind == TensorKind::NumBatchesTracked && shape == [1]
}

/// All that is missing, in order: `*.running_mean` where all running means are, `layer3.0.*` where a whole module is, single names else.
fn summary(required: &[&str], missing: &BTreeSet<&str>) -> Vec<String> {
    // How many of the required names start or end so, and how many of them are missing.
    let mut counts: HashMap<&str, (usize, usize)> = HashMap::new();
    for name in required {
        for part in modules(name).chain([kind(name)]) {
            let (all, gone) = counts.entry(part).or_default();
            *all += 1;
            *gone += usize::from(missing.contains(name));
        }
    }
    let whole = |part: &str| counts.get(part).is_some_and(|(all, gone)| all == gone && *all > 1);
    let mut parts = Vec::new();
    let mut seen = HashSet::new();
    for name in required.iter().filter(|name| missing.contains(**name)) {
        let part = if kind(name).starts_with(".running_") && whole(kind(name)) {
            format!("*{}", kind(name))
        } else {
            modules(name).find(|module| whole(module)).map_or((*name).to_owned(), |module| format!("{module}*"))
        };
        if seen.insert(part.clone()) {
            parts.push(part);
        }
    }
    parts
}

/// `layer3.`, `layer3.0.`, `layer3.0.bn1.` of `layer3.0.bn1.bias`.
fn modules(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(dot, _)| &name[..=dot])
}

/// `.bias` of `layer3.0.bn1.bias`.
fn kind(name: &str) -> &str {
    name.rfind('.').map_or(name, |dot| &name[dot..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::architecture::{Backbone, Head};

    #[test]
    fn what_is_missing_is_said_shortly_and_completely() {
        let backbone = Backbone::resnet(50).unwrap().tensors();
        let head = Head { hidden: 8, feat_dim: 4, prototypes: 3, heads: None }.tensors(2048);
        let shapes = |specs: &[TensorSpec], gone: &dyn Fn(&str) -> bool| {
            specs.iter().filter(|spec| !gone(&spec.name)).map(|spec| (spec.name.clone(), spec.shape.clone())).collect::<BTreeMap<_, _>>()
        };
        let message = |gone: &dyn Fn(&str) -> bool| check(&backbone, &shapes(&backbone, gone), "backbone").unwrap_err();
        let none = "the backbone is not whole";
        assert_eq!(check(&backbone, &shapes(&backbone, &|name| name.ends_with("tracked")), "backbone"), Ok(()));
        assert_eq!(message(&|name| name.contains("running_")), format!("{none}: 106 of 265 tensors are missing: *.running_mean, *.running_var"));
        assert_eq!(message(&|name| name.starts_with("layer3.") || name == "layer1.0.bn1.bias"), {
            format!("{none}: 96 of 265 tensors are missing: layer1.0.bn1.bias, layer3.*")
        });
        assert_eq!(message(&|name| name.starts_with("layer2.1.") || name.starts_with("layer2.0.downsample.")), {
            format!("{none}: 20 of 265 tensors are missing: layer2.0.downsample.*, layer2.1.*")
        });
        assert_eq!(message(&|name| name.ends_with("2.conv1.weight")), {
            format!(
                "{none}: 4 of 265 tensors are missing: layer1.2.conv1.weight, layer2.2.conv1.weight, layer3.2.conv1.weight, layer4.2.conv1.weight"
            )
        });
        let head_message = check(&head, &shapes(&head, &|name| name.starts_with("projection_head.1.")), "SwAV head").unwrap_err();
        assert_eq!(head_message, "the SwAV head is not whole: 4 of 9 tensors are missing: projection_head.1.*");
    }
}
