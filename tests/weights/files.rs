//! Weight files against reference values made with PyTorch (`tests/golden/ckpt`), and back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use swav_wgpu::nn::architecture::{Backbone, Block, Head, Stem};
use swav_wgpu::weights::{
    AnyTensor, Checkpoint, ClassifierFile, DType, Layout, Target, convert, load, load_classifier, read_safetensors, read_tensors, save,
};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ckpt").join(name)
}

/// Bits of all tensors, so that comparisons are exact.
fn bits(checkpoint: &Checkpoint) -> BTreeMap<&str, (&[usize], Vec<u32>)> {
    checkpoint.tensors.iter().map(|(name, t)| (name.as_str(), (t.shape.as_slice(), t.data.iter().map(|x| x.to_bits()).collect()))).collect()
}

fn assert_same(left: &Checkpoint, right: &Checkpoint, what: &str) {
    assert_eq!(bits(left), bits(right), "{what}");
    assert_eq!(left.counters, right.counters, "{what}");
    assert_eq!((&left.backbone, left.head), (&right.backbone, right.head), "{what}");
}

/// The same network without its head.
fn headless(mut checkpoint: Checkpoint) -> Checkpoint {
    checkpoint.head = None;
    checkpoint.tensors.retain(|name, _| !name.starts_with("pro"));
    checkpoint.counters.retain(|name, _| !name.starts_with("pro"));
    checkpoint
}

#[test]
fn every_layout_and_container_gives_the_same_network() {
    let official = load(golden("tiny.official.safetensors")).unwrap();
    assert_eq!(official.backbone, Backbone { block: Block::Bottleneck, blocks: vec![1; 4], width: 2, stem: Stem::Standard });
    assert_eq!(official.head, Some(Head { hidden: 6, feat_dim: 5, prototypes: 7, heads: None }));
    assert_eq!((official.layout, official.tensors.len(), official.counters.len()), (Layout::Swav, 112 - 18, 18));
    let raw = read_safetensors(golden("tiny.official.safetensors")).unwrap();
    for (name, tensor) in &official.tensors {
        assert_eq!(raw.f32(name).unwrap(), *tensor);
    }
    for (file, layout) in [
        ("tiny.mm.safetensors", Layout::Mmpretrain),
        ("tiny.swav_released.pth.tar", Layout::Swav),
        ("tiny.swav_released_legacy.pth.tar", Layout::Swav),
        ("tiny.swav_train.pth.tar", Layout::SwavTraining),
        ("tiny.swav_train_legacy.pth.tar", Layout::SwavTraining),
        ("tiny.mm.pth", Layout::Mmpretrain),
        ("tiny.mm_legacy.pth", Layout::Mmpretrain),
    ] {
        let checkpoint = load(golden(file)).unwrap();
        assert_same(&checkpoint, &official, file);
        assert_eq!((checkpoint.layout, &checkpoint.classifier), (layout, &None), "{file}");
        assert!(checkpoint.unmatched.is_empty(), "{file}: {:?}", checkpoint.unmatched);
    }
    let parameters = load(golden("tiny.parameters.pth")).unwrap();
    assert_eq!(bits(&parameters), bits(&official));

    let official = headless(official);
    let torchvision = read_safetensors(golden("tiny.torchvision.safetensors")).unwrap();
    for (file, layout) in [
        ("tiny.torchvision.safetensors", Layout::Torchvision),
        ("tiny.torchvision.pth", Layout::Torchvision),
        ("tiny.torchvision_deflated.pth", Layout::Torchvision),
        ("tiny.mm_linear.pth", Layout::MmpretrainLinear),
    ] {
        let checkpoint = load(golden(file)).unwrap();
        assert_same(&checkpoint, &official, file);
        assert_eq!((checkpoint.layout, checkpoint.unmatched.len()), (layout, 0), "{file}");
        let classifier = checkpoint.classifier.unwrap();
        assert_eq!(classifier.weight, torchvision.f32("fc.weight").unwrap(), "{file}");
        assert_eq!(classifier.bias, torchvision.f32("fc.bias").unwrap(), "{file}");
        let alone = load_classifier(golden(file)).unwrap();
        assert_eq!((alone.classifier, alone.classes), (classifier, checkpoint.classes), "{file}");
        assert!(!alone.unused.is_empty(), "{file}: there is a backbone");
    }
}

