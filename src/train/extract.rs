//! Features of images through a frozen network.

use super::network::Network;
use crate::data::{Dataset, EvalTransform, Loader};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{DType, Graph, Program, Variants, pad4};
use crate::nn::{Images, Recompute, ResNet};
use crate::ops::BatchNormMode;
use crate::swav::SwavModel;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A network in evaluation mode at one batch and image size.
pub struct Extractor {
    program: Program,
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
        Ok(Self { program, batch, image: form.bytes(image), features: network.backbone.features(), map_shape: [c, h, w] })
    }

    /// Length of a feature vector.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Passes `images`, at most a batch, and appends what comes out to `all`.
    pub fn pass(&mut self, gpu: &Gpu, images: &[u8], all: &mut Extracted) -> Result<()> {
        let count = images.len() / self.image;
        if count == 0 {
            return Ok(());
        }
        let outputs = if count == self.batch {
            self.program.call(gpu, &[("images", images)])?
        } else {
            // In evaluation mode images do not see each other: the rest of the batch may be anything.
            let mut padded = images.to_vec();
            padded.resize(self.batch * self.image, 0);
            self.program.call(gpu, &[("images", &padded)])?
        };
        let take = |to: &mut Vec<f32>, name: &str| {
            if let Some(values) = outputs.get_f32(name) {
                let row = values.len() / self.batch;
                to.extend_from_slice(&values[..row * count]);
            }
        };
        take(&mut all.features, "features");
        take(&mut all.map, "map");
        take(&mut all.embeddings, "embeddings");
        take(&mut all.scores, "scores");
        Ok(())
    }

    /// Passes a whole dataset in order; what becomes of bad images is its own choice. [`Error::StoppedEmpty`] when `stop` was set before the end.
    pub fn dataset(&mut self, gpu: &Gpu, data: Arc<Dataset>, transform: EvalTransform, workers: usize, stop: &AtomicBool) -> Result<Extracted> {
        let mut all = Extracted::default();
        let images = data.len();
        let mut loader = Loader::evaluation(data, transform, self.batch, workers)?;
        while let Some(batch) = loader.next_until(stop) {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::StoppedEmpty);
            }
            let batch = batch.map_err(|e| after(e, all.indices.len(), images))?;
            self.pass(gpu, &batch.groups[0], &mut all)?;
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
