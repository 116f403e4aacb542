//! Data in and out of a running device without allocation: mapped upload slots and read-back slots.

use super::{Buffer, Gpu};
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

const FREE: u8 = 0;
const PENDING: u8 = 1;
const MAPPED: u8 = 2;
const FAILED: u8 = 3;

/// One place to read results from: copied into by a submission, then mapped.
pub struct Readback {
    raw: wgpu::Buffer,
    state: Arc<AtomicU8>,
    submission: Mutex<Option<wgpu::SubmissionIndex>>,
}

impl Readback {
    /// A slot of `bytes` bytes.
    pub fn new(gpu: &Gpu, bytes: u64) -> Result<Self> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let size = bytes.max(16).next_multiple_of(16);
        let raw = gpu.scoped("read-back buffer", || {
            gpu.device.create_buffer(&wgpu::BufferDescriptor { label: Some("readback"), size, usage, mapped_at_creation: false })
        })?;
        Ok(Self { raw, state: Arc::new(AtomicU8::new(FREE)), submission: Mutex::new(None) })
    }

    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.raw
    }

    /// Asks for the contents as of `submission`.
    pub(super) fn request(&self, submission: wgpu::SubmissionIndex) {
        self.state.store(PENDING, Ordering::Release);
        let state = Arc::clone(&self.state);
        self.raw.map_async(wgpu::MapMode::Read, .., move |outcome| {
            state.store(if outcome.is_ok() { MAPPED } else { FAILED }, Ordering::Release);
        });
        *self.submission.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(submission);
    }

    /// Waits for the submission that filled the slot and takes its bytes (rounded up to 16).
    pub fn wait(&self, gpu: &Gpu) -> Result<Vec<u8>> {
        let submission = self.submission.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        while self.state.load(Ordering::Acquire) == PENDING {
            if let Err(error) = gpu.poll(wgpu::PollType::Wait { submission_index: submission.clone(), timeout: None }) {
                // Whoever asks next finds the slot as it was at first.
                self.raw.unmap();
                self.state.store(FREE, Ordering::Release);
                return Err(error);
            }
        }
        if self.state.load(Ordering::Acquire) != MAPPED {
            return Err(Error::DeviceLost("a result could not be read back".into()));
        }
        let bytes = self.raw.get_mapped_range(..).map_err(|e| Error::DeviceLost(e.to_string()))?.to_vec();
        self.raw.unmap();
        self.state.store(FREE, Ordering::Release);
        Ok(bytes)
    }
}

/// Mapped buffers that carry a step's inputs to the device in turn; a slot is used again once the device has read it.
pub struct UploadRing {
    slots: Vec<Slot>,
    next: usize,
    bytes: u64,
}

struct Slot {
    raw: wgpu::Buffer,
    state: Arc<AtomicU8>,
    /// What reads it.
    submission: Option<wgpu::SubmissionIndex>,
}

/// Steps whose inputs may be under way at once.
const SLOTS: usize = 3;

impl UploadRing {
    /// A ring for steps that upload at most `bytes` bytes.
    pub fn new(gpu: &Gpu, bytes: u64) -> Result<Self> {
        let usage = wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC;
        let size = bytes.max(16).next_multiple_of(16);
        let slots = (0..SLOTS)
            .map(|_| {
                let raw = gpu.scoped("upload buffer", || {
                    gpu.device.create_buffer(&wgpu::BufferDescriptor { label: Some("upload"), size, usage, mapped_at_creation: true })
                })?;
                Ok(Slot { raw, state: Arc::new(AtomicU8::new(MAPPED)), submission: None })
            })
            .collect::<Result<_>>()?;
        Ok(Self { slots, next: 0, bytes: size })
    }

    /// Writes `pieces` (destination, byte offset there, data) into the next slot and encodes their copies.
    pub(super) fn encode(&mut self, gpu: &Gpu, encoder: &mut wgpu::CommandEncoder, pieces: &[(&Buffer, u64, &[u8])]) -> Result<()> {
        let slot = &self.slots[self.next];
        while slot.state.load(Ordering::Acquire) == PENDING {
            // For that step alone: those behind it go on meanwhile.
            gpu.poll(wgpu::PollType::Wait { submission_index: slot.submission.clone(), timeout: None })?;
        }
        if slot.state.load(Ordering::Acquire) != MAPPED {
            return Err(Error::DeviceLost("an upload buffer could not be mapped".into()));
        }
        let mut at = 0;
        {
            let mut view = slot.raw.get_mapped_range_mut(..).map_err(|e| Error::DeviceLost(e.to_string()))?;
            for (_, _, data) in pieces {
                view.slice(at..at + data.len()).copy_from_slice(data);
                at += data.len().next_multiple_of(16);
            }
            assert!(at as u64 <= self.bytes, "a step uploads {at} bytes, its ring holds {}", self.bytes);
        }
        slot.raw.unmap();
        slot.state.store(PENDING, Ordering::Release);
        let mut at = 0;
        for (buffer, offset, data) in pieces {
            encoder.copy_buffer_to_buffer(&slot.raw, at, buffer.raw(), *offset, data.len() as u64);
            at += (data.len() as u64).next_multiple_of(16);
        }
        Ok(())
    }

    /// Hands the slot over after its copies were submitted.
    pub(super) fn submitted(&mut self, submission: wgpu::SubmissionIndex) {
        let slot = &mut self.slots[self.next];
        slot.submission = Some(submission);
        let state = Arc::clone(&slot.state);
        slot.raw.map_async(wgpu::MapMode::Write, .., move |outcome| {
            state.store(if outcome.is_ok() { MAPPED } else { FAILED }, Ordering::Release);
        });
        self.next = (self.next + 1) % self.slots.len();
    }
}
