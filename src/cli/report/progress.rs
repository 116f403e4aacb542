//! What a user watches: a bar on a terminal, a plain line every five seconds elsewhere.
//!
//! Promises: everything goes to stderr; `-q` leaves only warnings; a stderr that is closed stops nothing; time left is from the
//! last steps' pace and a monotonic clock.

use crate::cli::text::printable;
use crate::error::Result;
use crate::train::event::{Event, Observer, RunStarted, Step};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Time between plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// How the user wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Draw a bar.
    pub bar: bool,
    /// Use colours.
    pub color: bool,
    /// Only warnings.
    pub quiet: bool,
}

impl Style {
    /// From `-q`, `NO_COLOR` and whether stderr is a terminal.
    pub fn detect(quiet: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let terminal = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        Self { bar: terminal && !no_color, color: terminal && !no_color, quiet }
    }
}

/// Draws a run on stderr (or another place, for tests).
pub struct Progress<W: Write = std::io::Stderr> {
    style: Style,
    out: W,
    bar: Option<ProgressBar>,
    run: RunStarted,
    pace: Pace,
    last_line: Option<Instant>,
}

impl Progress {
    /// On stderr.
    pub fn stderr(style: Style) -> Self {
        Self::to(std::io::stderr(), style)
    }
}

impl<W: Write> Progress<W> {
    /// Plain lines go to `out`; a bar always goes to stderr.
    pub fn to(out: W, style: Style) -> Self {
        Self { style, out, bar: None, run: RunStarted::default(), pace: Pace::default(), last_line: None }
    }

    /// A line that stays, above the bar if there is one. What it quotes was made [`printable`].
    fn say(&mut self, line: &str) {
        let out = &mut self.out;
        let mut write = || _ = writeln!(out, "{line}");
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn info(&mut self, line: &str) {
        if !self.style.quiet {
            self.say(&printable(line));
        }
    }

    fn start(&mut self, run: &RunStarted) {
        self.run = run.clone();
        self.pace = Pace::default();
        self.pace.tick(Instant::now());
        let from = if run.start_step > 0 { format!(", from step {}", run.start_step) } else { String::new() };
        let steps = run.steps;
        self.info(&format!(
            "{}: {} parameters, {} images, {} epochs, {} steps of {} images{from}",
            run.adapter,
            grouped(run.parameters),
            grouped(run.images),
            run.epochs,
            grouped(steps),
            run.batch
        ));
        if self.style.bar && !self.style.quiet {
            let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
            // Two lines: one would not fit terminals of 80 columns.
            let template = if self.style.color {
                "{bar:24.cyan/dim} {percent:>3} %  {prefix}\n{wide_msg}"
            } else {
                "{bar:24} {percent:>3} %  {prefix}\n{wide_msg}"
            };
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_position(run.start_step);
            self.bar = Some(bar);
        }
    }

    fn step(&mut self, step: &Step) {
        let now = Instant::now();
        self.pace.tick(now);
        if self.style.quiet {
            return;
        }
        if let Some(bar) = &self.bar {
            let [place, numbers] = line(step, &self.run, &self.pace);
            bar.set_prefix(place);
            bar.set_message(numbers);
            bar.set_position(step.step + 1);
        } else if self.last_line.is_none_or(|last| now - last >= PLAIN_EVERY) || step.step + 1 == self.run.steps {
            self.last_line = Some(now);
            let text = line(step, &self.run, &self.pace).join("  ");
            self.info(&text);
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// `epoch 3/60  step 37/1080`, and `loss 3.912 (ln K 4.094)  lr 0.600  812 img/s  5 min left`.
fn line(step: &Step, run: &RunStarted, pace: &Pace) -> [String; 2] {
    let chance = if run.chance_loss > 0.0 { format!(" ({} {:.3})", run.chance_name, run.chance_loss) } else { String::new() };
    let left = pace.left(run.steps.saturating_sub(step.step + 1)).map_or(String::new(), |d| format!("  {} left", duration(d)));
    [
        format!("epoch {}/{}  step {}/{}", step.epoch + 1, run.epochs, step.step + 1, run.steps),
        format!("loss {:.4}{chance}  lr {:.3e}  {:.0} img/s{left}", step.loss, step.lr, step.images_per_second),
    ]
}

impl<W: Write> Observer for Progress<W> {
    fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::RunStarted(run) => self.start(run),
            Event::Step(step) => self.step(step),
            Event::Epoch(e) => {
                let used = e.prototypes_used.map_or(String::new(), |n| format!(", {n} prototypes in use"));
                let entropy = e.code_entropy.map_or(String::new(), |h| format!(", code entropy {h:.3}"));
                let time = duration(Duration::try_from_secs_f64(e.seconds).unwrap_or_default());
                self.info(&format!("epoch {} done: loss {:.4}{used}{entropy}, {time}{}", e.epoch + 1, e.loss, skipped(e.skipped_steps)));
            }
            Event::FirstPass { images } => self.info(&format!("filling the memory banks: one pass over {} images before training", grouped(*images))),
            Event::Clustered { .. } => {}
            Event::QueueUsed { step } => self.info(&format!("queue in use from step {} on; the loss may jump", step + 1)),
            Event::CheckpointWritten { path, .. } => self.info(&format!("checkpoint {}", path.display())),
            Event::Warning(w) => {
                let mark = if self.style.color { "\x1b[1;33mwarning\x1b[0m" } else { "warning" };
                self.say(&format!("{mark}: {}", printable(w)));
            }
            Event::Evaluated(e) => {
                let epoch = e.epoch.map_or(String::new(), |n| format!(" epoch {}", n + 1));
                self.info(&format!("{}{epoch}: top-1 {:.2} %, top-5 {:.2} %", e.name, e.top1, e.top5));
            }
            Event::Stopped { step, .. } => {
                self.end();
                self.info(&format!("stopped after step {step}"));
            }
            // The error itself is told last of all.
            Event::Failed { .. } => self.end(),
            Event::Finished(f) => {
                self.end();
                if f.steps == self.run.start_step {
                    self.info(&format!("nothing to do: {} steps were done before", f.steps));
                    return Ok(());
                }
                let time = duration(Duration::try_from_secs_f64(f.seconds).unwrap_or_default());
                self.info(&format!(
                    "done: {} steps, loss {:.4}, {:.0} img/s, {time}{}",
                    f.steps,
                    f.loss,
                    f.images_per_second,
                    skipped(f.skipped_steps)
                ));
            }
        }
        Ok(())
    }
}

/// Smoothed time per step: an average whose weights fade over about 50 steps, so that a slow start is soon forgotten.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    last: Option<Instant>,
    seconds: f64,
    weight: f64,
}

impl Pace {
    fn tick(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            self.seconds = 0.98 * self.seconds + 0.02 * now.duration_since(last).as_secs_f64();
            self.weight = 0.98 * self.weight + 0.02;
        }
    }

