//! `swav-wgpu predict`: classes of single images.

use super::args::{Global, PredictArgs, Weights};
use super::{common, output};
use crate::data::{Scratch, crop_bytes, read_image};
use crate::error::{Error, Result};
use crate::train::plan::HeadImages;
use crate::train::{Extracted, Extractor};
use crate::weights::{Classifier, ClassifierFile, HEAD_BACKBONE, HEAD_IMAGES, Unused, head_metadata, load_classifier};
use serde_json::json;
use std::path::PathBuf;

/// Images of a pass.
const BATCH: usize = 32;

pub(super) fn run(args: &PredictArgs, global: &Global) -> Result<()> {
    let head_file = head_file(args)?;
    let ClassifierFile { classifier: head, classes, unused, remarks } = load_classifier(&head_file)?;
    let mut image = args.image.clone();
    // Images are prepared as those that the head was judged by: it says how itself, or the configuration beside it does.
    let own = if image.config.is_none() { head_metadata(&head_file, HEAD_IMAGES)? } else { None };
    let wrong = |e: serde_json::Error| Error::weights(&head_file, format!("metadata `{HEAD_IMAGES}`: {e}"));
    let own: Option<HeadImages> = own.map(|text| serde_json::from_str(&text).map_err(wrong)).transpose()?;
    if image.config.is_none() && own.is_none() {
        image.config = head_file.parent().map(|folder| folder.join("config.toml")).filter(|beside| beside.is_file());
    }
    if let (Some(own), Some(size)) = (&own, image.size.filter(|size| own.as_ref().is_some_and(|own| own.transform().crop != *size))) {
        let trained = own.transform().crop;
        common::warn(format!("--size: is {size}, and {} was trained on images of {trained} pixels: expect wrong classes", head_file.display()));
    }
    let (gpu, frozen) = common::frozen_for((&Weights::File(args.weights.clone()), args.backbone.as_deref()), &image, own.as_ref(), global)?;
    let (inputs, features) = (head.weight.shape[1], frozen.network.backbone.features());
    if inputs != features {
        let message = format!("is a classifier of {inputs} features, but the backbone {} has {features}", args.weights.display());
        return Err(Error::weights(head_file, message));
    }
    frozen.tell(global);
    // What lies beside a head in the backbone's own file was told with the backbone.
    let unused = Unused::describe(&unused).filter(|_| head_file != args.weights).map(|unused| format!("not used: {unused}"));
    remarks.iter().chain(&unused).for_each(|remark| common::note(global, &format!("note: {}: {remark}", head_file.display())));
    if let Some(own) = head_metadata(&head_file, HEAD_BACKBONE)?
        && own != frozen.network.fingerprint(&gpu)?
    {
        common::warn(format!("{} was trained on another backbone than {}: expect wrong classes", head_file.display(), args.weights.display()));
    }
    let size = frozen.transform.crop;
    let batch = BATCH.min(args.images.len());
    let mut extractor = Extractor::new(&gpu, &common::variants(global, &gpu), &frozen.network, (frozen.images, batch, [size, size]), None)?;
    let (mut scratch, stored) = (Scratch::default(), crop_bytes(size));
    let (mut all, mut bad) = (Vec::new(), Vec::new());
    for paths in args.images.chunks(batch) {
        let (mut pixels, mut outcomes) = (Vec::new(), Vec::new());
        for path in paths {
            let outcome = read_image(path).map(|image| {
                let from = pixels.len();
                pixels.resize(from + stored, 0);
                frozen.transform.crop(&image, &mut pixels[from..], &mut scratch);
            });
            outcomes.push((path, outcome));
        }
        let mut extracted = Extracted::default();
        let whole: Vec<&PathBuf> = outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(path, _)| *path).collect();
        extractor.pass(&gpu, &pixels, |i| whole[i].display().to_string(), &mut extracted)?;
        let mut rows = extracted.features.chunks_exact(features);
        for (path, outcome) in outcomes {
            match (outcome, rows.len()) {
                (Ok(()), 1..) => {
                    let (label, score) = rows.next().map_or((0, 0.0), |row| best(&head, row));
                    let class = classes.as_ref().map(|names| &names[label]);
                    if !global.json {
                        let named = class.map_or_else(|| format!("class {label}"), Clone::clone);
                        output::line(&format!("{}: {named} ({:.1} %)", path.display(), 100.0 * score))?;
                    }
                    all.push(json!({"image": path.to_string_lossy(), "pred_label": label, "pred_class": class, "pred_score": score}));
                }
                (Ok(()), 0) => return Err(Error::Failed("the network gave fewer features than images".into())),
                (Err(Error::Data { path: named, message }), _) => {
                    all.push(json!({"image": path.to_string_lossy(), "error": message}));
                    bad.push((named, message));
                }
                (Err(error), _) => return Err(error),
            }
        }
    }
    extractor.warning().iter().for_each(common::warn);
    if global.json {
        output::json(&all)?;
    }
    told(&bad, all.len())
}

/// The error that is left of images that could not be read, and a warning of each where there are several.
fn told(bad: &[(PathBuf, String)], images: usize) -> Result<()> {
    let Some((path, message)) = bad.first() else { return Ok(()) };
    if images == 1 {
        return Err(Error::data(path, message));
    }
    bad.iter().for_each(|(path, message)| common::warn(format!("{}: {message}", path.display())));
    Err(Error::data(path, format!("{message}; {} of {images} images could not be read", bad.len())))
}

/// `--head`: a file, or the folder that eval-linear or finetune wrote one into.
fn head_file(args: &PredictArgs) -> Result<PathBuf> {
    if !args.head.is_dir() {
        return Ok(args.head.clone());
    }
    let [whole, partial] = ["head.safetensors", "partial-head.safetensors"].map(|name| args.head.join(name));
    if !whole.exists() && partial.exists() {
        let message = format!("holds no finished head, but that of an evaluation that was cut short: name it to use it, {}", partial.display());
        return Err(Error::weights(&args.head, message));
    }
    Ok(whole)
}

/// The most likely class and its softmax score.
fn best(head: &Classifier, features: &[f32]) -> (usize, f64) {
    let dot = |row: &[f32]| row.iter().zip(features).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>();
    let rows = head.weight.data.chunks_exact(features.len());
    let logits: Vec<f64> = rows.zip(&head.bias.data).map(|(row, bias)| dot(row) + f64::from(*bias)).collect();
    // Of equal scores the lower class is taken, as in the evaluations.
    let label = (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
    let sum: f64 = logits.iter().map(|l| (l - logits[label]).exp()).sum();
    (label, 1.0 / sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::HostTensor;

    #[test]
    fn softmax_of_the_best() {
        let head =
            Classifier { weight: HostTensor::new([3, 2], vec![1.0, 0.0, 0.0, 1.0, 0.0, 0.0]), bias: HostTensor::new([3], vec![0.0, 0.5, 0.5]) };
        let (label, score) = best(&head, &[0.0, 1.0]);
        let expected = 1.5_f64.exp() / (1.0 + 1.5_f64.exp() + 0.5_f64.exp());
        assert!(label == 1 && (score - expected).abs() < 1e-12, "{label} {score}");
        assert_eq!(best(&head, &[0.0, 0.0]).0, 1, "of equal scores the lower class");
    }
}
