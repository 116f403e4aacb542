//! Memory plan: lifetimes of intermediate tensors to slots, peak memory known before anything is allocated.

use super::{Lowered, Storage, TensorId};
use std::collections::HashMap;

/// Where every tensor of a program lives.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Slot of every tensor that needs one.
    pub slot_of: HashMap<TensorId, usize>,
    /// Bytes of each slot.
    pub slots: Vec<u64>,
    /// Largest tensor in each slot: what an error about it names.
    pub largest: Vec<TensorId>,
}

impl Plan {
    /// Bytes of all slots: what the program allocates besides variables.
    pub fn bytes(&self) -> u64 {
        self.slots.iter().sum()
    }
}

/// Assigns slots. An input lives from the start, an output (`keep`) to the end, everything else from its first launch to its last.
/// Tensors that one launch uses never share a slot.
pub fn plan(lowered: &Lowered, keep: &[TensorId]) -> Plan {
    let count = lowered.launches.len();
    let mut span: HashMap<TensorId, (usize, usize)> = HashMap::new();
    for (i, launch) in lowered.launches.iter().enumerate() {
        for t in launch.reads.iter().chain(&launch.writes).map(|view| view.tensor) {
            let first = if matches!(lowered.tensors[t.0].storage, Storage::Input(_)) { 0 } else { i };
            span.entry(t).and_modify(|s| s.1 = i).or_insert((first, i));
        }
    }
    for &t in keep {
        span.entry(t).or_insert((0, count)).1 = count;
    }
    let owned = |t: &TensorId| !matches!(lowered.tensors[t.0].storage, Storage::Variable(_));
    // Constants and inputs never share: a constant is written once, before the first run.
    let shares = |t: &TensorId| matches!(lowered.tensors[t.0].storage, Storage::Intermediate);
    let mut starts: Vec<Vec<TensorId>> = vec![Vec::new(); count + 1];
    let mut ends: Vec<Vec<TensorId>> = vec![Vec::new(); count + 1];
    let mut tensors: Vec<_> = span.iter().filter(|(t, _)| owned(t)).collect();
    tensors.sort();
    for (&t, &(first, last)) in tensors {
        starts[first].push(t);
        if shares(&t) {
            ends[last].push(t);
        }
    }
    let mut plan = Plan { slot_of: HashMap::new(), slots: Vec::new(), largest: Vec::new() };
    let mut free: Vec<usize> = Vec::new();
    for i in 0..=count {
        // Large tensors choose first.
        starts[i].sort_by_key(|t| (std::cmp::Reverse(lowered.tensors[t.0].bytes()), *t));
        for &t in &starts[i] {
            let bytes = lowered.tensors[t.0].bytes().max(16);
            let slot = take_slot(&mut plan, &mut free, bytes, t, shares(&t));
            plan.slot_of.insert(t, slot);
        }
        free.extend(ends[i].iter().map(|t| plan.slot_of[t]));
    }
    plan
}

/// The free slot that wastes least: the smallest that fits, else the largest, which grows; a new one when none is free.
fn take_slot(plan: &mut Plan, free: &mut Vec<usize>, bytes: u64, tensor: TensorId, may_share: bool) -> usize {
    let fitting = free.iter().enumerate().filter(|(_, s)| plan.slots[**s] >= bytes).min_by_key(|(_, s)| (plan.slots[**s], **s));
    let chosen = fitting.or_else(|| free.iter().enumerate().max_by_key(|(_, s)| (plan.slots[**s], **s))).map(|(at, _)| at);
    match chosen.filter(|_| may_share) {
        Some(at) => {
            let slot = free.swap_remove(at);
            if plan.slots[slot] < bytes {
                plan.slots[slot] = bytes;
                plan.largest[slot] = tensor;
            }
            slot
        }
        None => {
            plan.slots.push(bytes);
            plan.largest.push(tensor);
            plan.slots.len() - 1
        }
    }
}
