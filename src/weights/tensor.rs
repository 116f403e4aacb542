//! Tensors in memory: of any element type as files hold them, and of 32-bit floats as the program computes with them.
//!
//! Promises: conversions are exact wherever the target type can hold the value (f16 and bf16 to f32, f32 to f64, narrow to wide
//! integers), f64 to f32 rounds to nearest, and no conversion crosses between floats and integers unasked.

use std::borrow::Cow;

// Weight files are little-endian, and tensors are written as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"), "only little-endian machines are supported");

/// A dense row-major tensor of 32-bit floats.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostTensor {
    /// Shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Elements, as many as the shape says.
    pub data: Vec<f32>,
}

impl HostTensor {
    /// A tensor of these elements.
    ///
    /// # Panics
    /// When the number of elements is not what the shape says.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "shape {shape:?} does not fit {} elements", data.len());
        Self { shape, data }
    }

    /// A tensor of zeros.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let data = vec![0.0; shape.iter().product()];
        Self { shape, data }
    }
}

/// Element type of a tensor in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum DType {
    Bool,
    U8,
    I8,
    U16,
    I16,
    F16,
    BF16,
    U32,
    I32,
    F32,
    U64,
    I64,
    F64,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The name safetensors headers use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::U8 => "U8",
            Self::I8 => "I8",
            Self::U16 => "U16",
            Self::I16 => "I16",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::U32 => "U32",
            Self::I32 => "I32",
            Self::F32 => "F32",
            Self::U64 => "U64",
            Self::I64 => "I64",
            Self::F64 => "F64",
        }
    }
}

/// A dense row-major tensor of any element type, as little-endian bytes that are owned or borrowed.
#[derive(Debug, Clone, PartialEq)]
pub struct AnyTensor<'a> {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

/// Splits bytes into arrays of `N` and converts each.
fn each<const N: usize, T>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| convert(chunk)).collect()
}

impl<'a> AnyTensor<'a> {
    /// A tensor of these bytes; `None` when shape and length disagree.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: impl Into<Cow<'a, [u8]>>) -> Option<Self> {
        let bytes = bytes.into();
        let expected = shape.iter().try_fold(dtype.size(), |product, &extent| product.checked_mul(extent))?;
        (expected == bytes.len()).then_some(Self { dtype, shape, bytes })
    }

    fn cast<T: bytemuck::NoUninit>(dtype: DType, shape: &[usize], data: &'a [T]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "shape {shape:?} does not fit {} elements", data.len());
        Self { dtype, shape: shape.to_vec(), bytes: Cow::Borrowed(bytemuck::cast_slice(data)) }
    }

    /// Borrows 32-bit floats. Panics, as the other three do, when the shape does not fit.
    pub fn from_f32(shape: &[usize], data: &'a [f32]) -> Self {
        Self::cast(DType::F32, shape, data)
    }

    /// Borrows 64-bit floats.
    pub fn from_f64(shape: &[usize], data: &'a [f64]) -> Self {
        Self::cast(DType::F64, shape, data)
    }

    /// Borrows 64-bit integers.
    pub fn from_i64(shape: &[usize], data: &'a [i64]) -> Self {
        Self::cast(DType::I64, shape, data)
    }

    /// Borrows bytes.
    pub fn from_u8(shape: &[usize], data: &'a [u8]) -> Self {
        Self::cast(DType::U8, shape, data)
    }

    /// The same tensor without borrowing.
    pub fn into_owned(self) -> AnyTensor<'static> {
        AnyTensor { bytes: Cow::Owned(self.bytes.into_owned()), dtype: self.dtype, shape: self.shape }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements as little-endian bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The elements of any floating-point type as 32-bit floats; the error says what type it is.
    pub fn to_f32(&self) -> Result<Vec<f32>, String> {
        match self.dtype {
            DType::F32 => Ok(each(&self.bytes, f32::from_le_bytes)),
            DType::F16 => Ok(each(&self.bytes, |b| half::f16::from_le_bytes(b).to_f32())),
            DType::BF16 => Ok(each(&self.bytes, |b| half::bf16::from_le_bytes(b).to_f32())),
            DType::F64 => Ok(each(&self.bytes, |b| f64::from_le_bytes(b) as f32)),
            other => Err(format!("holds {}, expected floating-point numbers", other.name())),
        }
    }

    /// The elements of any floating-point type as 64-bit floats.
    pub fn to_f64(&self) -> Result<Vec<f64>, String> {
        match self.dtype {
            DType::F64 => Ok(each(&self.bytes, f64::from_le_bytes)),
            _ => Ok(self.to_f32()?.into_iter().map(f64::from).collect()),
        }
    }

    /// The elements of any integer type as 64-bit integers.
    pub fn to_i64(&self) -> Result<Vec<i64>, String> {
        match self.dtype {
            DType::I64 => Ok(each(&self.bytes, i64::from_le_bytes)),
            DType::I32 => Ok(each(&self.bytes, |b| i32::from_le_bytes(b).into())),
            DType::U32 => Ok(each(&self.bytes, |b| u32::from_le_bytes(b).into())),
            DType::I16 => Ok(each(&self.bytes, |b| i16::from_le_bytes(b).into())),
            DType::U16 => Ok(each(&self.bytes, |b| u16::from_le_bytes(b).into())),
            DType::I8 => Ok(each(&self.bytes, |b| i8::from_le_bytes(b).into())),
            DType::U8 | DType::Bool => Ok(self.bytes.iter().map(|&b| b.into()).collect()),
            other => Err(format!("holds {}, expected integers", other.name())),
        }
    }

    /// The elements of a byte or boolean tensor.
    pub fn to_u8(&self) -> Result<Vec<u8>, String> {
        match self.dtype {
            DType::U8 | DType::Bool => Ok(self.bytes.to_vec()),
            other => Err(format!("holds {}, expected U8", other.name())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_are_exact_and_do_not_cross_kinds() {
        let halves: Vec<u8> = [1.5f32, -0.0, 65504.0].iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect();
        let tensor = AnyTensor::new(DType::F16, vec![3], halves).unwrap();
        assert_eq!(tensor.to_f32().unwrap(), [1.5, -0.0, 65504.0]);
        assert_eq!(tensor.to_f64().unwrap(), [1.5, -0.0, 65504.0]);
        assert!(tensor.to_i64().unwrap_err().contains("F16"));
        let bytes = AnyTensor::from_u8(&[2], &[0, 255]);
        assert_eq!((bytes.to_u8().unwrap(), bytes.to_i64().unwrap()), (vec![0, 255], vec![0, 255]));
        assert!(bytes.to_f32().is_err());
        assert_eq!(AnyTensor::from_i64(&[], &[-7]).to_i64().unwrap(), [-7]);
        assert!(AnyTensor::new(DType::F32, vec![2], vec![0u8; 7]).is_none());
        assert!(AnyTensor::new(DType::F32, vec![usize::MAX, 8], vec![]).is_none());
    }
}
