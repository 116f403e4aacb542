//! 2-D convolution (cross-correlation) as an implicit matrix product in NHWC. PyTorch: `torch.nn.functional.conv2d`.
//!
//! Forward: y[n,p,q,o] = Σ x[n, p·stride + r − padding, q·stride + s − padding, i] · w[r,s,i,o].
//! Gradient of the input: the same gather with weights whose channels change places, once per class of input pixels modulo the stride, so no multiply is
//! wasted. Gradient of the weight: a sum over output pixels, dealt out to partial sums that are added in order.
//!
//! Variants: `broadcast`, `broadcast32` and, into few channels, `narrow` for software devices with subgroups of 8, `tile` for GPUs, `plain`
//! everywhere; for activations in f16 also `coop` and `coop128`, on cooperative matrices.

mod kernels;
mod weight;

use self::kernels::Product;
use self::weight::WeightGradient;
use super::groups;
use crate::gpu::{KernelSpec, Params, Specialization};
use crate::graph::{Backward, DType, Graph, Lowering, Node, Op, Recomputes, Tensor, TensorId, Window as Images, pad4};

/// Window of a convolution.
#[derive(Clone, Copy)]
struct Window {
    stride: usize,
    padding: usize,
}

struct Conv2d(Window);
struct InputGradient(Window);

impl Tensor {
    /// Convolution of `self` (N, H, W, C) with `weight` (R, S, C padded to a multiple of 4, O), the same stride and zero padding on all
    /// sides; a matrix (N, C) counts as N single pixels.
    ///
    /// # Panics
    /// When the shapes do not fit.
    #[must_use]
    #[track_caller]
    pub fn conv2d(&self, weight: &Self, stride: usize, padding: usize) -> Self {
        let (shape, w) = (self.shape(), weight.nhwc());
        let channels = *shape.last().expect("a tensor with channels");
        assert!(pad4(channels) == w[2], "conv2d: input {self:?} has {channels} channels, weight {weight:?} expects {}", w[2]);
        let output_shape = match *shape {
            [n, h, width, _] => {
                assert!(h + 2 * padding >= w[0] && width + 2 * padding >= w[1], "conv2d: {weight:?} is larger than the padded {self:?}");
                vec![n, (h + 2 * padding - w[0]) / stride + 1, (width + 2 * padding - w[1]) / stride + 1, w[3]]
            }
            [n, _] => vec![n, w[3]],
            _ => panic!("conv2d: {self:?} is neither an image batch nor a matrix"),
        };
        let output = self.graph().intermediate("conv2d", &output_shape, self.dtype());
        self.graph().record(Conv2d(Window { stride, padding }), &[self, weight], &[&output]);
        output
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        let (x, w, dy) = (cx.input(0), cx.input(1), cx.grad_output());
        let graph = x.graph();
        let dx = cx.needs(0).then(|| {
            let dx = graph.intermediate("grad_input", &x.shape(), x.dtype());
            graph.record(InputGradient(self.0), &[&dy, &w], &[&dx]);
            dx
        });
        let dw = cx.needs(1).then(|| {
            let dw = graph.intermediate("grad_weight", &w.shape(), DType::F32);
            graph.record(WeightGradient(self.0), &[&x, &dy], &[&dw]);
            dw
        });
        vec![dx, dw]
    }

    fn flops(&self, graph: &Graph, node: &Node) -> u64 {
        let output: usize = graph.info(node.outputs[0]).shape.iter().product();
        let w = graph.info(node.inputs[1]).shape.clone();
        let channels = *graph.info(node.inputs[0]).shape.last().unwrap_or(&0);
        (output * w[0] * w[1] * channels) as u64
    }

