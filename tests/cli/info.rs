//! `info`: the recipe, the iterations and the learning rates of both kinds of configuration.

use crate::rig::{CLASSES, Rig, TRAIN, repository};
use serde_json::{Value, json};

fn config(name: &str) -> String {
    repository(&format!("configs/{name}.toml")).display().to_string()
}

fn rates(info: &Value) -> Vec<(u64, f64)> {
    let all = info["learning_rates"].as_array().unwrap();
    all.iter().map(|r| (r["step"].as_u64().unwrap(), r["lr"].as_f64().unwrap())).collect()
}

#[test]
fn pretraining_on_imagenet_and_on_what_is_there() {
    let rig = Rig::new();
    // Without data: ImageNet's 312 iterations at batch 4096, warm-up to step 3119.
    let line = format!("info --config {} --batch 4096 -q", config("swav_800ep_pretrain"));
    let info = rig.run(&format!("{line} --json")).ok().json();
    let total = 312 * 800;
    let counts = ["images", "iterations_per_epoch", "steps"].map(|key| info[key].as_u64().unwrap());
    assert_eq!(counts, [1_281_167, 312, total]);
    assert!(info["images_from"].as_str().unwrap().starts_with("ImageNet's (data/imagenet"), "{info}");
    let said = rates(&info);
    assert_eq!(said.iter().map(|r| r.0).collect::<Vec<_>>(), [0, 3119, total / 2, total - 1]);
    assert_eq!((said[0].1, said[1].1), (0.3, 4.8));
    // Half a cosine over 3120..T, at T / 2 a little above its middle.
    let t = (total / 2 - 3120) as f64 / (total - 3120) as f64;
    let middle = 0.0048 + 0.5 * (4.8 - 0.0048) * (1.0 + (std::f64::consts::PI * t).cos());
    assert!((said[2].1 - middle).abs() < 1e-12 && said[3].1 > 0.0048 && said[3].1 < 0.00481, "{said:?}");
    let recipe = &info["recipe"];
    assert_eq!((&recipe["kind"], &recipe["seed"], &recipe["optimizer"]["kind"]), (&json!("pretrain"), &json!(31), &json!("larc")));
    assert_eq!((&recipe["data"]["std"], &recipe["train"]["epochs"]), (&json!([0.228, 0.224, 0.225]), &json!(800)));
    assert_eq!(info["parameters"].as_u64(), Some(28_354_752), "what it said before it says still");

    let text = rig.run(&format!("{line} --lr-at 3118,3119")).ok().out;
    let (facts, toml) = text.split_once("# resolved recipe\n").unwrap();
    assert!(facts.contains("312 iterations an epoch, 249,600 in all") && facts.contains("3,119  (epoch 9) 4.8\n"), "{facts}");
    assert!(facts.lines().filter(|l| l.contains("(epoch ")).count() == 2, "{facts}");
    // The recipe is a configuration that means the same.
    rig.write("resolved.toml", toml);
    let again = rig.run("info --config resolved.toml --json -q").ok().json();
    assert_eq!(again["recipe"], info["recipe"]);
    assert_eq!(again["learning_rates"], info["learning_rates"]);

    // With data its images are counted: 36 are 4 batches of 8.
    let own = rig.run("info --config pretrain.toml --json -q").ok().json();
    assert_eq!(["images", "iterations_per_epoch", "steps"].map(|key| own[key].as_u64().unwrap()), [36, 4, 8]);
    let given = rig.run("info --config pretrain.toml --images 100 --lr-at 0,23 --json -q").ok().json();
    assert_eq!((given["iterations_per_epoch"].as_u64(), given["images_from"].as_str()), (Some(12), Some("--images")));
    assert_eq!(rates(&given).iter().map(|r| r.0).collect::<Vec<_>>(), [0, 23]);
    rig.run("info --config pretrain.toml --lr-at 8").fails(2, &["--lr-at 8", "8 steps"]);
    rig.run("info --config pretrain.toml --data nowhere").fails(4, &["nowhere"]);
    let few = rig.run("info --config pretrain.toml --images 5 --json").ok();
    assert!(few.err.contains("fewer than a batch of 8") && few.json()["learning_rates"] == json!([]), "{}", few.err);
}

