//! Layouts without a reference file, made by renaming one network, and files that are nearly right.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use swav_wgpu::weights::{
    AnyTensor, Checkpoint, ClassifierFile, Layout, Target, Unused, load, load_classifier, read_safetensors, read_tensors, save, write_safetensors,
};

pub type Tensors = BTreeMap<String, AnyTensor<'static>>;

pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ckpt/tiny.official.safetensors")
}

pub fn official() -> Tensors {
    read_tensors(golden()).unwrap()
}

pub fn load_tensors(tensors: &Tensors) -> swav_wgpu::error::Result<Checkpoint> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.bin");
    write_safetensors(&path, tensors, &BTreeMap::new()).unwrap();
    load(&path)
}

pub fn owned(shape: &[usize], data: &[f32]) -> AnyTensor<'static> {
    AnyTensor::from_f32(shape, data).into_owned()
}

pub fn renamed(rename: impl Fn(&str) -> String) -> Tensors {
    official().into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect()
}

pub fn is_head(name: &str) -> bool {
    name.starts_with("projection_head") || name.starts_with("prototypes")
}

fn refused(tensors: &Tensors, expected: &str) {
    let message = load_tensors(tensors).unwrap_err().to_string();
    assert!(message.contains(expected) && !message.contains('\n'), "{message}\nlacks: {expected}");
}

#[test]
fn several_prototype_heads_are_one_head_where_they_are_of_one_size() {
    let several = |prefix: &str, third: usize| {
        let mut tensors = renamed(|name| format!("{prefix}{name}"));
        let one = tensors.remove(&format!("{prefix}prototypes.weight")).unwrap();
        for (i, rows) in [7, 7, third].into_iter().enumerate() {
            let data: Vec<f32> = one.to_f32().unwrap().iter().cycle().take(rows * 5).map(|v| v + i as f32).collect();
            tensors.insert(format!("{prefix}prototypes.prototypes{i}.weight"), owned(&[rows, 5], &data));
        }
        tensors
    };
    let found = load_tensors(&several("module.", 7)).unwrap();
    assert_eq!((found.layout, found.head.unwrap().heads, found.unmatched.len()), (Layout::Swav, Some(3), 0));
    let single = load(golden()).unwrap();
    assert_eq!(single.head.unwrap().heads, None);
    let shifted: Vec<f32> = single.tensors["prototypes.weight"].data.iter().map(|v| v + 2.0).collect();
    assert_eq!(found.tensors["prototypes.prototypes2.weight"].data, shifted);
    // Without a place for different sizes the backbone is still good.
    let other = load_tensors(&several("", 6)).unwrap();
    assert!(other.head.is_none() && other.unmatched.iter().any(|n| n == "prototypes.prototypes2.weight"), "{:?}", other.unmatched);
}

#[test]
fn prefixes_are_found() {
    let expected = load(golden()).unwrap();
    for (prefix, layout) in [
        ("model/", Layout::Run),
        ("module.", Layout::Swav),
        ("model.", Layout::Swav),
        ("state_dict.", Layout::SwavTraining),
        ("state_dict.module.", Layout::SwavTraining),
    ] {
        let mut tensors = renamed(|name| format!("{prefix}{name}"));
        for other in ["optimizer/conv1.weight", "queue/0", "state/step"] {
            tensors.insert(other.to_owned(), owned(&[1, 3, 7, 7], &[f32::NAN; 147]));
        }
        let checkpoint = load_tensors(&tensors).unwrap();
        assert_eq!((checkpoint.layout, &checkpoint.tensors, &checkpoint.counters), (layout, &expected.tensors, &expected.counters));
        assert!(checkpoint.unmatched.is_empty(), "{prefix}");
    }
}

