//! Which backbone of a file is taken, and what is said of everything else in it.

use crate::layouts::{Tensors, golden, is_head, load_tensors, official, owned, renamed};
use std::collections::BTreeMap;
use std::fs;
use swav_wgpu::weights::{AnyTensor, Checkpoint, Layout, Unused, load, load_under, read_tensors, write_safetensors};

/// The official network, headless, under a prefix, with every value moved by a number.
fn moved(prefix: &str, by: f32) -> Tensors {
    let mut tensors = renamed(|name| format!("{prefix}{name}"));
    tensors.retain(|name, _| !is_head(&name[prefix.len()..]));
    for (name, tensor) in &mut tensors {
        if !name.ends_with("num_batches_tracked") {
            let data: Vec<f32> = tensor.to_f32().unwrap().iter().map(|x| x + by).collect();
            *tensor = owned(tensor.shape(), &data);
        }
    }
    tensors
}

fn with(tensors: &mut Tensors, names: &[&str]) {
    tensors.extend(names.iter().map(|name| ((*name).to_owned(), owned(&[2, 2], &[0.5; 4]))));
}

fn load_as(tensors: &Tensors, prefix: Option<&str>) -> Result<Checkpoint, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    write_safetensors(&path, tensors, &BTreeMap::new()).unwrap();
    load_under(&path, prefix).map_err(|error| error.to_string())
}

/// What all values were moved by.
fn offset(checkpoint: &Checkpoint) -> f32 {
    checkpoint.tensors["bn1.bias"].data[0] - load(golden()).unwrap().tensors["bn1.bias"].data[0]
}

fn unused(checkpoint: &Checkpoint) -> String {
    Unused::describe(&checkpoint.unused).unwrap_or_default()
}

/// 102 tensors of a backbone are one of two here.
#[test]
fn the_encoder_that_evaluations_use_is_taken_and_the_other_named() {
    for (first, second, heads, said) in [
        ("state_dict.module.encoder_q.", "state_dict.module.encoder_k.", &["state_dict.module.queue"][..], "state_dict.module.queue"),
        ("module.base_encoder.", "module.momentum_encoder.", &["module.predictor.0.weight", "module.predictor.1.weight"], "module.predictor. (2)"),
        ("teacher.module.backbone.", "student.module.backbone.", &["teacher.module.head.mlp.0.weight"], "teacher.module.head.mlp.0.weight"),
        ("online_encoder.net.", "target_encoder.net.", &["online_predictor.net.0.weight"], "online_predictor.net.0.weight"),
        ("state_dict.online_network.encoder.", "state_dict.target_network.encoder.", &["epoch"], "epoch"),
        ("state_dict.backbone.", "state_dict.momentum_backbone.", &["state_dict.classifier.bias"], "state_dict.classifier.bias"),
        ("state_dict.", "state_dict_ema.", &["optimizer.state.0.exp_avg", "optimizer.state.1.exp_avg"], "optimizer.state. (2)"),
        ("model.module.encoder.", "model_ema.module.encoder.", &["model.module.head.0.weight"], "model.module.head.0.weight"),
    ] {
        let mut tensors = moved(first, 1.0);
        tensors.extend(moved(second, 2.0));
        with(&mut tensors, heads);
        let checkpoint = load_as(&tensors, None).unwrap();
        assert_eq!((offset(&checkpoint).round(), checkpoint.matched), (1.0, 102), "{first}");
        let all = unused(&checkpoint);
        assert!(all.starts_with(&format!("{} tensors: ", 102 + heads.len())), "{all}");
        assert!(all.contains(&format!("{second} (102)")) && all.contains(said), "{all}");
        let remark = format!("the backbone is the one under `{first}`; there is another one under `{second}` (`--backbone PREFIX` chooses)");
        assert_eq!(checkpoint.remarks, [remark]);

        for prefix in [second, second.trim_end_matches('.')] {
            let other = load_as(&tensors, Some(prefix)).unwrap();
            assert_eq!((offset(&other).round(), other.matched), (2.0, 102), "{prefix}");
            assert!(unused(&other).contains(&format!("{first} (102)")), "{}", unused(&other));
        }
        let none = load_as(&tensors, Some("nothing")).unwrap_err();
        assert!(none.contains("has no backbone under `nothing`; there is one under `") && none.contains(first) && none.contains(second), "{none}");
    }
}

#[test]
fn heads_stay_with_their_encoder() {
    let mut tensors = renamed(|name| if is_head(name) { name.replace("projection_head", "projector") } else { format!("encoder.{name}") });
    let checkpoint = load_tensors(&tensors).unwrap();
    let expected = load(golden()).unwrap();
    assert_eq!((checkpoint.layout, &checkpoint.tensors, unused(&checkpoint)), (Layout::SoloLearn, &expected.tensors, String::new()));
    tensors.extend(moved("momentum_encoder.", 2.0));
    let average = load_as(&tensors, Some("momentum_encoder")).unwrap();
    assert_eq!((average.head, offset(&average).round()), (None, 2.0));
    assert_eq!(unused(&average), "112 tensors: encoder. (102), projector. (9), prototypes.weight");

    // A classifier inside an encoder is a projection of another method.
    let mut moco = moved("module.encoder_q.", 0.0);
    with(&mut moco, &["module.encoder_q.fc.weight", "module.encoder_q.fc.bias"]);
    let checkpoint = load_tensors(&moco).unwrap();
    assert_eq!((checkpoint.layout, checkpoint.classifier, checkpoint.unmatched.len()), (Layout::Encoder, None, 2));
    assert_eq!(checkpoint.unused, [Unused { prefix: "module.encoder_q.fc.".to_owned(), tensors: 2 }]);
}

