//! From files to crops: work of the processor, without the device.

use super::case::{Case, Ready};
use crate::data::rng::Stream;
use crate::data::{Dataset, Loader, Rgb8, Scratch, Split, crop_bytes, read_image};
use crate::error::{Error, Result};
use crate::train::config::PretrainConfig;
use crate::train::plan::multi_crop;
use std::path::Path;
use std::sync::Arc;

/// The usual size of ImageNet's photographs.
const SIZE: [u32; 2] = [500, 375];

/// Decoding a photograph, cutting its eight crops, and both through the loader's threads, for batches of 8.
pub(super) fn cases() -> Vec<Case> {
    let [w, h] = SIZE;
    vec![
        Case::new(format!("decode_jpeg_{w}x{h}"), |_, _| decode()).images(1),
        Case::new("augment_2x224_6x96", |_, _| augment()).images(1),
        Case::new("loader_2x224_6x96_b8", |_, _| loader(8)).images(8),
    ]
}

/// Writes a made-up photograph: smooth shades under a little noise.
fn photograph(path: &Path, seed: u64) -> Result<()> {
    let mut stream = Stream::new(seed, 0, 0, 0);
    let [a, b, c] = [0; 3].map(|_| stream.range(0.005, 0.05));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let image = image::RgbImage::from_fn(SIZE[0], SIZE[1], |x, y| {
        let (x, y) = (f64::from(x), f64::from(y));
        let noise = stream.range(-6.0, 6.0);
        image::Rgb([(a * x + b * y).sin(), (b * x - c * y).cos(), (c * (x + y)).sin()].map(|v| (128.0 + 90.0 * v + noise).clamp(0.0, 255.0) as u8))
    });
    image.save(path).map_err(|e| Error::data(path, e.to_string()))
}

fn temporary() -> Result<tempfile::TempDir> {
    tempfile::tempdir().map_err(Error::output(std::env::temp_dir()))
}

fn decode() -> Result<Ready> {
    let folder = temporary()?;
    let path = folder.path().join("image.jpg");
    photograph(&path, 0)?;
    Ok(Ready::host(Box::new(move || {
        // The folder lives as long as the closure.
        read_image(folder.path().join("image.jpg")).map(|_: Rgb8| ())
    })))
}

fn augment() -> Result<Ready> {
    let folder = temporary()?;
    let path = folder.path().join("image.jpg");
    photograph(&path, 0)?;
    let (image, pipeline, mut scratch, mut index) = (read_image(&path)?, multi_crop(&PretrainConfig::default()), Scratch::default(), 0);
    let sizes = pipeline.groups.iter().flat_map(|g| std::iter::repeat_n(crop_bytes(g.size), g.count));
    let mut crops: Vec<Vec<u8>> = sizes.map(|bytes| vec![0; bytes]).collect();
    Ok(Ready::host(Box::new(move || {
        let mut out: Vec<&mut [u8]> = crops.iter_mut().map(Vec::as_mut_slice).collect();
        // Another index draws other random numbers.
        index += 1;
        pipeline.crops(&image, 0, index, &mut out, &mut scratch);
        Ok(())
    })))
}

fn loader(batch: usize) -> Result<Ready> {
    let folder = temporary()?;
    let class = folder.path().join("train/class");
    std::fs::create_dir_all(&class).map_err(Error::output(&class))?;
    for i in 0..4 * batch as u64 {
        photograph(&class.join(format!("{i:03}.jpg")), i)?;
    }
    let data = Arc::new(Dataset::open(folder.path(), Split::Pretrain)?);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut loader = Loader::multi_crop(data, multi_crop(&PretrainConfig::default()), batch, workers, 0, u64::MAX)?;
    Ok(Ready::host(Box::new(move || {
        let crops = loader.next().ok_or_else(|| Error::Failed(format!("the loader of {} ended", folder.path().display())))??;
        loader.recycle(crops);
        Ok(())
    })))
}
