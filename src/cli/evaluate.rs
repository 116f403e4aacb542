//! `swav-wgpu eval-linear` and `swav-wgpu finetune`.

use super::args::{DataArgs, EvalLinearArgs, FinetuneArgs, Global, Weights};
use super::fit::{self, Given};
use super::report::progress::{Progress, Style};
use super::report::{html::Html, metrics::Metrics};
use super::signals::{Signals, UntilKept, Watch};
use super::{bad, common, output};
use crate::data::Summary;
use crate::error::{Error, Result};
use crate::nn::architecture::Backbone;
use crate::train::classifier::{ClassSets, ClassifierResult, replaceable};
use crate::train::config::{BadFiles, LinearConfig};
use crate::train::event::{Observers, noted};
use crate::train::plan::{HeadImages, eval_transform};
use crate::train::run_folder::RunFolder;
use crate::train::{FINETUNED, finetune as train_all, fingerprint, linear as train_linear};
use crate::weights::{self, AnyTensor, Checkpoint, Classifier, HEAD_BACKBONE, HEAD_IMAGES, HostTensor, Layout, Target, write_safetensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) fn linear(args: &EvalLinearArgs, global: &Global) -> Result<()> {
    let stop = Signals::install()?;
    let watch = stop.watch(Error::StoppedEmpty, || ());
    args.out.as_deref().map_or(Ok(()), RunFolder::check_evaluation)?;
    let config = configuration(&args.config, &args.set, &args.data, args.val_fraction)?;
    if args.set.iter().any(|set| set.trim_start().starts_with("optimizer.backbone_lr")) {
        common::warn("optimizer.backbone_lr: has no part: eval-linear leaves the backbone as it is; finetune trains it");
    }
    let sets = open(&config, &args.weights, &args.set, global)?;
    let (gpu, network) = common::network((&args.weights, args.backbone.as_deref()), Some(&args.config), &args.set, global)?;
    network.check_images(sets.batch, [config.image.size; 2])?;
    let gpu = gpu.until(stop.flag());
    let variants = common::variants(global, &gpu).until(stop.flag());
    if let Weights::Random { .. } = args.weights {
        let calibrated = network.calibrate(&gpu, &variants, Arc::clone(&sets.train), eval_transform(&config), sets.images, config.data.workers);
        calibrated.map_err(replaceable)?;
    }
    let backbone = network.fingerprint(&gpu)?;
    stop.check()?;
    let (folder, mut observers) = observe(args.out.as_deref(), &config, "linear evaluation", watch, global)?;
    let result = train_linear::evaluate(&gpu, &variants, &network, &config, &sets, &stop.flag(), &mut observers);
    let result = noted(&mut observers, result)?;
    let saved = folder.as_ref().map_or(Ok([None, None]), |folder| Ok([Some(save_head(folder.path(), &config, &result, backbone)?), None]));
    let saved = noted(&mut observers, saved);
    conclude("linear", result, saved, &Beside::of(&config, &sets), folder.as_ref(), global)
}

pub(super) fn finetune(args: &FinetuneArgs, global: &Global) -> Result<()> {
    let stop = Signals::install()?;
    let watch = stop.watch(Error::StoppedEmpty, || ());
    args.out.as_deref().map_or(Ok(()), RunFolder::check_evaluation)?;
    fit::said_once("--fraction", args.fraction.is_some(), "train.fraction", &args.set)?;
    let mut config = configuration(&args.config, &args.set, &args.data, args.val_fraction)?;
    config.train.fraction = args.fraction.unwrap_or(config.train.fraction);
    let sets = open(&config, &args.weights, &args.set, global)?;
    let (gpu, network) = common::network((&args.weights, args.backbone.as_deref()), Some(&args.config), &args.set, global)?;
    network.check_images(sets.batch, [config.image.size; 2])?;
    let gpu = gpu.until(stop.flag());
    let variants = common::variants(global, &gpu).until(stop.flag());
    let backbone = network.backbone.clone();
    stop.check()?;
    let (folder, mut observers) = observe(args.out.as_deref(), &config, "fine-tuning", watch, global)?;
    let result = train_all::finetune(&gpu, &variants, network, &config, &sets, &stop.flag(), &mut observers);
    let result = noted(&mut observers, result)?;
    let saved = folder.as_ref().map_or(Ok([None, None]), |folder| {
        // The head last, which makes the folder a complete evaluation's.
        let own = fingerprint(&backbone, &result.values);
        let network = save_network(folder.path(), backbone, &result)?;
        Ok([Some(save_head(folder.path(), &config, &result, own)?), Some(network)])
    });
    let saved = noted(&mut observers, saved);
    conclude("fine-tuned", result, saved, &Beside::of(&config, &sets), folder.as_ref(), global)
}