#[test]
fn other_programs_names_are_mapped() {
    let expected = load(golden()).unwrap();
    let vissl = renamed(|name| {
        let part = if is_head(name) { format!("heads.0.{name}") } else { format!("trunk._feature_blocks.{name}") };
        format!("classy_state_dict.base_model.model.{}", part.replace("prototypes.weight", "prototypes0.weight"))
    });
    let children = [("conv1", "0"), ("bn1", "1"), ("layer1", "4"), ("layer2", "5"), ("layer3", "6"), ("layer4", "7")];
    let mut lightly = renamed(|name| match name {
        _ if name.starts_with("projection_head.") => name.replace("head.", "head.layers."),
        "prototypes.weight" => "prototypes.heads.0.weight".to_owned(),
        _ => format!("backbone.{name}"),
    });
    let sequential: Tensors = lightly
        .iter()
        .map(|(name, tensor)| {
            let rest = name.strip_prefix("backbone.").and_then(|rest| rest.split_once('.'));
            let child = rest.and_then(|(first, rest)| Some((children.iter().find(|(module, _)| *module == first)?.1, rest)));
            (child.map_or(name.clone(), |(number, rest)| format!("state_dict.backbone.{number}.{rest}")), tensor.clone())
        })
        .map(|(name, tensor)| (if name.starts_with("state_dict.") { name } else { format!("state_dict.{name}") }, tensor))
        .collect();
    let old_mm = renamed(|name| match name {
        "prototypes.weight" => "head.prototypes.weight".to_owned(),
        _ if is_head(name) => name.replace("projection_head", "neck.projection_neck"),
        _ => format!("backbone.{name}"),
    });
    for (tensors, layout) in [(&vissl, Layout::Vissl), (&lightly, Layout::Lightly), (&sequential, Layout::Lightly), (&old_mm, Layout::Mmpretrain)] {
        let checkpoint = load_tensors(tensors).unwrap();
        assert_eq!((checkpoint.layout, &checkpoint.tensors, checkpoint.unmatched.len()), (layout, &expected.tensors, 0));
    }

    // lightly has no bias before the batch norm, and one behind the prototypes that SwAV has not.
    lightly.remove("projection_head.layers.0.bias");
    lightly.insert("prototypes.heads.0.bias".to_owned(), owned(&[7], &[0.5; 7]));
    let checkpoint = load_tensors(&lightly).unwrap();
    assert_eq!(checkpoint.tensors["projection_head.0.bias"].data, [0.0; 6]);
    assert_eq!(checkpoint.unmatched, ["prototypes.heads.0.bias"]);
}

#[test]
fn weight_normalised_prototypes_are_multiplied_out() {
    let weight = read_safetensors(golden()).unwrap().f32("prototypes.weight").unwrap();
    let mut solo = renamed(|name| if is_head(name) { name.replace("projection_head", "projector") } else { format!("state_dict.backbone.{name}") });
    solo = solo.into_iter().map(|(name, tensor)| (if name.starts_with("state") { name } else { format!("state_dict.{name}") }, tensor)).collect();
    solo.remove("state_dict.prototypes.weight");
    let doubled: Vec<f32> = weight.data.iter().map(|x| 2.0 * x).collect();
    let norms: Vec<f32> = weight.data.chunks(5).map(|row| row.iter().map(|x| x * x).sum::<f32>().sqrt()).collect();
    solo.insert("state_dict.prototypes.weight_v".to_owned(), owned(&[7, 5], &doubled));
    solo.insert("state_dict.prototypes.weight_g".to_owned(), owned(&[7, 1], &norms));
    solo.insert("state_dict.queue".to_owned(), owned(&[2, 1, 5], &[0.0; 10]));
    let checkpoint = load_tensors(&solo).unwrap();
    assert_eq!((checkpoint.layout, checkpoint.unmatched.as_slice()), (Layout::SoloLearn, ["state_dict.queue".to_owned()].as_slice()));
    for (ours, theirs) in checkpoint.tensors["prototypes.weight"].data.iter().zip(&weight.data) {
        approx::assert_relative_eq!(ours, theirs, max_relative = 1e-6);
    }
}

#[test]
fn a_linear_projection_is_a_head_and_half_a_head_is_none() {
    let mut tensors = official();
    tensors.retain(|name, _| !name.starts_with("projection_head"));
    let none = load_tensors(&tensors).unwrap();
    assert_eq!((none.head, none.unmatched.as_slice()), (None, ["prototypes.weight".to_owned()].as_slice()));
    tensors.insert("projection_head.weight".to_owned(), owned(&[5, 64], &[0.25; 320]));
    refused(&tensors, "the SwAV head is not whole: 1 of 3 tensors are missing: projection_head.bias");
    tensors.insert("projection_head.bias".to_owned(), owned(&[5], &[0.5; 5]));
    let checkpoint = load_tensors(&tensors).unwrap();
    assert_eq!(checkpoint.head.map(|head| head.hidden), Some(0));
    let folder = tempfile::tempdir().unwrap();
    for target in [Target::Swav, Target::Mmpretrain] {
        let path = folder.path().join("a.pth");
        save(&path, &checkpoint, target).unwrap();
        assert_eq!(load(&path).unwrap().tensors, checkpoint.tensors);
    }
}