#[test]
fn sequential_backbones_are_found_under_any_prefix() {
    let expected = load(golden()).unwrap();
    for prefix in ["", "state_dict.", "module.", "backbone.", "state_dict.backbone.", "online_network_state_dict.encoder.", "f."] {
        // With and without a pooling layer and a ReLU between bn1 and layer1.
        for first in [4, 3, 2] {
            let names = |name: &str| {
                let (module, rest) = name.split_once('.').unwrap();
                let number = match module {
                    "conv1" => 0,
                    "bn1" => 1,
                    stage => first + stage.trim_start_matches("layer").parse::<usize>().unwrap() - 1,
                };
                format!("{prefix}{number}.{rest}")
            };
            let mut tensors: Tensors = official().into_iter().filter(|(name, _)| !is_head(name)).map(|(name, t)| (names(&name), t)).collect();
            let checkpoint = load_tensors(&tensors).unwrap();
            assert_eq!((checkpoint.layout, checkpoint.matched, unused(&checkpoint)), (Layout::Lightly, 102, String::new()), "{prefix}{first}");
            for (name, tensor) in &checkpoint.tensors {
                assert_eq!(tensor, &expected.tensors[name], "{prefix}{first}");
            }
            tensors.remove(&names("layer3.0.conv1.weight"));
            let message = load_as(&tensors, None).unwrap_err();
            assert!(message.contains("1 of 85 tensors are missing: layer3.0.conv1.weight"), "{message}");
        }
    }
}

#[test]
fn vissls_feature_extractors_are_found() {
    let mut tensors = moved("classy_state_dict.base_model.model.trunk.base_model._feature_blocks.", 0.0);
    with(&mut tensors, &["classy_state_dict.base_model.model.heads.0.channel_bn.weight", "classy_state_dict.base_model.model.heads.0.clf.weight"]);
    let checkpoint = load_tensors(&tensors).unwrap();
    assert_eq!((checkpoint.layout, checkpoint.matched), (Layout::Vissl, 102));
    assert_eq!(unused(&checkpoint), "2 tensors: classy_state_dict.base_model.model.heads.0. (2)");
}

/// Whatever the file: used and unused tensors are all of them.
#[test]
fn every_tensor_of_a_file_is_used_or_named() {
    let mut loaded = 0;
    for entry in fs::read_dir(golden().parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        let Ok(checkpoint) = load(&path) else { continue };
        let all = read_tensors(&path).unwrap().len();
        let named: usize = checkpoint.unused.iter().map(|group| group.tensors).sum();
        assert_eq!(checkpoint.matched + named, all, "{}", path.display());
        assert!(named >= checkpoint.unmatched.len(), "{}", path.display());
        loaded += 1;
    }
    assert!(loaded > 15);
    let training = load(golden().with_file_name("tiny.swav_train.pth.tar")).unwrap();
    assert!(training.unmatched.is_empty() && unused(&training).contains("optimizer.state. ("), "{}", unused(&training));
}

/// A safetensors file with some elements of a type that is of no use here.
fn with_float8(name: &str) -> Vec<u8> {
    let mut tensors = official();
    tensors.remove(name);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    write_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let data = &bytes[8 + length..];
    let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    header[name] = serde_json::json!({"dtype": "F8_E4M3", "shape": [4], "data_offsets": [data.len(), data.len() + 4]});
    crate::hostile_files::safetensors(&header.to_string(), &[data, &[0; 4]].concat())
}

#[test]
fn tensors_of_no_use_are_left_out_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    fs::write(&path, with_float8("projection_head.0.weight")).unwrap();
    let checkpoint = load(&path).unwrap();
    assert_eq!((checkpoint.head, checkpoint.tensors.len()), (None, 85));
    assert_eq!(checkpoint.unusable, BTreeMap::from([("projection_head.0.weight".to_owned(), "of type F8_E4M3".to_owned())]));
    assert_eq!(checkpoint.remarks, ["the SwAV head is left out, for projection_head.0.weight is of type F8_E4M3"]);
    assert_eq!(unused(&checkpoint), "10 tensors: projection_head. (9), prototypes.weight");
    fs::write(&path, with_float8("something.else")).unwrap();
    let checkpoint = load(&path).unwrap();
    assert_eq!((checkpoint.tensors.len(), checkpoint.unusable.len(), unused(&checkpoint).as_str()), (94, 1, "1 tensor: something.else"));
    fs::write(&path, with_float8("layer1.0.conv1.weight")).unwrap();
    let message = load(&path).unwrap_err().to_string();
    assert!(message.ends_with("layer1.0.conv1.weight; layer1.0.conv1.weight is of type F8_E4M3"), "{message}");

    // Integers in the head or classifier are no reason to refuse the backbone.
    let mut tensors = official();
    tensors.insert("prototypes.weight".to_owned(), AnyTensor::from_i64(&[7, 5], &[1; 35]).into_owned());
    tensors.insert("fc.weight".to_owned(), AnyTensor::from_u8(&[2, 64], &[1; 128]).into_owned());
    tensors.insert("fc.bias".to_owned(), owned(&[2], &[0.0; 2]));
    let checkpoint = load_tensors(&tensors).unwrap();
    assert_eq!((checkpoint.head, checkpoint.classifier.is_none(), checkpoint.matched), (None, true, 102));
    assert_eq!(unused(&checkpoint), "12 tensors: fc. (2), projection_head. (9), prototypes.weight");
    assert_eq!(checkpoint.remarks.len(), 2);
}
