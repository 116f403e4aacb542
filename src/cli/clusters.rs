//! `swav-wgpu clusters`: the nearest prototype of every image, and a gallery of what each prototype stands for.
//!
//! Promise: the gallery is made in a temporary folder beside its place and takes its name when it is complete; an error or a signal leaves nothing.

mod gallery;

use super::args::{ClustersArgs, Global, Weights};
use super::signals::Signals;
use super::{bad, common, output};
use crate::atomic::{self, NewFolder};
use crate::data::{Dataset, Loader};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::Variants;
use crate::train::config::DataConfig;
use crate::train::{Extracted, Extractor, after};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// Images of a pass.
const BATCH: usize = 64;

/// Where one image belongs.
#[derive(Clone, Debug, Serialize)]
struct Assignment {
    /// Its index in the set.
    #[serde(skip)]
    image: usize,
    path: String,
    prototype: usize,
    /// z · w of its embedding and that prototype.
    score: f32,
}

pub(super) fn run(args: &ClustersArgs, global: &Global) -> Result<()> {
    let stop = Signals::install()?;
    let out = begin(&args.out)?;
    let begun = out.temporary().to_owned();
    let _watch = stop.watch(Error::StoppedEmpty, move || _ = std::fs::remove_dir_all(begun));
    let mut named = DataConfig::default();
    args.data.apply_unkept(&mut named);
    let split = args.part.split();
    let data = Arc::new(bad::treated(named.scan(&[split])?.into_dataset(split)?, &args.bad));
    common::tell_data(data.summary(), global);
    let (gpu, frozen) = common::frozen(&Weights::File(args.weights.clone()), args.backbone.as_deref(), &args.image, global)?;
    let Some(head) = frozen.network.head else {
        return Err(Error::weights(&args.weights, "has no SwAV head (projection_head and prototypes): there is nothing to assign images to"));
    };
    let (prototypes, heads) = (head.prototypes, head.prototype_heads());
    if args.head >= heads {
        return Err(Error::Usage(format!("--head {}: {} has {heads} prototype heads, counted from 0", args.head, args.weights.display())));
    }
    frozen.tell(global);
    let gpu = gpu.until(stop.flag());
    let assigned = assign(&gpu, &common::variants(global, &gpu).until(stop.flag()), &frozen, &data, (prototypes, args.head), &stop);
    let assigned = assigned.map_err(|e| bad::hinted(e, &args.bad))?;
    bad::expect_some(assigned.len(), &data)?;
    let left: Vec<Value> = data.bad().found().into_iter().map(|(path, reason)| json!({"path": path, "error": reason})).collect();
    gallery::write(&out.path(), &data, (&assigned, &left), (prototypes, frozen.workers), &stop)?;
    atomic::write(&out.path().join("data.json"), format!("{}\n", json!(**data.summary())).as_bytes())?;
    out.finish()?;
    if global.json {
        assigned.iter().try_for_each(output::json)?;
        return left.iter().try_for_each(output::json);
    }
    let mut used: Vec<usize> = assigned.iter().map(|a| a.prototype).collect();
    used.sort_unstable();
    used.dedup();
    let index = args.out.join("index.html");
    if !left.is_empty() {
        common::warn(format!("{} images cannot be read and are left out", left.len()));
    }
    output::line(&format!("{} images at {} of {prototypes} prototypes: {}", assigned.len(), used.len(), index.display()))
}

/// Passes every image and keeps its best score only: all scores of a large set would not fit into memory.
fn assign(
    gpu: &Gpu,
    variants: &dyn Variants,
    frozen: &common::Frozen,
    data: &Arc<Dataset>,
    (prototypes, head): (usize, usize),
    stop: &Signals,
) -> Result<Vec<Assignment>> {
    let (batch, size) = (BATCH.min(data.len()), frozen.transform.crop);
    let mut extractor = Extractor::new(gpu, variants, &frozen.network, (frozen.images, batch, [size, size]), Some(head))?;
    let mut loader = Loader::evaluation(Arc::clone(data), frozen.transform, batch, frozen.workers)?;
    let mut all = Vec::with_capacity(data.len());
    while let Some(images) = loader.next_until(&stop.flag()) {
        stop.check()?;
        let images = images.map_err(|e| after(e, all.len(), data.len()))?;
        let mut extracted = Extracted::default();
        extractor.pass(gpu, &images.groups[0], |i| data.path(images.indices[i] as usize), &mut extracted)?;
        for (index, scores) in images.indices.iter().zip(extracted.scores.chunks_exact(prototypes)) {
            let prototype = (0..prototypes).fold(0, |best, k| if scores[k] > scores[best] { k } else { best });
            all.push(Assignment { image: *index as usize, path: data.path(*index as usize), prototype, score: scores[prototype] });
        }
        loader.recycle(images);
    }
    extractor.warning().iter().for_each(common::warn);
    Ok(all)
}

/// Refuses a place that holds something already.
fn begin(place: &Path) -> Result<NewFolder> {
    if place.is_dir() && std::fs::read_dir(place).map_err(Error::output(place))?.next().is_some() {
        return Err(Error::Usage(format!("--out {}: holds files already; choose another folder or remove it", place.display())));
    }
    NewFolder::begin(place)
}
