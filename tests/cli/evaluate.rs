//! Evaluations and everything else that uses trained weights.

use crate::rig::{CLASSES, Rig, TRAIN, VAL, repository};
use crate::worst::worst;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use swav_wgpu::weights::{AnyTensor, HostTensor, Target, load, read_safetensors, save, write_safetensors};

fn classes() -> Vec<&'static str> {
    CLASSES.iter().map(|(name, _)| *name).collect()
}

#[test]
fn random_features_separate_colours() {
    let rig = Rig::new();
    let line = "eval-linear --config linear.toml --weights random:0 --json -q";
    let result = rig.run(&format!("{line} --out linear")).ok().json();
    // Chance is 33 %.
    assert!(result["top1"].as_f64() > Some(80.0) && result["top5"] == 100.0 && result["mean_class"] == result["top1"], "{result}");
    assert_eq!(result["classes"], serde_json::json!(classes()));
    let best = result["best_epoch"].as_u64().unwrap();
    assert!((1..=8).contains(&best));
    assert!(rig.run("eval-linear --config linear.toml --weights random:0 -q").ok().out.contains(&format!("(epoch {best} of 8 is the best")));
    let head = read_safetensors(rig.path(result["head"].as_str().unwrap())).unwrap();
    assert_eq!((head.f32("fc.weight").unwrap().shape, head.f32("fc.bias").unwrap().shape), (vec![3, 64], vec![3]));
    assert_eq!(rig.metric("linear", "step").len(), 8 * (TRAIN * 3).div_ceil(16));
    // The same again, without and with augmentation; a head that is not trained knows nothing.
    assert_eq!(rig.run(line).ok().json()["best_epoch"], result["best_epoch"]);
    let crops = rig.run(&format!("{line} --set augment.enabled=true --set augment.scale=[0.5,1.0]")).ok().json();
    // Crops of noise are noisier: 92 to 100 %.
    assert!(crops["top1"].as_f64().unwrap() > 80.0, "{crops}");
    let untrained = rig.run(&format!("{line} --set optimizer.lr=0.0")).ok().json();
    assert!(untrained["top1"].as_f64().unwrap() < 70.0, "{untrained}");
    // Nesterov's momentum is something else than plain momentum.
    let loss = |out: &str, more: &str| {
        rig.run(&format!("{line} --out {out} {more}")).ok();
        rig.metric(out, "loss")
    };
    let (plain, nesterov) = (loss("plain", ""), loss("nesterov", "--set optimizer.nesterov=true"));
    assert!(plain[..2] != nesterov[..2] && plain[0] == nesterov[0]);
}

#[test]
fn a_rate_is_scaled_only_when_asked_and_says_so() {
    let rig = Rig::new();
    let line = "eval-linear --config linear.toml --weights random:0 --set train.epochs=1 --set train.batch=500 -q";
    let plain = rig.run(&format!("{line} --json --out plain")).ok().json();
    assert!(plain["lr"] == 0.3 && plain.get("lr_scaled_by_batch").is_none() && rig.metric("plain", "lr") == ["0.3"], "{plain}");
    // By the 36 images of a step, not by the 500 that there are none of.
    let by = "--set optimizer.scale_lr_by_batch=72";
    let scaled = rig.run(&format!("{line} {by} --json --out scaled")).ok().json();
    assert!(
        scaled["lr"] == 0.15 && scaled["lr_scaled_by_batch"] == serde_json::json!([36, 72]) && rig.metric("scaled", "lr") == ["0.15"],
        "{scaled}"
    );
    let text = rig.run(&format!("{line} {by}")).ok().out;
    assert!(text.contains("learning rate 0.15 scaled by batch: 36 / 72"), "{text}");
    assert!(!rig.run(line).ok().out.contains("scaled"));
}

