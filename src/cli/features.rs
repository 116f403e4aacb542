//! `swav-wgpu features`: pooled features of a dataset's images, or everything a network says of given tensors.

use super::args::{FeaturesArgs, Global, Weights};
use super::{bad, common, output};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::Variants;
use crate::nn::Images;
use crate::train::{Extracted, Extractor, nhwc4};
use crate::weights::{AnyTensor, check_tensor_output, read_safetensors, write_safetensors};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Images of a pass.
const BATCH: usize = 32;

pub(super) fn run(args: &FeaturesArgs, global: &Global) -> Result<()> {
    let mut inputs: Vec<&Path> =
        [&args.input, &args.data.labels, &args.image.config].into_iter().flatten().chain(&args.data.data).map(PathBuf::as_path).collect();
    inputs.extend(match &args.weights {
        Weights::File(path) => Some(path.as_path()),
        Weights::Random { .. } => None,
    });
    common::output_file(&args.out, &inputs)?;
    check_tensor_output(&args.out)?;
    let (gpu, frozen) = common::frozen(&args.weights, args.backbone.as_deref(), &args.image, global)?;
    let variants = common::variants(global, &gpu);
    let Written { tensors, metadata, images, bad } = match &args.input {
        Some(input) => of_tensors(&gpu, &variants, &frozen, input)?,
        None => {
            frozen.tell(global);
            let data = frozen.scan(&args.data)?.into_dataset(args.part.split())?;
            of_images(&gpu, &variants, &frozen, bad::treated(data, &args.bad), args)?
        }
    };
    common::make_folder_of(&args.out)?;
    write_safetensors(&args.out, &tensors, &metadata)?;
    if global.json {
        let features = frozen.network.backbone.features();
        output::json(&json!({"images": images, "features": features, "out": args.out.to_string_lossy(), "bad": bad}))
    } else {
        let left = bad.as_array().map_or(0, Vec::len);
        let without = if left > 0 { format!(", without {left} that cannot be read") } else { String::new() };
        common::note(global, &format!("features of {images} images in {}{without}", args.out.display()));
        Ok(())
    }
}

/// What goes into the file.
struct Written {
    tensors: BTreeMap<String, AnyTensor<'static>>,
    metadata: BTreeMap<String, String>,
    images: usize,
    /// Images that were left out.
    bad: Value,
}

fn of_images(gpu: &Gpu, variants: &dyn Variants, frozen: &common::Frozen, data: Dataset, args: &FeaturesArgs) -> Result<Written> {
    let data = Arc::new(data);
    if frozen.random {
        let calibrated = frozen.network.calibrate(gpu, variants, Arc::clone(&data), frozen.transform, frozen.images, frozen.workers);
        calibrated.map_err(|e| bad::hinted(e, &args.bad))?;
    }
    let (n, size) = (data.len(), frozen.transform.crop);
    let mut extractor = Extractor::new(gpu, variants, &frozen.network, (frozen.images, BATCH.min(n), [size, size]), None)?;
    let all = extractor.dataset(gpu, Arc::clone(&data), frozen.transform, frozen.workers, &false.into());
    let all = all.map_err(|e| bad::hinted(e, &args.bad))?;
    bad::expect_some(all.indices.len(), &data)?;
    let (images, bad) = (all.indices.len(), bad::listed(&[&data]));
    // -1 stands for an image without a class.
    let labels: Vec<i64> = all.labels.iter().map(|l| l.map_or(-1, |l| i64::try_from(l).unwrap_or(i64::MAX))).collect();
    let paths: Vec<String> = all.indices.iter().map(|i| data.path(*i as usize)).collect();
    let tensors = BTreeMap::from([
        ("features".to_owned(), AnyTensor::from_f32(&[images, extractor.features()], &all.features).into_owned()),
        ("labels".to_owned(), AnyTensor::from_i64(&[images], &labels).into_owned()),
    ]);
    let text = |v: &[String]| serde_json::to_string(v).map_err(|e| Error::Failed(e.to_string()));
    let mut metadata = BTreeMap::from([("paths".to_owned(), text(&paths)?), ("classes".to_owned(), text(data.classes())?)]);
    if images < n {
        metadata.insert("bad".to_owned(), bad.to_string());
    }
    Ok(Written { tensors, metadata, images, bad })
}

fn of_tensors(gpu: &Gpu, variants: &dyn Variants, frozen: &common::Frozen, path: &Path) -> Result<Written> {
    let images = read_safetensors(path)?.f32("images")?;
    let [n, 3, h, w] = images.shape[..] else {
        return Err(Error::weights(path, format!("tensor images has shape {:?}, expected (N, 3, H, W)", images.shape)));
    };
    if n == 0 || h == 0 || w == 0 {
        return Err(Error::weights(path, "tensor images is empty"));
    }
    // Networks hide it: a ReLU makes 0 of NaN on many devices.
    if let Some(at) = images.data.iter().position(|v| !v.is_finite()) {
        return Err(Error::weights(path, format!("tensor images holds {} in image {}", images.data[at], at / (3 * h * w))));
    }
    let mut extractor = Extractor::new(gpu, variants, &frozen.network, (Images::Normalized, BATCH.min(n), [h, w]), Some(0))?;
    let mut all = Extracted::default();
    let stored = nhwc4(&images.data, n, h, w);
    for batch in stored.chunks(BATCH.min(n) * h * w * 4) {
        extractor.pass(gpu, bytemuck::cast_slice(batch), &mut all)?;
    }
    let [c, mh, mw] = extractor.map_shape;
    let mut tensors = BTreeMap::from([
        ("features".to_owned(), AnyTensor::from_f32(&[n, c], &all.features).into_owned()),
        ("map".to_owned(), AnyTensor::from_f32(&[n, c, mh, mw], &nchw(&all.map, n, mh * mw, c)).into_owned()),
    ]);
    for (name, values) in [("embeddings", &all.embeddings), ("scores", &all.scores)] {
        if !values.is_empty() {
            tensors.insert(name.to_owned(), AnyTensor::from_f32(&[n, values.len() / n], values).into_owned());
        }
    }
    Ok(Written { tensors, metadata: BTreeMap::new(), images: n, bad: json!([]) })
}

/// (N, pixels, C) to (N, C, pixels).
fn nchw(nhwc: &[f32], n: usize, pixels: usize, channels: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(nhwc.len());
    for image in 0..n {
        for c in 0..channels {
            out.extend((0..pixels).map(|p| nhwc[(image * pixels + p) * channels + c]));
        }
    }
    out
}