#[test]
fn linear_evaluation_and_fine_tuning() {
    let rig = Rig::new();
    let info = |more: &str| rig.run(&format!("info --json -q {more}")).ok().json();
    let official = info(&format!("--config {}", config("eval_linear")));
    assert_eq!(["images", "iterations_per_epoch", "steps"].map(|key| official[key].as_u64().unwrap()), [1_281_167, 5005, 500_500]);
    assert_eq!((official["recipe"]["kind"].as_str(), &official["learning_rates"][0]), (Some("linear"), &json!({"step": 0, "epoch": 0, "lr": 0.3})));
    // The rate changes once an epoch.
    let said = rates(&info(&format!("--config {} --lr-at 5004,5005", config("eval_linear"))));
    assert!(said[0].1 == 0.3 && said[1].1 < 0.3, "{said:?}");

    // 1 % of ImageNet: 12,812 images in 51 batches; milestones at epochs 12 and 16.
    let tuned = info(&format!("--config {}", config("eval_semisup_1percent")));
    assert_eq!((tuned["images"].as_u64(), tuned["steps"].as_u64()), (Some(12_812), Some(51 * 20)));
    let all: Vec<(u64, f64, f64)> =
        rates(&tuned).iter().zip(tuned["learning_rates"].as_array().unwrap()).map(|(r, v)| (r.0, r.1, v["backbone_lr"].as_f64().unwrap())).collect();
    let expected = [(0, 5.0, 0.02), (510, 5.0, 0.02), (612, 1.0, 0.004), (816, 0.2, 0.0008), (1019, 0.2, 0.0008)];
    assert!(all.len() == 5 && all.iter().zip(expected).all(|(a, e)| a.0 == e.0 && (a.1 - e.1).abs() < 1e-12 && (a.2 - e.2).abs() < 1e-12), "{all:?}");

    // The images that are there, a part of them, and a rate scaled by the batch that they allow.
    let images = TRAIN * CLASSES.len();
    let own = info("--config linear.toml --set train.batch=500 --set optimizer.scale_lr_by_batch=72");
    assert_eq!((own["images"].as_u64(), own["iterations_per_epoch"].as_u64()), (Some(images as u64), Some(1)));
    assert!((rates(&own)[0].1 - 0.15).abs() < 1e-12, "{own}");
    assert_eq!(info("--config linear.toml --set train.fraction=0.5")["images"].as_u64(), Some(images as u64 / 2));
    let text = rig.run("info --config linear.toml -q").ok().out;
    assert!(text.contains("iterations an epoch, 24 in all") && text.contains("[schedule]"), "{text}");
}

/// Also those that fit no device: they are what `info` is for.
#[test]
fn every_recipe_can_be_looked_at() {
    let rig = Rig::new();
    let mut seen = 0;
    for file in std::fs::read_dir(repository("configs")).unwrap().map(|e| e.unwrap().path()) {
        let info = rig.run(&format!("info --config {} --json -q", file.display())).ok().json();
        assert!(info["recipe"].is_object() && info["learning_rates"].is_array(), "{}: {info}", file.display());
        seen += 1;
    }
    assert!(seen >= 25, "{seen}");
}

#[test]
fn more_parameters_than_can_be_counted_are_refused() {
    let rig = Rig::new();
    let wide = "--set model.hidden=100000 --set model.feat_dim=16384 --set model.prototypes=100000 --set model.width=1024";
    rig.run(&format!("info --config pretrain.toml {wide}")).fails(2, &["--set: model: has ", "model.hidden, model.feat_dim", "4294967295"]);
}

#[test]
fn a_batch_is_judged_like_any_other_value() {
    let rig = Rig::new();
    let line = |more: &str| format!("info --config pretrain.toml -q {more}");
    rig.run(&line("--batch 2 --set train.accumulate=4")).fails(2, &["train.accumulate", "must divide"]);
    rig.run(&line("--batch 65 --set train.accumulate=2")).fails(2, &["train.accumulate"]);
    rig.run(&line("--batch 1")).fails(2, &["--batch: train.batch: is 1"]);
    rig.run("info --config linear.toml --batch 0").fails(2, &["--batch"]);
    rig.run("info --config linear.toml --batch 9999999").fails(2, &["--batch: train.batch: is 9999999"]);
    rig.run(&line("--set train.batch=1")).fails(2, &["--set: train.batch: is 1"]);
    rig.run(&line("--batch 99999999999")).fails(2, &["--batch: train.batch"]);
    let large = rig.run(&line("--batch 1048576 --set crops.size=[512,16] --json")).ok().json();
    assert_eq!(large["fits"].as_bool(), Some(false), "{large}");
}
