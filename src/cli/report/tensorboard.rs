//! TensorBoard event files: scalars, readable by TensorBoard 2.
//!
//! Format: TFRecord (length, masked CRC-32C of the length, data, masked CRC-32C of the data; little-endian) of `tensorflow.Event`
//! protocol buffers. Promise: on resume a session-start record tells TensorBoard to drop what an earlier file says from that step on.

use crate::error::{Error, Result};
use crate::train::event::{Event, Observer, Warning};
use crate::train::log_file::LogFile;
use prost::Message;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// `tensorflow.Event` (event.proto), the fields used here.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<ScalarValue>,
}

/// `tensorflow.Summary.Value` with `simple_value`, one of a oneof and so written even when it is 0.
#[derive(Clone, PartialEq, Message)]
struct ScalarValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// `tensorflow.SessionLog`; status 1 is START.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// One event file.
#[derive(Debug)]
pub struct TensorBoard {
    file: LogFile,
    chance: Option<f64>,
}

impl TensorBoard {
    /// A new file `events.out.tfevents.…` in `folder`, for steps from `start_step` on. Starting from 0 removes older ones of runs; those of other programs stay.
    pub fn create(folder: &Path, start_step: u64) -> Result<Self> {
        const NAME: &str = "events.out.tfevents.";
        const PROGRAM: &str = ".swav-wgpu.";
        let entries = std::fs::read_dir(folder).map_err(Error::output(folder))?;
        let own = |name: &str| name.starts_with(NAME) && name.contains(PROGRAM);
        for old in entries.flatten().filter(|e| start_step == 0 && own(&e.file_name().to_string_lossy())) {
            std::fs::remove_file(old.path()).map_err(Error::output(old.path()))?;
        }
        // Names sort in time order, which TensorBoard relies on; the step and process keep two files of one second apart.
        let path = folder.join(format!("{NAME}{:010}{PROGRAM}{start_step:09}.{}", now() as u64, std::process::id()));
        let mut this = Self { file: LogFile::create_new(path)?, chance: None };
        this.record(Record { file_version: Some("brain.Event:2".into()), ..Default::default() })?;
        if start_step > 0 {
            this.record(Record { step: start_step as i64, session_log: Some(SessionLog { status: 1 }), ..Default::default() })?;
        }
        Ok(this)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Adds scalars of one step.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let value = values.iter().map(|(tag, v)| ScalarValue { tag: tag.to_string(), simple_value: Some(*v as f32) }).collect();
        self.record(Record { step: step as i64, summary: Some(Summary { value }), ..Default::default() })
    }

    fn record(&mut self, mut record: Record) -> Result<()> {
        record.wall_time = now();
        self.file.append(&framed(&record.encode_to_vec()))
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// CRC-32C, rotated and shifted as TFRecord wants it.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), data, &masked_crc(data).to_le_bytes()].concat()
}

impl Observer for TensorBoard {
    fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::RunStarted(r) => self.chance = Some(r.chance_loss).filter(|c| *c > 0.0),
            Event::Step(s) => {
                let mut values = vec![
                    ("train/loss", s.loss),
                    ("train/lr", s.lr),
                    ("speed/images_per_second", s.images_per_second),
                    ("speed/data_wait_ms", s.data_wait_ms),
                ];
                values.extend(self.chance.map(|c| ("train/chance_loss", c)));
                let extra: Vec<(String, f64)> = s.extra.iter().map(|(name, v)| (format!("train/{name}"), *v)).collect();
                values.extend(extra.iter().map(|(name, v)| (name.as_str(), *v)));
                self.scalars(s.step, &values)?;
            }
            Event::Epoch(e) => {
                let mut values = vec![("epoch/loss", e.loss), ("epoch/seconds", e.seconds)];
                values.extend(e.prototypes_used.map(|n| ("epoch/prototypes_used", n as f64)));
                values.extend(e.code_entropy.map(|h| ("epoch/code_entropy", h)));
                self.scalars(e.step, &values)?;
            }
            Event::Evaluated(e) => {
                let tags = [format!("eval/{}_top1", e.name), format!("eval/{}_top5", e.name)];
                self.scalars(e.step, &[(&tags[0], e.top1), (&tags[1], e.top5)])?;
            }
            _ => {}
        }
        Ok(())
    }

    fn notices(&mut self, end: bool) -> Vec<Warning> {
        self.file.notices(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::event::{RunStarted, Step};

    /// Reads a file back, checking both sums of every record.
    fn read(path: &Path) -> Vec<Record> {
        let bytes = std::fs::read(path).unwrap();
        let (mut at, mut records) = (0, Vec::new());
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            let crc = |from: usize| u32::from_le_bytes(bytes[from..from + 4].try_into().unwrap());
            assert_eq!(crc(at + 8), masked_crc(&bytes[at..at + 8]));
            let data = &bytes[at + 12..at + 12 + length];
            assert_eq!(crc(at + 12 + length), masked_crc(data));
            records.push(Record::decode(data).unwrap());
            at += 16 + length;
        }
        records
    }

    #[test]
    fn checksum_is_the_published_one() {
        // RFC 3720, B.4: CRC-32C of 32 zero bytes is aa 36 91 8a, least significant byte first.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        // Masking by hand: 0x8a9136aa rotated right by 15 is 0x6d551522, plus 0xa282ead8.
        assert_eq!(masked_crc(&[0; 32]), 0x0fd7_fffa);
    }

    #[test]
    fn bytes_of_a_known_event() {
        // Event{wall_time: 1, step: 3, summary{value{tag: "a", simple_value: 0}}} by the wire format's rules.
        let value = ScalarValue { tag: "a".into(), simple_value: Some(0.0) };
        let record = Record { wall_time: 1.0, step: 3, summary: Some(Summary { value: vec![value] }), ..Default::default() };
        let expected = [&[0x09][..], &1f64.to_le_bytes(), &[0x10, 3, 0x2a, 10, 0x0a, 8, 0x0a, 1, b'a', 0x15, 0, 0, 0, 0]];
        assert_eq!(record.encode_to_vec(), expected.concat());
    }

    #[test]
    fn events_come_back_and_resume_purges() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["events.out.tfevents.1.swav-wgpu.000000000.1", "events.out.tfevents.1.of-another-program"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let mut board = TensorBoard::create(dir.path(), 0).unwrap();
        board.event(&Event::RunStarted(RunStarted { chance_loss: 4.09, ..Default::default() })).unwrap();
        board.event(&Event::Step(Step { step: 7, loss: 3.5, extra: vec![("grad_norm", 1.0)], ..Default::default() })).unwrap();
        assert!(dir.path().join("events.out.tfevents.1.of-another-program").exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        let records = read(board.path());
        assert_eq!(records[0].file_version.as_deref(), Some("brain.Event:2"));
        assert_eq!(records[1].step, 7);
        let values = &records[1].summary.as_ref().unwrap().value;
        let get = |tag: &str| values.iter().find(|v| v.tag == tag).and_then(|v| v.simple_value);
        assert_eq!(
            (get("train/loss"), get("train/lr"), get("train/chance_loss"), get("train/grad_norm")),
            (Some(3.5), Some(0.0), Some(4.09), Some(1.0))
        );
        let again = TensorBoard::create(dir.path(), 5).unwrap();
        let records = read(again.path());
        assert_eq!((records[1].step, records[1].session_log.as_ref().map(|s| s.status)), (5, Some(1)));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
