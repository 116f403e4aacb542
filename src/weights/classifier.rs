//! Linear classifiers: alone in a file, or with the backbone they were trained on.
//!
//! Promises: weight and bias fit each other; names of classes are theirs, or told not to be;
//! whatever else the file holds is named.

use super::backbones::{Core, Place};
use super::layout;
use super::load::read_f32;
use super::one_line;
use super::source::Source;
use super::tensor::HostTensor;
use super::unused::{Unused, group};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// A linear classifier on pooled features.
#[derive(Debug, Clone, PartialEq)]
pub struct Classifier {
    /// (classes, features).
    pub weight: HostTensor,
    /// (classes).
    pub bias: HostTensor,
}

/// A classifier without its backbone, and what else its file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassifierFile {
    /// The classifier.
    pub classifier: Classifier,
    /// A name for each of its classes, where the file has them.
    pub classes: Option<Vec<String>>,
    /// Every tensor that was not used, in groups.
    pub unused: Vec<Unused>,
    /// What else was not taken as it stands, in words.
    pub remarks: Vec<String>,
}

/// Loads a classifier alone, from a file with or without a backbone: `fc`, `head.fc`, `linear` or
/// `classifier`, with its class names. A batch norm before an official `linear` is multiplied into
/// it, as it acts in evaluation. Of several classifiers it is the first by name.
pub fn load_classifier(path: impl AsRef<Path>) -> Result<ClassifierFile> {
    let source = Source::open(path.as_ref())?;
    let shapes = source.shapes();
    let (weight, bias) = layout::classifier_names(&shapes)
        .ok_or_else(|| Error::weights(&source.path, "holds no classifier (fc, head.fc or linear, with weight and bias)"))?;
    source.check_size([&weight, &bias].into_iter())?;
    let mut classifier = classifier(&source, &shapes, &weight, &bias, None)?;
    let mut remarks = Vec::new();
    let norm = layout::norm_before(&shapes, &weight);
    if let Some(norm) = &norm {
        fold(&source, &mut classifier, norm)?;
        remarks.push(format!("the batch norm {} is multiplied into the classifier", one_line(norm.trim_end_matches('.'))));
    }
    let mut classes = source.classes.clone();
    remarks.extend(drop_other_names(&mut classes, &classifier));
    let used = |name: &str| name == weight || name == bias || norm.as_ref().is_some_and(|norm| name.starts_with(norm.as_str()));
    let place = Place { wrapper: String::new(), inside: String::new(), core: Core::Plain, first_stage: None };
    let unused = group(shapes.keys().map(String::as_str).filter(|name| !used(name)), &place, &[]);
    Ok(ClassifierFile { classifier, classes, unused, remarks })
}

/// Key of a head's metadata that says for which backbone it was trained.
pub const HEAD_BACKBONE: &str = "backbone";

/// Key of a head's metadata that says how its images were prepared.
pub const HEAD_IMAGES: &str = "images";

/// What a head's metadata says under that key, where it does: those that this program wrote.
pub fn head_metadata(path: impl AsRef<Path>, key: &str) -> Result<Option<String>> {
    Ok(Source::open(path.as_ref())?.metadata(key))
}

/// Gives up names that are not as many as the classes; what there is to say of it.
pub(super) fn drop_other_names(classes: &mut Option<Vec<String>>, classifier: &Classifier) -> Option<String> {
    let outputs = classifier.bias.data.len();
    let names = classes.take_if(|names| names.len() != outputs)?.len();
    Some(format!("its {names} names of classes are not used: the classifier has {outputs} classes"))
}

/// Reads a classifier of these names; of so many `features`, where that is known.
pub(super) fn classifier(
    source: &Source,
    shapes: &BTreeMap<String, Vec<usize>>,
    weight: &str,
    bias: &str,
    features: Option<usize>,
) -> Result<Classifier> {
    match (shapes.get(weight).map(Vec::as_slice), shapes.get(bias).map(Vec::as_slice)) {
        (Some(&[rows, columns]), Some(&[biases])) if rows == biases && rows > 0 && features.is_none_or(|features| features == columns) => {
            Ok(Classifier { weight: read_f32(source, weight)?, bias: read_f32(source, bias)? })
        }
        (weight_shape, bias_shape) => {
            let features = features.map_or("features".to_owned(), |features| features.to_string());
            let message = format!(
                "{} of shape {:?} with a bias of shape {:?}, expected [classes, {features}] and [classes]",
                one_line(weight),
                weight_shape.unwrap_or_default(),
                bias_shape.unwrap_or_default()
            );
            Err(Error::weights(&source.path, message))
        }
    }
}

/// Multiplies a batch norm's evaluation (scale and shift from weight, bias and running statistics,
/// eps 1e-5) into the classifier behind it.
fn fold(source: &Source, classifier: &mut Classifier, norm: &str) -> Result<()> {
    let features = classifier.weight.shape[1];
    let read = |part: &str| -> Result<Vec<f64>> {
        let tensor = read_f32(source, &format!("{norm}{part}"))?;
        if tensor.shape == [features] {
            return Ok(tensor.data.into_iter().map(f64::from).collect());
        }
        let message = format!("{norm}{part} has shape {:?}, but the classifier behind it takes {features} features", tensor.shape);
        Err(Error::weights(&source.path, one_line(&message)))
    };
    let (weight, bias, mean, var) = (read("weight")?, read("bias")?, read("running_mean")?, read("running_var")?);
    let scale: Vec<f64> = weight.iter().zip(&var).map(|(w, v)| w / (v + 1e-5).sqrt()).collect();
    for (row, sum) in classifier.weight.data.chunks_mut(features).zip(&mut classifier.bias.data) {
        let shift: f64 = (0..features).map(|i| f64::from(row[i]) * (bias[i] - mean[i] * scale[i])).sum();
        *sum = (f64::from(*sum) + shift) as f32;
        row.iter_mut().zip(&scale).for_each(|(w, s)| *w = (f64::from(*w) * s) as f32);
    }
    Ok(())
}
