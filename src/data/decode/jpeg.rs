//! JPEG: libjpeg's pixels, or the reason why not.
//!
//! `libjpeg-turbo-rs` is a port of libjpeg-turbo with its pixels to the bit. What is known to be beyond it is refused, or read by way of it (see `by_planes`).

use libjpeg_turbo_rs::{
    ComponentCoefficients, DecodeLimits, Decoder, JpegCoefficients, JpegError, PixelFormat, read_coefficients, write_coefficients,
};

use super::jpeg_layout::Layout;
use super::{MAX_EXTRA, MAX_SIDE, Rgb8, check_size, too_much_memory};

/// Most scans that are read, of however small a picture: each keeps tables of its own. Usual files
/// have 10.
pub(super) const MAX_SCANS: usize = 1000;

/// Most passes over every block that scans may take, as each costs time whether it brings anything
/// or not; a scan of one component counts for its blocks.
const MAX_PASSES: u64 = 64;

/// Blocks that all scans together may pass over in any case, so that small pictures may have as
/// many scans as they like.
const FREE_BLOCKS: u64 = 1 << 19;

/// Bytes a pixel that `by_planes` takes in all, at most: coefficients of four components, two files made of them, planes.
const BYTES_BY_PLANES: f64 = 32.0;

/// Decodes a JPEG.
pub(super) fn decode(bytes: &[u8]) -> Result<Rgb8, String> {
    let layout = Layout::read(bytes)?;
    layout.check()?;
    check_size(layout.width.into(), layout.height.into())?;
    let (blocks, scanned) = (layout.blocks(), layout.scanned_blocks());
    if scanned > FREE_BLOCKS.max(MAX_PASSES * blocks) {
        let (scans, most) = (layout.scans(), FREE_BLOCKS.max(MAX_PASSES * blocks));
        return Err(format!(
            "cannot be decoded: its {scans} scans pass over {scanned} blocks, more than {most} ({MAX_PASSES} times the picture's {blocks}, or {FREE_BLOCKS})"
        ));
    }
    if layout.is_partly_interleaved() {
        return Err("is a JPEG with sequential scans of some components together, which is not read".into());
    }
    let odd = layout.is_sampled_oddly();
    if odd && layout.has_several_scans() && !layout.is_progressive() {
        return Err("is a JPEG of subsampled luma, or of four components of different sizes, in a scan for each: which is not read".into());
    }
    let extra = if odd {
        BYTES_BY_PLANES
    } else {
        // Samples, in two bytes more until all of their bits are there, and what four components are turned from.
        layout.samples_per_pixel() * if layout.is_progressive() { 3.0 } else { 1.0 } + if layout.components.len() == 4 { 1.0 } else { 0.0 }
    };
    if extra * f64::from(layout.width) * f64::from(layout.height) > MAX_EXTRA as f64 {
        return Err(too_much_memory(layout.width.into(), layout.height.into()));
    }
    let mut ended;
    let mut bytes = bytes;
    if layout.lacks_end {
        ended = bytes.to_vec();
        ended.extend([0xFF, 0xD9]);
        bytes = &ended;
    }
    if odd { by_planes(bytes) } else { at_once(bytes, layout.components.len()) }.map_err(|error| match error {
        JpegError::UnexpectedEof => "is a JPEG whose data end before the picture does: the file is cut off".into(),
        JpegError::Unsupported(what) => format!("is a JPEG of a kind that is not read: {what}"),
        error => format!("cannot be decoded: {error}"),
    })
}

fn decoder(bytes: &[u8], format: PixelFormat) -> Result<Decoder<'_>, JpegError> {
    let limits = DecodeLimits { max_width: MAX_SIDE as usize, max_height: MAX_SIDE as usize, max_scans: MAX_SCANS, ..DecodeLimits::default() };
    Ok(Decoder::new_with_limits(bytes, limits)?.with_output_format(format))
}

fn at_once(bytes: &[u8], components: usize) -> Result<Rgb8, JpegError> {
    let format = if components == 4 { PixelFormat::Cmyk } else { PixelFormat::Rgb };
    let image = decoder(bytes, format)?.decode_image()?;
    let mut pixels = image.data;
    if components == 4 {
        for at in 0..image.width * image.height {
            let [c, m, y, k] = [0, 1, 2, 3].map(|i| pixels[4 * at + i]);
            for (i, ink) in [c, m, y].into_iter().enumerate() {
                pixels[3 * at + i] = printed(ink, k);
            }
        }
        pixels.truncate(3 * image.width * image.height);
        pixels.shrink_to_fit();
    }
    Ok(Rgb8 { width: image.width, height: image.height, pixels })
}

