//! The augmentation pipeline: a decoded image in, a crop out, which the device normalises.
//!
//! Both reference pipelines are covered. They differ in the grey formula and in where the horizontal flip stands; since every later step is blind to left
//! and right, flipping is done while writing the crop, at no cost and with the same result. A crop is written as bytes: of each pixel red, green, blue and
//! 0, and at its end as many pixels more as make a multiple of four ([`crop_bytes`]).

pub mod blur;
pub mod color;
mod crop;
pub mod resize;

pub use crop::random_box;

use crate::data::Rgb8;
use crate::data::rng::Stream;
use blur::{BlurScratch, gaussian_blur};
use color::Gray;
use resize::{Rect, ResizeScratch, resize};

/// Bytes per pixel of a crop.
const PIXEL: usize = 4;

/// Bytes of a crop of `size` by `size` pixels: what `nn::Images::Bytes` takes, which this layer does not know.
pub fn crop_bytes(size: usize) -> usize {
    (size * size).next_multiple_of(4) * PIXEL
}

/// Whose pipeline is followed where the two differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The official code: crop, flip, jitter, grey (Pillow's, rounded), blur.
    #[default]
    Official,
    /// mmpretrain: crop, jitter, grey (weighted, truncated), blur, flip.
    Mmpretrain,
}

/// What happens to a crop after resizing.
#[derive(Clone, Debug, PartialEq)]
pub struct AugmentConfig {
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Probability of the colour jitter as a whole.
    pub jitter_probability: f64,
    /// Strength of brightness, contrast, saturation (factor in `1 - s ..= 1 + s`, at least 0) and hue (turn in `-s ..= s`); 0 leaves it out.
    pub jitter: [f64; 4],
    /// Probability of greyscale.
    pub grayscale: f64,
    /// Probability of Gaussian blur.
    pub blur_probability: f64,
    /// Range of the blur's standard deviation, in pixels of the crop.
    pub blur_sigma: [f64; 2],
    /// Whose variant.
    pub order: Order,
}

/// Crops of one resolution.
#[derive(Clone, Debug, PartialEq)]
pub struct CropGroup {
    /// How many per image.
    pub count: usize,
    /// Side in pixels.
    pub size: usize,
    /// Range of the area, as a fraction of the image's.
    pub scale: [f64; 2],
    /// Range of the aspect ratio, width over height.
    pub ratio: [f64; 2],
}

/// The multi-crop augmentation of pre-training. Views are numbered over all groups in order.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiCrop {
    /// The resolutions, large crops first.
    pub groups: Vec<CropGroup>,
    /// What happens to each crop.
    pub augment: AugmentConfig,
    /// Seed of every choice.
    pub seed: u64,
}

/// Augmentation of supervised training: random resized crop and flip.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainTransform {
    /// Side in pixels.
    pub size: usize,
    /// Range of the area, as a fraction of the image's (usually 0.08 to 1).
    pub scale: [f64; 2],
    /// Range of the aspect ratio (usually 3/4 to 4/3).
    pub ratio: [f64; 2],
    /// Probability of a horizontal flip.
    pub flip: f64,
}

/// The fixed transform of evaluation: resize the short side, cut out the centre.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvalTransform {
    /// New length of the short side; none leaves the size as it is.
    pub resize: Option<usize>,
    /// Side of the central crop in pixels; a smaller image is framed in black.
    pub crop: usize,
}

/// Buffers of one worker, kept from crop to crop.
#[derive(Default)]
pub struct Scratch {
    resize: ResizeScratch,
    blur: BlurScratch,
    pixels: Vec<u8>,
}

impl Scratch {
    /// Writes the crop in `self.pixels` to `out`, mirrored if asked.
    fn write(&self, size: usize, flip: bool, out: &mut [u8]) {
        assert_eq!(out.len(), crop_bytes(size), "crop of side {size}");
        let widen = |(to, p): (&mut [u8], &[u8])| to.copy_from_slice(&[p[0], p[1], p[2], 0]);
        let (pixels, rest) = out.split_at_mut(size * size * PIXEL);
        for (to, row) in pixels.chunks_exact_mut(size * PIXEL).zip(self.pixels.chunks_exact(size * 3)) {
            let to = to.chunks_exact_mut(PIXEL);
            if flip {
                to.zip(row.rchunks_exact(3)).for_each(widen);
            } else {
                to.zip(row.chunks_exact(3)).for_each(widen);
            }
        }
        rest.fill(0);
    }

    fn crop(&mut self, image: &Rgb8, area: Rect, size: usize) {
        resize(image, area, (size, size), Rect::full(size, size), &mut self.resize, &mut self.pixels);
    }
}

