//! Weight files: every layout that SwAV networks are found in, read and written.
//!
//! * [`load`] reads a network from a safetensors or PyTorch file, whatever program wrote it, under the official SwAV names; [`load_under`]
//!   takes the backbone under a prefix; [`load_classifier`] reads a linear classifier alone.
//! * [`save`] and [`convert`] write torchvision's, the official code's and mmpretrain's layouts.
//! * [`read_safetensors`] and [`write_safetensors`] handle tensors of any meaning and type, [`read_tensors`] those of
//!   PyTorch files too; [`crate::atomic`] writes any file.
//!
//! Promises: files are told by content; a file that is damaged, hostile, incomplete or of no known layout gives one line that names the
//! file and what is wrong, fast and without much memory; nothing in a file is executed; a backbone is complete or refused; what of a file was not used is named.

mod backbones;
mod classifier;
mod layout;
mod load;
mod safetensors;
mod save;
mod source;
mod tensor;
mod torch;
mod unused;
mod whole;

pub use self::classifier::{Classifier, ClassifierFile, HEAD_BACKBONE, HEAD_IMAGES, head_metadata, load_classifier};
pub use self::layout::{Layout, why_unmatched};
pub use self::load::{Checkpoint, load, load_under};
pub use self::safetensors::{MAX_HEADER, TensorFile, read_safetensors, write_safetensors};
pub use self::save::{ConvertSummary, Target, check_output, check_tensor_output, convert, save};
pub use self::source::read_tensors;
pub use self::tensor::{AnyTensor, DType, HostTensor};
pub use self::unused::Unused;

/// Most tensors accepted in a file.
pub const MAX_TENSORS: usize = 20_000;

/// A message that quotes a file, on one line, control characters written out, cut to a bearable length.
fn one_line(message: &str) -> String {
    const LIMIT: usize = 600;
    let mut line = String::new();
    for c in message.chars().take(LIMIT) {
        match c {
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if c.is_control() => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    if message.chars().nth(LIMIT).is_some() {
        line.push('…');
    }
    line
}
