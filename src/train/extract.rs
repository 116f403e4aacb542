//! Features of images through a frozen network.

use super::diagnosis::{Sameness, first_nonfinite};
use super::event::Warning;
use super::network::Network;
use crate::data::{Dataset, EvalTransform, Loader};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{DType, Graph, Program, Store, Variants, pad4};
use crate::nn::{Images, Recompute, ResNet};
use crate::ops::BatchNormMode;
use crate::swav::SwavModel;
use crate::tune::{BestGuess, Repeat};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A network in evaluation mode at one batch and image size.
pub struct Extractor {
    program: Program,
    /// To look for what spoilt a result.
    graph: Graph,
    store: Store,
    sameness: Sameness,
    batch: usize,
    /// Bytes in which an image is given.
    image: usize,
    features: usize,
    /// Channels, height and width of the feature map.
    pub map_shape: [usize; 3],
}

/// What a network says of images, row by row.
#[derive(Default, Debug, Clone)]
pub struct Extracted {
    /// Pooled backbone features (N, C).
    pub features: Vec<f32>,
    /// Feature map (N, h, w, C), when asked for.
    pub map: Vec<f32>,
    /// Embeddings (N, D), when asked for and the network has a head.
    pub embeddings: Vec<f32>,
    /// Scores (N, K), likewise.
    pub scores: Vec<f32>,
    /// Labels of a dataset's images.
    pub labels: Vec<Option<usize>>,
    /// Their indices: not all of them where bad ones are left out, others where they are replaced.
    pub indices: Vec<u32>,
}

impl Extractor {
    /// Prepares passes of `batch` images of `image` = [height, width] in that form. `everything` also gives map, embeddings, and scores against the
    /// prototype head of that number.
    ///
    /// # Panics
    /// When the network has a head, but not that many.
    pub fn new(
        gpu: &Gpu,
        variants: &dyn Variants,
        network: &Network,
        (form, batch, image): (Images, usize, [usize; 2]),
        everything: Option<usize>,
    ) -> Result<Self> {
        network.check_images(batch, image)?;
        let graph = Graph::new();
        let images = form.input(&graph, "images", batch, image, DType::F32);
        let mode = BatchNormMode::Evaluation;
        let map = ResNet { backbone: &network.backbone, parameters: &network.parameters, mode, recompute: Recompute::None }.forward(&images);
        let pooled = map.global_avg_pool2d();
        let mut outputs = vec![("features", pooled.clone())];
        if let Some(number) = everything {
            outputs.push(("map", map.clone()));
            if let Some(head) = &network.head {
                let model = SwavModel { backbone: network.backbone.clone(), head: *head, parameters: network.parameters.clone() };
                let forward = model.head(&graph, pooled, mode);
                let scores = model.scores(&forward.embeddings, number);
                outputs.extend([("embeddings", forward.embeddings), ("scores", scores)]);
            }
        }
        let outputs: Vec<_> = outputs.iter().map(|(name, t)| (*name, t)).collect();
        let program = Program::new(gpu, &network.store, &graph, &outputs, variants)?;
        let [_, h, w, c] = map.nhwc();
        let store = network.store.clone();
        let (image, features, sameness) = (form.bytes(image), network.backbone.features(), Sameness::default());
        Ok(Self { program, graph, store, sameness, batch, image, features, map_shape: [c, h, w] })
    }

    /// Length of a feature vector.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Passes `images`, at most a batch, and appends what comes out to `all`.
    /// [`Error::NonFiniteOutput`] when any of it is not finite; `named` names an image by its
    /// number in the batch.
    pub fn pass(&mut self, gpu: &Gpu, images: &[u8], named: impl Fn(usize) -> String, all: &mut Extracted) -> Result<()> {
        let count = images.len() / self.image;
        if count == 0 {
            return Ok(());
        }
        // In evaluation mode images do not see each other: the rest of the batch may be anything.
        let mut padded = Vec::new();
        if count < self.batch {
            padded = images.to_vec();
            padded.resize(self.batch * self.image, 0);
        }
        let inputs: [(&str, &[u8]); 1] = [("images", if count < self.batch { &padded } else { images })];
        let outputs = self.program.call(gpu, &inputs)?;
        for (name, to) in [("features", &mut all.features), ("map", &mut all.map), ("embeddings", &mut all.embeddings), ("scores", &mut all.scores)] {
            let Some(values) = outputs.get_f32(name) else { continue };
            let row = values.len() / self.batch;
            if let Some(at) = values[..row * count].iter().position(|v| !v.is_finite()) {
                return Err(self.spoilt(gpu, &inputs, name, named(at / row)));
            }
            if name == "features" {
                values[..row * count].chunks_exact(row).for_each(|features| self.sameness.add(features));
            }
            to.extend_from_slice(&values[..row * count]);
        }
        Ok(())
    }

    /// Names the first layer that makes something that is not finite of the batch that `inputs`
    /// are.
    fn spoilt(&self, gpu: &Gpu, inputs: &[(&str, &[u8])], result: &str, image: String) -> Error {
        let choices = self.program.choices();
        let variants = Repeat { choices: &choices, otherwise: &BestGuess };
        let layer = first_nonfinite(gpu, &self.store, &self.graph, &variants, inputs);
        // That there is no memory to look is no reason to say less than what is known.
        let layer = layer.inspect_err(|e| tracing::debug!("looking for the layer: {e}")).ok().flatten();
        Error::NonFiniteOutput { layer: layer.unwrap_or_else(|| format!("the network ({result})")), image }
    }

    /// A warning where the features of all images passed so far are all 0, or all the same.
    pub fn warning(&self) -> Option<Warning> {
        self.sameness.describe().map(|message| Warning::new("", message))
    }

    /// Passes a whole dataset in order; what becomes of bad images is its own choice. [`Error::StoppedEmpty`] when `stop` was set before the end.
    pub fn dataset(&mut self, gpu: &Gpu, data: Arc<Dataset>, transform: EvalTransform, workers: usize, stop: &AtomicBool) -> Result<Extracted> {
        let mut all = Extracted::default();
        let images = Arc::clone(&data);
        let mut loader = Loader::evaluation(data, transform, self.batch, workers)?;
        while let Some(batch) = loader.next_until(stop) {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::StoppedEmpty);
            }
            let batch = batch.map_err(|e| after(e, all.indices.len(), images.len()))?;
            self.pass(gpu, &batch.groups[0], |i| images.path(batch.indices[i] as usize), &mut all)?;
            all.labels.extend(&batch.labels);
            all.indices.extend(&batch.indices);
            loader.recycle(batch);
        }
        Ok(all)
    }
}

/// An error about an image, which says how many were done before.
pub fn after(error: Error, done: usize, images: usize) -> Error {
    match error {
        Error::Data { path, message } => Error::Data { path, message: format!("{message} ({done} of {images} images were done)") },
        other => other,
    }
}

/// (N, 3, H, W) to the stored form of (N, H, W, 3).
pub fn nhwc4(nchw: &[f32], n: usize, h: usize, w: usize) -> Vec<f32> {
    let mut out = vec![0.0; n * h * w * pad4(3)];
    for (at, pixel) in out.chunks_exact_mut(4).enumerate() {
        let (image, place) = (at / (h * w), at % (h * w));
        for c in 0..3 {
            pixel[c] = nchw[(image * 3 + c) * h * w + place];
        }
    }
    out
}
