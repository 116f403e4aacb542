//! DeepCluster-v2's share of a run: the first pass, the clustering at every epoch's start, and banks and labels in a checkpoint.
//!
//! A checkpoint holds the banks as `memory/BANK` (rows, D), the rows' images as `memory/images`, the labels as `labels/HEAD`, one for every image
//! of the data. The draw of the first centroids is a function of (seed, epoch, head).

use super::Run;
use super::data::tell;
use super::runner::Runner;
use super::state::{State, note_kernels};
use crate::data::{Dataset, Loader, rng};
use crate::error::{Error, Result};
use crate::swav::deepcluster::{DeepCluster, FirstPass, Labels, Memory};
use crate::train::checkpoint::{Checkpoint, Dtype, TensorRef};
use crate::train::config::PretrainConfig;
use crate::train::event::{Event, Observer};
use crate::train::plan;
use crate::tune::Repeat;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl State {
    /// Fills memory banks that are not full yet. A stop request breaks it off, and nothing is kept.
    pub(super) fn fill_memory(
        &mut self,
        config: &PretrainConfig,
        run: &Run<'_>,
        data: &Arc<Dataset>,
        observer: &mut dyn Observer,
    ) -> Result<ControlFlow<()>> {
        let Self { runner: Runner::DeepCluster(runner), model, store, choices, bad, .. } = self else { return Ok(ControlFlow::Continue(())) };
        if runner.memory().is_full() {
            return Ok(ControlFlow::Continue(()));
        }
        observer.event(&Event::FirstPass { images: runner.memory().rows() as u64 })?;
        let (batch, workers) = (config.train.batch, config.data.workers);
        let mut pass = FirstPass::new(run.gpu, model, store, &Repeat { choices, otherwise: run.variants }, runner.settings())?;
        note_kernels(choices, run, pass.choices())?;
        let mut crops = plan::multi_crop(config);
        // Behind the last group with an assigned crop none is looked at.
        let last = runner.settings().crops_for_assign.iter().max().map_or(0, |crop| crop + 1);
        let mut seen = 0;
        crops.groups.retain(|group| {
            seen += group.count;
            seen - group.count < last
        });
        let mut loader = Loader::first_pass(Arc::clone(data), crops, batch, workers)?;
        let mut row = 0;
        while let Some(crops) = loader.next_or_stop(run.stop, &mut |notice| tell(observer, notice)) {
            let crops = match crops {
                Err(Error::StoppedEmpty) => return Ok(ControlFlow::Break(())),
                crops => crops?,
            };
            bad.add(&crops);
            bad.untold(crops.step).into_iter().try_for_each(|warning| observer.event(&Event::Warning(warning)))?;
            bad.write(run.folder).map_or(Ok(()), |warning| observer.event(&Event::Warning(warning)))?;
            let groups: Vec<&[u8]> = crops.groups.iter().map(Vec::as_slice).collect();
            runner.remember(row, &crops.indices, &pass.run(run.gpu, &groups)?)?;
            row += batch;
            loader.recycle(crops);
            if run.stop.load(Ordering::Relaxed) {
                return Ok(ControlFlow::Break(()));
            }
        }
        let steps = (data.len() / batch) as u64;
        if !self.step.is_multiple_of(steps) {
            // A run that goes on with other data in the middle of an epoch: its images need labels.
            self.begin_epoch(config, run, self.step / steps, observer)?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// New prototypes and labels for `epoch`.
    pub(super) fn begin_epoch(&mut self, config: &PretrainConfig, run: &Run<'_>, epoch: u64, observer: &mut dyn Observer) -> Result<()> {
        let (step, began) = (self.step, Instant::now());
        let Self { runner: Runner::DeepCluster(runner), model, store, choices, .. } = self else { return Ok(()) };
        let rows = u32::try_from(runner.memory().rows()).expect("a data set has fewer than 2^32 images");
        let first = |head: usize| rng::sample(config.seed, epoch, head as u64, rows, config.model.prototypes);
        let variants = Repeat { choices, otherwise: run.variants };
        let chosen = runner.cluster(run.gpu, model, store, &variants, config.deepcluster.kmeans_iterations, first).map_err(|e| match e {
            // Which step it is before is known here.
            Error::NonFinite { what, .. } => Error::NonFinite { what, step },
            e => e,
        })?;
        note_kernels(choices, run, chosen)?;
        let used = (0..runner.labels().heads()).map(|head| runner.labels().usage(head).0).collect();
        observer.event(&Event::Clustered { epoch, step, used, seconds: began.elapsed().as_secs_f64() })
    }
}

/// Images of the rows as they are saved.
pub(super) fn saved_images(runner: &DeepCluster) -> Vec<i64> {
    runner.memory().images().iter().map(|i| i64::from(*i)).collect()
}

/// Adds banks and labels to the tensors of a checkpoint; `images` are [`saved_images`], `shapes` the shapes of a bank and of a head's labels.
pub(super) fn save<'a>(
    runner: &'a DeepCluster,
    images: &'a [i64],
    shapes: &'a (Vec<usize>, Vec<usize>),
    tensors: &mut BTreeMap<String, TensorRef<'a>>,
) {
    let memory = runner.memory();
    for bank in 0..memory.banks() {
        tensors.insert(format!("memory/{bank}"), TensorRef::f32(&shapes.0, bytemuck::cast_slice(memory.bank(bank))));
    }
    tensors.insert("memory/images".into(), TensorRef { dtype: Dtype::I64, shape: &shapes.0[..1], bytes: bytemuck::cast_slice(images) });
    for head in 0..runner.labels().heads() {
        let bytes = bytemuck::cast_slice(runner.labels().head(head));
        tensors.insert(format!("labels/{head}"), TensorRef { dtype: Dtype::I64, shape: &shapes.1, bytes });
    }
}

/// Shapes of a bank and of a head's labels.
pub(super) fn shapes(runner: &DeepCluster) -> (Vec<usize>, Vec<usize>) {
    (vec![runner.memory().rows(), runner.memory().dim()], vec![runner.labels().head(0).len()])
}

/// Takes banks and labels from a checkpoint.
pub(super) fn restore(runner: &mut DeepCluster, saved: &Checkpoint) -> Result<()> {
    let ((bank, by_image), clusters) = (shapes(runner), runner.clusters());
    let (rows, images) = (bank[0], by_image[0]);
    let integers = |name: &str, shape: &[usize]| -> Result<Vec<i64>> {
        let found: Vec<i64> = bytemuck::pod_collect_to_vec(saved.expect(name, Dtype::I64, shape)?);
        Ok(found)
    };
    let bad = |name: &str, what: &str| Error::weights(&saved.path, format!("tensor {name}: {what}"));
    let numbers = integers("memory/images", &[rows])?;
    let numbers: Option<Vec<u32>> = numbers.iter().map(|n| u32::try_from(*n).ok().filter(|n| (*n as usize) < images)).collect();
    let numbers = numbers.ok_or_else(|| bad("memory/images", "names an image that is not there"))?;
    let banks: Result<Vec<Vec<f32>>> =
        (0..runner.memory().banks()).map(|b| Ok(bytemuck::pod_collect_to_vec(saved.expect(&format!("memory/{b}"), Dtype::F32, &bank)?))).collect();
    let labels: Result<Vec<Vec<i64>>> = (0..runner.labels().heads())
        .map(|head| {
            let name = format!("labels/{head}");
            let labels = integers(&name, &by_image)?;
            if Labels::valid(&labels, clusters) { Ok(labels) } else { Err(bad(&name, "holds a label that is no cluster")) }
        })
        .collect();
    runner.restore(Memory::full(banks?, numbers, bank[1]), Labels::new(labels?));
    Ok(())
}
