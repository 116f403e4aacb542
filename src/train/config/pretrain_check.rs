//! Ranges of every pre-training value, and what is allowed but unwise.

use super::check::Check;
use super::{Kind, Method, PretrainConfig, advice, deepcluster, unused};
use crate::error::Result;
use crate::train::event::Warning;

/// First value out of range as an error, else the warnings.
pub(super) fn validate(config: &PretrainConfig, c: &Check) -> Result<Vec<Warning>> {
    let PretrainConfig { data, model, augment, loss, queue, optimizer, schedule, train, checkpoint, .. } = config;
    c.that("kind", config.kind == Kind::Pretrain, config.kind, "must be pretrain")?;
    c.count("seed", config.seed, 0, i64::MAX as u64)?;
    data.validate(c)?;
    let said = data.val_fraction.unwrap_or_default();
    c.that("data.val_fraction", data.val_fraction.is_none(), said, "has no meaning in pre-training, which holds nothing out")?;
    model.backbone().validate(c)?;
    // Kernels count four channels at a time with up to nine iterations for four of those, or each channel twice: within what every driver lets a loop count.
    c.count("model.hidden", model.hidden as u64, 0, 100_000)?;
    c.count("model.feat_dim", model.feat_dim as u64, 1, 1 << 14)?;
    c.count("model.prototypes", model.prototypes as u64, 2, 100_000)?;
    let backbone = model.backbone().architecture();
    let tensors = [backbone.tensors(), config.head().tensors(backbone.features())].concat();
    c.parameters(&tensors, "model.hidden, model.feat_dim, model.prototypes and model.width")?;
    validate_crops(config, c)?;
    c.probability("augment.flip", augment.flip)?;
    c.probability("augment.jitter_probability", augment.jitter_probability)?;
    (0..3).try_for_each(|i| c.not_negative(&format!("augment.jitter[{i}]"), augment.jitter[i]))?;
    c.range("augment.jitter[3]", augment.jitter[3], 0.0, 0.5)?;
    c.probability("augment.grayscale", augment.grayscale)?;
    c.probability("augment.blur_probability", augment.blur_probability)?;
    c.interval("augment.blur_sigma", augment.blur_sigma, (0.0, true), 100.0)?;
    c.positive("loss.temperature", loss.temperature)?;
    c.positive("loss.epsilon", loss.epsilon)?;
    c.count("loss.sinkhorn_iterations", loss.sinkhorn_iterations.into(), 1, 1000)?;
    c.count("queue.length", queue.length as u64, 0, 1 << 24)?;
    c.count("queue.start_epoch", queue.start_epoch, 0, 1 << 31)?;
    c.not_negative("optimizer.lr", optimizer.lr)?;
    c.that("optimizer.momentum", (0.0..1.0).contains(&optimizer.momentum), optimizer.momentum, "must be >= 0 and < 1")?;
    c.not_negative("optimizer.weight_decay", optimizer.weight_decay)?;
    c.positive("optimizer.trust", optimizer.trust)?;
    c.not_negative("optimizer.eps", optimizer.eps)?;
    optimizer.scale_lr_by_batch.map_or(Ok(()), |by| c.count("optimizer.scale_lr_by_batch", by as u64, 1, 1 << 20))?;
    c.not_negative("schedule.min_lr", schedule.min_lr)?;
    c.count("train.epochs", train.epochs, 1, 1_000_000)?;
    c.count("schedule.warmup_epochs", schedule.warmup_epochs, 0, train.epochs)?;
    c.not_negative("schedule.warmup_start", schedule.warmup_start)?;
    c.count("train.batch", train.batch as u64, 2, 1 << 20)?;
    let batches = format!("must divide train.batch = {} into parts of at least 2 images", train.batch);
    let divides = train.accumulate > 0 && train.batch.is_multiple_of(train.accumulate) && train.batch / train.accumulate >= 2;
    c.that("train.accumulate", divides, train.accumulate, batches)?;
    c.count("train.freeze_prototypes_steps", train.freeze_prototypes_steps, 0, i64::MAX as u64)?;
    c.count("checkpoint.every_steps", checkpoint.every_steps, 0, i64::MAX as u64)?;
    c.count("checkpoint.every_epochs", checkpoint.every_epochs, 0, 1_000_000)?;
    c.count("checkpoint.keep", checkpoint.keep as u64, 1, 1_000_000)?;

    let mut warnings = Vec::new();
    deepcluster::validate(config, c, &mut warnings)?;
    let rows = config.queue_rows();
    if rows != queue.length {
        let (length, batch) = (queue.length, train.batch);
        let message = match rows {
            0 => format!("is {length}, less than train.batch = {batch}: there is no queue; give a multiple of the batch, or 0"),
            _ => format!("is {length}, no multiple of train.batch = {batch}: {rows} rows are used"),
        };
        warnings.push(Warning::new("queue.length", message));
    }
    warnings.extend(config.advice());
    warnings.extend(unused::pretrain(config, c.origins));
    warnings.extend(advice::of_another_batch(c.origins, optimizer.lr, train.batch, optimizer.scale_lr_by_batch));
    warnings.extend(data.advice());
    Ok(warnings)
}

fn validate_crops(config: &PretrainConfig, c: &Check) -> Result<()> {
    let (crops, assign) = (&config.crops, &config.loss.crops_for_assign);
    let groups = crops.num.len();
    c.count("crops.num", groups as u64, 1, 64).map_err(|_| c.error("crops.num", format!("has {groups} groups: must have 1 to 64")))?;
    for (key, len) in [("crops.size", crops.size.len()), ("crops.scale", crops.scale.len())] {
        c.that(key, len == groups, format!("a list of {len}"), format!("must have as many entries as crops.num, {groups}"))?;
    }
    for i in 0..groups {
        c.count(&format!("crops.num[{i}]"), crops.num[i] as u64, 1, 64)?;
        // The small stem keeps more pixels than some drivers let a loop count.
        let largest = config.model.stem.largest_side().min(4096);
        c.count(&format!("crops.size[{i}]"), crops.size[i] as u64, 8, largest as u64)?;
        c.interval(&format!("crops.scale[{i}]"), crops.scale[i], (0.0, false), 1.0)?;
    }
    let least = if config.method == Method::Swav { 2 } else { 1 };
    c.that("crops.num", crops.total() >= least, crops.total(), "must give at least 2 crops: one predicts the other's code")?;
    c.interval("crops.ratio", crops.ratio, (0.0, false), f64::INFINITY)?;
    let listed = format!("{assign:?}");
    c.that("loss.crops_for_assign", !assign.is_empty(), &listed, "must name at least one crop")?;
    let first = crops.num[0];
    let within = assign.iter().all(|&a| a < first);
    c.that("loss.crops_for_assign", within, &listed, format!("must be crops of the first group, 0 to {}", first - 1))?;
    let distinct = assign.iter().enumerate().all(|(i, a)| !assign[..i].contains(a));
    c.that("loss.crops_for_assign", distinct, &listed, "must not name a crop twice")
}
