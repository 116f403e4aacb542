//! What several commands do first: log, open the adapter, settle how kernels are chosen, load the network.

use super::args::{DataArgs, Global, ImageArgs, Tune, Weights};
use super::fit::{Given, warn_of_other_images};
use super::text::{Log, printable};
use crate::atomic;
use crate::data::{Contents, Dataset, EvalTransform, Split, Summary};
use crate::error::{Error, Result};
use crate::fault;
use crate::gpu::{DeviceKind, Gpu};
use crate::nn::Images;
use crate::train::config::{BackboneConfig, DataConfig, ImageConfig, Kind, LinearConfig, PretrainConfig, backbone_of, kind_of};
use crate::train::plan::{HeadImages, eval_transform, images};
use crate::train::{FINETUNED, Network, weight_file};
use crate::tune::{self, Effort, Identity, Progress, Table, Tuner};
use crate::weights::{self, Checkpoint, Unused};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names that are left out for one reason are said up to this number.
const MOST_NAMES: usize = 6;

/// Sends the library's log to stderr: warnings, with -v information, with -vv everything.
pub(super) fn start_logging(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) | (_, 0) => "warn",
        (_, 1) => "info",
        _ => "debug",
    };
    let default = format!("swav_wgpu={level},error");
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    // A second start, in tests of the library, is no harm.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Log(std::io::stderr())).with_ansi(false).without_time().try_init();
}

/// Arms the faults that tests ask for in the environment, and says so.
pub(super) fn arm_faults() -> Result<()> {
    let Some(text) = std::env::var_os(fault::VARIABLE) else { return Ok(()) };
    let text = text.to_string_lossy();
    fault::arm(&text)?;
    warn(format!("{} is set, so things go wrong on purpose: {text}", fault::VARIABLE));
    Ok(())
}

/// The adapter the user asked for; its compiled pipelines are kept where the backend can.
pub(super) fn gpu(global: &Global) -> Result<Gpu> {
    let gpu = Gpu::open(global.adapter.as_deref())?;
    Ok(match tune::cache_folder() {
        Some(folder) => gpu.keeping_pipelines(&folder),
        None => gpu,
    })
}

/// How the user wants kernels chosen on `gpu`.
pub(super) fn variants<'a>(global: &'a Global, gpu: &Gpu) -> Tuner<'a> {
    let effort = match global.tune {
        Tune::Off => Effort::Off,
        Tune::Table => Effort::Table,
        Tune::Full => Effort::Full,
    };
    let table = match tune::cache_folder().filter(|_| effort != Effort::Off) {
        Some(folder) => Table::open(&folder, Identity::of(gpu.description())),
        None => Table::in_memory(),
    };
    Tuner::new(effort, table, Duration::from_secs_f64(global.tune_seconds), move |progress| note(global, &tuning(progress)))
        .fusing(global.fuse.clone())
}

/// A line about a shape that was measured.
fn tuning(progress: &Progress<'_>) -> String {
    match progress {
        Progress::Measured { done, total, key, times, guess } => {
            let each: Vec<String> = times.iter().filter(|(_, ms)| **ms < f64::MAX).map(|(variant, ms)| format!("{variant} {ms:.2} ms")).collect();
            format!("tuning {done}/{total}: {key}: {} (guess {guess})", each.join(", "))
        }
        Progress::TimeIsUp { left } => format!("tuning: the time is up, {left} shapes keep the best guess; --tune-seconds gives more"),
    }
}

/// Opens the adapter the user asked for and says when it is a software one.
pub(super) fn open(global: &Global) -> Result<Gpu> {
    let gpu = gpu(global)?;
    let d = gpu.description();
    if gpu.caps().kind == DeviceKind::Cpu {
        note(global, &format!("{} is a software device: expect the speed of the processor", d.name));
    } else {
        note(global, &format!("{} ({}, {})", d.name, d.backend, d.driver));
    }
    Ok(gpu)
}

/// A line on stderr, unless -q.
pub(super) fn note(global: &Global, text: &str) {
    if !global.quiet {
        say(text);
    }
}

/// A warning on stderr, with -q too.
pub(super) fn warn(text: impl Display) {
    say(&format!("warning: {text}"));
}

/// Nothing can be done when stderr is closed or full, and nothing need be.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(text));
}

