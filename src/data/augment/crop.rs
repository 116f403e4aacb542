//! Which part of an image a random crop takes, drawn as torchvision's `RandomResizedCrop` draws it (mmpretrain's is the same).

use super::resize::Rect;
use crate::data::rng::Stream;

/// Attempts before the central fallback.
const ATTEMPTS: usize = 10;

/// Draws a box inside a `width` x `height` image: area uniform in `scale` (fractions of the image's), aspect ratio (width over height)
/// log-uniform in `ratio`, position uniform. Where ten draws do not fit, the largest central box with an allowed ratio is taken.
pub fn random_box(stream: &mut Stream, width: usize, height: usize, scale: [f64; 2], ratio: [f64; 2]) -> Rect {
    let area = (width * height) as f64;
    let log = ratio.map(f64::ln);
    for _ in 0..ATTEMPTS {
        let target = area * stream.range(scale[0], scale[1]);
        let aspect = stream.range(log[0], log[1]).exp();
        // Python's round: halves to even.
        let w = (target * aspect).sqrt().round_ties_even() as usize;
        let h = (target / aspect).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let y = stream.below((height - h + 1) as u64) as usize;
            let x = stream.below((width - w + 1) as u64) as usize;
            return Rect { x, y, width: w, height: h };
        }
    }
    let own = width as f64 / height as f64;
    // `max(1)`: an image one pixel wide must still give a box.
    let (w, h) = if own < ratio[0] {
        (width, ((width as f64 / ratio[0]).round_ties_even() as usize).clamp(1, height))
    } else if own > ratio[1] {
        (((height as f64 * ratio[1]).round_ties_even() as usize).clamp(1, width), height)
    } else {
        (width, height)
    };
    Rect { x: (width - w) / 2, y: (height - h) / 2, width: w, height: h }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_inside_even_of_odd_images() {
        for (width, height) in [(1, 1), (1, 500), (500, 1), (3, 2), (16384, 7)] {
            for image in 0..200 {
                let b = random_box(&mut Stream::new(0, 0, image, 0), width, height, [0.05, 1.0], [0.75, 4.0 / 3.0]);
                assert!(b.width >= 1 && b.height >= 1 && b.x + b.width <= width && b.y + b.height <= height, "{b:?} of {width}x{height}");
            }
        }
    }

    #[test]
    fn what_never_fits_falls_back_to_the_centre() {
        // A full-area box of ratio at most 4/3 cannot fit into 400x100: the central 133x100 is taken.
        let b = random_box(&mut Stream::new(0, 0, 0, 0), 400, 100, [1.0, 1.0], [0.75, 4.0 / 3.0]);
        assert_eq!(b, Rect { x: 133, y: 0, width: 133, height: 100 });
        let b = random_box(&mut Stream::new(0, 0, 0, 0), 100, 400, [1.0, 1.0], [0.75, 4.0 / 3.0]);
        assert_eq!(b, Rect { x: 0, y: 133, width: 100, height: 133 });
    }
}