/// Files that PyTorch wrote with the names and nesting of programs that are not at hand.
#[test]
fn other_programs_checkpoints_give_the_same_network() {
    let official = load(golden("tiny.official.safetensors")).unwrap();
    let others = |checkpoint: &Checkpoint, names: &[&str]| {
        let mut bits: BTreeMap<_, _> = checkpoint.tensors.clone();
        names.iter().for_each(|name| _ = bits.remove(*name));
        bits
    };
    for (file, layout, changed, unmatched, remarks) in [
        ("tiny.vissl.torch", Layout::Vissl, &[][..], &[][..], &[][..]),
        (
            "tiny.lightly.ckpt",
            Layout::Lightly,
            &["projection_head.0.bias", "projection_head.1.running_mean"],
            &["state_dict.prototypes.heads.0.bias"],
            &["projection_head.0.bias is not in the file and taken as 0, which is the same: a batch norm follows it"],
        ),
        (
            "tiny.solo.ckpt",
            Layout::SoloLearn,
            &["prototypes.weight"],
            &["state_dict.queue"],
            &["prototypes.weight is multiplied out of weight_v and weight_g"],
        ),
    ] {
        let checkpoint = load(golden(file)).unwrap();
        assert_eq!((checkpoint.layout, checkpoint.head), (layout, official.head), "{file}");
        assert_eq!(others(&checkpoint, changed), others(&official, changed), "{file}");
        assert_eq!(checkpoint.counters, official.counters, "{file}");
        assert_eq!(
            (&checkpoint.unmatched[..], &checkpoint.remarks[..]),
            (
                &unmatched.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()[..],
                &remarks.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()[..]
            ),
            "{file}"
        );
        for name in changed {
            for (ours, theirs) in checkpoint.tensors[*name].data.iter().zip(&official.tensors[*name].data) {
                let moved = name.starts_with("projection_head");
                assert!(moved || (ours - theirs).abs() <= 1e-6 * theirs.abs(), "{file}: {name}");
            }
        }
        let all = read_tensors(golden(file)).unwrap().len();
        assert_eq!((checkpoint.matched + checkpoint.unmatched.len(), checkpoint.matched), (all, all - unmatched.len()), "{file}");
    }
}

#[test]
fn official_linear_checkpoints_are_classifiers() {
    let torchvision = load(golden("tiny.torchvision.pth")).unwrap().classifier.unwrap();
    assert_eq!(load_classifier(golden("linear.official.pth.tar")).unwrap().classifier, torchvision);
    let message = load(golden("linear.official.pth.tar")).unwrap_err().to_string();
    assert!(message.contains("holds a linear classifier only, no backbone (`predict --head` takes it)"), "{message}");

    // With the batch norm that the official code can put before it, as PyTorch evaluates the two.
    let ClassifierFile { classifier: folded, unused, remarks, .. } = load_classifier(golden("linear.official_bn.pth.tar")).unwrap();
    assert!(unused.iter().all(|group| !group.prefix.contains("bn")) && remarks.len() == 1, "{unused:?} {remarks:?}");
    let expected = read_safetensors(golden("linear.official_bn.expected.safetensors")).unwrap();
    let (inputs, logits) = (expected.f64("inputs").unwrap(), expected.f64("logits").unwrap());
    let (classes, features) = (folded.weight.shape[0], folded.weight.shape[1]);
    let largest = logits.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    for (index, expected) in logits.iter().enumerate() {
        let row = &folded.weight.data[index % classes * features..][..features];
        let input = &inputs[index / classes * features..][..features];
        let ours: f64 = row.iter().zip(input).map(|(w, x)| f64::from(*w) * x).sum::<f64>() + f64::from(folded.bias.data[index % classes]);
        assert!((ours - expected).abs() < 1e-6 * largest, "{ours} {expected}");
    }
    let mut tensors = read_tensors(golden("linear.official_bn.pth.tar")).unwrap();
    tensors.retain(|name, _| name.starts_with("state_dict."));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.safetensors");
    let norm = tensors.remove("state_dict.module.bn.running_var").unwrap();
    swav_wgpu::weights::write_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
    assert!(load_classifier(&path).unwrap_err().to_string().contains("state_dict.module.bn.running_var is missing"));
    let (shape, data) = ([norm.shape()[0] / 2], norm.to_f32().unwrap());
    tensors.insert("state_dict.module.bn.running_var".to_owned(), AnyTensor::from_f32(&shape, &data[..shape[0]]));
    swav_wgpu::weights::write_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
    assert!(
        load_classifier(&path).unwrap_err().to_string().contains("bn.running_var has shape [32], but the classifier behind it takes 64 features")
    );
}

