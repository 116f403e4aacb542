//! GIF: the first frame on its screen, as Pillow lays it there.

use std::num::NonZeroU64;

use gif::{DecodeOptions, DecodingError, MemoryLimit};

use super::{MAX_EXTRA, Rgb8, check_size};

/// Decodes the first frame. Around one that is smaller than its screen lies the transparent colour,
/// or else the first of the palette; a screen that is smaller than its frame grows.
pub(super) fn decode(bytes: &[u8]) -> Result<Rgb8, String> {
    let failed = |error: DecodingError| format!("cannot be decoded: {error}");
    let mut options = DecodeOptions::new();
    // Colour profiles and texts are read within this.
    options.set_memory_limit(NonZeroU64::new(MAX_EXTRA / 4).map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes));
    let mut decoder = options.read_info(bytes).map_err(failed)?;
    let (screen_width, screen_height) = (decoder.width(), decoder.height());
    let frame = decoder.next_frame_info().map_err(failed)?.ok_or("is a GIF without a picture: the file is cut off, or empty")?;
    let (left, top, across, down) = (usize::from(frame.left), usize::from(frame.top), usize::from(frame.width), usize::from(frame.height));
    if across == 0 || down == 0 {
        return Err(format!("is a GIF whose first frame has {across}x{down} pixels, which is not read"));
    }
    let around = frame.transparent.unwrap_or(0);
    let (width, height) = (usize::from(screen_width).max(left + across), usize::from(screen_height).max(top + down));
    check_size(width as u32, height as u32)?;
    let mut colours = vec![0; across * down];
    decoder.read_into_buffer(&mut colours).map_err(failed)?;
    let palette = decoder.palette().map_err(failed)?;
    // What the palette does not have is black.
    let colour = |index: u8| palette.get(3 * usize::from(index)..3 * usize::from(index) + 3).map_or([0; 3], |c| [c[0], c[1], c[2]]);
    let table: Vec<[u8; 3]> = (0..=255).map(colour).collect();
    let mut pixels = table[usize::from(around)].repeat(width * height);
    for (y, row) in colours.chunks_exact(across).enumerate() {
        let at = 3 * ((top + y) * width + left);
        for (pixel, index) in pixels[at..at + 3 * across].chunks_exact_mut(3).zip(row) {
            pixel.copy_from_slice(&table[usize::from(*index)]);
        }
    }
    Ok(Rgb8 { width, height, pixels })
}