#[test]
fn a_head_of_a_single_layer() {
    let rig = Rig::new();
    rig.train("run", "--set model.hidden=0");
    let loss: Vec<f64> = rig.metric("run", "loss").iter().map(|l| l.parse().unwrap()).collect();
    assert!(loss.len() == 8 && loss.iter().all(|l| l.is_finite()) && loss[0] != loss[7], "{loss:?}");
    let info = rig.run("info --config pretrain.toml --set model.hidden=0 --json -q").ok().json();
    // 64 features to 16 dimensions, with bias.
    assert_eq!(info["parameters_by_part"]["neck"].as_u64(), Some(64 * 16 + 16));
    // It survives its checkpoint and the layouts that keep the head, and its scores are unit embeddings times prototypes.
    let image = AnyTensor::from_f32(&[2, 3, 32, 32], &(0..6144).map(|i| ((i * 37 % 101) as f32 - 50.0) / 30.0).collect::<Vec<_>>()).into_owned();
    write_safetensors(rig.path("images.safetensors"), &BTreeMap::from([("images".to_owned(), image)]), &BTreeMap::new()).unwrap();
    let pass = |weights: &str| {
        rig.run(&format!("features --weights {weights} --input images.safetensors --out {weights}.out.safetensors -q")).ok();
        let file = read_safetensors(rig.path(&format!("{weights}.out.safetensors"))).unwrap();
        (file.f32("embeddings").unwrap(), file.f32("scores").unwrap())
    };
    let (embeddings, scores) = pass("run");
    assert_eq!((embeddings.shape.as_slice(), scores.shape.as_slice()), (&[2, 16][..], &[2, 8][..]));
    let norm = embeddings.data[..16].iter().map(|v| v * v).sum::<f32>();
    assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    for layout in ["swav", "mmpretrain"] {
        let file = format!("{layout}.pth");
        rig.run(&format!("convert run {file} --to {layout}")).ok();
        let (e, s) = pass(&file);
        assert!(e.data == embeddings.data && s.data == scores.data, "{layout}");
    }
    rig.run("train --out run --resume --set train.epochs=3 -q").ok();
}