/// Judges a file that is to be written, before anything is computed: it must not be one that is read, nor the checkpoint of a run, and there must be
/// a folder that takes files, or one that it can be made in.
pub(super) fn output_file(path: &Path, inputs: &[&Path]) -> Result<()> {
    let whole = |p: &Path| p.canonicalize().ok();
    // Of what a folder of weights stands for, checkpoints have a rule of their own.
    let read = |input: &Path| if input.is_dir() { input.join(FINETUNED) } else { input.to_owned() };
    if let Some(input) = inputs.iter().map(|input| read(input)).find(|input| whole(path).is_some_and(|path| whole(input) == Some(path))) {
        return Err(Error::Usage(format!("{} would be written over {}, which is read: choose another name", path.display(), input.display())));
    }
    let folder = atomic::folder_of(path);
    let resolved = whole(folder).unwrap_or_else(|| folder.to_owned());
    let run = resolved.parent().filter(|_| resolved.file_name().is_some_and(|name| name == "checkpoints"));
    if run.is_some_and(|run| run.join("config.toml").is_file()) {
        return Err(Error::Usage(format!(
            "{} belongs to the checkpoints of a run, which only `train` writes: choose another folder",
            path.display()
        )));
    }
    atomic::can_write(path)
}

/// Makes the folder of a file that is about to be written.
pub(super) fn make_folder_of(path: &Path) -> Result<()> {
    std::fs::create_dir_all(atomic::folder_of(path)).map_err(Error::output(path))
}

/// Says in one line what was found where images lie. What may be a mistake is said with -q too.
pub(super) fn tell_data(summary: &Summary, global: &Global) {
    if global.quiet && summary.is_suspicious() {
        warn(summary);
    } else {
        note(global, &summary.to_string());
    }
}

/// How images are prepared for a frozen network, and which network it is.
pub(super) struct Frozen {
    pub(super) network: Network,
    pub(super) transform: EvalTransform,
    pub(super) images: Images,
    pub(super) workers: usize,
    /// The data, as the configuration has it.
    pub(super) data: DataConfig,
    /// Whether a configuration was there to name it.
    pub(super) configured: bool,
    pub(super) random: bool,
}

impl Frozen {
    /// The set that `args` name, else the configuration, to open `splits` of it. Classes of another set are not those of this one.
    pub(super) fn scan(&self, args: &DataArgs, splits: &[Split]) -> Result<Contents> {
        if args.data.is_empty() && !self.configured {
            return Err(Error::Usage("give --data, or a --config that names it".into()));
        }
        let mut data = self.data.clone();
        if !args.data.is_empty() {
            (data.labels, data.label_key) = (None, None);
        }
        args.apply_unkept(&mut data);
        data.scan(splits)
    }

    /// Says how images are prepared: weights that were converted have no configuration beside them any more.
    pub(super) fn tell(&self, global: &Global) {
        tell_preparation(self.transform, global);
    }
}

/// Says how many images were held out, where a fraction of them was to be.
pub(super) fn tell_held_out(fraction: Option<f64>, seed: u64, val: &Dataset, global: &Global) {
    if let Some(fraction) = fraction {
        note(global, &format!("{} labelled images are held out for validation: a part of {fraction}, by seed {seed} and their names", val.len()));
    }
}

/// Says what becomes of images.
pub(super) fn tell_preparation(EvalTransform { resize, crop }: EvalTransform, global: &Global) {
    let how = match resize {
        Some(short) => format!("scaled to {short} pixels and cut to {crop}"),
        None => format!("cut to {crop} pixels, not scaled"),
    };
    note(global, &format!("images are {how}"));
}

/// Image settings of a head, else of a configuration file of either kind, else the usual ones.
fn image_settings(image: &ImageArgs, head: Option<&HeadImages>) -> Result<(EvalTransform, DataConfig, bool)> {
    let mut crop = EvalTransform { resize: Some(256), crop: 224 };
    let mut data = DataConfig::default();
    if let Some(head) = head {
        (crop, data) = (head.transform(), head.data());
    } else if let Some(path) = &image.config {
        match kind_of(path, &[])? {
            Kind::Linear => {
                let (config, _) = LinearConfig::load(path, &[])?;
                crop = eval_transform(&config);
                data = config.data;
            }
            Kind::Pretrain => {
                let (config, _) = PretrainConfig::load(path, &[])?;
                crop = for_size(config.crops.size[0]);
                data = config.data;
            }
        }
    }
    if let Some(size) = image.size {
        crop = for_size(size);
    }
    if let Some(resize) = image.resize {
        if let Some(wrong) = (ImageConfig { size: crop.crop, resize }).wrong_resize("the size") {
            return Err(Error::Usage(format!("--resize {wrong}")));
        }
        crop.resize = (resize > 0).then_some(resize);
    }
    Ok((crop, data, image.config.is_some() && head.is_none()))
}

/// The usual preparation for a network trained at `size`: images of 64 pixels and less are taken whole, larger ones are scaled to
/// 8/7 of the size and cut (256 to 224).
pub(super) fn for_size(size: usize) -> EvalTransform {
    EvalTransform { resize: Some(if size <= 64 { size } else { size * 8 / 7 }), crop: size }
}

/// Loads weights, or draws them, and settles how images are prepared; a run folder brings its own configuration along. Bad weights are
/// refused before an adapter is opened.
pub(super) fn frozen(weights: &Weights, prefix: Option<&str>, image: &ImageArgs, global: &Global) -> Result<(Gpu, Frozen)> {
    frozen_for((weights, prefix), image, None, global)
}

