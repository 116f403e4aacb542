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
/// Images of a tenth of the usual contrast, normalised by their own deviation, reach so much.
const MOST_NORMALIZED: f32 = 30.0;

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
    let mut summary = None;
    let Written { tensors, metadata, images, bad } = match &args.input {
        Some(input) => {
            for (flag, _) in [("--size", args.image.size), ("--resize", args.image.resize)].iter().filter(|(_, given)| given.is_some()) {
                common::warn(format!("{flag}: has no part: the images of --input are taken as they are"));
            }
            of_tensors(&gpu, &variants, &frozen, input)?
        }
        None => {
            frozen.tell(global);
            let split = args.part.split();
            let data = frozen.scan(&args.data, &[split])?.into_dataset(split)?;
            common::tell_data(data.summary(), global);
            summary = Some(Arc::clone(data.summary()));
            of_images(&gpu, &variants, &frozen, bad::treated(data, &args.bad), args)?
        }
    };
    common::make_folder_of(&args.out)?;
    write_safetensors(&args.out, &tensors, &metadata)?;
    if global.json {
        let features = frozen.network.backbone.features();
        let mut all = json!({"images": images, "features": features, "out": args.out.to_string_lossy(), "bad": bad});
        if let Some(summary) = summary {
            all["data"] = json!(*summary);
        }
        output::json(&all)
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
    extractor.warning().iter().for_each(common::warn);
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
    let file = read_safetensors(path)?;
    let others: Vec<&str> = file.names().filter(|name| *name != "images").collect();
    if !others.is_empty() {
        common::warn(format!("{}: only the tensor images is read, not {}", path.display(), others.join(", ")));
    }
    let images = file.f32("images")?;
    let [n, 3, h, w] = images.shape[..] else {
        return Err(Error::weights(path, format!("tensor images has shape {:?}, expected (N, 3, H, W)", images.shape)));
    };
    if n == 0 || h == 0 || w == 0 {
        return Err(Error::weights(path, "tensor images is empty"));
    }
    if let Some(at) = images.data.iter().position(|v| !v.is_finite()) {
        return Err(Error::weights(path, format!("tensor images holds {} in image {}", images.data[at], at / (3 * h * w))));
    }
    if let Some(wrong) = unnormalized(&images.data) {
        common::warn(format!(
            "{}: tensor images {wrong}, and must be normalised, (pixel / 255 - mean) / std: expect useless features",
            path.display()
        ));
    }
    let mut extractor = Extractor::new(gpu, variants, &frozen.network, (Images::Normalized, BATCH.min(n), [h, w]), Some(0))?;
    let mut all = Extracted::default();
    let stored = nhwc4(&images.data, n, h, w);
    for (number, batch) in stored.chunks(BATCH.min(n) * h * w * 4).enumerate() {
        extractor.pass(gpu, bytemuck::cast_slice(batch), |i| format!("image {} of {}", number * BATCH + i, path.display()), &mut all)?;
    }
    extractor.warning().iter().for_each(common::warn);
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

/// Values of normalised pixels are from about -2 to 3, on both sides of 0: what is wrong with others.
fn unnormalized(values: &[f32]) -> Option<String> {
    let (low, high) = values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    let range = || format!("holds values from {low} to {high}");
    if high.max(-low) > MOST_NORMALIZED {
        return Some(format!("{}, as of bytes", range()));
    }
    (low >= 0.0 && high <= 1.0 && high > low).then(|| format!("{}, as of fractions", range()))
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

#[cfg(test)]
mod tests {
    use super::unnormalized;

    #[test]
    fn normalised_images_pass_and_others_are_told() {
        for fine in [&[-2.1, 2.6][..], &[-0.1, 0.9], &[0.0, 0.0], &[0.3, 1.2], &[-29.0, 1.0]] {
            assert_eq!(unnormalized(fine), None, "{fine:?}");
        }
        assert_eq!(unnormalized(&[0.0, 255.0]).unwrap(), "holds values from 0 to 255, as of bytes");
        assert!(unnormalized(&[-128.0, 127.0]).is_some());
        assert_eq!(unnormalized(&[0.25, 1.0]).unwrap(), "holds values from 0.25 to 1, as of fractions");
    }
}