#[test]
fn neighbours() {
    let rig = Rig::new();
    rig.train("run", "");
    let mut result = rig.run("eval-knn --weights run --json -q --k 5").ok().json();
    assert_eq!(result.as_object_mut().unwrap().remove("data").unwrap()["pictures"], 48);
    assert_eq!(result, serde_json::json!({"top1": 100.0, "top5": 100.0, "mean_class": 100.0, "k": 5}));
    // Several k at once are an array, each as by itself.
    let mut several = rig.run("eval-knn --weights run --json -q --k 1,5,36,200").ok().json();
    for each in several.as_array_mut().unwrap() {
        assert_eq!(each.as_object_mut().unwrap().remove("data").unwrap()["pictures"], 48);
    }
    assert_eq!(several.as_array().unwrap().iter().map(|r| r["k"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 5, 36, 200]);
    // With all images as neighbours more than 36 are none.
    assert!(several[1] == result && several[2]["top1"] == several[3]["top1"], "{several}");
    assert_eq!(rig.run("eval-knn --weights run -q --k 1,5").ok().out.lines().count(), 2);
    let random = rig.run("eval-knn --weights random:0 --config pretrain.toml --data data --json -q").ok().json();
    assert_eq!((random["top1"].as_f64(), random["k"].as_u64()), (Some(100.0), Some(20)));
    rig.run("eval-knn --weights random:0 --data data").fails(2, &["--config"]);
    // As the configuration's: the scaled image holds the crop.
    rig.run("eval-knn --weights run --size 32 --resize 1").fails(2, &["--resize is 1: must be 0 (none) or from the size = 32 to 8192"]);
    for good in ["0", "32", "36"] {
        rig.run(&format!("eval-knn --weights run --size 32 --resize {good} -q")).ok();
    }
    rig.run("eval-linear --config linear.toml --weights run --json -q").ok();
}

#[test]
fn fine_tuning_moves_what_it_should() {
    let rig = Rig::new();
    rig.train("run", "--set model.prototypes=12");
    let line = "finetune --config linear.toml --weights run --fraction 0.34 --json -q --set optimizer.lr=0.1 --set train.batch=6";
    let result = rig.run(&format!("{line} --out all --set optimizer.backbone_lr=0.005")).ok().json();
    assert!(result["top1"].as_f64().unwrap() > 90.0, "{result}");
    // A third of 12 images of 3 classes is 12 images: 2 steps of 6.
    assert_eq!(rig.metric("all", "step").len(), 8 * 2);
    rig.run(&format!("{line} --out head --set optimizer.backbone_lr=0.0")).ok();
    let network = |path: &str| load(rig.path(path)).unwrap();
    let before = load(&rig.checkpoints("run")[0]).unwrap();
    let (all, head) = (network("all/model.safetensors"), network("head/model.safetensors"));
    assert_eq!(all.classes.unwrap(), classes());
    assert_eq!(all.classifier.unwrap().weight.shape, [3, 64]);
    for (name, tensor) in &head.tensors {
        // At rate 0 the backbone stays, but batch norms are in training mode: their statistics follow the data.
        assert_eq!(*tensor == before.tensors[name], !name.contains("running_"), "{name}");
        assert_ne!(all.tensors[name], before.tensors[name], "{name}");
    }
    // The same images for the same seed.
    rig.run(&format!("{line} --out again --set optimizer.backbone_lr=0.005")).ok();
    assert_eq!(rig.metric("all", "loss"), rig.metric("again", "loss"));
    rig.run(&format!("{line} --out other --set seed=1 --set optimizer.backbone_lr=0.005")).ok();
    assert_ne!(rig.metric("all", "loss"), rig.metric("other", "loss"));

    // The fraction may stand in the configuration, and is written down.
    rig.run(&format!("{} --out keyed --set optimizer.backbone_lr=0.005 --set train.fraction=0.34", line.replace("--fraction 0.34", ""))).ok();
    assert_eq!(rig.metric("all", "loss"), rig.metric("keyed", "loss"));
    assert!(std::fs::read_to_string(rig.path("all/config.toml")).unwrap().contains("fraction = 0.34"));

    // What was written is whole: it classifies images, prepared as in the evaluation.
    let images: Vec<String> = classes().iter().map(|c| format!("data/val/{c}/00.png")).collect();
    let said = rig.run(&format!("predict --weights all/model.safetensors --head all --json -q {}", images.join(" "))).ok().json();
    let said: Vec<&str> = said.as_array().unwrap().iter().map(|p| p["pred_class"].as_str().unwrap()).collect();
    assert_eq!(said, classes());
}

#[test]
fn the_official_semi_supervised_recipe_runs() {
    let rig = Rig::new();
    rig.train("run", "");
    let config = repository("configs/eval_semisup_10percent.toml").display().to_string();
    let tiny = "--data data --set image.size=32 --set image.resize=0 --set train.batch=6";
    let result = rig.run(&format!("finetune --config {config} --weights run --fraction 0.5 --out tuned --json -q {tiny}")).ok().json();
    assert!(result["lr"] == 0.2 && result["top1"].as_f64().unwrap() > 60.0, "{result}");
    // 18 images are 3 steps an epoch; the rate falls at epochs 12 and 16 of 20.
    let lr: Vec<f64> = rig.metric("tuned", "lr").iter().map(|v| v.parse().unwrap()).collect();
    let expected = |step: usize| 0.2 * [1.0, 0.2, 0.04][usize::from(step >= 36) + usize::from(step >= 48)];
    assert!(lr.len() == 60 && lr.iter().enumerate().all(|(step, lr)| (lr - expected(step)).abs() < 1e-12), "{lr:?}");
}

/// Features of the whole set: path to row.
fn features(rig: &Rig, weights: &str) -> BTreeMap<String, Vec<f32>> {
    rig.run(&format!("features --weights {weights} --data data --out all.safetensors -q")).ok();
    let file = read_safetensors(rig.path("all.safetensors")).unwrap();
    let paths: Vec<String> = serde_json::from_str(&file.metadata()["paths"]).unwrap();
    let HostTensor { shape, data } = file.f32("features").unwrap();
    assert_eq!(shape, [(TRAIN + VAL) * 3, 64]);
    let labels = file.i64("labels").unwrap();
    for (path, label) in paths.iter().zip(labels) {
        assert!(path.contains(&format!("/{}/", CLASSES[label as usize].0)), "{path} {label}");
    }
    paths.into_iter().zip(data.chunks(64).map(<[f32]>::to_vec)).collect()
}

#[test]
fn predictions_are_the_heads_softmax_of_the_features() {
    let rig = Rig::new();
    rig.train("run", "");
    rig.run("eval-linear --config linear.toml --weights run --out linear -q").ok();
    let features = features(&rig, "run");
    let head = read_safetensors(rig.path("linear/head.safetensors")).unwrap();
    let (weight, bias) = (head.f32("fc.weight").unwrap().data, head.f32("fc.bias").unwrap().data);
    let image = "data/val/green/02.png";
    let said = rig.run(&format!("predict --weights run --head linear/head.safetensors {image} data/train/red/03.png --json -q")).ok().json();
    let (_, row) = features.iter().find(|(path, _)| path.ends_with(image)).unwrap();
    let logits: Vec<f64> =
        (0..3).map(|c| f64::from(bias[c]) + row.iter().zip(&weight[c * 64..]).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>()).collect();
    let sum: f64 = logits.iter().map(|l| l.exp()).sum();
    let first = &said[0];
    assert_eq!((first["image"].as_str(), first["pred_label"].as_u64(), first["pred_class"].as_str()), (Some(image), Some(1), Some("green")));
    assert!((first["pred_score"].as_f64().unwrap() - logits[1].exp() / sum).abs() < 1e-5, "{first} {logits:?}");
    assert_eq!(said[1]["pred_class"].as_str(), Some("red"));

    // Moved away from its configuration, or beside another, a head still knows how its images were prepared; what is asked for changes nothing else.
    rig.run("eval-linear --config linear.toml --weights run --out larger -q --set image.size=48 --set image.resize=50").ok();
    for place in ["moved.safetensors", "linear/other.safetensors"] {
        std::fs::copy(rig.path("larger/head.safetensors"), rig.path(place)).unwrap();
    }
    let scores = ["larger", "moved.safetensors", "linear/other.safetensors", "moved.safetensors --resize 50", "moved.safetensors --size 32"]
        .map(|head| rig.run(&format!("predict --weights run --head {head} {image} --json -q")).ok().json()[0]["pred_score"].as_f64().unwrap());
    assert!(scores[1..4].iter().all(|score| *score == scores[0]) && scores[4] != scores[0], "{scores:?}");

    // A head without class names gives numbers; one of another width is refused.
    let tensors = |width: usize| {
        BTreeMap::from([
            ("fc.weight".to_owned(), AnyTensor::from_f32(&[3, width], &weight[..3 * width]).into_owned()),
            ("fc.bias".to_owned(), AnyTensor::from_f32(&[3], &bias).into_owned()),
        ])
    };
    write_safetensors(rig.path("plain.safetensors"), &tensors(64), &BTreeMap::new()).unwrap();
    let plain = rig.run(&format!("predict --weights run --head plain.safetensors {image} --json -q")).ok().json();
    assert_eq!((plain[0]["pred_label"].as_u64(), plain[0]["pred_class"].is_null()), (Some(1), true));
    // What else its file holds is named.
    let mut more = tensors(64);
    more.insert("projector.weight".to_owned(), AnyTensor::from_f32(&[2, 2], &[0.0; 4]).into_owned());
    write_safetensors(rig.path("more.safetensors"), &more, &BTreeMap::from([("classes".to_owned(), "[\"a\",\"b\"]".to_owned())])).unwrap();
    let said = rig.run(&format!("predict --weights run --head more.safetensors {image}")).ok().err;
    assert!(said.contains("more.safetensors: not used: 1 tensor: projector.weight"), "{said}");
    assert!(said.contains("more.safetensors: its 2 names of classes are not used: the classifier has 3 classes"), "{said}");
    write_safetensors(rig.path("narrow.safetensors"), &tensors(32), &BTreeMap::new()).unwrap();
    rig.run(&format!("predict --weights run --head narrow.safetensors {image}")).fails(2, &["narrow.safetensors", "32", "64"]);
    rig.run("predict --weights run --head plain.safetensors data/none.png").fails(4, &["data/none.png"]);
}

#[test]
fn clusters_are_the_best_scores() {
    let rig = Rig::new();
    rig.train("run", "");
    let ran = rig.run("clusters --weights run --data data --out gallery --json -q").ok();
    assert_eq!(ran.out, std::fs::read_to_string(rig.path("gallery/assignments.jsonl")).unwrap());
    let lines: Vec<Value> = ran.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), (TRAIN + VAL) * 3);

    // The same image through `features --input`.
    let line = lines.iter().find(|l| l["path"].as_str().unwrap().ends_with("val/red/01.png")).unwrap();
    let image = image::open(rig.path("data/val/red/01.png")).unwrap().to_rgb8();
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let pixels: Vec<f32> = (0..3).flat_map(|c| image.pixels().map(move |p| (f32::from(p.0[c]) / 255.0 - mean[c]) / std[c])).collect();
    let tensors = BTreeMap::from([("images".to_owned(), AnyTensor::from_f32(&[1, 3, 32, 32], &pixels))]);
    write_safetensors(rig.path("image.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    rig.run("features --weights run --input image.safetensors --out image.out.safetensors -q").ok();
    let scores = read_safetensors(rig.path("image.out.safetensors")).unwrap().f32("scores").unwrap().data;
    let best = (0..8).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
    assert_eq!(line["prototype"].as_u64(), Some(best as u64));
    assert!((line["score"].as_f64().unwrap() - f64::from(scores[best])).abs() < 1e-5);

    let used: BTreeSet<u64> = lines.iter().map(|l| l["prototype"].as_u64().unwrap()).collect();
    let page = std::fs::read_to_string(rig.path("gallery/index.html")).unwrap();
    for prototype in 0..8 {
        let sheet = format!("prototype-{prototype:04}.png");
        let there = used.contains(&prototype);
        assert_eq!((rig.path(&format!("gallery/{sheet}")).is_file(), page.contains(&format!("src=\"{sheet}\""))), (there, there));
        if there {
            let images = lines.iter().filter(|l| l["prototype"].as_u64() == Some(prototype)).count() as u32;
            let sheet = image::open(rig.path(&format!("gallery/{sheet}"))).unwrap();
            assert_eq!((sheet.width(), sheet.height()), (images.min(8) * 66 - 2, images.div_ceil(8) * 66 - 2));
        }
    }
    rig.run("clusters --weights run --data data --out gallery").fails(2, &["gallery"]);
}

#[test]
fn clusters_that_fail_leave_nothing() {
    let rig = Rig::new();
    rig.train("run", "");
    rig.run("convert run plain.safetensors --to torchvision").ok();
    rig.run("clusters --weights plain.safetensors --data data --out gallery --size 32").fails(2, &["plain.safetensors", "prototypes"]);
    rig.write("data/train/red/zz.png", "no image");
    rig.run("clusters --weights run --data data --out gallery").fails(4, &["zz.png"]);
    let left: Vec<String> = std::fs::read_dir(rig.path("")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.contains("gallery") || name.contains("tmp")), "{left:?}");
}

