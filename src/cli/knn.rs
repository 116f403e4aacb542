//! `swav-wgpu eval-knn`.

use super::args::{EvalKnnArgs, Global, OnBadImage};
use super::{bad, common, output};
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::train::classifier::parts;
use crate::train::knn::{Judged, KnnAccuracy, Labelled, knn as classify};
use crate::train::{Extracted, Extractor};
use serde_json::{Value, json};
use std::sync::Arc;

/// Images of a pass through the frozen network.
const BATCH: usize = 64;

pub(super) fn run(args: &EvalKnnArgs, global: &Global) -> Result<()> {
    let (gpu, frozen) = common::frozen(&args.weights, args.backbone.as_deref(), &args.image, global)?;
    frozen.tell(global);
    let variants = common::variants(global, &gpu);
    let splits = if args.leave_one_out { &[Split::Train][..] } else { &[Split::Train, Split::Val] };
    let contents = frozen.scan(&args.data, splits)?;
    let (train, val) = if args.leave_one_out {
        (contents.into_dataset(Split::Train)?, None)
    } else {
        let fraction = args.val_fraction.or(frozen.data.val_fraction);
        let (train, val) = parts(contents, fraction, args.seed)?;
        common::tell_held_out(fraction, args.seed, &val, global);
        (train, Some(Arc::new(bad::treated(val, &args.bad))))
    };
    let train = Arc::new(bad::treated(train, &args.bad));
    common::tell_data(train.summary(), global);
    if frozen.random {
        let calibrated = frozen.network.calibrate(&gpu, &variants, Arc::clone(&train), frozen.transform, frozen.images, frozen.workers);
        calibrated.map_err(|e| bad::hinted(e, &args.bad))?;
    }
    let size = frozen.transform.crop;
    let mut extractor = Extractor::new(&gpu, &variants, &frozen.network, (frozen.images, BATCH, [size, size]), None)?;
    let mut features = |data: &Arc<Dataset>| -> Result<(Vec<f32>, Vec<usize>)> {
        let extracted = extractor.dataset(&gpu, Arc::clone(data), frozen.transform, frozen.workers, &false.into());
        let Extracted { features, labels, indices, .. } = extracted.map_err(|e| bad::hinted(e, &args.bad))?;
        bad::expect_some(indices.len(), data)?;
        let label = |(i, l): (&u32, &Option<usize>)| l.ok_or_else(|| Error::data(data.path(*i as usize), "has no class"));
        let labels = indices.iter().zip(&labels).map(label).collect::<Result<_>>()?;
        Ok((features, labels))
    };
    let (bank, queries) = (features(&train)?, val.as_ref().map(features).transpose()?);
    extractor.warning().iter().for_each(common::warn);
    let classes = train.classes().len();
    if queries.is_none() && bank.1.len() < 2 {
        return Err(Error::data(train.root(), "has a single labelled image, which no other can judge"));
    }
    // Of those that are judged by each other, none is its own neighbour.
    let neighbours = train.len() - usize::from(queries.is_none());
    for k in args.k.iter().filter(|k| **k > neighbours) {
        common::warn(format!("--k: is {k}, more than the {neighbours} training images that an image can have beside it: all of them vote"));
    }
    let all = classify(
        &gpu,
        &variants,
        Labelled { features: &bank.0, labels: &bank.1 },
        queries.as_ref().map_or(Judged::EachByTheRest, |(features, labels)| Judged::Others(Labelled { features, labels })),
        classes,
        &args.k,
        args.temperature,
    )?;
    let judged: Vec<&Dataset> = val.iter().map(AsRef::as_ref).collect();
    let bad = bad::listed(&[&[train.as_ref()], &judged[..]].concat());
    if bad.as_array().is_some_and(|bad| !bad.is_empty()) {
        let left = |data: &Dataset| data.bad().found().len();
        let judged: usize = judged.iter().map(|data| left(data)).sum();
        common::warn(format!("{} training and {judged} validation images cannot be read and are left out", left(&train)));
    }
    let told = |accuracy: &KnnAccuracy| -> Result<Value> {
        let mut value = serde_json::to_value(accuracy).map_err(|e| Error::Failed(e.to_string()))?;
        value["data"] = json!(**train.summary());
        if args.bad.bad == OnBadImage::Skip {
            value["bad"] = bad.clone();
        }
        Ok(value)
    };
    match (global.json, &all[..]) {
        (true, [single]) => output::json(&told(single)?),
        (true, several) => output::json(&several.iter().map(told).collect::<Result<Vec<_>>>()?),
        (false, several) => several.iter().try_for_each(|KnnAccuracy { top1, top5, mean_class, k }| {
            output::line(&format!("k-NN (k {k}): top-1 {top1:.2} %, top-5 {top5:.2} %, mean of classes {mean_class:.2} %"))
        }),
    }
}
