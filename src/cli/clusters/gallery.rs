//! The gallery: a contact sheet per prototype and a page that shows them.

use super::{Assignment, Signals};
use crate::cli::report::html::escape;
use crate::data::{Dataset, EvalTransform, Scratch};
use crate::error::{Error, Result};
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use std::fmt::Write as _;
use std::path::Path;

/// Thumbnails across and down.
const SIDE: usize = 8;
/// Pixels of a thumbnail and between two.
const THUMBNAIL: usize = 64;
const GAP: usize = 2;

/// Writes `assignments.jsonl`, `prototype-0007.png` for each prototype that has images, and `index.html`.
pub(super) fn write(folder: &Path, data: &Dataset, assigned: &[Assignment], prototypes: usize, stop: &Signals) -> Result<()> {
    let mut lines = String::new();
    for assignment in assigned {
        let line = serde_json::to_string(assignment).map_err(|e| Error::Failed(e.to_string()))?;
        lines.push_str(&line);
        lines.push('\n');
    }
    save(&folder.join("assignments.jsonl"), lines.as_bytes())?;
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); prototypes];
    for (image, assignment) in assigned.iter().enumerate() {
        members[assignment.prototype].push(image);
    }
    for images in &mut members {
        images.sort_by(|a, b| assigned[*b].score.total_cmp(&assigned[*a].score).then(a.cmp(b)));
    }
    for (prototype, images) in members.iter().enumerate().filter(|(_, images)| !images.is_empty()) {
        stop.check()?;
        save(&folder.join(sheet_name(prototype)), &sheet(data, images)?)?;
    }
    save(&folder.join("index.html"), page(&members, assigned).as_bytes())
}

fn sheet_name(prototype: usize) -> String {
    format!("prototype-{prototype:04}.png")
}

fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(Error::output(path))
}

/// The closest images, closest first, row by row, as a PNG.
fn sheet(data: &Dataset, images: &[usize]) -> Result<Vec<u8>> {
    let shown = images.len().min(SIDE * SIDE);
    let (columns, rows) = (shown.min(SIDE), shown.div_ceil(SIDE));
    let [width, height] = [columns, rows].map(|n| n * (THUMBNAIL + GAP) - GAP);
    let mut pixels = vec![255; width * height * 3];
    let transform = EvalTransform { resize: Some(THUMBNAIL), crop: THUMBNAIL };
    let mut scratch = Scratch::default();
    for (place, &image) in images[..shown].iter().enumerate() {
        let decoded = data.image(image)?;
        let thumbnail = transform.crop_rgb(&decoded, &mut scratch);
        let (x, y) = (place % SIDE * (THUMBNAIL + GAP), place / SIDE * (THUMBNAIL + GAP));
        for (line, row) in thumbnail.chunks_exact(THUMBNAIL * 3).enumerate() {
            let at = ((y + line) * width + x) * 3;
            pixels[at..at + row.len()].copy_from_slice(row);
        }
    }
    let mut png = Vec::new();
    let size = [width, height].map(|v| u32::try_from(v).unwrap_or(u32::MAX));
    let encoded = PngEncoder::new(&mut png).write_image(&pixels, size[0], size[1], ExtendedColorType::Rgb8);
    encoded.map_err(|e| Error::Failed(format!("a contact sheet cannot be encoded: {e}")))?;
    Ok(png)
}

/// A page without scripts or outside resources, prototypes with most images first.
fn page(members: &[Vec<usize>], assigned: &[Assignment]) -> String {
    let mut order: Vec<usize> = (0..members.len()).filter(|p| !members[*p].is_empty()).collect();
    order.sort_by_key(|p| (std::cmp::Reverse(members[*p].len()), *p));
    let mut html = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Prototypes</title><style>\n\
         body{font:14px/1.4 system-ui,sans-serif;margin:2em;background:Canvas;color:CanvasText;color-scheme:light dark}\n\
         main{display:flex;flex-wrap:wrap;gap:1.5em}figure{margin:0}figcaption{margin-bottom:.3em}img{max-width:100%}\n\
         </style></head><body>\n",
    );
    let _ =
        writeln!(html, "<h1>Prototypes</h1>\n<p>{} images, nearest to {} of {} prototypes.</p>\n<main>", assigned.len(), order.len(), members.len());
    for prototype in order {
        let images = &members[prototype];
        let closest = &assigned[images[0]];
        let _ = writeln!(
            html,
            "<figure><figcaption><b>{prototype}</b>: {} images, closest {:.3}</figcaption><img loading=\"lazy\" src=\"{}\" alt=\"{}\"></figure>",
            images.len(),
            closest.score,
            sheet_name(prototype),
            escape(&closest.path)
        );
    }
    html.push_str("</main></body></html>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_sheets_and_escapes_paths() {
        let one = |prototype, score| Assignment { path: "a\"<b>.png".into(), prototype, score };
        let html = page(&[vec![], vec![0], vec![2, 1]], &[one(1, 0.5), one(2, 0.1), one(2, 0.9)]);
        let (second, first) = (html.find("prototype-0001.png").unwrap(), html.find("prototype-0002.png").unwrap());
        assert!(
            first < second && !html.contains("prototype-0000") && html.contains("a&quot;&lt;b&gt;.png") && html.contains("2 of 3 prototypes"),
            "{html}"
        );
    }
}
