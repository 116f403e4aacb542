//! Images as bytes to what a network reads: (x / 255 − mean) / std per channel. torchvision: `transforms.ToTensor`, `transforms.Normalize`.

use super::{groups, kernel_for};
use crate::gpu::Params;
use crate::graph::{DType, Lowering, Node, Op, Recomputes, Tensor, pad4};

/// Mean and deviation of pixels, as torchvision's `Normalize` takes them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelStatistics {
    /// Means of red, green, blue in 0..=1.
    pub mean: [f32; 3],
    /// Standard deviations in the same unit.
    pub std: [f32; 3],
}

impl PixelStatistics {
    /// What `level` of a channel (0 red, 1 green, 2 blue) becomes.
    pub fn normalized(&self, level: u8, channel: usize) -> f32 {
        (f32::from(level) / 255.0 - self.mean[channel]) / self.std[channel]
    }
}

/// Reads [pixels, levels].
struct NormalizePixels {
    image: usize,
}

impl Tensor {
    /// Images (N, H, W, 3) of type `dtype` from their bytes: (N, H·W) of type u32, pixel by pixel red, green, blue and one that is not read, from the lowest
    /// byte on. No gradient.
    ///
    /// # Panics
    /// When there are not `height` times `width` pixels an image.
    #[must_use]
    #[track_caller]
    pub fn normalize_pixels(&self, [height, width]: [usize; 2], by: &PixelStatistics, dtype: DType) -> Self {
        let [images, image] = self.rows_columns();
        assert_eq!((self.dtype(), image), (DType::U32, height * width), "normalize_pixels: {self:?} as images of {height}x{width}");
        let level = |level: u8| [by.normalized(level, 0), by.normalized(level, 1), by.normalized(level, 2), 0.0];
        let table: Vec<f32> = (0..=255).flat_map(level).collect();
        let levels = self.graph().constant("levels of pixels", &[256, 4], DType::F32, bytemuck::cast_slice(&table));
        let output = self.graph().intermediate("images", &[images, height, width, 3], dtype);
        self.graph().record(NormalizePixels { image }, &[self, &levels], &[&output]);
        output
    }
}

impl Op for NormalizePixels {
    fn name(&self) -> &'static str {
        "normalize_pixels"
    }

    fn recomputes(&self) -> Recomputes {
        Recomputes::Cheaply
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let (pixels, levels, output) = (node.inputs[0], node.inputs[1], node.outputs[0]);
        let kernel = kernel_for(cx, output, "normalize_pixels", "forward");
        for images in cx.windows(cx.shape(pixels)[0], 1, &[pixels, output]) {
            let count = images.count * self.image;
            let params = Params::default().u32("count", count).u32("image", self.image).u32("stored", pad4(self.image));
            cx.launch(kernel.clone(), params, groups(count), &[images.of(pixels), levels.into()], &[images.of(output)]);
        }
    }
}
