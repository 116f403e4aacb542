//! `report.html`: one page that says how a run went.
//!
//! Promise: a single file with no reference to anything outside it (no script, font or image), that follows the reader's light or dark
//! setting, and is rewritten after each epoch (at most every half minute), on a stop, on a failure and at the end. History from before a resume is in it.

use super::progress::{duration, grouped, skipped};
use super::svg::{Curve, chart};
use crate::atomic;
use crate::cli::text::{html as escape, html_lines};
use crate::error::Result;
use crate::train::event::{Evaluated, Event, Finished, Observer, RunStarted, Warning};
use crate::train::metrics_log;
use serde_json::{Map, Value};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(30);
/// Evaluations and warnings shown, the newest.
const MOST_ROWS: usize = 200;

const STYLE: &str = "
:root { color-scheme: light dark; --bg: #fff; --fg: #1c2024; --soft: #6b7280; --edge: #e3e6ea; --line: #2563eb; --band: #2563eb33; --level: #b45309; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #14171a; --fg: #e6e8ea; --soft: #9aa3ad; --edge: #2b3036; --line: #7aa7ff; --band: #7aa7ff33; --level: #f0a860; }
}
body { background: var(--bg); color: var(--fg); font: 16px/1.5 system-ui, sans-serif; max-width: 800px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; } .soft, .none { color: var(--soft); }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; } svg text.level { fill: var(--level); }
.grid { stroke: var(--edge); } .line { fill: none; stroke: var(--line); stroke-width: 1.5; } .band { fill: var(--band); }
line.level { stroke: var(--level); stroke-dasharray: 6 4; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--edge); }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } pre { overflow-x: auto; border: 1px solid var(--edge); padding: 1rem; font-size: 13px; }
";

/// Gathers a run and writes its page.
pub struct Html {
    path: PathBuf,
    title: String,
    run: RunStarted,
    loss: Curve,
    lr: Curve,
    speed: Curve,
    evaluated: Vec<Evaluated>,
    warnings: Vec<Warning>,
    queue_from: Option<u64>,
    /// Bad images and their replacements, in all steps.
    replaced: u64,
    state: String,
    written: Option<Instant>,
    /// Whether there was no room for the last page.
    full: bool,
    /// Whether the run is over, so that no later page says what comes now.
    ended: bool,
    notices: Vec<Warning>,
}

impl Html {
    /// For the run in `folder`, going on from `start_step`; open it after [`super::metrics::Metrics`], which tidies the history.
    pub fn open(folder: &Path, title: impl Into<String>, start_step: u64) -> Result<Self> {
        let mut this = Self {
            path: folder.join("report.html"),
            title: title.into(),
            run: RunStarted::default(),
            loss: Curve::default(),
            lr: Curve::default(),
            speed: Curve::default(),
            evaluated: vec![],
            warnings: vec![],
            queue_from: None,
            replaced: 0,
            state: "running".into(),
            written: None,
            full: false,
            ended: false,
            notices: vec![],
        };
        if start_step > 0 {
            let number = |o: &Map<String, Value>, key: &str| o.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
            metrics_log::read_each(&folder.join("metrics.jsonl"), |o| {
                this.step(o.get("step").and_then(Value::as_u64).unwrap_or(0), number(&o, "loss"), number(&o, "lr"), number(&o, "images_per_second"));
                this.replaced = number(&o, "replaced_images") as u64;
            })?;
            metrics_log::read_each(&folder.join("events.jsonl"), |o| {
                let text = |key: &str| o.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                let whole = |key: &str| o.get(key).and_then(Value::as_u64);
                match o.get("event").and_then(Value::as_str) {
                    Some("evaluated") => this.evaluated.push(Evaluated {
                        name: text("name"),
                        step: whole("step").unwrap_or(0),
                        epoch: whole("epoch"),
                        top1: number(&o, "top1"),
                        top5: number(&o, "top5"),
                        loss: o.get("loss").and_then(Value::as_f64),
                    }),
                    Some("warning") => this.warnings.push(Warning::new(text("about"), text("message"))),
                    Some("queue_used") => _ = this.queue_from.get_or_insert(whole("step").unwrap_or(0)),
                    _ => {}
                }
            })?;
        }
        Ok(this)
    }

