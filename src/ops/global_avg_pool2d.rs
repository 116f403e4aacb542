//! Mean over the pixels of each image: (N, H, W, C) to (N, C), in f32. PyTorch: `torch.nn.AdaptiveAvgPool2d(1)` and flatten.

use super::{groups, kernel_for};
use crate::gpu::Params;
use crate::graph::{Backward, DType, Lowering, Node, Op, Tensor};

struct GlobalAvgPool2d;
struct GlobalAvgPool2dBackward;

impl Tensor {
    /// Mean over height and width.
    #[must_use]
    #[track_caller]
    pub fn global_avg_pool2d(&self) -> Self {
        let [n, _, _, c] = self.nhwc();
        let output = self.graph().intermediate("global_avg_pool2d", &[n, c], DType::F32);
        self.graph().record(GlobalAvgPool2d, &[self], &[&output]);
        output
    }
}

impl Op for GlobalAvgPool2d {
    fn name(&self) -> &'static str {
        "global_avg_pool2d"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        let x = cx.input(0);
        let dx = x.graph().intermediate("global_avg_pool2d", &x.shape(), x.dtype());
        x.graph().record(GlobalAvgPool2dBackward, &[&cx.grad_output()], &[&dx]);
        vec![Some(dx)]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [n, h, w, c] = cx.nhwc(node.inputs[0]);
        let (x, y) = (node.inputs[0], node.outputs[0]);
        let kernel = kernel_for(cx, x, "global_avg_pool2d", "forward");
        for images in cx.windows(n, 1, &[x, y]) {
            let count = images.count * c.div_ceil(4);
            let params = Params::default().u32("count", count).u32("quads", c.div_ceil(4)).u32("pixels", h * w);
            cx.launch(kernel.clone(), params, groups(count), &[images.of(x)], &[images.of(y)]);
        }
    }
}

impl Op for GlobalAvgPool2dBackward {
    fn name(&self) -> &'static str {
        "global_avg_pool2d_backward"
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [n, h, w, c] = cx.nhwc(node.outputs[0]);
        let (dy, dx) = (node.inputs[0], node.outputs[0]);
        let kernel = kernel_for(cx, dx, "global_avg_pool2d", "backward");
        for images in cx.windows(n, 1, &[dy, dx]) {
            let count = images.count * h * w * c.div_ceil(4);
            let params = Params::default().u32("count", count).u32("quads", c.div_ceil(4)).u32("pixels", h * w);
            cx.launch(kernel.clone(), params, groups(count), &[images.of(dy)], &[images.of(dx)]);
        }
    }
}
