//! The numbers of every recipe in `configs/`, typed from the reference programs' own scripts and configuration files.

use super::*;
use std::path::PathBuf;

/// ImageNet-1k's training images.
const IMAGES: u64 = 1_281_167;

fn configs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("configs")
}

/// A row of the table: what differs between the pre-training recipes.
struct Row {
    file: &'static str,
    epochs: u64,
    batch: usize,
    iterations: u64,
    /// Highest, last and first learning rate, epochs of warm-up.
    lr: [f64; 3],
    warmup: u64,
    crops: &'static [(usize, usize, [f64; 2])],
    /// Length and first epoch.
    queue: Option<(usize, u64)>,
    freeze: u64,
    width: usize,
    hidden: usize,
}

const LARGE: (usize, usize, [f64; 2]) = (2, 224, [0.14, 1.0]);
const WHOLE: (usize, usize, [f64; 2]) = (2, 224, [0.08, 1.0]);
const SMALL: (usize, usize, [f64; 2]) = (6, 96, [0.05, 0.14]);

/// Official, batch 4096.
const fn at_4096(file: &'static str, epochs: u64) -> Row {
    let lr = [4.8, 0.0048, 0.3];
    Row { file, epochs, batch: 4096, iterations: 312, lr, warmup: 10, crops: &[LARGE, SMALL], queue: None, freeze: 313, width: 64, hidden: 2048 }
}

/// Official and mmpretrain, batch 256.
const fn at_256(file: &'static str, epochs: u64) -> Row {
    let queue = Some((3840, 15));
    let lr = [0.6, 0.0006, 0.6];
    Row { file, epochs, batch: 256, iterations: 5004, lr, warmup: 0, crops: &[LARGE, SMALL], queue, freeze: 5005, width: 64, hidden: 2048 }
}

const MMPRETRAIN: &str = "swav_resnet50_8xb32-mcrop-coslr-200e_in1k-224px-96px";

fn table() -> Vec<Row> {
    vec![
        at_4096("swav_100ep_pretrain", 100),
        at_4096("swav_200ep_pretrain", 200),
        at_4096("swav_400ep_pretrain", 400),
        at_4096("swav_800ep_pretrain", 800),
        at_256("swav_200ep_bs256_pretrain", 200),
        at_256("swav_400ep_bs256_pretrain", 400),
        Row { crops: &[WHOLE], ..at_4096("swav_400ep_2x224_pretrain", 400) },
        Row { crops: &[LARGE, (4, 96, [0.05, 0.14])], width: 128, hidden: 8192, ..at_4096("swav_RN50w2_400ep_pretrain", 400) },
        Row {
            batch: 2560,
            iterations: 500,
            crops: &[WHOLE, (4, 96, [0.08, 0.14])],
            queue: Some((2560, 0)),
            width: 256,
            hidden: 8192,
            ..at_4096("swav_RN50w4_400ep_pretrain", 400)
        },
        at_256(MMPRETRAIN, 200),
    ]
}

fn load(file: &str) -> PretrainConfig {
    let (config, warnings) = PretrainConfig::load(configs().join(format!("{file}.toml")), &[]).unwrap();
    assert_eq!(warnings, [], "{file}");
    config
}