#[test]
fn what_float32_cannot_hold_is_said() {
    let mut tensors = read_tensors(golden("tiny.official.safetensors")).unwrap();
    let wide: Vec<(String, Vec<usize>, Vec<f64>)> = ["bn1.weight", "bn1.bias", "conv1.weight"]
        .into_iter()
        .map(|name| (name.to_owned(), tensors[name].shape().to_vec(), tensors[name].to_f64().unwrap()))
        .map(|(name, shape, data)| if name == "conv1.weight" { (name, shape, data) } else { (name, shape, data.iter().map(|x| x + 1e-12).collect()) })
        .collect();
    for (name, shape, data) in &wide {
        tensors.insert(name.clone(), AnyTensor::from_f64(shape, data));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wide.safetensors");
    swav_wgpu::weights::write_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
    let checkpoint = load(&path).unwrap();
    // Two of the three: the third one's values are float32's.
    assert_eq!(checkpoint.remarks, ["2 tensors of float64 are rounded to float32"]);
    assert_same(&checkpoint, &load(golden("tiny.official.safetensors")).unwrap(), "wide");
}

#[test]
fn half_precision_is_widened_exactly() {
    let official = load(golden("tiny.official.safetensors")).unwrap();
    for (kind, tolerance) in [("f16", 1e-3), ("bf16", 8e-3)] {
        let torch = load(golden(&format!("tiny.official_{kind}.pth"))).unwrap();
        let safe = load(golden(&format!("tiny.official_{kind}.safetensors"))).unwrap();
        assert_same(&torch, &safe, kind);
        for (name, tensor) in &official.tensors {
            for (&exact, &half) in tensor.data.iter().zip(&torch.tensors[name].data) {
                approx::assert_relative_eq!(exact, half, max_relative = tolerance, epsilon = 1e-6);
                let again = if kind == "f16" { half::f16::from_f32(exact).to_f32() } else { half::bf16::from_f32(exact).to_f32() };
                assert_eq!(again.to_bits(), half.to_bits(), "{kind} {name}");
            }
        }
    }
}

#[test]
fn odd_tensors_are_read_exactly() {
    let expected = read_safetensors(golden("odd.expected.safetensors")).unwrap();
    for file in ["odd.pth", "odd_legacy.pth"] {
        let tensors = read_tensors(golden(file)).unwrap();
        assert_eq!(expected.names().count(), tensors.len(), "{file}");
        for name in expected.names() {
            assert_eq!(expected.get(name).unwrap(), tensors[&format!("state_dict.{name}")], "{file} {name}");
        }
        assert_eq!(tensors["state_dict.f16"].dtype(), DType::F16);
        assert!(load(golden(file)).unwrap_err().to_string().contains("no backbone"));
    }
    let foreign = read_tensors(golden("foreign_classes.pth")).unwrap();
    assert_eq!(foreign.keys().collect::<Vec<_>>(), ["state_dict.backbone.conv1.weight"]);
    assert!(load(golden("foreign_classes.pth")).unwrap_err().to_string().contains("conv1.weight has shape [1, 6, 1, 1]"));
}

#[test]
fn damaged_files_are_refused() {
    for file in ["truncated.tiny.mm.pth", "truncated.tiny.swav_released_legacy.pth.tar"] {
        let message = load(golden(file)).unwrap_err().to_string();
        assert!(message.contains(file) && !message.contains('\n'), "{message}");
    }
    let message = load(golden("tiny.forward_eval_f64.safetensors")).unwrap_err().to_string();
    assert!(message.contains("no backbone: none of its 4 tensors is a four-dimensional conv1.weight"), "{message}");
    assert!(load(golden("absent.pth")).unwrap_err().to_string().contains("cannot read"));
    assert!(load(golden("")).unwrap_err().to_string().contains("not a file"));
    assert!(load(golden("README.md")).unwrap_err().to_string().contains("no known kind"));
}

#[test]
fn round_trips_are_exact_in_every_layout_and_container() {
    let folder = tempfile::tempdir().unwrap();
    let official = load(golden("tiny.official.safetensors")).unwrap();
    let linear = load(golden("tiny.mm_linear.pth")).unwrap();
    let mut both = official.clone();
    both.classifier.clone_from(&linear.classifier);
    both.classes = Some(["tench", "Größe", "日本", "d"].map(str::to_owned).to_vec());
    for target in [Target::Torchvision, Target::Swav, Target::Mmpretrain] {
        for end in ["safetensors", "pth", "pth.tar"] {
            for (source, what) in [(&official, "official"), (&linear, "linear"), (&both, "both")] {
                let path = folder.path().join(format!("a.{end}"));
                save(&path, source, target).unwrap();
                let back = load(&path).unwrap();
                let what = format!("{what} {target:?} {end}");
                let expected = if target == Target::Torchvision { headless(source.clone()) } else { source.clone() };
                assert_same(&back, &expected, &what);
                assert_eq!(back.classifier, source.classifier, "{what}");
                assert!(back.unmatched.is_empty(), "{what}");
                if end == "safetensors" || target == Target::Mmpretrain {
                    assert_eq!(back.classes, source.classes, "{what}");
                }
                let again = folder.path().join(format!("b.{end}"));
                save(&again, &back, target).unwrap();
                if end == "safetensors" || back.classes == source.classes {
                    assert_eq!(fs::read(&path).unwrap(), fs::read(&again).unwrap(), "{what}");
                }
            }
        }
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 6, "temporary files are left");
}

#[test]
fn files_are_written_under_the_names_of_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    for (input, target, end, reference, count) in [
        ("tiny.official.safetensors", Target::Mmpretrain, "pth", "tiny.mm.pth", 117),
        ("tiny.swav_train_legacy.pth.tar", Target::Mmpretrain, "safetensors", "tiny.mm.safetensors", 117),
        ("tiny.mm.pth", Target::Swav, "pth", "tiny.swav_released.pth.tar", 112),
        ("tiny.mm_legacy.pth", Target::Swav, "safetensors", "tiny.official.safetensors", 112),
        ("tiny.mm_linear.pth", Target::Torchvision, "pth", "tiny.torchvision.pth", 104),
        ("tiny.torchvision.pth", Target::Mmpretrain, "pth", "tiny.mm_linear.pth", 104),
    ] {
        let path = folder.path().join(format!("out.{end}"));
        let summary = convert(&load(golden(input)).unwrap(), &path, target).unwrap();
        assert_eq!(
            (summary.matched, summary.remarks.len()),
            (read_tensors(golden(input)).unwrap().keys().filter(|name| !name.contains("optim")).count(), 0)
        );
        assert_eq!((summary.tensors, &summary.unmatched, &summary.dropped), (count, &vec![], &vec![]), "{input}");
        assert_eq!(read_tensors(&path).unwrap(), read_tensors(golden(reference)).unwrap(), "{input} {target:?}");
    }
    let official = load(golden("tiny.official.safetensors")).unwrap();
    let summary = convert(&official, folder.path().join("tv.pth"), Target::Torchvision).unwrap();
    assert_eq!((summary.tensors, summary.dropped.len(), summary.source_layout.as_str()), (102, 10, "swav"));
    let refused = |name: &str| convert(&official, folder.path().join(name), Target::Swav).unwrap_err().to_string();
    assert!(refused("a.onnx").contains(".safetensors or .pth"));
    assert!(refused("no/such/folder.pth").contains("cannot write"));
}