/// The same with images prepared as for a head, where it says how.
pub(super) fn frozen_for(
    (weights, prefix): (&Weights, Option<&str>),
    image: &ImageArgs,
    head: Option<&HeadImages>,
    global: &Global,
) -> Result<(Gpu, Frozen)> {
    let mut image = image.clone();
    if let (Weights::File(path), None) = (weights, &image.config) {
        image.config = run_config(path);
    }
    let (transform, data, configured) = image_settings(&image, head)?;
    let random = matches!(weights, Weights::Random { .. });
    // A head's images are its own, and were judged when it was trained.
    if head.is_none() {
        warn_of_other_images(weights, transform, &data, Given::Flags);
    }
    let (gpu, network) = network((weights, prefix), image.config.as_deref(), &[], global)?;
    let frozen = Frozen { network, transform, images: images(&data), workers: data.workers, data, configured, random };
    Ok((gpu, frozen))
}

/// The configuration of the run that weights are of, where they are a run folder or lie in one.
pub(super) fn run_config(weights: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(weights).ok()?;
    let weights = absolute.as_path();
    let beside = weights.parent();
    let run = beside.filter(|folder| folder.ends_with("checkpoints")).and_then(Path::parent);
    [Some(weights), beside.filter(|_| weights.ends_with(FINETUNED)), run]
        .into_iter()
        .flatten()
        .map(|folder| folder.join("config.toml"))
        .find(|own| own.is_file())
}

/// The network of `--weights` and `--backbone` on the adapter the user asked for; `config`, with what is `--set`, gives the architecture of
/// random ones.
pub(super) fn network(
    (weights, prefix): (&Weights, Option<&str>),
    config: Option<&Path>,
    sets: &[String],
    global: &Global,
) -> Result<(Gpu, Network)> {
    match weights {
        Weights::File(path) => {
            let checkpoint = checkpoint(path, prefix, global)?;
            let gpu = open(global)?;
            let network = Network::from_checkpoint(&gpu, checkpoint)?;
            Ok((gpu, network))
        }
        Weights::Random { .. } if prefix.is_some() => Err(Error::Usage("--backbone chooses in a file; --weights random is none".into())),
        Weights::Random { seed } => {
            let path = config.ok_or_else(|| Error::Usage("--weights random needs --config, which says what network to draw".into()))?;
            let backbone: BackboneConfig = backbone_of(path, sets)?;
            let gpu = open(global)?;
            let network = Network::random(&gpu, backbone.architecture(), backbone.zero_init_residual, *seed)?;
            Ok((gpu, network))
        }
    }
}

/// Reads a weight file, or the newest checkpoint of a run folder, and says what was found in it and what was not taken as it stands, or not at
/// all. `prefix` is that of `--backbone`.
pub(super) fn checkpoint(path: &Path, prefix: Option<&str>, global: &Global) -> Result<Checkpoint> {
    let random = path.to_str().and_then(|text| text.parse().ok()).is_some_and(|weights| matches!(weights, Weights::Random { .. }));
    if random && !path.exists() {
        return Err(Error::weights(path, "is no file, and untrained weights have no place here"));
    }
    let (file, warnings) = weight_file(path)?;
    warnings.iter().for_each(warn);
    let checkpoint = weights::load_under(&file, prefix)?;
    let (layout, matched, all) = (checkpoint.layout, checkpoint.matched, checkpoint.matched + checkpoint.unmatched.len());
    note(global, &format!("{}: {layout} layout, {matched} of {all} tensors matched: {}", file.display(), checkpoint.describe()));
    let say = |text: &str| note(global, &format!("note: {text}"));
    checkpoint.remarks.iter().for_each(|remark| say(remark));
    if let Some(unused) = Unused::describe(&checkpoint.unused) {
        say(&format!("not used: {unused}"));
    }
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in &checkpoint.unmatched {
        weights::why_unmatched(name).into_iter().for_each(|reason| reasons.entry(reason).or_default().push(name));
    }
    for (reason, names) in reasons {
        say(&format!("{} left out: {reason}", subject(&names)));
    }
    let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    checkpoint.unusable.iter().for_each(|(name, kind)| kinds.entry(kind).or_default().push(name));
    for (kind, names) in kinds {
        say(&format!("{} {kind}, which is not supported", subject(&names)));
    }
    Ok(checkpoint)
}

/// `a is`, `a, b are`, and from [`MOST_NAMES`] on only how many more.
fn subject(names: &[&str]) -> String {
    let some = names.iter().take(MOST_NAMES).map(printable).collect::<Vec<_>>().join(", ");
    match names.len() {
        1 => format!("{some} is"),
        count if count > MOST_NAMES => format!("{some} and {} more are", count - MOST_NAMES),
        _ => format!("{some} are"),
    }
}
