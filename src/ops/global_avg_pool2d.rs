//! Mean over the pixels of each image: (N, H, W, C) to (N, C), in f32. PyTorch: `torch.nn.AdaptiveAvgPool2d(1)` and flatten.

use super::{groups, kernel_for};
use crate::gpu::{MOST_ITERATIONS, Params};
use crate::graph::{Backward, DType, Lowering, Node, Op, Tensor, TensorId};

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

/// Pixels of a part, where an image has more than an invocation may visit.
const PART: usize = 4_096;

fn params(count: usize, quads: usize, [pixels, parts, part]: [usize; 3], divisor: f32) -> Params {
    let sizes = Params::default().u32("count", count).u32("quads", quads).u32("pixels", pixels);
    sizes.u32("parts", parts).u32("part", part).f32("divisor", divisor)
}

#[expect(clippy::cast_precision_loss, reason = "as in the shader")]
fn real(pixels: usize) -> f32 {
    pixels as f32
}

/// Launches sums over the `parts` parts of each of `n` images' `pixels` in `source`, divided, into
/// `target`.
fn average(cx: &mut Lowering<'_>, (source, pixels): (TensorId, usize), (target, parts): (TensorId, usize), [n, c]: [usize; 2], divisor: f32) {
    let kernel = kernel_for(cx, source, "global_avg_pool2d", "forward");
    for images in cx.windows(n, 1, &[source, target]) {
        let (count, quads) = (images.count * parts * c.div_ceil(4), c.div_ceil(4));
        let params = params(count, quads, [pixels, parts, pixels.div_ceil(parts)], divisor);
        cx.launch(kernel.clone(), params, groups(count), &[images.of(source)], &[images.of(target)]);
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
        let (mut source, mut pixels) = (node.inputs[0], h * w);
        while pixels > MOST_ITERATIONS {
            let parts = pixels.div_ceil(PART);
            let sums = cx.scratch("sums", &[n * parts, c], DType::F32);
            average(cx, (source, pixels), (sums, parts), [n, c], 1.0);
            (source, pixels) = (sums, parts);
        }
        average(cx, (source, pixels), (node.outputs[0], 1), [n, c], real(h * w));
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
            let params = params(count, c.div_ceil(4), [h * w, 1, h * w], real(h * w));
            cx.launch(kernel.clone(), params, groups(count), &[images.of(dy)], &[images.of(dx)]);
        }
    }
}
