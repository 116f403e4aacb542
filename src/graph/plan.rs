//! Memory plan: lifetimes of intermediate tensors to places in slots, peak memory known before anything is allocated.

use super::{Lowered, Storage, TensorId};
use std::collections::{HashMap, HashSet};

/// Where every tensor of a program lives.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Place of every tensor that needs one.
    pub places: HashMap<TensorId, Place>,
    /// Bytes of each slot, which is a buffer.
    pub slots: Vec<u64>,
    /// Largest tensor in each slot: what an error about it names.
    pub largest: Vec<TensorId>,
}

/// A range of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The slot.
    pub slot: usize,
    /// First byte.
    pub offset: u64,
}

impl Plan {
    /// Bytes of all slots: what the program allocates besides variables.
    pub fn bytes(&self) -> u64 {
        self.slots.iter().sum()
    }
}

/// Places start at multiples of this; every adapter's binding alignment divides it.
const ALIGNMENT: u64 = 256;

/// First and last launch that use a tensor.
#[derive(Clone, Copy, Debug)]
struct Life {
    first: usize,
    last: usize,
}

/// A tensor in its place.
struct Placed {
    tensor: TensorId,
    life: Life,
    from: u64,
    to: u64,
}

/// Assigns places. Inputs and constants live all the time, an output (`keep`) to the end, everything else from its first launch to its last.
/// The largest tensors choose first: each takes the tightest gap that is free for its whole life, or a new slot of its own size. Tensors
/// that one launch uses never share a slot at the same time, since an interface that tracks whole buffers could not tell reads from writes.
pub fn plan(lowered: &Lowered, keep: &[TensorId]) -> Plan {
    let mut lives: Vec<(TensorId, Life)> =
        lives(lowered, keep).into_iter().filter(|(t, _)| !matches!(lowered.tensors[t.0].storage, Storage::Variable(_))).collect();
    lives.sort_by_key(|(t, life)| (std::cmp::Reverse(lowered.tensors[t.0].bytes()), life.first, *t));
    let mut beside: HashMap<TensorId, HashSet<TensorId>> = HashMap::new();
    for launch in &lowered.launches {
        let used: Vec<TensorId> = launch.reads.iter().chain(&launch.writes).map(|view| view.tensor).collect();
        used.iter().for_each(|t| beside.entry(*t).or_default().extend(&used));
    }
    let mut plan = Plan::default();
    let mut slots: Vec<Vec<Placed>> = Vec::new();
    for (tensor, life) in lives {
        let info = &lowered.tensors[tensor.0];
        let bytes = info.bytes().max(16).next_multiple_of(ALIGNMENT);
        // Constants and inputs never share: a constant is written once, before the first run.
        let shares = matches!(info.storage, Storage::Intermediate);
        let life = if shares { life } else { Life { first: 0, last: usize::MAX } };
        let gaps = slots.iter().zip(&plan.slots).enumerate();
        let fits = gaps.filter_map(|(slot, (placed, size))| {
            let (waste, offset) = tightest_gap(placed, *size, life, bytes, beside.get(&tensor))?;
            Some((waste, slot, offset))
        });
        let (slot, offset) = fits.min().map_or((slots.len(), 0), |(_, slot, offset)| (slot, offset));
        if slot == slots.len() {
            plan.slots.push(bytes);
            plan.largest.push(tensor);
            slots.push(Vec::new());
        }
        slots[slot].push(Placed { tensor, life, from: offset, to: offset + bytes });
        plan.places.insert(tensor, Place { slot, offset });
    }
    plan
}

/// Where `bytes` bytes are free during `life` in a slot of `size` bytes, and what is left of that gap; the tightest there is.
fn tightest_gap(placed: &[Placed], size: u64, life: Life, bytes: u64, beside: Option<&HashSet<TensorId>>) -> Option<(u64, u64)> {
    let alive = || placed.iter().filter(|p| p.life.first <= life.last && life.first <= p.life.last);
    if alive().any(|p| beside.is_some_and(|used| used.contains(&p.tensor))) {
        return None;
    }
    let mut taken: Vec<(u64, u64)> = alive().map(|p| (p.from, p.to)).collect();
    taken.sort_unstable();
    taken.push((size, size));
    let mut at = 0;
    let mut best = None;
    for (from, to) in taken {
        if from.saturating_sub(at) >= bytes {
            best = best.into_iter().chain([(from - at - bytes, at)]).min();
        }
        at = at.max(to);
    }
    best
}

fn lives(lowered: &Lowered, keep: &[TensorId]) -> HashMap<TensorId, Life> {
    let count = lowered.launches.len();
    let mut lives: HashMap<TensorId, Life> = HashMap::new();
    for (i, launch) in lowered.launches.iter().enumerate() {
        for t in launch.reads.iter().chain(&launch.writes).map(|view| view.tensor) {
            lives.entry(t).and_modify(|life| life.last = i).or_insert(Life { first: i, last: i });
        }
    }
    for &t in keep {
        lives.entry(t).or_insert(Life { first: 0, last: count }).last = count;
    }
    lives
}