    fn left(&self, steps: u64) -> Option<Duration> {
        (self.weight > 0.0).then(|| Duration::try_from_secs_f64(self.seconds / self.weight * steps as f64).ok()).flatten()
    }
}

/// What is said of steps that f16 had to skip, where there are any.
pub(super) fn skipped(steps: u64) -> String {
    if steps > 0 { format!(", {} skipped because a gradient overflowed", grouped(steps)) } else { String::new() }
}

/// `45 s`, `3 min 20 s`, `2 h 05 min`, `3 d 4 h`.
pub fn duration(d: Duration) -> String {
    let s = d.as_secs_f64().round() as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {:02} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3600 % 24),
    }
}

/// `28,354,752`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|c| std::str::from_utf8(c).unwrap_or_default()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::event::{Finished, Warning};

    fn run(quiet: bool, color: bool) -> String {
        let mut out = Vec::new();
        let mut progress = Progress::to(&mut out, Style { bar: false, color, quiet });
        let started = RunStarted {
            adapter: "llvmpipe".into(),
            parameters: 28_354_752,
            epochs: 2,
            steps: 10,
            chance_loss: 4.094,
            chance_name: "ln K".into(),
            ..Default::default()
        };
        progress.event(&Event::RunStarted(started)).unwrap();
        for step in 0..10 {
            let step = Step { step, epoch: step / 5, loss: 4.5, lr: 0.6, images_per_second: 812.4, ..Default::default() };
            progress.event(&Event::Step(step)).unwrap();
        }
        progress.event(&Event::Warning(Warning::new("queue.length", "odd"))).unwrap();
        progress.event(&Event::Finished(Finished { steps: 10, loss: 4.4, seconds: 200.0, ..Default::default() })).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn plain_lines_are_few_and_complete() {
        let text = run(false, false);
        assert!(text.contains("llvmpipe: 28,354,752 parameters"), "{text}");
        assert!(text.contains("epoch 1/2  step 1/10  loss 4.5000 (ln K 4.094)  lr 6.000e-1  812 img/s  0 s left"), "{text}");
        assert_eq!(text.matches(" left\n").count(), 2, "only the first and the last of ten quick steps: {text}");
        assert!(text.contains("step 10/10") && text.contains("\nwarning: queue.length: odd\n") && text.contains("done: 10 steps"), "{text}");
        assert!(!text.contains('\x1b'));
        assert!(run(false, true).contains("\x1b[1;33mwarning"));
        assert_eq!(run(true, false), "warning: queue.length: odd\n");
    }

    #[test]
    fn time_left_forgets_a_slow_start() {
        let start = Instant::now();
        let mut pace = Pace::default();
        assert_eq!(pace.left(5), None);
        pace.tick(start);
        pace.tick(start + Duration::from_secs(60));
        assert_eq!(pace.left(2).unwrap().as_secs(), 120);
        (1..400).for_each(|i| pace.tick(start + Duration::from_secs(60 + i)));
        assert_eq!(pace.left(100).unwrap().as_secs(), 100);
    }

    #[test]
    fn numbers_for_people() {
        let all = [45, 200, 7500, 270_000].map(|s| duration(Duration::from_secs(s)));
        assert_eq!(all, ["45 s", "3 min 20 s", "2 h 05 min", "3 d 3 h"]);
        assert_eq!([0, 999, 1000, 28_354_752].map(grouped), ["0", "999", "1,000", "28,354,752"]);
    }
}
