//! The gallery: a contact sheet per prototype and a page that shows them.

use super::{Assignment, Signals};
use crate::cli::text::{html as escape, json};
use crate::data::{Dataset, EvalTransform, Loader, crop_bytes};
use crate::error::{Error, Result};
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

/// Thumbnails across and down.
const SIDE: usize = 8;
/// Pixels of a thumbnail and between two.
const THUMBNAIL: usize = 64;
const GAP: usize = 2;

/// Writes `assignments.jsonl`, `prototype-0007.png` for each prototype that has images, and `index.html`.
/// Images that were `left` out are lines behind the others.
pub(super) fn write(
    folder: &Path,
    data: &Dataset,
    (assigned, left): (&[Assignment], &[Value]),
    (prototypes, workers): (usize, usize),
    stop: &Signals,
) -> Result<()> {
    let mut lines = String::new();
    for assignment in assigned {
        let line = json(assignment).map_err(|e| Error::Failed(e.to_string()))?;
        lines.push_str(&line);
        lines.push('\n');
    }
    left.iter().for_each(|line| _ = writeln!(lines, "{line}"));
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
        let shown: Vec<usize> = images.iter().take(SIDE * SIDE).map(|row| assigned[*row].image).collect();
        save(&folder.join(sheet_name(prototype)), &sheet(data, &shown, workers, stop)?)?;
    }
    save(&folder.join("index.html"), page(&members, assigned).as_bytes())
}

fn sheet_name(prototype: usize) -> String {
    format!("prototype-{prototype:04}.png")
}

fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).map_err(Error::output(path))
}

/// These images, row by row, as a PNG.
fn sheet(data: &Dataset, shown: &[usize], workers: usize, stop: &Signals) -> Result<Vec<u8>> {
    let (columns, rows) = (shown.len().min(SIDE), shown.len().div_ceil(SIDE));
    let [width, height] = [columns, rows].map(|n| n * (THUMBNAIL + GAP) - GAP);
    let mut pixels = vec![255; width * height * 3];
    let transform = EvalTransform { resize: Some(THUMBNAIL), crop: THUMBNAIL };
    let mut loader = Loader::evaluation(Arc::new(data.select(shown)?), transform, shown.len(), workers)?;
    let thumbnails = loader.next_until(&stop.flag()).transpose()?.map_or_else(Vec::new, |mut batch| batch.groups.swap_remove(0));
    for (place, thumbnail) in thumbnails.chunks_exact(crop_bytes(THUMBNAIL)).enumerate() {
        let thumbnail: Vec<u8> = thumbnail.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
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
        let one = |prototype, score| Assignment { image: 0, path: "a\"<b>.png".into(), prototype, score };
        let html = page(&[vec![], vec![0], vec![2, 1]], &[one(1, 0.5), one(2, 0.1), one(2, 0.9)]);
        let (second, first) = (html.find("prototype-0001.png").unwrap(), html.find("prototype-0002.png").unwrap());
        assert!(
            first < second && !html.contains("prototype-0000") && html.contains("a&quot;&lt;b&gt;.png") && html.contains("2 of 3 prototypes"),
            "{html}"
        );
    }
}
