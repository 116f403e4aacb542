//! `swav-wgpu data check`: what a set holds and which of its images cannot be used, before the run.

use super::args::{DataCacheArgs, DataCheckArgs, Global};
use super::report::progress::{Style, grouped};
use super::signals::Signals;
use super::{common, output};
use crate::data::bad::OnBad;
use crate::data::survey::{Survey, survey};
use crate::data::{Dataset, Places, Split, kept_shards};
use crate::error::{Error, Result};
use crate::train::config::DataConfig;
use crate::tune::cache_folder;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::sync::Arc;

/// So many bad images, and groups of duplicates, are told one by one.
const MOST_NAMED: usize = 100;

pub(super) fn check(args: &DataCheckArgs, global: &Global) -> Result<()> {
    let stop = Signals::install()?;
    let (labels, label_key) = (args.labels.clone(), args.label_key.clone());
    let named = DataConfig { path: Places::new(&args.paths), layout: args.data_layout, labels, label_key, ..DataConfig::default() };
    let data = Arc::new(named.scan(&[Split::All])?.into_dataset(Split::All)?.on_bad(OnBad::Skip, Some(1.0)));
    common::tell_data(data.summary(), global);
    let total = data.len();
    let workers = args.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let bar = bar(total, global);
    let mut warn = |notice: &crate::data::Notice| {
        bar.suspend(|| common::warn(notice));
        Ok(())
    };
    let found = survey(&data, args.decode, workers, &stop.flag(), &mut warn, &mut |n| bar.set_position(n as u64))?;
    bar.finish_and_clear();
    tell(&data, &found, args, global)?;
    match found.bad.first() {
        None => Ok(()),
        Some((path, reason)) => Err(Error::data(path, format!("{reason}; {} of {total} images cannot be used", found.bad.len()))),
    }
}

/// What is kept of shards, and that it is gone.
pub(super) fn cache(args: &DataCacheArgs, global: &Global) -> Result<()> {
    let Some(folder) = cache_folder() else {
        return if global.json { output::json(&json!({"folder": null})) } else { output::line("nothing is kept: there is no cache folder") };
    };
    let kept = kept_shards(&folder, args.clear)?;
    if global.json {
        let mut told = serde_json::to_value(&kept).map_err(|e| Error::Failed(e.to_string()))?;
        told["cleared"] = json!(args.clear);
        return output::json(&told);
    }
    let mib = |bytes: u64| grouped(bytes.div_ceil(1 << 20));
    let what = format!(
        "{} unpacked shards ({} MiB), {} indexes ({} MiB)",
        grouped(kept.copies),
        mib(kept.copy_bytes),
        grouped(kept.indexes),
        mib(kept.index_bytes)
    );
    output::line(&format!("{}: {what}{}", kept.folder.display(), if args.clear { ": deleted" } else { "" }))
}

fn bar(images: usize, global: &Global) -> ProgressBar {
    let style = Style::detect(global.quiet);
    let target = if style.bar && !style.quiet { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(images as u64), target);
    let template = "{bar:24.cyan/dim} {percent:>3} %  {pos} of {len} images  {eta} left";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Images of each class by name, in the order of the classes; and how many have none.
fn classes(data: &Dataset) -> (Vec<(String, u64)>, u64) {
    let mut counts: Vec<(String, u64)> = data.classes().iter().map(|name| (name.clone(), 0)).collect();
    let mut without = 0;
    for label in (0..data.len()).map(|i| data.label(i)) {
        match label.and_then(|label| counts.get_mut(label)) {
            Some((_, count)) => *count += 1,
            None => without += 1,
        }
    }
    (counts, without)
}

fn tell(data: &Dataset, found: &Survey, args: &DataCheckArgs, global: &Global) -> Result<()> {
    let (classes, without) = classes(data);
    let Survey { images, width, height, duplicates, bad } = found;
    if global.json {
        let classes: Vec<Value> = classes.iter().map(|(name, count)| json!({"class": name, "images": count})).collect();
        let bad: Vec<Value> = bad.iter().map(|(path, reason)| json!({"path": path, "reason": reason})).collect();
        return output::json(&json!({
            "summary": data.summary().to_string(), "data": **data.summary(), "images": images, "classes": classes, "without_class": without, "decoded": args.decode, "width": width, "height": height,
            "duplicates": duplicates, "bad": bad,
        }));
    }
    output::line(&format!("{} images in {} classes, {} without a class", grouped(*images as u64), classes.len(), grouped(without)))?;
    if let (Some(fewest), Some(most)) = (classes.iter().min_by_key(|c| c.1), classes.iter().max_by_key(|c| c.1)) {
        output::line(&format!("images of a class: {} ({}) to {} ({})", fewest.1, fewest.0, most.1, most.0))?;
    }
    for (side, extent) in [("width", width), ("height", height)] {
        if let Some(extent) = extent {
            output::line(&format!("{side}: {} to {} pixels, median {}", extent.min, extent.max, extent.median))?;
        }
    }
    for same in duplicates.iter().take(MOST_NAMED) {
        output::line(&format!("same content: {}", same.join(" = ")))?;
    }
    if let more @ 1.. = duplicates.len().saturating_sub(MOST_NAMED) {
        output::line(&format!("same content: {more} more groups; --json lists them"))?;
    }
    let how = if args.decode { "" } else { " (not decoded: --decode does)" };
    output::line(&format!("bad: {}{how}", bad.len()))
}