impl AugmentConfig {
    /// Colour jitter, greyscale and blur of a square crop of `size` pixels, in place.
    fn apply(&self, stream: &mut Stream, pixels: &mut Vec<u8>, size: usize, blur: &mut BlurScratch) {
        if stream.chance(self.jitter_probability) {
            let mut order = [0, 1, 2, 3];
            stream.shuffle(&mut order);
            for op in order {
                let strength = self.jitter[op];
                if strength > 0.0 {
                    let factor = |s: &mut Stream| s.range((1.0 - strength).max(0.0), 1.0 + strength);
                    match op {
                        0 => color::brightness(pixels, factor(stream)),
                        1 => color::contrast(pixels, factor(stream)),
                        2 => color::saturation(pixels, factor(stream)),
                        _ => color::hue(pixels, stream.range(-strength, strength)),
                    }
                }
            }
        }
        if stream.chance(self.grayscale) {
            color::grayscale(pixels, if self.order == Order::Official { Gray::Pillow } else { Gray::Weighted });
        }
        if stream.chance(self.blur_probability) {
            gaussian_blur(pixels, size, stream.range(self.blur_sigma[0], self.blur_sigma[1]), blur);
        }
    }
}

impl MultiCrop {
    /// Makes all crops of image number `index` in epoch `epoch`: `out[view]` has the [`crop_bytes`] of that view's group.
    pub fn crops(&self, image: &Rgb8, epoch: u64, index: u64, out: &mut [&mut [u8]], scratch: &mut Scratch) {
        let groups = self.groups.iter().flat_map(|g| std::iter::repeat_n(g, g.count));
        for (view, (group, out)) in groups.zip(out).enumerate() {
            let stream = &mut Stream::new(self.seed, epoch, index, view as u32);
            let area = random_box(stream, image.width, image.height, group.scale, group.ratio);
            let flip = stream.chance(self.augment.flip);
            scratch.crop(image, area, group.size);
            self.augment.apply(stream, &mut scratch.pixels, group.size, &mut scratch.blur);
            scratch.write(group.size, flip, out);
        }
    }
}

impl TrainTransform {
    /// One random crop, [`crop_bytes`] of `size`.
    pub fn crop(&self, image: &Rgb8, stream: &mut Stream, out: &mut [u8], scratch: &mut Scratch) {
        let area = random_box(stream, image.width, image.height, self.scale, self.ratio);
        let flip = stream.chance(self.flip);
        scratch.crop(image, area, self.size);
        scratch.write(self.size, flip, out);
    }
}

impl EvalTransform {
    /// The central crop, [`crop_bytes`] of `crop`.
    pub fn crop(&self, image: &Rgb8, out: &mut [u8], scratch: &mut Scratch) {
        self.crop_rgb(image, scratch);
        scratch.write(self.crop, false, out);
    }

    /// The central crop as `(crop, crop, 3)` bytes, lent from the scratch buffers.
    pub fn crop_rgb<'a>(&self, image: &Rgb8, scratch: &'a mut Scratch) -> &'a [u8] {
        let (mut width, mut height) = (image.width, image.height);
        if let Some(short) = self.resize {
            // The long side is truncated. `max(1)` is for no one: it keeps a wrong configuration from dividing by zero later.
            let long = |long: usize, by: usize| (short as f64 * long as f64 / by as f64) as usize;
            (width, height) = if width <= height { (short, long(height, width)) } else { (long(width, height), short) };
        }
        let (x, left, w) = centre(width, self.crop);
        let (y, top, h) = centre(height, self.crop);
        resize(
            image,
            Rect::full(image.width, image.height),
            (width, height),
            Rect { x, y, width: w, height: h },
            &mut scratch.resize,
            &mut scratch.pixels,
        );
        if (w, h) != (self.crop, self.crop) {
            let small = std::mem::replace(&mut scratch.pixels, vec![0; self.crop * self.crop * 3]);
            for (row, source) in small.chunks_exact(w * 3).enumerate() {
                let at = ((top + row) * self.crop + left) * 3;
                scratch.pixels[at..at + w * 3].copy_from_slice(source);
            }
        }
        &scratch.pixels
    }
}

/// Where `crop` pixels come from along a side of `length`: offset into the image, offset into the crop, number of pixels.
fn centre(length: usize, crop: usize) -> (usize, usize, usize) {
    if length >= crop {
        // Python's round: halves to even.
        (((length - crop) as f64 / 2.0).round_ties_even() as usize, 0, crop)
    } else {
        (0, (crop - length) / 2, length)
    }
}
