//! Variables: tensors that outlive a program, such as parameters, their gradients and momentum, running statistics, the queue.
//!
//! [`Variables`] only describes them, so that a model can be built and its memory planned without a device; [`Store`] is their memory.

use super::{DType, stored_elements};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Gpu};

/// Position of a variable in [`Variables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VariableId(usize);

/// Description of a variable.
#[derive(Clone, Debug)]
pub struct VariableInfo {
    /// Unique name.
    pub name: String,
    /// Logical shape.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
    buffer: usize,
    offset: u64,
}

impl VariableInfo {
    /// Bytes in memory, padding included.
    pub fn bytes(&self) -> u64 {
        (stored_elements(&self.shape) * self.dtype.bytes()) as u64
    }
}

/// The variables of a model.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    infos: Vec<VariableInfo>,
    /// Label and size of every buffer.
    buffers: Vec<(String, u64)>,
}

/// Offsets within an arena; every adapter's binding alignment divides it.
const ARENA_ALIGNMENT: u64 = 256;

impl Variables {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// A variable in a buffer of its own.
    ///
    /// # Panics
    /// When it has no elements.
    #[track_caller]
    pub fn add(&mut self, name: &str, shape: &[usize], dtype: DType) -> VariableId {
        assert!(!shape.contains(&0), "{name} {shape:?} has no elements");
        let info = VariableInfo { name: name.to_owned(), shape: shape.to_vec(), dtype, buffer: self.buffers.len(), offset: 0 };
        self.buffers.push((name.to_owned(), info.bytes()));
        self.infos.push(info);
        VariableId(self.infos.len() - 1)
    }

    /// f32 variables side by side in one buffer, and a vector over all of it, so that one kernel can visit them all.
    /// Returns the vector and, for each member, its variable.
    pub fn add_arena(&mut self, name: &str, members: &[(String, Vec<usize>)]) -> (VariableId, Vec<VariableId>) {
        let buffer = self.buffers.len();
        let mut offset = 0;
        let ids = members
            .iter()
            .map(|(member, shape)| {
                let info = VariableInfo { name: member.clone(), shape: shape.clone(), dtype: DType::F32, buffer, offset };
                offset = (offset + info.bytes()).next_multiple_of(ARENA_ALIGNMENT);
                self.infos.push(info);
                VariableId(self.infos.len() - 1)
            })
            .collect();
        self.buffers.push((name.to_owned(), offset));
        let elements = usize::try_from(offset / 4).expect("an arena that fits the address space");
        self.infos.push(VariableInfo { name: name.to_owned(), shape: vec![elements], dtype: DType::F32, buffer, offset: 0 });
        (VariableId(self.infos.len() - 1), ids)
    }

    /// Bytes that members of these shapes take in an arena.
    pub fn arena_bytes<'a>(shapes: impl IntoIterator<Item = &'a [usize]>) -> u64 {
        shapes.into_iter().map(|s| (stored_elements(s) as u64 * 4).next_multiple_of(ARENA_ALIGNMENT)).sum()
    }

    /// Description of `id`.
    pub fn info(&self, id: VariableId) -> &VariableInfo {
        &self.infos[id.0]
    }

    /// The variable called `name`.
    pub fn find(&self, name: &str) -> Option<VariableId> {
        self.infos.iter().position(|info| info.name == name).map(VariableId)
    }

    /// First element of a member within its arena.
    pub fn arena_element(&self, id: VariableId) -> usize {
        usize::try_from(self.infos[id.0].offset / 4).expect("an arena that fits the address space")
    }

    /// Bytes of all variables.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// The memory of [`Variables`] on a device. All zero at first. Clones share it.
#[derive(Clone)]
pub struct Store {
    variables: Variables,
    buffers: Vec<Buffer>,
}

impl Store {
    /// Allocates every variable.
    pub fn new(gpu: &Gpu, variables: Variables) -> Result<Self> {
        let mut store = Self { variables: Variables::new(), buffers: Vec::new() };
        store.grow(gpu, variables)?;
        Ok(store)
    }

    /// Takes `variables`, which extend the present ones, and allocates what is new.
    pub fn grow(&mut self, gpu: &Gpu, variables: Variables) -> Result<()> {
        for (name, bytes) in &variables.buffers[self.buffers.len()..] {
            self.buffers.push(Buffer::new(gpu, name, *bytes)?);
        }
        self.variables = variables;
        Ok(())
    }

    /// The descriptions.
    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    /// The memory of `id`.
    pub fn binding(&self, id: VariableId) -> Binding {
        let info = self.variables.info(id);
        Binding { buffer: self.buffers[info.buffer].clone(), offset: info.offset, bytes: info.bytes().max(16) }
    }

    /// Overwrites `id` with stored (padded) f32 data.
    ///
    /// # Panics
    /// When `stored` has not the variable's stored length.
    pub fn write(&self, gpu: &Gpu, id: VariableId, stored: &[f32]) -> Result<()> {
        let binding = self.binding(id);
        let info = self.variables.info(id);
        assert_eq!(stored.len(), stored_elements(&info.shape), "{}: wrong length", info.name);
        gpu.write(&binding.buffer, binding.offset, bytemuck::cast_slice(stored))
    }

    /// Reads `id` in stored (padded) form, waiting for all earlier work.
    pub fn read(&self, gpu: &Gpu, id: VariableId) -> Result<Vec<f32>> {
        let binding = self.binding(id);
        let bytes = gpu.read(&binding.buffer, binding.offset, self.variables.info(id).bytes())?;
        Ok(bytemuck::pod_collect_to_vec(&bytes[..usize::try_from(self.variables.info(id).bytes()).expect("a variable that fits the address space")]))
    }
}
