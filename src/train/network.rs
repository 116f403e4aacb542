//! A network to evaluate: from a weight file, a run folder, or drawn at random.

use super::checkpoint::{self, CheckpointStore};
use super::event::Warning;
use super::memory::MOST_PIXELS;
use crate::data::{Dataset, EvalTransform, Loader};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{DType, Graph, Program, Store, Variants};
use crate::nn::architecture::{Backbone, Head, TensorSpec};
use crate::nn::{Images, Init, Parameters, Recompute, ResNet, Values, initial_values};
use crate::ops::BatchNormMode;
use crate::weights::Checkpoint;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A backbone, perhaps with its SwAV head, on the device; nothing of it is trained.
pub struct Network {
    /// Shape of the backbone.
    pub backbone: Backbone,
    /// Shape of the head, when the weights have one.
    pub head: Option<Head>,
    /// Where its tensors live.
    pub parameters: Parameters,
    /// Their memory.
    pub store: Store,
}

/// The network that a fine-tuning leaves in its folder.
pub const FINETUNED: &str = "model.safetensors";

/// Batches whose statistics an untrained network takes: those of one pass over the data, but so many at least and at most, and the images of each.
const CALIBRATION_STEPS: std::ops::RangeInclusive<usize> = 16..=100;
const CALIBRATION_BATCH: usize = 64;

impl Network {
    /// Takes loaded weights to the device.
    pub fn from_checkpoint(gpu: &Gpu, checkpoint: Checkpoint) -> Result<Self> {
        let specs = checkpoint.specs();
        let values: Values = checkpoint.tensors.into_iter().map(|(name, tensor)| (name, tensor.data)).collect();
        Self::build(gpu, checkpoint.backbone, checkpoint.head, &specs, &values)
    }

    /// An untrained backbone, the baseline of every evaluation.
    pub fn random(gpu: &Gpu, backbone: Backbone, zero_init_residual: bool, seed: u64) -> Result<Self> {
        let specs = backbone.tensors();
        let values = initial_values(&specs, &Init { seed, zero_init_residual, block: backbone.block, classifier_std: Some(0.01) });
        Self::build(gpu, backbone, None, &specs, &values)
    }

    /// What tells this backbone from others: see [`fingerprint`].
    pub fn fingerprint(&self, gpu: &Gpu) -> Result<String> {
        Ok(fingerprint(&self.backbone, &self.parameters.read(gpu, &self.store)?))
    }

    /// Refuses batches of images that kernels cannot count, without computing anything.
    pub fn check_images(&self, batch: usize, [height, width]: [usize; 2]) -> Result<()> {
        let stem = self.backbone.stem;
        if !stem.can_pool([height, width]) {
            let most = stem.largest_side();
            return Err(Error::Usage(format!(
                "images of {width}x{height} pixels are too large: with this network's stem {most}x{most} are the most"
            )));
        }
        if (batch * height * width) as u64 > MOST_PIXELS {
            let most = MOST_PIXELS / (height * width) as u64;
            return Err(Error::OutOfMemory(format!(
                "a batch of {batch} images of {width}x{height} pixels is too large: {most} of them are the most"
            )));
        }
        Ok(())
    }

    fn build(gpu: &Gpu, backbone: Backbone, head: Option<Head>, specs: &[TensorSpec], values: &Values) -> Result<Self> {
        let parameters = Parameters::new(specs, |_| false, gpu.caps().max_binding_bytes);
        let store = parameters.allocate(gpu)?;
        parameters.write(gpu, &store, values)?;
        Ok(Self { backbone, head, parameters, store })
    }

    /// Gives an untrained network running statistics, as an epoch of training would: forward passes in training mode over `data`, more than once where it
    /// has few images. Without them an evaluation would measure the absence of statistics instead of the absence of training.
    pub fn calibrate(
        &self,
        gpu: &Gpu,
        variants: &dyn Variants,
        data: Arc<Dataset>,
        transform: EvalTransform,
        form: Images,
        workers: usize,
    ) -> Result<()> {
        let batch = CALIBRATION_BATCH.min(data.len()).max(1);
        let size = transform.crop;
        self.check_images(batch, [size, size])?;
        let graph = Graph::new();
        let images = form.input(&graph, "images", batch, [size; 2], DType::F32);
        let mode = BatchNormMode::Training { momentum: 0.1 };
        let map = ResNet { backbone: &self.backbone, parameters: &self.parameters, mode, recompute: Recompute::None }.forward(&images);
        let mut program = Program::new(gpu, &self.store, &graph, &[("map", &map)], variants)?;
        // Shuffled, for a data set is sorted by class.
        let images = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let rounds = (0..).flat_map(|round| crate::data::rng::permutation(0, round, images));
        let steps = (data.len() / batch).clamp(*CALIBRATION_STEPS.start(), *CALIBRATION_STEPS.end());
        let order: Vec<usize> = rounds.take(batch * steps).map(|i| i as usize).collect();
        let mut loader = Loader::evaluation(Arc::new(data.select(&order)?), transform, batch, workers)?;
        while let Some(next) = loader.next() {
            let next = next?;
            if next.indices.len() == batch {
                let pending = program.run(gpu, &[("images", &next.groups[0])])?;
                program.finish(gpu, pending)?;
            }
            loader.recycle(next);
        }
        Ok(())
    }
}

/// blake3 sum of a backbone's names and values in f32, running statistics included, counters not; 32 hexadecimal digits.
pub fn fingerprint(backbone: &Backbone, values: &Values) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, values) in backbone.tensors().iter().filter_map(|spec| values.get_key_value(&spec.name)) {
        hasher.update(name.as_bytes()).update(bytemuck::cast_slice(values));
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

/// The file that `path` stands for: itself, the newest good checkpoint of a run folder, or the network of a fine-tuning's folder. A warning names
/// every newer checkpoint that is damaged.
pub fn weight_file(path: &Path) -> Result<(PathBuf, Vec<Warning>)> {
    if !path.is_dir() {
        // Whoever names one checkpoint wants that one, or to be told that it is damaged.
        checkpoint::verify(path)?;
        return Ok((path.to_owned(), Vec::new()));
    }
    let (folder, tuned) = (path.join("checkpoints"), path.join(FINETUNED));
    if !folder.is_dir() && tuned.is_file() {
        return Ok((tuned, Vec::new()));
    }
    if !folder.is_dir() {
        return Err(Error::weights(path, "is a folder without checkpoints or a fine-tuned network: give a weight file or a run folder"));
    }
    let store = CheckpointStore::view(&folder);
    match store.latest()? {
        Some((checkpoint, warnings)) => Ok((checkpoint.path, warnings)),
        None => Err(Error::weights(folder, "holds no checkpoint yet")),
    }
}
