//! `swav-wgpu eval-knn`.

use super::args::{EvalKnnArgs, Global};
use super::{common, output};
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::train::knn::{KnnAccuracy, Labelled, knn as classify};
use crate::train::{Extracted, Extractor};
use std::sync::Arc;

/// Images of a pass through the frozen network.
const BATCH: usize = 64;

pub(super) fn run(args: &EvalKnnArgs, global: &Global) -> Result<()> {
    let (gpu, frozen) = common::frozen(&args.weights, &args.image, global)?;
    frozen.tell(global);
    let variants = common::variants(global, &gpu);
    let path = args.data.clone().or(frozen.data.clone()).ok_or_else(|| Error::Usage("give --data, or a --config that names it".into()))?;
    let train = Arc::new(Dataset::open(&path, Split::Train)?);
    let val = Arc::new(Dataset::open(&path, Split::Val)?);
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
    let (bank, queries) = (features(&train)?, features(&val)?);
    let classes = train.classes().len();
    let all = classify(
        &gpu,
        &variants,
        Labelled { features: &bank.0, labels: &bank.1 },
        Labelled { features: &queries.0, labels: &queries.1 },
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
