//! A look at every image of a set before it is used: which cannot be read, how large they are, which have the same content.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::bad::Notice;
use super::dataset::Dataset;
use super::loader::Loader;
use crate::error::{Error, Result};

/// Images of a batch.
const BATCH: usize = 64;

/// What is noted of an image: width, height, and the first bytes of blake3 over its file; zeros where it was not decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub width: u32,
    pub height: u32,
    pub content: u64,
}

impl Facts {
    /// Bytes, as many as a crop of [`Self::SIDE`] has.
    pub fn to_bytes(self) -> [u8; 16] {
        bytemuck::cast([u64::from(self.width) | u64::from(self.height) << 32, self.content])
    }

    fn of(bytes: &[u8]) -> Self {
        let words: Vec<u64> = bytemuck::pod_collect_to_vec(bytes);
        Self { width: words[0] as u32, height: (words[0] >> 32) as u32, content: words[1] }
    }

    /// Side of the crop in whose place they travel through the loader.
    pub const SIDE: usize = 2;
}

/// Least, middle and largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Extent {
    /// The least.
    pub min: u32,
    /// As many are below as above.
    pub median: u32,
    /// The largest.
    pub max: u32,
}

impl Extent {
    fn of(mut all: Vec<u32>) -> Option<Self> {
        all.sort_unstable();
        Some(Self { min: *all.first()?, median: all[all.len() / 2], max: *all.last()? })
    }
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Images looked at.
    pub images: usize,
    /// Their widths in pixels, where they were decoded.
    pub width: Option<Extent>,
    /// Their heights.
    pub height: Option<Extent>,
    /// Images with the same content, by path, where they were decoded.
    pub duplicates: Vec<Vec<String>>,
    /// Images that cannot be used, by path, each with the reason.
    pub bad: Vec<(String, String)>,
}

/// Looks at every image of `data`, whose bad images must be set to be left out: decodes it, or without `decode` sees whether it is there, can be
/// opened and is not empty. `tell` hears of bad images and of reads that do not end, `done` how many were looked at. [`Error::StoppedEmpty`] when
/// `stop` was set.
pub fn survey(
    data: &Arc<Dataset>,
    decode: bool,
    workers: usize,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(&Notice) -> Result<()>,
    done: &mut dyn FnMut(usize),
) -> Result<Survey> {
    let mut loader = Loader::survey(Arc::clone(data), decode, BATCH.min(data.len()), workers)?;
    let (mut all, mut seen) = (Vec::new(), 0);
    while let Some(batch) = loader.next_or_stop(stop, tell) {
        let batch = batch?;
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Error::StoppedEmpty);
        }
        let facts = batch.groups[0].chunks_exact(size_of::<[u8; 16]>()).map(Facts::of);
        all.extend(batch.indices.iter().copied().zip(facts));
        seen += BATCH;
        done(seen.min(data.len()));
        loader.recycle(batch);
    }
    let of = |side: fn(&Facts) -> u32| Extent::of(if decode { all.iter().map(|(_, facts)| side(facts)).collect() } else { Vec::new() });
    let mut same: HashMap<u64, Vec<u32>> = HashMap::new();
    all.iter().filter(|_| decode).for_each(|(image, facts)| same.entry(facts.content).or_default().push(*image));
    let mut same: Vec<Vec<u32>> = same.into_values().filter(|images| images.len() > 1).collect();
    same.sort_unstable();
    let duplicates = same.iter().map(|images| images.iter().map(|i| data.path(*i as usize)).collect()).collect();
    Ok(Survey { images: data.len(), width: of(|f| f.width), height: of(|f| f.height), duplicates, bad: data.bad().found() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_travel_as_they_are() {
        let facts = Facts { width: 16_384, height: 3, content: u64::MAX - 5 };
        assert_eq!(Facts::of(&facts.to_bytes()), facts);
        assert_eq!(crate::data::crop_bytes(Facts::SIDE), facts.to_bytes().len());
        assert_eq!(Extent::of(vec![5, 1, 9, 7]), Some(Extent { min: 1, median: 7, max: 9 }));
        assert_eq!(Extent::of(vec![]), None);
    }
}