    fn recomputes(&self) -> Recomputes {
        Recomputes::Dearly
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let Window { stride, padding } = self.0;
        let ([n, h, w, _], [_, p, q, _], [r, s, _, _]) = (cx.nhwc(node.inputs[0]), cx.nhwc(node.outputs[0]), cx.nhwc(node.inputs[1]));
        let grid = Gather {
            grid: [n, p, q],
            output: [p, q],
            out_step: 1,
            out_origin: [0, 0],
            input: [h, w],
            in_step: stride,
            in_origin: [-signed(padding); 2],
            tap_step: 1,
            taps: [r, s],
            first_tap: [0, 0],
            tap_stride: 1,
        };
        gather(cx, "conv2d", &grid, node.inputs[0], &mut Weights::AsStored(node.inputs[1]), node.outputs[0]);
    }
}

impl Op for InputGradient {
    fn name(&self) -> &'static str {
        "conv2d_input_gradient"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![None; cx.inputs()]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let Window { stride, padding } = self.0;
        let ([n, h, w, _], [_, p, q, _], [r, s, _, _]) = (cx.nhwc(node.outputs[0]), cx.nhwc(node.inputs[0]), cx.nhwc(node.inputs[1]));
        let mut weights = Weights::Turned { stored: node.inputs[1], copy: None };
        // Input pixels of one class modulo the stride see the same taps, at neighbouring output pixels.
        for a in 0..stride.min(h) {
            for b in 0..stride.min(w) {
                let first_tap = [(a + padding) % stride, (b + padding) % stride];
                let taps = |k: usize, first: usize| k.saturating_sub(first).div_ceil(stride);
                let grid = Gather {
                    grid: [n, (h - a).div_ceil(stride), (w - b).div_ceil(stride)],
                    output: [h, w],
                    out_step: stride,
                    out_origin: [a, b],
                    input: [p, q],
                    in_step: 1,
                    in_origin: [signed((a + padding) / stride), signed((b + padding) / stride)],
                    tap_step: -1,
                    taps: [taps(r, first_tap[0]), taps(s, first_tap[1])],
                    first_tap,
                    tap_stride: stride,
                };
                gather(cx, "conv2d_input_gradient", &grid, node.inputs[0], &mut weights, node.outputs[0]);
            }
        }
    }
}

/// A row grid, its pixels and its taps: see `shaders/lib/conv2d.wgsl`.
struct Gather {
    grid: [usize; 3],
    output: [usize; 2],
    out_step: usize,
    out_origin: [usize; 2],
    input: [usize; 2],
    in_step: usize,
    in_origin: [i32; 2],
    tap_step: i32,
    taps: [usize; 2],
    first_tap: [usize; 2],
    tap_stride: usize,
}

fn signed(v: usize) -> i32 {
    i32::try_from(v).expect("image sizes fit 31 bits")
}

fn weight_knob(dtype: DType) -> Specialization {
    match dtype {
        DType::F32 => Specialization::default(),
        other => Specialization::default().alias("Weight", other.wgsl()),
    }
}

/// Weights of a gather, (tap, in, out) as stored or with in and out changed places.
enum Weights {
    AsStored(TensorId),
    /// Kernels that cannot turn them while loading share a turned copy, made when the first of them needs it.
    Turned {
        stored: TensorId,
        copy: Option<TensorId>,
    },
}

impl Weights {
    fn stored(&self) -> TensorId {
        let (Self::AsStored(stored) | Self::Turned { stored, .. }) = self;
        *stored
    }

    /// Height and width of the window, channels in, padded, and out.
    fn shape(&self, cx: &Lowering<'_>) -> [usize; 4] {
        let [r, s, i, o] = cx.nhwc(self.stored());
        match self {
            Self::AsStored(_) => [r, s, i, o],
            Self::Turned { .. } => [r, s, pad4(o), i],
        }
    }

    /// What a kernel binds.
    fn bind(&mut self, cx: &mut Lowering<'_>, kernel_turns: bool) -> TensorId {
        match self {
            Self::Turned { stored, copy } if !kernel_turns => *copy.get_or_insert_with(|| turned(cx, *stored)),
            _ => self.stored(),
        }
    }
}