#[test]
fn pretraining() {
    for row in table() {
        let (config, file) = (load(row.file), row.file);
        let PretrainConfig { data, model, crops, augment, loss, optimizer, train, .. } = &config;
        assert_eq!((train.epochs, train.batch, train.freeze_prototypes_steps), (row.epochs, row.batch, row.freeze), "{file}");
        assert_eq!(crate::data::steps_per_epoch(IMAGES as usize, train.batch, true), row.iterations, "{file}");
        let (schedule, warmup) = (config.schedule(row.iterations), row.warmup * row.iterations);
        let at = [schedule.lr(warmup), schedule.lr(u64::MAX), schedule.lr(0)];
        assert_eq!((at, schedule.warmup_steps, schedule.total_steps), (row.lr, warmup, row.epochs * row.iterations), "{file}");
        let groups: Vec<_> = (0..crops.num.len()).map(|i| (crops.num[i], crops.size[i], crops.scale[i])).collect();
        assert_eq!((groups.as_slice(), crops.ratio), (row.crops, [0.75, 4.0 / 3.0]), "{file}");
        assert_eq!(config.queue_rows(), row.queue.map_or(0, |q| q.0), "{file}");
        row.queue.into_iter().for_each(|(length, start)| assert_eq!((config.queue.length, config.queue.start_epoch), (length, start), "{file}"));
        assert_eq!(model.backbone().stages(), ([3, 4, 6, 3], Block::Bottleneck), "{file}");
        assert_eq!((model.width, model.hidden, model.feat_dim, model.prototypes), (row.width, row.hidden, 128, 3000), "{file}");
        assert_eq!(model.stem, Stem::Standard, "{file}");

        // The same everywhere.
        let AugmentConfig { flip, jitter_probability, jitter, grayscale, blur_probability, blur_sigma, order } = augment.clone();
        assert_eq!((flip, jitter_probability, jitter, grayscale), (0.5, 0.8, [0.8, 0.8, 0.8, 0.2], 0.2), "{file}");
        assert_eq!((blur_probability, blur_sigma), (0.5, [0.1, 2.0]), "{file}");
        assert_eq!((loss.temperature, loss.epsilon, loss.sinkhorn_iterations), (0.1, 0.05, 3), "{file}");
        assert_eq!(loss.crops_for_assign, [0, 1], "{file}");
        assert_eq!((optimizer.momentum, optimizer.weight_decay, optimizer.trust, optimizer.eps), (0.9, 1e-6, 0.001, 1e-8), "{file}");
        assert_eq!((optimizer.scale_lr_by_batch, data.mean), (None, [0.485, 0.456, 0.406]), "{file}");

        // What the two programs do differently.
        let choices = (model.zero_init_residual, optimizer.kind, loss.sinkhorn, order, data.std);
        let expected = if file == MMPRETRAIN {
            (true, OptimizerKind::Lars, SinkhornScope::Local, AugmentOrder::Mmpretrain, [0.229, 0.224, 0.225])
        } else {
            (false, OptimizerKind::Larc, SinkhornScope::Global, AugmentOrder::Official, [0.228, 0.224, 0.225])
        };
        assert_eq!(choices, expected, "{file}");
        assert_eq!(config.seed, if file == MMPRETRAIN { 0 } else { 31 }, "{file}");
    }
}

#[test]
fn every_recipe_is_in_a_table() {
    let mut files: Vec<String> = table().iter().map(|r| format!("{}.toml", r.file)).collect();
    files.extend(LINEAR.iter().map(|f| format!("{f}.toml")));
    // The demo sets have protocols of their own; DeepCluster-v2 is another method.
    let own = |name: &str| ["digits", "sprites", "deepcluster"].iter().any(|p| name.starts_with(p));
    for entry in std::fs::read_dir(configs()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(own(&name) || files.contains(&name), "{name}");
    }
}

const LINEAR: [&str; 5] = [
    "resnet50_8xb32-linear-coslr-100e_in1k",
    "resnet50_8xb512-linear-coslr-90e_in1k",
    "eval_linear",
    "eval_semisup_10percent",
    "eval_semisup_1percent",
];

/// Text between backquotes in `docs/differences.md`.
fn quoted() -> Vec<String> {
    let text = std::fs::read_to_string(configs().join("../docs/differences.md")).unwrap();
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_key_and_value_of_the_differences_exists() {
    let errors = |set: &str| {
        let sets = [set.to_owned()];
        let pretrain = PretrainConfig::load(configs().join("digits.toml"), &sets).map(drop);
        let linear = LinearConfig::load(configs().join("digits-linear.toml"), &sets).map(drop);
        [pretrain, linear].map(|outcome| outcome.err().map(|e| e.to_string()))
    };
    let known = |key: &str| errors(&format!("{key}={{}}")).iter().any(|e| e.as_ref().is_some_and(|e| !e.contains("unknown key")));
    assert!(known("optimizer.lr") && !known("optimizer.rate") && !known("nothing.here"));
    let key = |text: &str| {
        let tables = ["data", "model", "crops", "augment", "loss", "queue", "optimizer", "schedule", "train", "checkpoint", "image", "head"];
        text.split_once('.')
            .is_some_and(|(table, key)| tables.contains(&table) && key.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c)))
    };
    let mut seen = std::collections::BTreeSet::new();
    for text in quoted() {
        match text.split_once(" = ") {
            Some((key, value)) => assert!(errors(&format!("{key}={value}")).contains(&None), "{text}"),
            None if key(&text) => {
                assert!(known(&text), "{text}");
                seen.insert(text);
            }
            None if text.starts_with("configs/") => assert!(configs().join("..").join(&text).is_file(), "{text}"),
            None => {}
        }
    }
    // Every key in which the two kinds of recipe differ has its row.
    let [official, mmpretrain] = ["swav_200ep_bs256_pretrain", MMPRETRAIN].map(|file| load(file).to_toml().unwrap());
    for (key, ..) in differences(&official, &mmpretrain).iter().filter(|(key, ..)| !key.starts_with("checkpoint.")) {
        assert!(quoted().contains(key), "{key}");
    }
    assert!(seen.len() >= 20, "{seen:?}");
}

