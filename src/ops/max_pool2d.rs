//! Max pooling. PyTorch: `torch.nn.functional.max_pool2d`. Among equal values the first in row-major order takes the gradient.

use super::{groups, kernel_for};
use crate::gpu::Params;
use crate::graph::{Backward, DType, Lowering, Node, Op, Recomputes, Tensor, TensorId, View, pad4};

#[derive(Clone, Copy)]
struct MaxPool2d {
    kernel: usize,
    stride: usize,
    padding: usize,
}
struct MaxPool2dBackward(MaxPool2d);

impl Tensor {
    /// Maximum over square windows of (N, H, W, C).
    ///
    /// # Panics
    /// When the padding exceeds half the window, or the window is wider than 16 or larger than the padded images.
    #[must_use]
    #[track_caller]
    pub fn max_pool2d(&self, kernel: usize, stride: usize, padding: usize) -> Self {
        assert!(kernel > 0 && stride > 0, "max_pool2d: a window of {kernel}x{kernel} at stride {stride} over {self:?}");
        assert!(2 * padding <= kernel, "max_pool2d: padding {padding} exceeds half of kernel {kernel}");
        assert!(kernel <= 16, "max_pool2d: positions in a window of {kernel}x{kernel} have more than 8 bits");
        let [n, h, w, c] = self.nhwc();
        assert!(h.min(w) + 2 * padding >= kernel, "max_pool2d: a window of {kernel}x{kernel} is larger than the padded {self:?}");
        let size = |s: usize| (s + 2 * padding - kernel) / stride + 1;
        let shape = [n, size(h), size(w), c];
        let output = self.graph().intermediate("max_pool2d", &shape, self.dtype());
        // Four values' positions in their windows a word.
        let chosen = self.graph().intermediate("max_pool2d.chosen", &[n, words(shape)], DType::U32);
        self.graph().record(MaxPool2d { kernel, stride, padding }, &[self], &[&output, &chosen]);
        output
    }
}

/// Words of an image's positions.
fn words([_, h, w, c]: [usize; 4]) -> usize {
    h * w * c.div_ceil(4)
}

impl MaxPool2d {
    /// Launches `entry`, whose every invocation writes a `vec4` of `writes[0]`, window by window of images.
    fn launch(self, cx: &mut Lowering<'_>, entry: &'static str, reads: &[TensorId], writes: &[TensorId], [image, pooled]: [TensorId; 2]) {
        let kernel = kernel_for(cx, image, "max_pool2d", entry);
        let (n, vec4s) = (cx.nhwc(image)[0], cx.vec4s(writes[0]));
        for images in cx.windows(n, 1, &[reads, writes].concat()) {
            let count = vec4s / n * images.count;
            let part = |tensors: &[TensorId]| -> Vec<View> { tensors.iter().map(|t| images.of(*t)).collect() };
            cx.launch(kernel.clone(), self.params(cx, image, pooled, count), groups(count), &part(reads), &part(writes));
        }
    }

    fn params(self, cx: &Lowering<'_>, input: TensorId, output: TensorId, count: usize) -> Params {
        let ([_, in_h, in_w, c], [_, out_h, out_w, _]) = (cx.nhwc(input), cx.nhwc(output));
        Params::default()
            .u32("in_h", in_h)
            .u32("in_w", in_w)
            .u32("out_h", out_h)
            .u32("out_w", out_w)
            .u32("quads", c.div_ceil(4))
            .u32("kernel", self.kernel)
            .u32("stride", self.stride)
            .u32("padding", self.padding)
            .u32("count", count)
            .u32("stored", pad4(words(cx.nhwc(output))))
    }
}

impl Op for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        let x = cx.input(0);
        let dx = x.graph().intermediate("max_pool2d", &x.shape(), x.dtype());
        x.graph().record(MaxPool2dBackward(*self), &[&cx.output(1), &cx.grad_output()], &[&dx]);
        vec![Some(dx)]
    }

    fn recomputes(&self) -> Recomputes {
        Recomputes::Cheaply
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        self.launch(cx, "forward", &node.inputs, &node.outputs, [node.inputs[0], node.outputs[0]]);
    }
}

impl Op for MaxPool2dBackward {
    fn name(&self) -> &'static str {
        "max_pool2d_backward"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        self.0.launch(cx, "backward", &node.inputs, &node.outputs, [node.outputs[0], node.inputs[1]]);
    }
}
