//! `swav-wgpu train`.

use super::args::{Global, TrainArgs, Tune};
use super::fit::data_said_once;
use super::report::{html::Html, metrics::Metrics, progress::Progress, progress::Style, tensorboard::TensorBoard};
use super::signals::{Signals, UntilKept, Watch};
use super::{common, output};
use crate::error::{Error, Result};
use crate::train::checkpoint::CheckpointStore;
use crate::train::config::PretrainConfig;
use crate::train::event::{Finished, Observer, Observers};
use crate::train::pretrain::{Run, open_data, prepare, pretrain};
use crate::train::run_folder::{BAD_IMAGES, RunFolder};
use crate::tune::Fusions;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a stop leaves of a run that goes on from a checkpoint.
const RESUMABLE: Error = Error::Stopped("continue with --resume");

pub(super) fn run(args: &TrainArgs, global: &Global) -> Result<()> {
    let stop = Signals::install()?;
    let out = args.out.clone().unwrap_or_else(|| default_folder(args.config.as_deref()));
    let kept = args.resume && CheckpointStore::view(out.join("checkpoints")).list().is_ok_and(|steps| !steps.is_empty());
    let watch = stop.watch(if kept { RESUMABLE } else { Error::StoppedEmpty }, || ());
    match train(args, global, (&out, kept), &stop, watch) {
        Err(Error::StoppedEmpty) if kept => Err(RESUMABLE),
        outcome => outcome,
    }
}

fn train(args: &TrainArgs, global: &Global, (out, kept): (&Path, bool), stop: &Signals, watch: Watch) -> Result<()> {
    let (config, mut warnings) = configuration(args)?;
    RunFolder::check(out, args.resume)?;
    let init = args.init.as_deref().map(|path| Ok((path, common::checkpoint(path, args.backbone.as_deref(), global)?))).transpose()?;
    // Data and weights are judged before the folder is made, so that a mistake leaves nothing behind.
    let data = open_data(&config)?;
    let summary = Arc::clone(data.summary());
    common::tell_data(&summary, global);
    warnings.extend(config.advice_for(data.len()));
    warnings.iter().for_each(common::warn);
    stop.check()?;
    let flag = stop.flag();
    let gpu = common::open(global)?.until(flag.clone());
    let folder = RunFolder::open(out, args.resume)?;
    let variants = common::variants(global, &gpu).until(flag.clone());
    let run = Run {
        gpu: &gpu,
        variants: &variants,
        folder: Some(&folder),
        max_steps: args.max_steps,
        allow_data_change: args.allow_data_change,
        stop: &flag,
    };
    let prepared = match prepare(&config, &run, data, init) {
        Ok(prepared) => prepared.having_said(warnings),
        Err(error) => {
            folder.abandon();
            return Err(error);
        }
    };
    let start = prepared.start_step();
    if let Some(asked) = args.max_steps.filter(|asked| *asked > prepared.total_steps()) {
        common::warn(format!("--max-steps: is {asked}, and the run has {} steps: it ends with those", prepared.total_steps()));
    }
    if args.resume && !kept {
        common::note(global, &format!("{} holds no checkpoint to go on from: the run begins with step 0", out.display()));
    }
    if start > 0 && (global.fuse != Fusions::Usual || global.tune == Tune::Full) {
        common::warn("--fuse and --tune: a run that goes on keeps the kernels that it began with, and what they fuse");
    }
    if let Some(aside) = if start == 0 { folder.set_aside(&[BAD_IMAGES])? } else { None } {
        common::warn(format!("{} holds no checkpoint: the run starts again; the metrics before are in {}", out.display(), aside.display()));
    }
    let mut observers = Observers::default();
    observers.0.push(Box::new(UntilKept::a_step(watch)));
    observers.0.push(Box::new(Progress::stderr(Style::detect(global.quiet))));
    // Where nothing is left to do, what the folder says of the run stays true.
    if !prepared.is_complete() || !folder.config_path().exists() {
        let logs = || -> Result<[Box<dyn Observer>; 3]> {
            folder.write_config(&config.to_toml()?)?;
            let board = TensorBoard::create(folder.path(), start)?;
            Ok([Box::new(Metrics::open(&folder, start)?), Box::new(board), Box::new(Html::open(folder.path(), title(out), start)?)])
        };
        match logs() {
            Ok(logs) => observers.0.extend(logs),
            Err(error) => {
                folder.abandon();
                return Err(error);
            }
        }
    }
    let finished = pretrain(&config, &run, prepared, &mut observers)?;
    let Finished { steps, epochs, loss, images_per_second, checkpoint, stopped, bad_images, replaced_images, skipped_steps, .. } = finished;
    if global.json {
        let checkpoint = checkpoint.as_ref().map(|path| path.to_string_lossy());
        let mut result = json!({
            "steps": steps, "epochs": epochs, "loss": loss, "images_per_second": images_per_second, "checkpoint": checkpoint, "stopped": stopped,
            "bad_images": bad_images, "replaced_images": replaced_images,
            "data": *summary,
        });
        if skipped_steps > 0 {
            result["skipped_steps"] = json!(skipped_steps);
        }
        output::json(&result)?;
    }
    match (stopped, checkpoint) {
        (false, _) => Ok(()),
        (true, Some(_)) => Err(RESUMABLE),
        (true, None) => Err(Error::StoppedEmpty),
    }
}

fn configuration(args: &TrainArgs) -> Result<(PretrainConfig, Vec<crate::train::event::Warning>)> {
    data_said_once(&args.data, &args.set)?;
    let own = args.out.as_ref().map(|out| out.join("config.toml"));
    let path = match (&args.config, own) {
        (Some(path), _) => path.clone(),
        (None, Some(own)) if own.is_file() => own,
        (None, Some(own)) => return Err(Error::Usage(format!("{} does not exist: there is no run to resume; give --config", own.display()))),
        (None, None) => return Err(Error::Usage("give --config, or --out and --resume".into())),
    };
    let (mut config, warnings) = PretrainConfig::load(path, &args.set)?;
    args.data.apply(&mut config.data)?;
    Ok((config, warnings))
}

/// `runs/NAME` for `configs/NAME.toml`.
fn default_folder(config: Option<&Path>) -> PathBuf {
    let name = config.and_then(Path::file_stem).map_or("run".into(), |s| s.to_string_lossy().into_owned());
    Path::new("runs").join(name)
}

fn title(out: &Path) -> String {
    out.file_name().map_or("run".into(), |s| s.to_string_lossy().into_owned())
}