/// Tells the result, whether its files could be saved or not. An evaluation that was cut short has told and kept what it has, but is no complete one.
fn conclude(
    what: &str,
    result: ClassifierResult,
    saved: Result<[Option<PathBuf>; 2]>,
    beside: &Beside,
    folder: Option<&RunFolder>,
    global: &Global,
) -> Result<()> {
    let (files, unsaved) = saved.map_or_else(|e| ([None, None], Some(e)), |files| (files, None));
    if unsaved.is_none() {
        remove_partial(folder, &result);
    }
    tell(what, &result, beside, files, global)?;
    if result.failure.is_some() {
        match &unsaved {
            Some(e) => common::warn(format!("the result was not kept: {e}")),
            None if result.stopped => {
                let place = if folder.is_some() { ", kept in files named partial-," } else { "" };
                common::warn(format!("the result{place} is that of the epochs before"));
            }
            None => {}
        }
    }
    if let Some(failure) = result.failure.or(unsaved) {
        return Err(failure);
    }
    match (result.stopped, folder.is_some()) {
        (false, _) => Ok(()),
        (true, false) => Err(Error::Stopped("the result is that of the epochs before")),
        (true, true) => Err(Error::Stopped("the result, kept in files named partial-, is that of the epochs before")),
    }
}

fn configuration(path: &Path, sets: &[String], data: &DataArgs, val_fraction: Option<f64>) -> Result<LinearConfig> {
    fit::data_said_once(data, sets)?;
    fit::said_once("--val-fraction", val_fraction.is_some(), "data.val_fraction", sets)?;
    let (mut config, warnings) = LinearConfig::load(path, sets)?;
    data.apply(&mut config.data)?;
    config.data.val_fraction = val_fraction.or(config.data.val_fraction);
    warnings.iter().for_each(common::warn);
    Ok(config)
}

/// The images; says how they are prepared, and what of that does not fit the weights.
fn open(config: &LinearConfig, weights: &Weights, set: &[String], global: &Global) -> Result<ClassSets> {
    let sets = ClassSets::open(config)?;
    common::tell_data(sets.train.summary(), global);
    common::tell_held_out(config.data.val_fraction, config.seed, &sets.val, global);
    common::tell_preparation(eval_transform(config), global);
    fit::warn_of_other_images(weights, eval_transform(config), &config.data, Given::Configuration);
    fit::warn_of_idle_model(weights, set);
    Ok(sets)
}

/// The run folder, where one is wanted, and all who are told of the run.
fn observe(out: Option<&Path>, config: &LinearConfig, title: &str, watch: Watch, global: &Global) -> Result<(Option<RunFolder>, Observers)> {
    let mut observers = Observers::default();
    observers.0.push(Box::new(UntilKept::an_epoch(watch)));
    observers.0.push(Box::new(Progress::stderr(Style::detect(global.quiet))));
    let folder = out.map(RunFolder::open_evaluation).transpose()?;
    if let Some(folder) = &folder {
        let partial = ["head.safetensors", FINETUNED].map(partial);
        if let Some(aside) = folder.set_aside(&["config.toml", "report.html", &partial[0], &partial[1]])? {
            common::warn(format!(
                "{} holds an evaluation that was cut short: what it left has other names now, like {}",
                folder.path().display(),
                aside.display()
            ));
        }
        folder.write_config(&config.to_toml()?)?;
        observers.0.push(Box::new(Metrics::open(folder, 0)?));
        observers.0.push(Box::new(Html::open(folder.path(), title, 0)?));
    }
    Ok((folder, observers))
}

/// What is told beside the result: the head's learning rate and how it came about, and which images could not be read.
struct Beside {
    lr: f64,
    /// Images of a step, and of the step that the configuration's rate is for.
    scaled: Option<(usize, usize)>,
    /// Bad images, where they are replaced or left out.
    bad: Option<Value>,
    /// Validation images among them.
    left_out: usize,
    data: Arc<Summary>,
}

impl Beside {
    fn of(config: &LinearConfig, sets: &ClassSets) -> Self {
        let left_out = sets.val.bad().found().len();
        if left_out > 0 {
            common::warn(format!("{left_out} of {} validation images cannot be read and are left out of the score", sets.val.len()));
        }
        let bad = config.data.bad.filter(|on| *on == BadFiles::Replace).map(|_| bad::listed(&[&sets.train, &sets.val]));
        let (batch, by) = (sets.batch, config.optimizer.scale_lr_by_batch);
        Self { lr: config.base_lr(batch), scaled: by.map(|by| (batch, by)), bad, left_out, data: Arc::clone(sets.train.summary()) }
    }
}

