use super::*;
use std::path::PathBuf;

fn configs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("configs")
}

/// A file `c.toml` with `text` (and others beside it) in a folder of its own.
fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let path = dir.path().join("c.toml");
    (dir, path)
}

fn sets(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| s.to_string()).collect()
}

/// The one-line error of loading `text`, without its folder.
fn failure(text: &str, set: &[&str]) -> String {
    let (dir, path) = folder(&[("c.toml", text)]);
    let error = PretrainConfig::load(&path, &sets(set)).expect_err(&format!("{text:?} {set:?} loads"));
    assert_eq!(error.exit_code(), 2, "{error}");
    let message = error.to_string().replace(&format!("{}/", dir.path().display()), "");
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn every_shipped_file_loads_and_survives_writing() {
    let mut seen = 0;
    for entry in std::fs::read_dir(configs()).unwrap() {
        let path = entry.unwrap().path();
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("config.toml");
        match kind_of(&path, &[]).unwrap() {
            Kind::Pretrain => {
                let (config, warnings) = PretrainConfig::load(&path, &[]).unwrap();
                assert_eq!(warnings, []);
                std::fs::write(&copy, config.to_toml().unwrap()).unwrap();
                assert_eq!(PretrainConfig::load(&copy, &[]).unwrap().0, config);
            }
            Kind::Linear => {
                let config = LinearConfig::load(&path, &[]).unwrap().0;
                std::fs::write(&copy, config.to_toml().unwrap()).unwrap();
                assert_eq!(LinearConfig::load(&copy, &[]).unwrap().0, config);
                assert!(config.model.is_some());
            }
        }
        seen += 1;
    }
    assert!(seen >= 18, "{seen}");
}

#[test]
fn defaults_are_the_mmpretrain_recipes() {
    let recipe = PretrainConfig::load(configs().join("swav_resnet50_8xb32-mcrop-coslr-200e_in1k-224px-96px.toml"), &[]).unwrap().0;
    let mut default = PretrainConfig::default();
    default.data.path = "data/imagenet".into();
    default.model.depth = Some(50);
    default.train.batch = 256;
    // Recipes of one device default to the paper's Sinkhorn.
    default.loss.sinkhorn = SinkhornScope::Local;
    assert_eq!(recipe, default);
    assert_eq!((recipe.model.backbone().features(), recipe.queue_rows(), recipe.crops.total()), (2048, 3840, 8));
    let mut linear = LinearConfig::default();
    linear.data.path = "data/imagenet".into();
    linear.train.batch = 256;
    linear.model = Some(BackboneConfig { depth: Some(50), ..Default::default() });
    assert_eq!(LinearConfig::load(configs().join("resnet50_8xb32-linear-coslr-100e_in1k.toml"), &[]).unwrap().0, linear);
}

#[test]
fn overrides_and_inheritance() {
    let (_dir, path) = folder(&[
        ("c.toml", "extends = ['a.toml', \"b.toml\"]\n[train]\nepochs = 7\n"),
        ("a.toml", "seed = 1\n[train]\nbatch = 10\nepochs = 1\n[model]\ndepth = 18\n"),
        ("b.toml", "seed = 2\n[model]\nblocks = [1,1,1,1]\nblock = 'basic'\n[queue]\nlength = 25\n"),
    ]);
    let (config, warnings) =
        PretrainConfig::load(&path, &sets(&["optimizer.lr=0.25", "data.path=some/where", "data.std = [1.0,1.0,1]", "optimizer.kind=larc"])).unwrap();
    assert_eq!((config.seed, config.train.batch, config.train.epochs), (2, 10, 7));
    assert_eq!((config.optimizer.lr, config.data.path.to_string().as_str(), config.data.std), (0.25, "some/where", [1.0; 3]));
    assert_eq!(config.optimizer.kind, OptimizerKind::Larc);
    assert_eq!(config.model.backbone().stages(), ([1; 4], Block::Basic));
    assert_eq!((config.model.depth, config.queue_rows()), (None, 20));
    assert!(warnings[0].to_string().contains("queue.length: is 25, no multiple of train.batch = 10: 20 rows"), "{warnings:?}");
    let deeper = PretrainConfig::load(&path, &sets(&["model.depth=34"])).unwrap().0;
    assert_eq!(deeper.model.backbone().stages(), ([3, 4, 6, 3], Block::Basic));
    let text = (config.to_toml().unwrap(), deeper.to_toml().unwrap());
    assert!(differences(&text.0, &text.1).iter().any(|d| *d == ("optimizer.lr".into(), "0.25".into(), "0.6".into())));
    assert_eq!(differences(&text.0, &text.0), []);
}

#[test]
fn std_by_name_and_by_its_other_key() {
    let (_dir, path) = folder(&[("c.toml", "extends = 'a.toml'\n[data]\nnormalize_std = 'official'"), ("a.toml", "[data]\nstd = [0.5, 0.5, 0.5]")]);
    let std = |set: &[&str]| PretrainConfig::load(&path, &sets(set)).unwrap().0.data.std;
    assert_eq!(std(&[]), [0.228, 0.224, 0.225]);
    assert_eq!(std(&["data.std=mmpretrain"]), [0.229, 0.224, 0.225]);
    assert_eq!(std(&["data.normalize_std=[0.1, 0.2, 0.3]"]), [0.1, 0.2, 0.3]);
    assert_eq!(std(&["data.normalize_std=mmpretrain", "data.std=[1, 1.0, 1]"]), [1.0; 3]);
    assert_eq!(
        failure("[data]\nstd = 'official'\nnormalize_std = 'official'", &[]),
        "c.toml: data.normalize_std: cannot stand beside data.std: they are one key, give one of them"
    );
    assert!(failure("[data]\nstd = 3", &[]).ends_with("data.std: is 3: must be a list of 3 numbers, or \"mmpretrain\" or \"official\""));
}

#[test]
fn errors_name_the_file_that_is_wrong() {
    let (dir, path) = folder(&[("c.toml", "extends = 'a.toml'\n[train]\nbatch = 64"), ("a.toml", "[optimizer]\nlr = -1\n")]);
    let name = |f: &str| dir.path().join(f).display().to_string();
    let error = |s: &[&str]| PretrainConfig::load(&path, &sets(s)).unwrap_err().to_string();
    assert_eq!(error(&[]), format!("{}: optimizer.lr: is -1: must be >= 0 and finite", name("a.toml")));
    assert_eq!(error(&["optimizer.lr=1", "train.batch=1"]), "--set: train.batch: is 1: must be >= 2");
    std::fs::write(dir.path().join("a.toml"), "extends = ['c.toml']").unwrap();
    assert_eq!(error(&[]), format!("{}: extends: goes round in a circle: c.toml -> a.toml -> c.toml", name("c.toml")));
    std::fs::remove_file(dir.path().join("a.toml")).unwrap();
    let message = error(&[]);
    assert!(message.starts_with(&name("a.toml")) && message.contains("cannot be opened") && message.ends_with("c.toml)"), "{message}");
}

#[test]
fn wrong_files_are_told_apart() {
    assert_eq!(
        failure("[optimizer]\nlrr = 1", &[]),
        "c.toml: optimizer.lrr: unknown key; allowed: kind, lr, momentum, weight_decay, trust, eps, scale_lr_by_batch (did you mean lr?)"
    );
    assert!(failure("sead = 1", &[]).starts_with("c.toml: sead: unknown key; allowed: kind, seed, "));
    let kinds = "c.toml: optimizer.kind: is \"larz\": allowed: lars, larc (did you mean lars?)";
    assert!([kinds, &kinds.replace("lars?", "larc?")].contains(&failure("[optimizer]\nkind = 'larz'", &[]).as_str()));
    assert_eq!(failure("[train]\nepochs = 1.5", &[]), "c.toml: train.epochs: is 1.5: must be a whole number >= 0");
    assert_eq!(failure("[train]\nepochs = -2", &[]), "c.toml: train.epochs: is -2: must be a whole number >= 0");
    assert_eq!(failure("[train]\nepochs = 'ten'", &[]), "c.toml: train.epochs: is \"ten\": must be a whole number >= 0");
    assert_eq!(failure("train = 3", &[]), "c.toml: train: is 3: must be a table");
    // serde would fill keys by position.
    assert_eq!(failure("train = [1]", &[]), "c.toml: train: is [1]: must be a table");
    assert_eq!(failure("", &["loss=[0.5]"]), "--set: loss: is [0.5]: must be a table");
    assert_eq!(failure("", &["data=[\"small\"]"]), "--set: data: is [\"small\"]: must be a table");
    assert!(failure("many = [1]", &[]).starts_with("c.toml: many: unknown key; "));
    let (_dir, linear) = folder(&[("c.toml", "kind = 'linear'\nmodel = [50]")]);
    assert!(LinearConfig::load(&linear, &[]).unwrap_err().to_string().ends_with("model: is [50]: must be a table"));
    for number in ["9223372036854775808", "+99_999_999_999_999_999_999"] {
        assert_eq!(failure("", &[&format!("seed={number}")]), format!("--set: seed: is {number}: a whole number is at most 9223372036854775807"));
        let message = failure(&format!("\nseed = {number}"), &[]);
        assert_eq!(message, "c.toml: line 2: whole numbers are from -9223372036854775808 to 9223372036854775807");
    }
    assert!(failure("", &["loss.sinkhorn_iterations=5000000000"]).ends_with("is 5000000000: must be a whole number from 0 to 4294967295"));
    assert!(failure("[data]\nmean = [0.5, 0.5]", &[]).ends_with("data.mean: has a wrong length of 2: must be a list of 3"));
    assert!(failure("a = 1\nb = = 2", &[]).starts_with("c.toml: line 2: "), "{}", failure("a = 1\nb = = 2", &[]));
    assert!(failure("kind = 'linear'", &[]).contains("kind: is \"linear\", but this command takes a configuration of kind \"pretrain\""));
    assert!(failure("[head]", &[]).contains("kind: is \"linear\""));
    assert!(failure("kind = 'other'", &[]).contains("allowed: \"pretrain\", \"linear\""));
    assert!(failure("", &["optimizer.lr"]).contains("--set: optimizer.lr: must read key=value"));
    assert!(failure("", &["optimizer..lr=1"]).contains("is no key"));
    assert!(failure("", &["seed=1\nqueue.length=3"]).starts_with("--set: seed: is "));
    assert!(failure("", &["extends=c.toml"]).starts_with("--set: extends: unknown key"));

    let (dir, path) = folder(&[]);
    assert!(PretrainConfig::load(&path, &[]).unwrap_err().to_string().contains("cannot be opened"));
    assert_eq!(PretrainConfig::load(dir.path(), &[]).unwrap_err().exit_code(), 2);
    std::fs::write(&path, b"seed = 1 # \xff").unwrap();
    assert!(PretrainConfig::load(&path, &[]).unwrap_err().to_string().contains("is not UTF-8 text (byte 11 on)"));
    std::fs::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(PretrainConfig::load(&path, &[]).unwrap_err().to_string().contains("is larger than"));
}

#[test]
fn every_range_is_checked() {
    for (set, must) in [
        ("seed=-1", "whole number"),
        ("data.workers=0", "must be >= 1"),
        ("data.std=[0.2,0.0,0.2]", "data.std[1]: is 0: must be > 0"),
        ("data.mean=[2,0,0]", "data.mean[0]: is 2: must be from 0 to 1"),
        ("data.path=\"\"", "must name"),
        ("model.depth=51", "allowed: 18, 34, 50"),
        ("model.blocks=[1,1,1,1]", "missing beside model.blocks"),
        ("model.block=basic", "needs model.blocks"),
        ("model.width=0", "must be >= 1"),
        ("model.prototypes=1", "must be >= 2"),
        ("model.hidden=-1", "whole number"),
        ("model.hidden=9999999", "must be <= 100000"),
        ("loss.sinkhorn=none", "allowed: global, local"),
        ("data.std=offical", "is \"offical\": allowed: mmpretrain, official (did you mean official?)"),
        ("data.std=[0.2,0.2]", "has a wrong length of 2: must be a list of 3"),
        ("model.feat_dim=99999999999", "must be <= 16384"),
        ("model.width=8192", "384139141120 parameters by model.width"),
        ("crops.num=[]", "has 0 groups"),
        ("crops.num=[2]", "crops.size: is a list of 2: must have as many entries as crops.num, 1"),
        ("crops.num=[2,0]", "crops.num[1]: is 0: must be >= 1"),
        ("crops.size=[224,4]", "crops.size[1]: is 4: must be >= 8"),
        ("crops.size=[4097,96]", "crops.size[0]: is 4097: must be <= 4096"),
        ("crops.scale=[[0.5,0.2],[0.1,0.2]]", "crops.scale[0]: is [0.5, 0.2]: must be [low, high] with low <= high, both > 0 and <= 1"),
        ("crops.scale=[[0.0,0.2],[0.1,0.2]]", "both > 0"),
        ("crops.scale=[[0.1,1.2],[0.1,0.2]]", "<= 1"),
        ("crops.ratio=[2.0,1.0]", "low <= high"),
        ("crops.ratio=[1.0,inf]", "low <= high"),
        ("augment.flip=1.1", "must be from 0 to 1"),
        ("augment.grayscale=nan", "must be from 0 to 1"),
        ("augment.jitter=[0.4,0.4,-0.4,0.1]", "augment.jitter[2]"),
        ("augment.jitter=[0.4,0.4,0.4,0.6]", "augment.jitter[3]: is 0.6: must be from 0 to 0.5"),
        ("augment.blur_sigma=[-1,1]", "both >= 0"),
        ("loss.temperature=0", "must be > 0"),
        ("loss.epsilon=0.0", "must be > 0"),
        ("loss.sinkhorn_iterations=0", "must be >= 1"),
        ("loss.crops_for_assign=[]", "at least one"),
        ("loss.crops_for_assign=[0,2]", "is [0, 2]: must be crops of the first group, 0 to 1"),
        ("loss.crops_for_assign=[1,1]", "twice"),
        ("optimizer.lr=nan", "must be >= 0"),
        ("optimizer.momentum=1", "must be >= 0 and < 1"),
        ("optimizer.weight_decay=-1e-6", "must be >= 0"),
        ("optimizer.trust=0", "must be > 0"),
        ("optimizer.scale_lr_by_batch=0", "must be >= 1"),
        ("schedule.min_lr=inf", "finite"),
        ("schedule.warmup_epochs=201", "must be <= 200"),
        ("train.epochs=0", "must be >= 1"),
        ("train.batch=1", "must be >= 2"),
        ("checkpoint.keep=0", "must be >= 1"),
        ("deepcluster.heads=65", "must be <= 64"),
        ("deepcluster.kmeans_iterations=0", "must be >= 1"),
    ] {
        let message = failure("", &[set]);
        let key = set.split('=').next().unwrap();
        assert!(message.contains(must) && (message.contains(key) || key == "model.blocks"), "{set}: {message}");
    }
    assert!(failure("[model]\ndepth = 18\nblocks = [1,1,1,1]\nblock = 'basic'", &[]).contains("cannot stand beside"));
    let wide = failure("", &["model.hidden=100000", "model.feat_dim=16384", "model.prototypes=100000", "model.width=512"]);
    let keys = "model.hidden, model.feat_dim, model.prototypes and model.width";
    assert_eq!(wide, format!("--set: model: has 6416528864 parameters by {keys}: must have at most 4294967295"));
    let side = Stem::Small.largest_side();
    let large = failure("", &["model.stem=small", &format!("crops.size=[{},96]", side + 1)]);
    assert!(large.ends_with(&format!("must be <= {side}")), "{large}");
    assert!(failure("[crops]\nnum = [1]\nsize = [32]\nscale = [[0.5, 1.0]]", &[]).contains("at least 2 crops"));
}

#[test]
fn warnings_and_schedules() {
    let (_dir, path) =
        folder(&[("c.toml", "[queue]\nlength = 0\n[train]\nbatch = 64\nepochs = 10\n[schedule]\nwarmup_epochs = 2\nwarmup_start = 0.1")]);
    let (config, warnings) = PretrainConfig::load(&path, &sets(&["optimizer.scale_lr_by_batch=256"])).unwrap();
    assert!(warnings.len() == 1 && warnings[0].about == "model.prototypes", "{warnings:?}");
    assert!((config.base_lr() - 0.15).abs() < 1e-15);
    let schedule = config.schedule(5);
    assert_eq!((schedule.lr(0), schedule.lr(9), schedule.lr(10), schedule.lr(50)), (0.1, 0.15, 0.15, 6e-4));

    let mut linear = LinearConfig::default();
    assert_eq!((linear.lr(0.3, 0, 38), linear.lr(0.3, 37, 38), linear.base_lr(4096)), (0.3, 0.3, 0.3));
    assert!(linear.lr(0.3, 38, 38) < 0.3 && (linear.lr(0.3, 50 * 38, 38) - 0.15).abs() < 1e-12);
    linear.schedule.per = Per::Step;
    assert!(linear.lr(0.3, 37, 38) < 0.3);
    linear.schedule.kind = ScheduleKind::Step;
    assert_eq!((linear.lr(1.0, 60 * 38 - 1, 38), linear.lr(1.0, 60 * 38, 38)), (1.0, 0.1));
}

#[test]
fn deepcluster_has_its_own_defaults_and_the_official_numbers() {
    let of = |text: &str, set: &[&str]| {
        let (_dir, path) = folder(&[("c.toml", text)]);
        PretrainConfig::load(&path, &sets(set)).unwrap()
    };
    let (config, warnings) = of("method = 'deepcluster-v2'", &[]);
    assert_eq!((config.queue_rows(), config.train.freeze_prototypes_steps, warnings), (0, 10_000_000_000, vec![]));
    assert_eq!(config.deepcluster, DeepclusterConfig { heads: 3, kmeans_iterations: 10 });
    assert_eq!(of("", &["method=deepcluster-v2", "train.freeze_prototypes_steps=7"]).0.train.freeze_prototypes_steps, 7);
    assert_eq!((of("", &[]).0.method, of("", &[]).0.queue.length), (Method::Swav, 3840));
    // What was resolved loads again without a word.
    let (again, warnings) = of(&config.to_toml().unwrap(), &[]);
    assert_eq!((again, warnings), (config, vec![]));
    let about = |text: &str, set: &[&str]| of(text, set).1.iter().map(|w| w.about.clone()).collect::<Vec<_>>();
    let method = "method = 'deepcluster-v2'\n[crops]\nnum = [1]\nsize = [32]\nscale = [[0.5, 1.0]]\n[loss]\ncrops_for_assign = [0]\n";
    assert_eq!(about(method, &["loss.epsilon=0.03", "loss.sinkhorn_iterations=4"]), ["loss.epsilon", "loss.sinkhorn_iterations"]);
    assert_eq!(about("", &["deepcluster.heads=4", "train.batch=256"]), ["deepcluster"]);
    let refused = failure("method = 'deepcluster-v2'\n[queue]\nlength = 512", &[]);
    assert_eq!(refused, "c.toml: queue.length: is 512: must be 0 with method = \"deepcluster-v2\", which has memory banks instead of a queue");

    for (name, crops, epochs) in
        [("400ep", vec![(2, 160), (4, 96)], 400), ("400ep_2x224", vec![(2, 224)], 400), ("800ep", vec![(2, 224), (6, 96)], 800)]
    {
        let config = PretrainConfig::load(configs().join(format!("deepclusterv2_{name}_pretrain.toml")), &[]).unwrap().0;
        let c: Vec<(usize, usize)> = config.crops.num.iter().copied().zip(config.crops.size.iter().copied()).collect();
        assert_eq!((c, config.train.epochs, config.train.batch, config.method), (crops, epochs, 4096, Method::DeepclusterV2), "{name}");
        assert_eq!((config.deepcluster.heads, config.model.prototypes, config.train.freeze_prototypes_steps), (3, 3000, 300_000), "{name}");
        let schedule = config.schedule(312);
        assert_eq!((schedule.lr(0), schedule.lr(10 * 312)), (0.3, 4.8), "{name}");
        assert!(schedule.lr(epochs * 312 - 1) > 0.0048 && schedule.lr(epochs * 312 - 1) < 0.00481, "{name}");
        // All else is what the official SwAV recipes have.
        let swav = PretrainConfig::load(configs().join("swav_400ep_pretrain.toml"), &[]).unwrap().0;
        let own = PretrainConfig {
            method: swav.method,
            deepcluster: swav.deepcluster.clone(),
            loss: LossConfig { temperature: config.loss.temperature, ..swav.loss.clone() },
            queue: swav.queue.clone(),
            train: swav.train.clone(),
            crops: CropsConfig { ratio: config.crops.ratio, ..swav.crops.clone() },
            checkpoint: swav.checkpoint.clone(),
            ..config.clone()
        };
        let workers = |c: &PretrainConfig| PretrainConfig { data: DataConfig { workers: 1, ..c.data.clone() }, ..c.clone() };
        assert_eq!(workers(&own), workers(&swav), "{name}");
        let scales: &[[f64; 2]] = match name {
            "400ep" => &[[0.08, 1.0], [0.05, 0.14]],
            "400ep_2x224" => &[[0.08, 1.0]],
            _ => &[[0.14, 1.0], [0.05, 0.14]],
        };
        assert_eq!(config.crops.scale, scales, "{name}");
    }
}

#[test]
fn linear_ranges_and_random_weights() {
    let load = |set: &str| LinearConfig::load(configs().join("digits-linear.toml"), &sets(&[set])).unwrap_err().to_string();
    assert!(load("image.resize=16").contains("must be 0 (none) or from image.size = 32"));
    assert!(load("optimizer.kind=larc").contains("allowed: sgd, lars"));
    assert!(load("head.init_std=-1").contains("must be >= 0"));
    assert!(load("train.batch=0").contains("must be >= 1"));
    assert!(load("train.fraction=0").contains("train.fraction: is 0: must be > 0 and <= 1"));
    assert!(load("schedule.gamma=0").contains("must be > 0"));
    let nesterov = sets(&["optimizer.nesterov=true", "optimizer.momentum=0.0"]);
    assert!(LinearConfig::load(configs().join("digits-linear.toml"), &nesterov).unwrap_err().to_string().contains("momentum above 0"));
    let (a, b) = (backbone_of(&configs().join("digits.toml"), &[]).unwrap(), backbone_of(&configs().join("digits-linear.toml"), &[]).unwrap());
    assert_eq!((a.features(), &a), (128, &b));
    let (_dir, path) = folder(&[("c.toml", "kind = 'linear'")]);
    assert!(backbone_of(&path, &[]).unwrap_err().to_string().contains("[model] table"));
}

/// A path is one line of the file, whatever is in it, and stays what it is.
#[test]
fn a_path_does_not_add_lines() {
    let mut config = PretrainConfig::default();
    let lines = config.to_toml().unwrap().lines().count();
    for path in ["a\n[train]\nepochs = 1", "a\r\n\t\"\"\"'''\\\u{b}line\\u000B", "\"\"\"", "'''\n"] {
        config.data.path = path.into();
        let text = config.to_toml().unwrap();
        assert!(text.lines().count() == lines, "{text}");
        let (_dir, file) = folder(&[("c.toml", &text)]);
        assert_eq!(PretrainConfig::load(&file, &[]).unwrap().0, config, "{text}");
    }
}