#[test]
fn less_than_a_whole_network_is_refused() {
    let without = |part: &str| official().into_iter().filter(|(name, _)| !name.contains(part)).collect::<Tensors>();
    refused(&without("layer3."), "the backbone is not whole: missing are layer3.*");
    refused(&without("running_mean"), "not whole: 17 of 85 tensors are missing: *.running_mean");
    refused(&without("layer2.0.conv"), "not whole: 3 of 85 tensors are missing: layer2.0.conv1.weight, layer2.0.conv2.weight, layer2.0.conv3.weight");
    refused(&without("layer2.0.conv2"), "not whole: 1 of 85 tensors are missing: layer2.0.conv2.weight");
    refused(&without("projection_head.1."), "the SwAV head is not whole: 4 of 9 tensors are missing");
    assert_eq!(load_tensors(&without("num_batches_tracked")).unwrap().counters.len(), 0);

    let replaced = |name: &str, tensor| {
        let mut tensors = official();
        tensors.insert(name.to_owned(), tensor);
        tensors
    };
    refused(&replaced("layer1.0.bn1.weight", owned(&[3], &[1.0; 3])), "tensor layer1.0.bn1.weight has shape [3], expected [2]");
    refused(&replaced("prototypes.weight", owned(&[7, 4], &[1.0; 28])), "tensor prototypes.weight has shape [7, 4], expected [7, 5]");
    refused(&replaced("bn1.bias", owned(&[2], &[1.0, f32::NAN])), "tensor bn1.bias is not finite: element 1 is NaN");
    refused(&replaced("bn1.bias", AnyTensor::from_i64(&[2], &[1, 2]).into_owned()), "tensor bn1.bias holds I64, expected floating-point");
    refused(&replaced("conv1.weight", owned(&[2, 1, 7, 7], &[0.0; 98])), "conv1.weight has shape [2, 1, 7, 7]");
    refused(&replaced("bn1.running_var", owned(&[2], &[1.0, -0.5])), "tensor bn1.running_var has a variance of -0.5");
    let mut none = replaced("fc.weight", owned(&[0, 64], &[]));
    none.insert("fc.bias".to_owned(), owned(&[0], &[]));
    refused(&none, "fc.weight of shape [0, 64] with a bias of shape [0], expected [classes, 64] and [classes]");
    let mut classifier = replaced("fc.weight", owned(&[4, 63], &[0.0; 252]));
    classifier.insert("fc.bias".to_owned(), owned(&[4], &[0.0; 4]));
    refused(&classifier, "fc.weight of shape [4, 63] with a bias of shape [4], expected [classes, 64] and [classes]");
    let alone = renamed(|name| format!("teacher.{name}"));
    assert_eq!(load_tensors(&alone).unwrap().tensors.len(), 94);
    let mut pair = renamed(|name| format!("left.{name}"));
    pair.extend(renamed(|name| format!("right.{name}")));
    refused(&pair, "ambiguous: it has 2 backbones, under `left.` and `right.`; `--backbone PREFIX` chooses");
    let mut twice = official();
    twice.extend(renamed(|name| format!("module.{name}")));
    refused(&twice, "ambiguous");
    let mut extra = replaced("layer1.0.se.weight", owned(&[1], &[0.0]));
    extra.insert("something".to_owned(), owned(&[1], &[0.0]));
    assert_eq!(load_tensors(&extra).unwrap().unmatched, ["layer1.0.se.weight", "something"]);
}

#[test]
fn classifiers_are_read_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.safetensors");
    let classes = BTreeMap::from([("classes".to_owned(), "[\"a\",\"b\"]".to_owned())]);
    for prefix in ["fc", "head.fc", "state_dict.module.linear", "linear"] {
        let tensors = BTreeMap::from([(format!("{prefix}.weight"), owned(&[2, 3], &[1.0; 6])), (format!("{prefix}.bias"), owned(&[2], &[2.0; 2]))]);
        write_safetensors(&path, &tensors, &classes).unwrap();
        let ClassifierFile { classifier, classes: names, unused, .. } = load_classifier(&path).unwrap();
        assert!(unused.is_empty(), "{unused:?}");
        assert_eq!((classifier.weight.shape, classifier.bias.data, names), (vec![2, 3], vec![2.0; 2], Some(vec!["a".to_owned(), "b".to_owned()])));
        assert!(load(&path).unwrap_err().to_string().contains("a linear classifier only, no backbone"));
    }
    // What is not of it is named.
    let mut tensors = BTreeMap::from([("fc.weight".to_owned(), owned(&[2, 3], &[1.0; 6])), ("fc.bias".to_owned(), owned(&[2], &[2.0; 2]))]);
    tensors.extend([("linear.weight".to_owned(), owned(&[2, 3], &[1.0; 6])), ("linear.bias".to_owned(), owned(&[2], &[2.0; 2]))]);
    let three = BTreeMap::from([("classes".to_owned(), "[\"a\",\"b\",\"c\"]".to_owned())]);
    write_safetensors(&path, &tensors, &three).unwrap();
    let two = load_classifier(&path).unwrap();
    assert!(two.classes.is_none() && two.remarks[0].contains("3 names of classes are not used: the classifier has 2"), "{:?}", two.remarks);
    assert_eq!(Unused::describe(&two.unused).unwrap(), "2 tensors: linear. (2)");
    assert!(load_classifier(golden()).unwrap_err().to_string().contains("holds no classifier"));
}

#[test]
fn writing_is_atomic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    swav_wgpu::atomic::write_with(&path, |file| std::io::Write::write_all(file, b"old")).unwrap();
    let error = swav_wgpu::atomic::write_with(&path, |file| std::io::Write::write_all(file, b"new").and(Err(std::io::ErrorKind::StorageFull.into())))
        .unwrap_err();
    assert_eq!(error.exit_code(), 5);
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
