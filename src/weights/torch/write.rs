//! Writes the zip files of `torch.save` (PyTorch 1.6 and later).
//!
//! Promises: protocol 2 and only the constructors that `torch.load(…, weights_only=True)` allows; every storage stored uncompressed and
//! aligned to 64 bytes, so that it can be mapped; the same values give the same bytes.

use crate::weights::tensor::{AnyTensor, DType};
use std::io::{Seek, Write};
use zip::result::ZipResult;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// The storages of a file, numbered in the order in which they are added.
#[derive(Default)]
pub(crate) struct Storages<'a>(Vec<AnyTensor<'a>>);

impl<'a> Storages<'a> {
    /// Adds the bytes of a tensor and gives their number.
    pub fn add(&mut self, tensor: &AnyTensor<'a>) -> usize {
        self.0.push(tensor.clone());
        self.0.len() - 1
    }

    /// A whole pickle of what `content` writes.
    pub fn pickle(&self, content: impl FnOnce(&mut Pickle)) -> Vec<u8> {
        let mut pickle = Pickle(vec![0x80, 2]);
        content(&mut pickle);
        pickle.0.push(b'.');
        pickle.0
    }
}

/// A pickle being written. Each method but the containers' pushes one value.
pub(crate) struct Pickle(Vec<u8>);

impl Pickle {
    fn global(&mut self, module: &str, name: &str) {
        self.0.extend(format!("c{module}\n{name}\n").bytes());
    }

    /// A string.
    pub fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.bytes());
    }

    fn int(&mut self, value: usize) {
        match value {
            0..0x100 => self.0.extend([b'K', value as u8]),
            0x100..0x1_0000 => self.0.extend([b'M', value as u8, (value >> 8) as u8]),
            0x1_0000..0x8000_0000 => {
                self.0.push(b'J');
                self.0.extend((value as u32).to_le_bytes());
            }
            // Nine bytes, so that the sign bit is never set.
            _ => {
                self.0.extend([0x8a, 9]);
                self.0.extend((value as u64).to_le_bytes());
                self.0.push(0);
            }
        }
    }

    fn tuple(&mut self, items: impl FnOnce(&mut Self)) {
        self.0.push(b'(');
        items(self);
        self.0.push(b't');
    }

    /// A list of the values that `items` pushes.
    pub fn list(&mut self, items: impl FnOnce(&mut Self)) {
        self.0.extend(b"](");
        items(self);
        self.0.push(b'e');
    }

    /// A dictionary; `items` pushes keys and values in turn.
    pub fn dict(&mut self, items: impl FnOnce(&mut Self)) {
        self.0.extend(b"}(");
        items(self);
        self.0.push(b'u');
    }

    /// A `collections.OrderedDict`; `items` pushes keys and values in turn.
    pub fn ordered_dict(&mut self, items: impl FnOnce(&mut Self)) {
        self.global("collections", "OrderedDict");
        self.0.extend(b")R(");
        items(self);
        self.0.push(b'u');
    }

    /// A contiguous tensor that fills a storage.
    pub fn tensor(&mut self, tensor: &AnyTensor<'_>, storage: usize) {
        let class = match tensor.dtype() {
            DType::Bool => "BoolStorage",
            DType::U8 => "ByteStorage",
            DType::I8 => "CharStorage",
            DType::I16 => "ShortStorage",
            DType::F16 => "HalfStorage",
            DType::BF16 => "BFloat16Storage",
            DType::I32 => "IntStorage",
            DType::F32 => "FloatStorage",
            DType::I64 => "LongStorage",
            DType::F64 => "DoubleStorage",
            DType::U16 | DType::U32 | DType::U64 => unreachable!("no layout has unsigned tensors"),
        };
        let shape = tensor.shape();
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.tuple(|pickle| {
            pickle.tuple(|pickle| {
                pickle.text("storage");
                pickle.global("torch", class);
                pickle.text(&storage.to_string());
                pickle.text("cpu");
                pickle.int(shape.iter().product());
            });
            pickle.0.push(b'Q');
            pickle.int(0);
            pickle.tuple(|pickle| shape.iter().for_each(|&extent| pickle.int(extent)));
            pickle.tuple(|pickle| (0..shape.len()).for_each(|axis| pickle.int(shape[axis + 1..].iter().product())));
            pickle.0.push(0x89);
            pickle.global("collections", "OrderedDict");
            pickle.0.extend(b")R");
        });
        self.0.push(b'R');
    }
}

/// Writes a pickle and its storages as a zip file.
pub(crate) fn write_torch(file: impl Write + Seek, pickle: &[u8], storages: &Storages) -> ZipResult<()> {
    let mut zip = ZipWriter::new(file);
    if let Err(error) = members(&mut zip, pickle, storages) {
        // Dropped unfinished, it would try once more, and print why that fails.
        std::mem::forget(zip);
        return Err(error);
    }
    zip.finish().map(drop)
}

fn members<W: Write + Seek>(zip: &mut ZipWriter<W>, pickle: &[u8], storages: &Storages) -> ZipResult<()> {
    let mut member = |name: &str, bytes: &[u8]| {
        let large = bytes.len() >= u32::MAX as usize;
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).with_alignment(64).large_file(large);
        zip.start_file(format!("archive/{name}"), options)?;
        zip.write_all(bytes)?;
        ZipResult::Ok(())
    };
    member("data.pkl", pickle)?;
    member("byteorder", b"little")?;
    for (key, tensor) in storages.0.iter().enumerate() {
        member(&format!("data/{key}"), tensor.bytes())?;
    }
    member("version", b"3\n")
}
