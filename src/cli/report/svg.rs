//! Line charts as inline SVG, small enough to read.
//!
//! Promise: a curve of any length becomes at most [`Curve::MOST`] points (mean, lowest, highest of equal stretches of steps); values that
//! are not finite are left out; colours come from the page's CSS variables, so that charts follow light and dark.

use std::fmt::Write;

/// A curve that thins itself out as it grows.
#[derive(Clone, Debug)]
pub struct Curve {
    points: Vec<Point>,
    stretch: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    bucket: u64,
    count: u64,
    sum: f64,
    low: f64,
    high: f64,
}

impl Default for Curve {
    fn default() -> Self {
        Self { points: Vec::new(), stretch: 1 }
    }
}

impl Curve {
    /// Most points kept.
    pub const MOST: usize = 1024;

    /// Adds a value of a step not before the last one.
    pub fn push(&mut self, step: u64, value: f64) {
        if !value.is_finite() {
            return;
        }
        let point = Point { bucket: step / self.stretch, count: 1, sum: value, low: value, high: value };
        join(&mut self.points, point);
        while self.points.len() > Self::MOST {
            self.stretch *= 2;
            let old = std::mem::take(&mut self.points);
            old.into_iter().for_each(|p| join(&mut self.points, Point { bucket: p.bucket / 2, ..p }));
        }
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// (middle of the stretch in steps, mean, lowest, highest).
    fn iter(&self) -> impl Iterator<Item = (f64, f64, f64, f64)> + '_ {
        let middle = (self.stretch - 1) as f64 / 2.0;
        self.points.iter().map(move |p| ((p.bucket * self.stretch) as f64 + middle, p.sum / p.count as f64, p.low, p.high))
    }
}

fn join(points: &mut Vec<Point>, new: Point) {
    match points.last_mut() {
        Some(last) if last.bucket >= new.bucket => {
            last.count += new.count;
            last.sum += new.sum;
            last.low = last.low.min(new.low);
            last.high = last.high.max(new.high);
        }
        _ => points.push(new),
    }
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 36.0;

/// An SVG element: the curve with its range, axes with round ticks, and a dashed level line where given. `title` and the level's name
/// must not hold markup.
pub fn chart(title: &str, curve: &Curve, level: Option<(&str, f64)>) -> String {
    let level = level.filter(|(_, y)| y.is_finite());
    let (mut low, mut high) = level.map_or((f64::INFINITY, f64::NEG_INFINITY), |(_, y)| (y, y));
    let mut last = 0.0f64;
    for (x, _, l, h) in curve.iter() {
        (low, high, last) = (low.min(l), high.max(h), last.max(x));
    }
    if curve.is_empty() {
        return format!("<p class=\"none\">{title}: no data yet</p>\n");
    }
    let pad = if high > low { (high - low) * 0.05 } else { high.abs().max(1e-6) * 0.1 };
    (low, high) = (if low >= 0.0 && low - pad < 0.0 { 0.0 } else { low - pad }, high + pad);
    let x = |step: f64| LEFT + step / last.max(1.0) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let mut s = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n");
    for tick in ticks(low, high) {
        let at = y(tick);
        let to = WIDTH - RIGHT;
        let _ = writeln!(
            s,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{to}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.0,
            label(tick)
        );
    }
    for tick in ticks(0.0, last.max(1.0)).into_iter().filter(|t| t.fract() == 0.0) {
        let _ = writeln!(s, "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", x(tick), HEIGHT - 16.0, label(tick));
    }
    let (mut band, mut line, mut back) = (String::new(), String::new(), Vec::new());
    for (step, mean, l, h) in curve.iter() {
        let _ = write!(line, "{:.1},{:.1} ", x(step), y(mean));
        let _ = write!(band, "{:.1},{:.1} ", x(step), y(h));
        back.push((step, l));
    }
    for (step, l) in back.into_iter().rev() {
        let _ = write!(band, "{:.1},{:.1} ", x(step), y(l));
    }
    let _ = writeln!(s, "<polygon class=\"band\" points=\"{}\"/><polyline class=\"line\" points=\"{}\"/>", band.trim_end(), line.trim_end());
    if let Some((name, value)) = level {
        let at = y(value);
        let _ = writeln!(
            s,
            "<line class=\"level\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"level\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{name} = {value:.3}</text>",
            WIDTH - RIGHT,
            WIDTH - RIGHT,
            if at > TOP + 20.0 { at - 6.0 } else { at + 16.0 }
        );
    }
    s + "</svg>\n"
}

/// Round numbers between `low` and `high`, about five.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let span = high - low;
    if span <= 0.0 || !span.is_finite() {
        return vec![];
    }
    let raw = span / 5.0;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= raw * 0.999).unwrap_or(power * 10.0);
    let first = (low / step - 1e-9).ceil() as i64;
    (first..first + 20).map(|i| i as f64 * step).take_while(|t| *t <= high + step * 1e-9).collect()
}

/// A short number.
fn label(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e6).contains(&size) {
        return format!("{value:.1e}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_curves_stay_small_and_keep_their_mean_and_range() {
        let mut curve = Curve::default();
        (0..100_000u64).for_each(|i| curve.push(i, if i == 77_777 { 9.0 } else { (i % 2) as f64 }));
        assert!(curve.points.len() <= Curve::MOST && curve.points.len() > Curve::MOST / 4);
        let (sum, count) = curve.points.iter().fold((0.0, 0), |(s, n), p| (s + p.sum, n + p.count));
        assert_eq!((sum, count), (50_008.0, 100_000));
        assert!(curve.iter().any(|(_, _, _, high)| high == 9.0));
        assert!(curve.iter().all(|(_, _, low, _)| low == 0.0));
        curve.push(100_000, f64::NAN);
        assert_eq!(curve.points.iter().map(|p| p.count).sum::<u64>(), 100_000);
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(0.0, 10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(1.3, 1.7).into_iter().map(label).collect::<Vec<_>>(), ["1.3", "1.4", "1.5", "1.6", "1.7"]);
        assert!(ticks(1.0, 1.0).is_empty());
        assert_eq!([0.0006, 4.8, 0.0, 2e6].map(label), ["6.0e-4", "4.8", "0", "2.0e6"]);
    }

    #[test]
    fn one_point_no_point_and_the_level() {
        assert!(chart("loss", &Curve::default(), Some(("ln K", 4.09))).contains("no data"));
        let mut curve = Curve::default();
        curve.push(0, 3.0);
        let svg = chart("loss", &curve, Some(("ln K", 4.094)));
        assert!(svg.contains("ln K = 4.094") && svg.contains("polyline") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