    fn step(&mut self, step: u64, loss: f64, lr: f64, speed: f64) {
        self.loss.push(step, loss);
        self.lr.push(step, lr);
        self.speed.push(step, speed);
    }

    fn write(&mut self) -> Result<()> {
        self.written = Some(Instant::now());
        let full = match atomic::write(&self.path, self.page().as_bytes()) {
            Err(error) if error.is_full() => true,
            other => {
                other?;
                false
            }
        };
        if std::mem::replace(&mut self.full, full) != full {
            let message = if full { "the disk is full; the run goes on, and this page is as it was" } else { "there is room on the disk again" };
            self.notices.push(Warning::new(self.path.display(), message));
        }
        Ok(())
    }

    fn page(&self) -> String {
        let title = escape(&self.title);
        let run = &self.run;
        let mut s = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p class=\"soft\">{}</p>\n",
            escape(&self.state)
        );
        let facts = [
            ("adapter", escape(&run.adapter)),
            ("parameters", grouped(run.parameters)),
            ("images an epoch", grouped(run.images)),
            ("images a step", grouped(run.batch)),
            ("epochs", grouped(run.epochs)),
            ("steps", grouped(run.steps)),
        ];
        s += "<table>\n";
        for (name, value) in facts {
            let _ = writeln!(s, "<tr><th>{name}</th><td class=\"n\">{value}</td></tr>");
        }
        if self.replaced > 0 {
            let count = grouped(self.replaced);
            let _ = writeln!(s, "<tr><th>replaced images (bad-images.txt names the bad ones)</th><td class=\"n\">{count}</td></tr>");
        }
        if !run.data.parts.is_empty() {
            let _ = writeln!(s, "<tr><th>data</th><td>{}</td></tr>", escape(&run.data.to_string()));
        }
        s += "</table>\n<h2>Loss by step</h2>\n";
        let name = escape(&run.chance_name);
        s += &chart("loss", &self.loss, (run.chance_loss > 0.0).then_some((name.as_str(), run.chance_loss)));
        if run.chance_loss > 0.0 {
            let _ = writeln!(s, "<p class=\"soft\">{name} is the loss of a model that knows nothing; a collapsed run stays there.</p>");
        }
        if let Some(step) = self.queue_from {
            let _ = writeln!(s, "<p class=\"soft\">The queue takes part from step {step} on.</p>");
        }
        s += "<h2>Learning rate by step</h2>\n";
        s += &chart("learning rate", &self.lr, None);
        s += "<h2>Images per second by step</h2>\n";
        s += &chart("images per second", &self.speed, None);
        self.tables(&mut s);
        let _ = write!(s, "<details>\n<summary>Configuration</summary>\n<pre>{}</pre>\n</details>\n</body>\n</html>\n", html_lines(&run.config));
        s
    }

    fn tables(&self, s: &mut String) {
        if !self.evaluated.is_empty() {
            *s += "<h2>Evaluation</h2>\n<table>\n<tr><th>what</th><th class=\"n\">epoch</th><th class=\"n\">top-1 %</th><th class=\"n\">top-5 %</th></tr>\n";
            for e in self.evaluated.iter().rev().take(MOST_ROWS) {
                let epoch = e.epoch.map_or("–".to_owned(), |n| (n + 1).to_string());
                let _ = writeln!(
                    s,
                    "<tr><td>{}</td><td class=\"n\">{epoch}</td><td class=\"n\">{:.2}</td><td class=\"n\">{:.2}</td></tr>",
                    escape(&e.name),
                    e.top1,
                    e.top5
                );
            }
            *s += "</table>\n";
        }
        if !self.warnings.is_empty() {
            *s += "<h2>Warnings</h2>\n<ul>\n";
            for w in self.warnings.iter().rev().take(MOST_ROWS) {
                let _ = writeln!(s, "<li>{}</li>", escape(&w.to_string()));
            }
            *s += "</ul>\n";
        }
    }
}

