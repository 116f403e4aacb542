//! `metrics.jsonl` and `events.jsonl` of a run folder.
//!
//! Promise: `metrics.jsonl` has one object a step, with at least `step, epoch, loss, lr, images_per_second, data_wait_ms`;
//! `events.jsonl` has everything else that happens, each with `event` and `step`. Both survive kills and resumes (see
//! [`MetricsLog`]).

use crate::error::Result;
use crate::train::event::{Event, Observer, Warning};
use crate::train::metrics_log::MetricsLog;
use crate::train::run_folder::RunFolder;
use serde_json::{Map, Value, json};

/// Writes both files.
#[derive(Debug)]
pub struct Metrics {
    metrics: MetricsLog,
    events: MetricsLog,
    step: u64,
}

impl Metrics {
    /// Goes on from `start_step`; 0 starts afresh.
    pub fn open(run: &RunFolder, start_step: u64) -> Result<Self> {
        Ok(Self { metrics: run.metrics(start_step)?, events: run.events(start_step)?, step: start_step })
    }
}

impl Observer for Metrics {
    fn event(&mut self, event: &Event) -> Result<()> {
        if let Event::Step(step) = event {
            self.step = step.step;
            return self.metrics.append(&step_object(step));
        }
        match event_object(event, self.step) {
            Some(object) => self.events.append(&object),
            None => Ok(()),
        }
    }

    fn notices(&mut self, end: bool) -> Vec<Warning> {
        let mut all = self.metrics.notices(end);
        all.extend(self.events.notices(end));
        all
    }
}

/// One line of `metrics.jsonl`.
pub fn step_object(s: &crate::train::event::Step) -> Map<String, Value> {
    let mut object = object(json!({
        "step": s.step, "epoch": s.epoch, "loss": s.loss, "lr": s.lr, "images_per_second": s.images_per_second, "data_wait_ms": s.data_wait_ms,
    }));
    object.extend(s.extra.iter().map(|(name, value)| (name.to_string(), json!(value))));
    object
}

/// One line of `events.jsonl`; `step` is the last step done.
fn event_object(event: &Event, step: u64) -> Option<Map<String, Value>> {
    Some(object(match event {
        Event::RunStarted(r) => json!({"event": "started", "step": r.start_step, "adapter": r.adapter, "parameters": r.parameters,
            "images": r.images, "batch": r.batch, "epochs": r.epochs, "steps": r.steps, "chance_loss": r.chance_loss, "warnings": r.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "data": r.data}),
        Event::Epoch(e) => json!({"event": "epoch", "step": e.step, "epoch": e.epoch, "loss": e.loss, "seconds": e.seconds,
            "prototypes_used": e.prototypes_used, "code_entropy": e.code_entropy, "skipped_steps": e.skipped_steps}),
        Event::FirstPass { images } => json!({"event": "first_pass", "step": step, "images": images}),
        Event::Clustered { epoch, step, used, seconds } => {
            json!({"event": "clustered", "step": step, "epoch": epoch, "clusters_used": used, "seconds": seconds})
        }
        Event::QueueUsed { step } => json!({"event": "queue_used", "step": step}),
        Event::CheckpointWritten { step: done, path } => {
            json!({"event": "checkpoint", "step": step, "steps_done": done, "path": path.display().to_string()})
        }
        Event::Warning(w) => json!({"event": "warning", "step": step, "about": w.about, "message": w.message}),
        Event::Evaluated(e) => json!({"event": "evaluated", "step": e.step, "epoch": e.epoch, "name": e.name, "top1": e.top1, "top5": e.top5,
            "loss": e.loss}),
        Event::Stopped { step: done, .. } => json!({"event": "stopped", "step": step, "steps_done": done}),
        Event::Failed { message } => json!({"event": "failed", "step": step, "message": message}),
        Event::Finished(f) => json!({"event": "finished", "step": step, "steps": f.steps, "epochs": f.epochs, "loss": f.loss,
            "images_per_second": f.images_per_second, "seconds": f.seconds, "skipped_steps": f.skipped_steps}),
        Event::Step(_) => return None,
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::event::{Evaluated, Step};

    #[test]
    fn a_line_a_step_over_a_resume() {
        let dir = tempfile::tempdir().unwrap();
        let step = |step| Event::Step(Step { step, loss: 4.0, lr: 0.5, extra: vec![("grad_norm", 2.0)], ..Default::default() });
        for (start, end) in [(0, 4), (2, 5)] {
            let run = RunFolder::open(dir.path(), start > 0).unwrap();
            let mut metrics = Metrics::open(&run, start).unwrap();
            (start..end).for_each(|s| metrics.event(&step(s)).unwrap());
            metrics.event(&Event::Warning(Warning::new("x", "y"))).unwrap();
            metrics.event(&Event::Evaluated(Evaluated { name: "knn".into(), step: end - 1, top1: 90.0, ..Default::default() })).unwrap();
        }
        let text = std::fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 5);
        let first = "{\"step\":0,\"epoch\":0,\"loss\":4.0,\"lr\":0.5,\"images_per_second\":0.0,\"data_wait_ms\":0.0,\"grad_norm\":2.0}";
        assert_eq!(text.lines().next(), Some(first));
        let events = std::fs::read_to_string(dir.path().join("events.jsonl")).unwrap();
        assert_eq!(events.lines().count(), 2, "{events}");
        assert!(events.contains("\"event\":\"evaluated\",\"step\":4,"));
    }
}
