//! Tensors as PyTorch files describe them: views of storages.

use crate::weights::tensor::DType;

/// What a storage holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Plain(DType),
    /// Bytes, whose tensors say their types.
    Untyped,
    /// What, to follow "is" in a sentence, and the bytes of one element.
    Other(&'static str, u64),
}

impl Element {
    /// Of a class such as `FloatStorage`.
    pub fn of_class(name: &str) -> Self {
        match name.strip_suffix("Storage").unwrap_or_default() {
            "Float" => Self::Plain(DType::F32),
            "Double" => Self::Plain(DType::F64),
            "Half" => Self::Plain(DType::F16),
            "BFloat16" => Self::Plain(DType::BF16),
            "Long" => Self::Plain(DType::I64),
            "Int" => Self::Plain(DType::I32),
            "Short" => Self::Plain(DType::I16),
            "Char" => Self::Plain(DType::I8),
            "Byte" => Self::Plain(DType::U8),
            "Bool" => Self::Plain(DType::Bool),
            "Untyped" => Self::Untyped,
            "ComplexFloat" => Self::Other("of complex numbers", 8),
            "ComplexDouble" => Self::Other("of complex numbers", 16),
            "QInt8" | "QUInt8" | "QUInt4x2" | "QUInt2x4" => Self::Other("quantised", 1),
            "QInt32" => Self::Other("quantised", 4),
            _ => Self::Other("of an unknown type", 1),
        }
    }

    /// Bytes of one.
    pub fn size(self) -> u64 {
        match self {
            Self::Plain(dtype) => dtype.size() as u64,
            Self::Untyped => 1,
            Self::Other(_, size) => size,
        }
    }
}

/// A storage, or a part of one that stands for a whole one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Storage {
    pub key: Box<str>,
    pub element: Element,
    /// First element, and how many.
    pub from: u64,
    pub elements: u64,
}

/// A tensor: which elements of which storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// Of the storage.
    pub(super) key: Box<str>,
    /// First byte in the storage that is needed, and how many.
    pub(super) window: (u64, u64),
    /// In elements.
    strides: Vec<usize>,
}

impl Tensor {
    /// A view of a storage; the error says that it reaches beyond it, or is larger than any file.
    pub(super) fn new(storage: &Storage, dtype: DType, offset: u64, shape: Vec<usize>, strides: Vec<usize>) -> Result<Self, String> {
        if shape.len() != strides.len() || shape.len() > 64 {
            return Err(format!("a tensor with {} extents and {} strides", shape.len(), strides.len()));
        }
        let size = dtype.size() as u64;
        let beyond = || format!("a tensor of shape {shape:?} and strides {strides:?} reaches beyond its storage of {} elements", storage.elements);
        let bytes = shape.iter().try_fold(size, |bytes, &extent| bytes.checked_mul(extent as u64)).filter(|bytes| *bytes < 1 << 62);
        let bytes = bytes.ok_or_else(beyond)?;
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(0u64, |last, (&extent, &stride)| last.checked_add((extent.saturating_sub(1) as u64).checked_mul(stride as u64)?));
        let span = if bytes == 0 { 0 } else { last.and_then(|last| last.checked_add(1)).ok_or_else(beyond)? };
        let held = storage.elements.checked_mul(storage.element.size()).ok_or_else(beyond)?;
        let start = offset.checked_mul(size).ok_or_else(beyond)?;
        let length = span.checked_mul(size).ok_or_else(beyond)?;
        if length > 0 && start.checked_add(length).is_none_or(|end| end > held) {
            return Err(beyond());
        }
        let first = storage.from.checked_mul(storage.element.size()).and_then(|from| from.checked_add(start)).ok_or_else(beyond)?;
        // An axis of one element has no stride, whatever is written.
        let strides = shape.iter().zip(strides).map(|(&extent, stride)| if extent > 1 { stride } else { 0 }).collect();
        Ok(Self { dtype, shape, key: storage.key.clone(), window: (first, length), strides })
    }

    /// Bytes of its elements.
    pub fn byte_len(&self) -> u64 {
        self.shape.iter().fold(self.dtype.size() as u64, |bytes, &extent| bytes.saturating_mul(extent as u64))
    }

    /// The elements in row-major order, from the bytes of the window.
    pub(super) fn gather(&self, window: Vec<u8>) -> Vec<u8> {
        let size = self.dtype.size();
        let mut dense = 1;
        let rows = self.shape.iter().zip(&self.strides).rev().all(|(&extent, &stride)| {
            let fits = extent == 1 || stride == dense;
            dense *= extent;
            fits
        });
        let mut bytes = if rows {
            window
        } else {
            let mut bytes = Vec::with_capacity(self.byte_len() as usize);
            let mut index = vec![0usize; self.shape.len()];
            let mut place = 0;
            for _ in 0..self.byte_len() as usize / size {
                bytes.extend_from_slice(&window[place * size..(place + 1) * size]);
                // The next index, last axis first.
                for axis in (0..index.len()).rev() {
                    index[axis] += 1;
                    place += self.strides[axis];
                    if index[axis] < self.shape[axis] {
                        break;
                    }
                    place -= self.strides[axis] * self.shape[axis];
                    index[axis] = 0;
                }
            }
            bytes
        };
        if self.dtype == DType::Bool {
            bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
        }
        bytes
    }
}