impl Observer for Html {
    fn event(&mut self, event: &Event) -> Result<()> {
        self.ended |= matches!(event, Event::Stopped { .. } | Event::Failed { .. } | Event::Finished(_));
        match event {
            Event::RunStarted(run) => {
                self.run = run.clone();
                self.warnings.extend(run.warnings.iter().cloned());
                self.write()?;
            }
            Event::Step(s) => {
                self.step(s.step, s.loss, s.lr, s.images_per_second);
                let replaced = s.extra.iter().find(|(name, _)| *name == "replaced_images");
                self.replaced = replaced.map_or(self.replaced, |(_, count)| *count as u64);
            }
            Event::Epoch(e) => {
                self.state = format!("running: epoch {} of {}{}", e.epoch + 1, self.run.epochs, skipped(e.skipped_steps));
                if self.written.is_none_or(|w| w.elapsed() >= EVERY) {
                    self.write()?;
                }
            }
            Event::QueueUsed { step } => _ = self.queue_from.get_or_insert(*step),
            Event::Evaluated(e) => self.evaluated.push(e.clone()),
            Event::Warning(w) => {
                self.warnings.push(w.clone());
                if self.ended {
                    self.write()?;
                }
            }
            Event::CheckpointWritten { .. } | Event::FirstPass { .. } | Event::Clustered { .. } => {}
            Event::Stopped { step, resumable } => {
                self.state = format!("stopped after {step} steps{}", if *resumable { "; continue with --resume" } else { "" });
                self.write()?;
            }
            Event::Failed { message } => {
                self.state = format!("failed: {message}");
                self.write()?;
            }
            Event::Finished(Finished { epochs, loss, seconds, images_per_second, skipped_steps, .. }) => {
                let time = duration(Duration::try_from_secs_f64(*seconds).unwrap_or_default());
                self.state =
                    format!("done: {epochs} epochs, loss {loss:.4}, {images_per_second:.0} images per second, {time}{}", skipped(*skipped_steps));
                self.write()?;
            }
        }
        Ok(())
    }

    fn notices(&mut self, _: bool) -> Vec<Warning> {
        std::mem::take(&mut self.notices)
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::Metrics;
    use super::*;
    use crate::train::event::{Observers, Step};
    use crate::train::run_folder::RunFolder;

    #[test]
    fn a_page_of_its_own_that_keeps_history_over_a_resume() {
        let dir = tempfile::tempdir().unwrap();
        for start in [0, 3] {
            let run = RunFolder::open(dir.path(), start > 0).unwrap();
            let metrics = Metrics::open(&run, start).unwrap();
            let html = Html::open(dir.path(), "digits <run>", start).unwrap();
            assert_eq!(html.loss.is_empty(), start == 0);
            let mut all = Observers(vec![Box::new(metrics), Box::new(html)]);
            let config = "path = \"<script>alert(1)</script>\"".to_owned();
            let started = RunStarted { chance_loss: 4.094, chance_name: "ln K".into(), config, parameters: 1234, ..Default::default() };
            all.event(&Event::RunStarted(started)).unwrap();
            for step in start..start + 3 {
                all.event(&Event::Step(Step { step, loss: 4.0 - step as f64, lr: 0.1, ..Default::default() })).unwrap();
            }
            if start == 0 {
                all.event(&Event::Evaluated(Evaluated { name: "knn".into(), step: 2, top1: 94.25, top5: 99.5, ..Default::default() })).unwrap();
                all.event(&Event::Stopped { step: 3, resumable: true }).unwrap();
                let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
                assert!(page.contains("stopped after 3 steps; continue with --resume"));
                all.event(&Event::Failed { message: "the loss is <NaN>".into() }).unwrap();
                let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
                assert!(page.contains("failed: the loss is &lt;NaN&gt;") && page.contains("94.25"));
            } else {
                all.event(&Event::Finished(Finished { epochs: 2, ..Default::default() })).unwrap();
            }
        }
        let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
        for text in ["digits &lt;run&gt;", "ln K = 4.094", "<td class=\"n\">94.25</td>", "1,234", "prefers-color-scheme: dark", "&lt;script&gt;"] {
            assert!(page.contains(text), "{text}\n{page}");
        }
        for outside in ["<script", "http:", "https:", "src=", "url(", "@import", "<link"] {
            assert!(!page.contains(outside), "{outside}");
        }
        // Six points, three from before the resume, in the loss line.
        let line = page.split("class=\"line\" points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(line.split(' ').count(), 6, "{line}");
    }
}