#[test]
fn resnet50_has_the_sizes_of_the_reference() {
    let backbone = Backbone::resnet(50).unwrap();
    let head = Head { hidden: 2048, feat_dim: 128, prototypes: 3000, heads: None };
    let specs: Vec<_> = backbone.tensors().into_iter().chain(head.tensors(2048)).collect();
    let zeros = vec![0f32; 2048 * 2048 + 512 * 512 * 9];
    let tensors: BTreeMap<_, _> = specs
        .iter()
        .filter(|spec| !spec.shape.is_empty())
        .map(|spec| (format!("model/{}", spec.name), AnyTensor::from_f32(&spec.shape, &zeros[..spec.elements()])))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let (run, output) = (folder.path().join("run.safetensors"), folder.path().join("out.pth"));
    swav_wgpu::weights::write_safetensors(&run, &tensors, &BTreeMap::new()).unwrap();
    let summary = convert(&load(&run).unwrap(), &output, Target::Mmpretrain).unwrap();
    assert_eq!((summary.tensors, summary.parameters, summary.source_layout.as_str()), (333, 28_354_752, "swav-wgpu"));
    assert_eq!(load(&output).unwrap().tensors.len() + 54, 328);
    assert!(load(&output).unwrap().expect_backbone(&output, &Backbone::resnet(34).unwrap()).is_err());
}