/// What inverted ink leaves of light, in Pillow's rounding.
fn printed(ink: u8, black: u8) -> u8 {
    let product = u32::from(ink) * u32::from(black) + 128;
    ((product + (product >> 8)) >> 8) as u8
}

/// Components expanded one by one, each as one colour of a file made for it: for files whose luma has fewer samples than their chroma, and for CMYK and YCCK of
/// several sizes, which the decoder refuses or gets wrong. Colours are turned here, by libjpeg's formulas.
fn by_planes(bytes: &[u8]) -> Result<Rgb8, JpegError> {
    let mut whole = read_coefficients(bytes)?;
    let largest = |factor: fn(&ComponentCoefficients) -> u8| whole.components.iter().map(factor).max().unwrap_or(1);
    let (across, down) = (largest(|c| c.h_sampling), largest(|c| c.v_sampling));
    let ids: Vec<u8> = whole.components.iter().map(|c| c.component_id).collect();
    let (width, height) = (usize::from(whole.width), usize::from(whole.height));
    let blank = |like: &ComponentCoefficients, h: u8, v: u8| {
        let blocks_x = width.div_ceil(8 * usize::from(across)) * usize::from(h);
        let blocks_y = height.div_ceil(8 * usize::from(down)) * usize::from(v);
        ComponentCoefficients { h_sampling: h, v_sampling: v, blocks_x, blocks_y, blocks: vec![[0; 64]; blocks_x * blocks_y], ..like.clone() }
    };
    let mut planes: Vec<Vec<u8>> = Vec::new();
    for component in std::mem::take(&mut whole.components) {
        let empty = ComponentCoefficients { blocks: Vec::new(), ..component };
        let component = ComponentCoefficients { blocks: component.blocks, ..empty.clone() };
        let mut components = vec![blank(&empty, across, down), component, blank(&empty, 1, 1)];
        components.iter_mut().zip(*b"RGB").for_each(|(c, id)| c.component_id = id);
        let alone = JpegCoefficients {
            components,
            quant_tables: whole.quant_tables.clone(),
            restart_interval: 0,
            saw_jfif_marker: false,
            adobe_transform: Some(0),
            ..whole.clone()
        };
        let file = write_coefficients(&alone)?;
        drop(alone);
        let mut plane = decoder(&file, PixelFormat::Rgb)?.decode_image()?.data;
        for at in 0..width * height {
            plane[at] = plane[3 * at + 1];
        }
        plane.truncate(width * height);
        plane.shrink_to_fit();
        planes.push(plane);
    }
    let is_ycc = is_ycc(&ids, whole.saw_jfif_marker, whole.adobe_transform);
    let mut pixels = Vec::with_capacity(3 * width * height);
    for at in 0..width * height {
        let mut colour = [planes[0][at], planes[1][at], planes[2][at]];
        if is_ycc {
            colour = ycc_to_rgb(colour);
        }
        if let Some(black) = planes.get(3) {
            colour = colour.map(|c| printed(if is_ycc { 255 - c } else { c }, black[at]));
        }
        pixels.extend(colour);
    }
    Ok(Rgb8 { width, height, pixels })
}

/// Whether colours are luma and chroma, as libjpeg tells (`default_decompress_parms`): JFIF comes before Adobe, and both before the components' names.
fn is_ycc(ids: &[u8], jfif: bool, adobe: Option<u8>) -> bool {
    match (ids.len(), adobe) {
        (4, adobe) => adobe.is_some_and(|transform| transform != 0),
        (3, Some(0)) => jfif,
        (3, None) => jfif || ids != b"RGB",
        (count, _) => count == 3,
    }
}

/// JFIF's conversion in libjpeg's fixed point (`jdcolor.c`).
fn ycc_to_rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let rounded = |sum: i32| (y + ((sum + 32768) >> 16)).clamp(0, 255) as u8;
    [rounded(91881 * cr), rounded(-22554 * cb - 46802 * cr), rounded(116_130 * cb)]
}