#[test]
fn conversions_keep_the_network() {
    let rig = Rig::new();
    rig.train("run", "");
    let original = features(&rig, "run");
    for (to, file) in [("torchvision", "a.safetensors"), ("swav", "b.pth"), ("mmpretrain", "c.pth")] {
        let summary = rig.run(&format!("convert run {file} --to {to} --json")).ok().json();
        assert_eq!((summary["source_layout"].as_str(), summary["unmatched"].as_array().map(Vec::len)), (Some("swav-wgpu"), Some(0)));
        let (parameters, tensors) = (summary["parameters"].as_u64().unwrap(), summary["tensors"].as_u64().unwrap());
        assert!(parameters > 70_000 && tensors > 50, "{summary}");
        assert_eq!(summary["dropped"].as_array().unwrap().is_empty(), to != "torchvision");
        let again = features(&rig, &format!("{file} --size 32"));
        assert!(original == again, "features of {file} differ");
    }
    rig.run("convert run x.onnx").fails(2, &["x.onnx", ".safetensors"]);
    rig.run("convert data/train/red/00.png x.pth").fails(2, &["00.png"]);
    assert!(!rig.path("x.pth").exists() && !rig.path("x.onnx").exists());
}

#[test]
fn recorded_outputs_of_every_weight_file() {
    let rig = Rig::new();
    let folder = repository("tests/golden/ckpt");
    let reference = read_safetensors(folder.join("tiny.forward_eval_f64.safetensors")).unwrap();
    let pixels: Vec<f32> = reference.f64("input").unwrap().iter().map(|v| *v as f32).collect();
    let tensors = BTreeMap::from([("images".to_owned(), AnyTensor::from_f32(&[1, 3, 37, 37], &pixels))]);
    write_safetensors(rig.path("images.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    let index: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("index.json")).unwrap()).unwrap();
    let files: Vec<&String> = index["files"].as_object().unwrap().keys().filter(|n| n.starts_with("tiny.") && !n.contains("forward")).collect();
    assert_eq!(files.len(), 20);
    for name in files {
        let file = folder.join(name).display().to_string();
        rig.run(&format!("features --weights {file} --input images.safetensors --out out.safetensors -q")).ok();
        compare(&rig.path("out.safetensors"), &reference, name);
    }
    for name in ["truncated.tiny.mm.pth", "truncated.tiny.swav_released_legacy.pth.tar", "foreign_classes.pth"] {
        let file = folder.join(name).display().to_string();
        rig.run(&format!("features --weights {file} --input images.safetensors --out no.safetensors")).fails(2, &[name]);
    }
    assert!(!rig.path("no.safetensors").exists());
}

/// Half precision on disk is the rounding of the weights and nothing else: the outputs are those of the rounded weights, to the bit.
#[test]
fn half_precision_files_act_as_their_rounded_weights() {
    let rig = Rig::new();
    let golden = |name: &str| repository("tests/golden/ckpt").join(name).display().to_string();
    let pixels = read_safetensors(golden("tiny.forward_eval_f64.safetensors")).unwrap().f32("input").unwrap();
    write_safetensors(
        rig.path("images.safetensors"),
        &BTreeMap::from([("images".to_owned(), AnyTensor::from_f32(&pixels.shape, &pixels.data))]),
        &BTreeMap::new(),
    )
    .unwrap();
    let outputs = |weights: &str| {
        rig.run(&format!("features --weights {weights} --input images.safetensors --out out.safetensors -q")).ok();
        let file = read_safetensors(rig.path("out.safetensors")).unwrap();
        ["features", "map", "embeddings", "scores"].map(|name| file.get(name).unwrap().into_owned())
    };
    let exact = outputs(&golden("tiny.official.safetensors"));
    for kind in ["f16", "bf16"] {
        let round = |x: f32| if kind == "f16" { half::f16::from_f32(x).to_f32() } else { half::bf16::from_f32(x).to_f32() };
        let mut network = load(golden("tiny.official.safetensors")).unwrap();
        network.tensors.values_mut().flat_map(|tensor| &mut tensor.data).for_each(|x| *x = round(*x));
        save(rig.path("rounded.safetensors"), &network, Target::Swav).unwrap();
        let expected = outputs("rounded.safetensors");
        assert!(expected != exact, "rounding to {kind} changes nothing: the test says nothing");
        for end in ["pth", "safetensors"] {
            assert!(outputs(&golden(&format!("tiny.official_{kind}.{end}"))) == expected, "{kind} {end}");
        }
    }
}

fn compare(ours: &Path, reference: &swav_wgpu::weights::TensorFile, name: &str) {
    let ours = read_safetensors(ours).unwrap();
    // Files of half precision hold rounded weights.
    let limit = if name.contains("bf16") {
        3e-2
    } else if name.contains("f16") {
        3e-3
    } else {
        1e-4
    };
    let has_head = !["torchvision", "linear"].iter().any(|plain| name.contains(plain));
    for (key, recorded) in [("features", "features"), ("embeddings", "embedding"), ("scores", "scores")] {
        assert_eq!(ours.contains(key), key == "features" || has_head, "{name}: {key}");
        if !ours.contains(key) {
            continue;
        }
        let (a, b) = (ours.f32(key).unwrap().data, reference.f64(recorded).unwrap());
        let scale = b.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        let off = worst(&a, &b) / scale;
        assert!(off <= limit, "{name}: {key} is off by {off:e}");
    }
    // The features are the mean of the map.
    let (map, features) = (ours.f32("map").unwrap(), ours.f32("features").unwrap().data);
    assert_eq!((map.shape[..2].to_vec(), map.shape[2]), (vec![1, features.len()], map.shape[3]));
    let area = map.shape[2] * map.shape[3];
    for (channel, feature) in map.data.chunks(area).zip(&features) {
        assert!((channel.iter().sum::<f32>() / area as f32 - feature).abs() < 1e-5, "{name}");
    }
}
