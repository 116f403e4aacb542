//! `swav-wgpu clusters`: the nearest prototype of every image, and a gallery of what each prototype stands for.
//!
//! Promise: the gallery is made in a temporary folder beside its place and takes its name when it is complete; an error leaves nothing.

mod gallery;

use super::args::{ClustersArgs, Global, Weights};
use super::{common, output};
use crate::data::{Dataset, Loader, Split};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::Variants;
use crate::train::{Extracted, Extractor};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Images of a pass.
const BATCH: usize = 64;

/// Where one image belongs.
#[derive(Clone, Debug, Serialize)]
struct Assignment {
    path: String,
    prototype: usize,
    /// z · w of its embedding and that prototype.
    score: f32,
}

pub(super) fn run(args: &ClustersArgs, global: &Global) -> Result<()> {
    let out = OutFolder::begin(&args.out)?;
    let data = Arc::new(Dataset::open(&args.data, Split::All)?);
    let (gpu, frozen) = common::frozen(&Weights::File(args.weights.clone()), &args.image, global)?;
    let Some(head) = frozen.network.head else {
        return Err(Error::weights(&args.weights, "has no SwAV head (projection_head and prototypes): there is nothing to assign images to"));
    };
    let (prototypes, heads) = (head.prototypes, head.prototype_heads());
    if args.head >= heads {
        return Err(Error::Usage(format!("--head {}: {} has {heads} prototype heads, counted from 0", args.head, args.weights.display())));
    }
    frozen.tell(global);
    let assigned = assign(&gpu, &common::variants(global, &gpu), &frozen, &data, (prototypes, args.head))?;
    gallery::write(out.path(), &data, &assigned, prototypes)?;
    out.finish()?;
    if global.json {
        return assigned.iter().try_for_each(output::json);
    }
    let mut used: Vec<usize> = assigned.iter().map(|a| a.prototype).collect();
    used.sort_unstable();
    used.dedup();
    let index = args.out.join("index.html");
    output::line(&format!("{} images at {} of {prototypes} prototypes: {}", assigned.len(), used.len(), index.display()))
}

/// Passes every image and keeps its best score only: all scores of a large set would not fit into memory.
fn assign(
    gpu: &Gpu,
    variants: &dyn Variants,
    frozen: &common::Frozen,
    data: &Arc<Dataset>,
    (prototypes, head): (usize, usize),
) -> Result<Vec<Assignment>> {
    let (batch, size) = (BATCH.min(data.len()), frozen.transform.crop);
    let mut extractor = Extractor::new(gpu, variants, &frozen.network, batch, [size, size], Some(head))?;
    let mut loader = Loader::evaluation(Arc::clone(data), frozen.transform, frozen.normalize, batch, frozen.workers)?;
    let mut all = Vec::with_capacity(data.len());
    while let Some(images) = loader.next() {
        let images = images?;
        let mut extracted = Extracted::default();
        extractor.pass(gpu, &images.groups[0], &mut extracted)?;
        for (index, scores) in images.indices.iter().zip(extracted.scores.chunks_exact(prototypes)) {
            let prototype = (0..prototypes).fold(0, |best, k| if scores[k] > scores[best] { k } else { best });
            all.push(Assignment { path: data.path(*index as usize), prototype, score: scores[prototype] });
        }
        loader.recycle(images);
    }
    Ok(all)
}

/// A folder in the making.
struct OutFolder {
    temporary: tempfile::TempDir,
    place: PathBuf,
}

impl OutFolder {
    /// Refuses a place that holds something already.
    fn begin(place: &Path) -> Result<Self> {
        if place.is_dir() {
            let mut entries = std::fs::read_dir(place).map_err(Error::output(place))?;
            if entries.next().is_some() {
                return Err(Error::Usage(format!("--out {}: holds files already; choose another folder or remove it", place.display())));
            }
        }
        let parent = crate::atomic::folder_of(place);
        std::fs::create_dir_all(parent).map_err(Error::output(place))?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(crate::atomic::TEMPORARY);
        #[cfg(unix)]
        {
            // The default is for the owner alone; the umask takes away what it should.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o777));
        }
        let temporary = builder.tempdir_in(parent).map_err(Error::output(place))?;
        Ok(Self { temporary, place: place.to_owned() })
    }

    fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Gives the folder its name.
    fn finish(self) -> Result<()> {
        if self.place.is_dir() {
            std::fs::remove_dir(&self.place).map_err(Error::output(&self.place))?;
        }
        std::fs::rename(self.temporary.path(), &self.place).map_err(Error::output(&self.place))?;
        // It lives under another name now.
        let _ = self.temporary.keep();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a/gallery");
        let left = OutFolder::begin(&place).unwrap();
        std::fs::write(left.path().join("x"), "1").unwrap();
        drop(left);
        assert!(!place.exists() && std::fs::read_dir(dir.path().join("a")).unwrap().next().is_none());
        let done = OutFolder::begin(&place).unwrap();
        std::fs::write(done.path().join("x"), "1").unwrap();
        done.finish().unwrap();
        assert_eq!(std::fs::read_to_string(place.join("x")).unwrap(), "1");
        let refused = OutFolder::begin(&place).err().unwrap();
        assert!(refused.exit_code() == 2 && refused.to_string().contains("gallery"), "{refused}");
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(OutFolder::begin(&dir.path().join("file/below")).err().unwrap().exit_code(), 5);
    }
}
