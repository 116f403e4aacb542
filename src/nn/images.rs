//! How images reach a network.

use crate::graph::{DType, Graph, Tensor, pad4, stored_elements};
use crate::ops::PixelStatistics;

/// The form in which a network is given its images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Images {
    /// Numbers that are normalised already: f32 (N, H, W, 3), each pixel filled up to four.
    Normalized,
    /// Bytes, which the device normalises, a quarter as many to upload: red, green, blue and one that is not read, pixel by pixel, each image filled up to a
    /// multiple of four pixels.
    Bytes(PixelStatistics),
}

impl Images {
    /// Bytes in which an image of `size` = [height, width] is given.
    pub fn bytes(&self, [height, width]: [usize; 2]) -> usize {
        match self {
            Self::Normalized => stored_elements(&[height, width, 3]) * DType::F32.bytes(),
            Self::Bytes(_) => pad4(height * width) * DType::U32.bytes(),
        }
    }

    /// Images (N, H, W, 3) of a graph, N of them of `size` = [height, width], whose input `name` has this form. Bytes become numbers of type `dtype`; what
    /// are numbers already stay f32.
    pub fn input(&self, graph: &Graph, name: &str, images: usize, [height, width]: [usize; 2], dtype: DType) -> Tensor {
        match self {
            Self::Normalized => graph.input(name, &[images, height, width, 3], DType::F32),
            Self::Bytes(by) => graph.input(name, &[images, height * width], DType::U32).normalize_pixels([height, width], by, dtype),
        }
    }
}