fn tell(what: &str, result: &ClassifierResult, beside: &Beside, [head, tuned]: [Option<PathBuf>; 2], global: &Global) -> Result<()> {
    let named = |path: PathBuf| path.to_string_lossy().into_owned();
    if !global.json {
        let ClassifierResult { top1, top5, mean_class, best_epoch: best, last_top1, epochs, .. } = result;
        let scaled = beside.scaled.map(|(batch, by)| format!("; learning rate {} scaled by batch: {batch} / {by}", beside.lr)).unwrap_or_default();
        return output::line(&format!(
            "{what}: top-1 {top1:.2} %, top-5 {top5:.2} %, mean of classes {mean_class:.2} % (epoch {best} of {epochs} is the best; last {last_top1:.2} %{scaled})"
        ));
    }
    let mut all = json!({
        "top1": result.top1, "top5": result.top5, "mean_class": result.mean_class, "best_epoch": result.best_epoch,
        "epochs": result.epochs, "stopped": result.stopped,
        "last_top1": result.last_top1, "head": head.map(named), "classes": result.classes,
    });
    all["lr"] = json!(beside.lr);
    if let Some((batch, by)) = beside.scaled {
        all["lr_scaled_by_batch"] = json!([batch, by]);
    }
    if let Some(bad) = &beside.bad {
        (all["bad_images"], all["left_out_images"]) = (bad.clone(), json!(beside.left_out));
    }
    all["data"] = json!(*beside.data);
    if let Some(tuned) = tuned {
        all["weights"] = json!(named(tuned));
    }
    output::json(&all)
}

/// Weight and bias of the classifier.
fn classifier(result: &ClassifierResult) -> Classifier {
    let (weight, bias) = (&result.values["fc.weight"], &result.values["fc.bias"]);
    let classes = bias.len();
    Classifier { weight: HostTensor::new([classes, weight.len() / classes], weight.clone()), bias: HostTensor::new([classes], bias.clone()) }
}

/// Where a file of the result goes. What a stopped run leaves has a name of its own, so that the run can be repeated in its place.
fn kept(folder: &Path, name: &str, result: &ClassifierResult) -> PathBuf {
    folder.join(if result.stopped { partial(name) } else { name.to_owned() })
}

/// Removes what an earlier run that was stopped left in the folder, once the whole result lies there.
fn remove_partial(folder: Option<&RunFolder>, result: &ClassifierResult) {
    for (folder, name) in folder.into_iter().flat_map(|folder| ["head.safetensors", FINETUNED].map(|name| (folder, name))) {
        if !result.stopped {
            // There need be none.
            let _ = std::fs::remove_file(folder.path().join(partial(name)));
        }
    }
}

/// The name that a file has of a run that was stopped.
fn partial(name: &str) -> String {
    format!("partial-{name}")
}

/// Writes `head.safetensors`: `fc.weight`, `fc.bias`, class names, which backbone it is for, and how its images were prepared.
fn save_head(folder: &Path, config: &LinearConfig, result: &ClassifierResult, backbone: String) -> Result<PathBuf> {
    let path = kept(folder, "head.safetensors", result);
    let Classifier { weight, bias } = classifier(result);
    let tensor = |t: &HostTensor| AnyTensor::from_f32(&t.shape, &t.data).into_owned();
    let tensors = BTreeMap::from([("fc.weight".to_owned(), tensor(&weight)), ("fc.bias".to_owned(), tensor(&bias))]);
    let failed = |e: serde_json::Error| Error::Failed(e.to_string());
    let names = serde_json::to_string(&result.classes).map_err(failed)?;
    let images = serde_json::to_string(&HeadImages::of(config)).map_err(failed)?;
    let about = [("classes", names), (HEAD_BACKBONE, backbone), (HEAD_IMAGES, images)].map(|(key, value)| (key.to_owned(), value));
    write_safetensors(&path, &tensors, &BTreeMap::from(about))?;
    Ok(path)
}

/// Writes `model.safetensors`: the fine-tuned network with its classifier, torchvision's names.
fn save_network(folder: &Path, backbone: Backbone, result: &ClassifierResult) -> Result<PathBuf> {
    let path = kept(folder, FINETUNED, result);
    let specs = backbone.tensors();
    let shape = |name: &str| specs.iter().find(|s| s.name == name).map(|s| s.shape.clone());
    let tensors = result.values.iter().filter_map(|(name, data)| Some((name.clone(), HostTensor::new(shape(name)?, data.clone()))));
    let checkpoint = Checkpoint {
        layout: Layout::Torchvision,
        tensors: tensors.collect(),
        counters: BTreeMap::new(),
        classifier: Some(classifier(result)),
        classes: Some(result.classes.clone()),
        matched: 0,
        unmatched: Vec::new(),
        unused: Vec::new(),
        unusable: BTreeMap::new(),
        remarks: Vec::new(),
        backbone,
        head: None,
    };
    weights::save(&path, &checkpoint, Target::Torchvision)?;
    Ok(path)
}
