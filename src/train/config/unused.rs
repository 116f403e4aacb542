//! Values given with `--set` that another value leaves without a part. In files, which may list everything and extend each other, they are no mistake.

use super::{HeadInit, LinearConfig, Method, Origins, PretrainConfig, ScheduleKind};
use crate::train::event::Warning;

/// A key, whether nothing looks at it, and why.
type Rule = (&'static str, bool, &'static str);

fn told(rules: &[Rule], origins: &Origins) -> Vec<Warning> {
    let idle = rules.iter().filter(|(key, idle, _)| *idle && origins.sets(key));
    idle.map(|(key, _, why)| Warning::new(key, format!("has no part: {why}"))).chain(origins.repeated()).collect()
}

pub(super) fn pretrain(config: &PretrainConfig, origins: &Origins) -> Vec<Warning> {
    let PretrainConfig { augment, loss: _, queue, schedule, train, .. } = config;
    let rules = [
        ("queue.start_epoch", queue.length == 0, "queue.length is 0"),
        ("schedule.warmup_start", schedule.warmup_epochs == 0, "schedule.warmup_epochs is 0"),
        ("loss.sinkhorn", train.accumulate == 1 && config.method == Method::Swav, "train.accumulate is 1, so a batch has no parts"),
        ("augment.jitter", augment.jitter_probability == 0.0, "augment.jitter_probability is 0"),
        ("augment.blur_sigma", augment.blur_probability == 0.0, "augment.blur_probability is 0"),
    ];
    told(&rules, origins)
}

pub(super) fn linear(config: &LinearConfig, origins: &Origins) -> Vec<Warning> {
    let (augmented, kind) = (config.augment.enabled, config.schedule.kind);
    let rules = [
        ("augment.scale", !augmented, "augment.enabled is false"),
        ("augment.flip", !augmented, "augment.enabled is false"),
        ("schedule.milestones", kind == ScheduleKind::Cosine, "schedule.kind is \"cosine\""),
        ("schedule.gamma", kind == ScheduleKind::Cosine, "schedule.kind is \"cosine\""),
        ("schedule.min_lr", kind == ScheduleKind::Step, "schedule.kind is \"step\""),
        ("head.init_std", config.head.init == HeadInit::Uniform, "head.init is \"uniform\""),
    ];
    told(&rules, origins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_in_vain_is_named_and_what_files_list_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let about = |warnings: Vec<Warning>| warnings.into_iter().map(|w| w.about).collect::<Vec<_>>();
        let sets = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        std::fs::write(&path, "[queue]\nlength = 0\nstart_epoch = 3\n[train]\nbatch = 64\n[model]\nprototypes = 8\n[schedule]\nwarmup_start = 0.1")
            .unwrap();
        let of = |all: &[&str]| about(PretrainConfig::load(&path, &sets(all)).unwrap().1);
        assert_eq!(of(&[]), [""; 0]);
        for key in ["queue.start_epoch=4", "schedule.warmup_start=0.2", "loss.sinkhorn=local"] {
            assert_eq!(of(&[key]), [key.split('=').next().unwrap()]);
        }
        assert_eq!(of(&["augment.jitter_probability=0", "augment.jitter=[0.1,0.1,0.1,0.1]"]), ["augment.jitter"]);
        assert_eq!(of(&["schedule.warmup_start=0.2", "schedule.warmup_epochs=2"]), [""; 0]);
        assert_eq!(of(&["optimizer.lr=1", "optimizer.lr=2", "seed=1", "seed=1"]), ["optimizer.lr"]);
        std::fs::write(&path, "kind = 'linear'\n[augment]\nenabled = false\nflip = 0.2").unwrap();
        let of = |all: &[&str]| about(LinearConfig::load(&path, &sets(all)).unwrap().1);
        assert_eq!(of(&[]), [""; 0]);
        assert_eq!(of(&["augment.flip=0.5", "schedule.gamma=0.5"]), ["augment.flip", "schedule.gamma"]);
        assert_eq!(of(&["augment.flip=0.5", "augment.enabled=true"]), [""; 0]);
    }
}
