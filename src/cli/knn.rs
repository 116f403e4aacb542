//! `swav-wgpu eval-knn`.

use super::args::{EvalKnnArgs, Global};
use super::{common, output};
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::train::classifier::parts;
use crate::train::knn::{Judged, KnnAccuracy, Labelled, knn as classify};
use crate::train::{Extracted, Extractor};
use std::sync::Arc;

/// Images of a pass through the frozen network.
const BATCH: usize = 64;

pub(super) fn run(args: &EvalKnnArgs, global: &Global) -> Result<()> {
    let (gpu, frozen) = common::frozen(&args.weights, &args.image, global)?;
    frozen.tell(global);
    let variants = common::variants(global, &gpu);
    let contents = frozen.scan(&args.data)?;
    let (train, val) = if args.leave_one_out {
        (contents.into_dataset(Split::Train)?, None)
    } else {
        let fraction = args.val_fraction.or(frozen.data.val_fraction);
        let (train, val) = parts(contents, fraction, args.seed)?;
        (train, Some(Arc::new(val)))
    };
    let train = Arc::new(train);
    if frozen.random {
        frozen.network.calibrate(&gpu, &variants, Arc::clone(&train), frozen.transform, frozen.images, frozen.workers)?;
    }
    let size = frozen.transform.crop;
    let mut extractor = Extractor::new(&gpu, &variants, &frozen.network, (frozen.images, BATCH, [size, size]), None)?;
    let mut features = |data: &Arc<Dataset>| -> Result<(Vec<f32>, Vec<usize>)> {
        let Extracted { features, labels, .. } = extractor.dataset(&gpu, Arc::clone(data), frozen.transform, frozen.workers, &false.into())?;
        let label = |(i, l): (usize, &Option<usize>)| l.ok_or_else(|| Error::data(data.path(i), "has no class"));
        let labels = labels.iter().enumerate().map(label).collect::<Result<_>>()?;
        Ok((features, labels))
    };
    let (bank, queries) = (features(&train)?, val.as_ref().map(features).transpose()?);
    let classes = train.classes().len();
    if queries.is_none() && train.len() < 2 {
        return Err(Error::data(train.root(), "has a single labelled image, which no other can judge"));
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
    match (global.json, &all[..]) {
        (true, [single]) => output::json(single),
        (true, several) => output::json(&several),
        (false, several) => several.iter().try_for_each(|KnnAccuracy { top1, top5, mean_class, k }| {
            output::line(&format!("k-NN (k {k}): top-1 {top1:.2} %, top-5 {top5:.2} %, mean of classes {mean_class:.2} %"))
        }),
    }
}