#[test]
fn evaluations() {
    let [sgd, lars, official, ten, one] = LINEAR.map(|file| LinearConfig::load(configs().join(format!("{file}.toml")), &[]).unwrap().0);
    for (config, file) in [&sgd, &lars, &official, &ten, &one].into_iter().zip(LINEAR) {
        assert_eq!((config.image.size, config.image.resize), (224, 256), "{file}");
        assert_eq!(config.augment, LinearAugment { enabled: true, scale: [0.08, 1.0], flip: 0.5 }, "{file}");
        let o = &config.optimizer;
        assert_eq!((o.momentum, o.nesterov, o.scale_lr_by_batch, config.head.init_std), (0.9, false, None, 0.01), "{file}");
        let red = if file.starts_with("resnet50") { 0.229 } else { 0.228 };
        assert_eq!((config.data.mean, config.data.std), ([0.485, 0.456, 0.406], [red, 0.224, 0.225]), "{file}");
        assert_eq!(config.schedule.per, Per::Epoch, "{file}");
        let (seed, init) =
            if file.starts_with("eval_semisup") { (31, HeadInit::Uniform) } else { (if file == "eval_linear" { 31 } else { 0 }, HeadInit::Normal) };
        assert_eq!((config.seed, config.head.init), (seed, init), "{file}");
    }
    for (config, file, kind, lr, decay, epochs, batch) in [
        (&sgd, LINEAR[0], LinearOptimizerKind::Sgd, 0.3, 1e-6, 100, 256),
        (&lars, LINEAR[1], LinearOptimizerKind::Lars, 1.6, 0.0, 90, 4096),
        (&official, LINEAR[2], LinearOptimizerKind::Sgd, 0.3, 1e-6, 100, 256),
    ] {
        assert_eq!((config.optimizer.kind, config.optimizer.lr, config.optimizer.weight_decay), (kind, lr, decay), "{file}");
        assert_eq!((config.train.epochs, config.train.batch, config.train.fraction), (epochs, batch, 1.0), "{file}");
        assert_eq!((config.schedule.kind, config.schedule.min_lr), (ScheduleKind::Cosine, 0.0), "{file}");
    }
    for (config, fraction, trunk, head) in [(&ten, 0.1, 0.01, 0.2), (&one, 0.01, 0.02, 5.0)] {
        assert_eq!((config.train.fraction, config.backbone_lr(256), config.base_lr(256)), (fraction, trunk, head));
        assert_eq!((config.optimizer.kind, config.optimizer.weight_decay), (LinearOptimizerKind::Sgd, 0.0));
        assert_eq!((config.train.epochs, config.train.batch), (20, 256));
        // Times 0.2 from epochs 12 and 16 on.
        for (epoch, factor) in [(0, 1.0), (11, 1.0), (12, 0.2), (15, 0.2), (16, 0.04), (19, 0.04)] {
            assert!((config.lr(head, epoch * 51 + 50, 51) - head * factor).abs() < 1e-12, "{epoch}");
        }
    }
}

#[test]
fn wide_networks_have_the_published_sizes() {
    let backbone = |file: &str| {
        let architecture = load(file).model.backbone().architecture();
        architecture.tensors().iter().filter(|t| t.kind.is_parameter()).map(|t| t.elements() as u64).sum::<u64>()
    };
    assert_eq!(backbone("swav_400ep_pretrain"), 23_508_032);
    assert_eq!(backbone("swav_RN50w2_400ep_pretrain"), 93_907_072);
    // "375M"
    assert_eq!(backbone("swav_RN50w4_400ep_pretrain") / 1_000_000, 375);
}