/// A copy of weights (tap, in, out) as (tap, out, in).
fn turned(cx: &mut Lowering<'_>, stored: TensorId) -> TensorId {
    let ([r, s, i, o], dtype) = (cx.nhwc(stored), cx.info(stored).dtype);
    let copy = cx.scratch("turned_weight", &[r, s, pad4(o), i], dtype);
    let (in_quads, out_quads) = (i / 4, o.div_ceil(4));
    let count = r * s * in_quads * out_quads;
    let params = Params::default().u32("count", count).u32("in_quads", in_quads).u32("out_quads", out_quads).u32("splits", 0);
    cx.launch(KernelSpec::new("conv2d_weight", "transpose_blocks").with(weight_knob(dtype)), params, groups(count), &[stored], &[copy]);
    copy
}

/// Launches a gather, window by window of images.
fn gather(cx: &mut Lowering<'_>, op: &str, g: &Gather, input: TensorId, weights: &mut Weights, output: TensorId) {
    for images in cx.windows(g.grid[0], 1, &[input, output]) {
        gather_images(cx, op, g, weights, images, [input, output]);
    }
}

fn gather_images(cx: &mut Lowering<'_>, op: &str, g: &Gather, weights: &mut Weights, images: Images, [input, output]: [TensorId; 2]) {
    let rows = images.count * g.grid[1] * g.grid[2];
    let [_, kernel_w, in_channels, out_channels] = weights.shape(cx);
    let (in_quads, out_quads) = (in_channels / 4, out_channels.div_ceil(4));
    let key = format!("{rows}x{}x{in_channels}x{out_channels}", g.taps[0] * g.taps[1]);
    let dtype = cx.info(input).dtype;
    let product = Product { rows, columns: out_channels, depth: g.taps[0] * g.taps[1] * in_channels, dtype, reduces: false };
    let kernel = product.kernel(cx, op, &key);
    let [tile_rows, tile_quads] = kernel.tile.unwrap_or([1, 1]);
    let column_tiles = out_quads.div_ceil(tile_quads);
    let tiles = rows.div_ceil(tile_rows) * column_tiles;
    let mut knobs = super::element(dtype).and(&weight_knob(cx.info(weights.stored()).dtype)).and(&kernel.knobs);
    if kernel.turns_weights && matches!(weights, Weights::Turned { .. }) {
        knobs = knobs.bool("TURNED", true);
    }
    let weight = weights.bind(cx, kernel.turns_weights);
    let params = Params::default()
        .u32("rows", rows)
        .u32("grid_h", g.grid[1])
        .u32("grid_w", g.grid[2])
        .u32("out_h", g.output[0])
        .u32("out_w", g.output[1])
        .u32("out_step", g.out_step)
        .u32("out_h0", g.out_origin[0])
        .u32("out_w0", g.out_origin[1])
        .u32("in_h", g.input[0])
        .u32("in_w", g.input[1])
        .i32("in_step", signed(g.in_step))
        .i32("in_h0", g.in_origin[0])
        .i32("in_w0", g.in_origin[1])
        .i32("tap_step", g.tap_step)
        .u32("taps_h", g.taps[0])
        .u32("taps_w", g.taps[1])
        .u32("first_h", g.first_tap[0])
        .u32("first_w", g.first_tap[1])
        .u32("tap_stride", g.tap_stride)
        .u32("kernel_w", kernel_w)
        .u32("in_quads", in_quads)
        .u32("out_quads", out_quads)
        .u32("column_tiles", column_tiles)
        .u32("tiles", tiles);
    let launched = if kernel.tile.is_none() { groups(tiles) } else { tiles };
    cx.launch(KernelSpec::new(kernel.shader, "gather").with(knobs), params, launched, &[images.of(input), weight.into()], &[images.of(output)]);
}
