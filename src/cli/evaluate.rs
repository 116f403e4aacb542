//! `swav-wgpu eval-linear` and `swav-wgpu eval-knn`.

use super::args::{EvalKnnArgs, EvalLinearArgs, Global, Weights};
use super::report::progress::{Progress, Style};
use super::report::{html::Html, metrics::Metrics};
use super::signals::Signals;
use super::{common, output};
use crate::data::{Dataset, EvalTransform, Split};
use crate::error::{Error, Result};
use crate::train::config::LinearConfig;
use crate::train::event::Observers;
use crate::train::knn::{Labelled, knn as classify};
use crate::train::plan::normalize;
use crate::train::run_folder::RunFolder;
use crate::train::{Extracted, Extractor, linear as train_linear};
use crate::tune::BestGuess;
use crate::weights::{AnyTensor, write_safetensors};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Images of a pass through the frozen network.
const BATCH: usize = 64;

pub(super) fn linear(args: &EvalLinearArgs, global: &Global) -> Result<()> {
    let (mut config, warnings) = LinearConfig::load(&args.config, &args.set)?;
    if let Some(data) = &args.data {
        config.data.path = data.display().to_string();
    }
    for warning in warnings {
        common::note(global, &format!("warning: {warning}"));
    }
    let data = Arc::new(Dataset::open(Path::new(&config.data.path), Split::Train)?);
    let gpu = common::open(global)?;
    let network = common::load(&gpu, &args.weights, Some(&args.config))?;
    if let Weights::Random { .. } = args.weights {
        let resize = (config.image.resize > 0).then_some(config.image.resize);
        let transform = EvalTransform { resize, crop: config.image.size };
        network.calibrate(&gpu, &BestGuess, data, transform, normalize(&config.data), BATCH)?;
    }
    let stop = Signals::install()?;
    let mut observers = Observers::default();
    observers.0.push(Box::new(Progress::stderr(Style::detect(global.quiet))));
    let folder = args.out.as_ref().map(|out| RunFolder::open(out, false)).transpose()?;
    if let Some(folder) = &folder {
        folder.write_config(&config.to_toml()?)?;
        observers.0.push(Box::new(Metrics::open(folder, 0)?));
        observers.0.push(Box::new(Html::open(folder.path(), "linear evaluation", 0)?));
    }
    let result = train_linear::evaluate(&gpu, &BestGuess, &network, &config, &stop.flag(), &mut observers)?;
    let head = match &folder {
        Some(folder) => Some(save_head(folder.path(), &result)?),
        None => None,
    };
    if global.json {
        output::json(&json!({
            "top1": result.top1, "top5": result.top5, "mean_class": result.mean_class, "best_epoch": result.best_epoch,
            "last_top1": result.last_top1, "head": head, "classes": result.classes,
        }))
    } else {
        let LinearResult { top1, top5, mean_class, best_epoch, .. } = &result;
        output::line(&format!("linear: top-1 {top1:.2} %, top-5 {top5:.2} %, mean of classes {mean_class:.2} % (epoch {best_epoch})"))
    }
}

use crate::train::linear::LinearResult;

/// Writes `head.safetensors`: `fc.weight`, `fc.bias`, class names.
fn save_head(folder: &Path, result: &LinearResult) -> Result<PathBuf> {
    let path = folder.join("head.safetensors");
    let (weight, bias) = (&result.head["fc.weight"], &result.head["fc.bias"]);
    let classes = bias.len();
    let tensors = BTreeMap::from([
        ("fc.weight".to_owned(), AnyTensor::from_f32(&[classes, weight.len() / classes], weight)),
        ("fc.bias".to_owned(), AnyTensor::from_f32(&[classes], bias)),
    ]);
    let names = serde_json::to_string(&result.classes).map_err(|e| Error::Failed(e.to_string()))?;
    write_safetensors(&path, &tensors, &BTreeMap::from([("classes".to_owned(), names)]))?;
    Ok(path)
}

pub(super) fn knn(args: &EvalKnnArgs, global: &Global) -> Result<()> {
    let gpu = common::open(global)?;
    let frozen = common::frozen(&gpu, &args.weights, &args.image)?;
    let path = args.data.clone().or(frozen.data.clone()).ok_or_else(|| Error::Usage("give --data, or a --config that names it".into()))?;
    let train = Arc::new(Dataset::open(&path, Split::Train)?);
    let val = Arc::new(Dataset::open(&path, Split::Val)?);
    if frozen.random {
        frozen.network.calibrate(&gpu, &BestGuess, Arc::clone(&train), frozen.transform, frozen.normalize, BATCH)?;
    }
    let size = frozen.transform.crop;
    let mut extractor = Extractor::new(&gpu, &BestGuess, &frozen.network, BATCH, [size, size], false)?;
    let mut features = |data: &Arc<Dataset>| -> Result<(Extracted, Vec<usize>)> {
        let all = extractor.dataset(&gpu, Arc::clone(data), frozen.transform, frozen.normalize, frozen.workers)?;
        let label = |(i, l): (usize, &Option<usize>)| l.ok_or_else(|| Error::data(data.path(i), "has no class"));
        let labels = all.labels.iter().enumerate().map(label).collect::<Result<_>>()?;
        Ok((all, labels))
    };
    let ((bank, bank_labels), (queries, query_labels)) = (features(&train)?, features(&val)?);
    let classes = train.classes().len();
    let labelled = |e: &'_ Extracted, labels: &'_ [usize]| (e.features.clone(), labels.to_vec());
    let (bank, queries) = (labelled(&bank, &bank_labels), labelled(&queries, &query_labels));
    let all = classify(
        &gpu,
        &BestGuess,
        Labelled { features: &bank.0, labels: &bank.1 },
        Labelled { features: &queries.0, labels: &queries.1 },
        classes,
        &[args.k],
        args.temperature,
    )?;
    let result = all[0];
    if global.json {
        output::json(&result)
    } else {
        let line =
            format!("k-NN (k {}): top-1 {:.2} %, top-5 {:.2} %, mean of classes {:.2} %", result.k, result.top1, result.top5, result.mean_class);
        output::line(&line)
    }
}
