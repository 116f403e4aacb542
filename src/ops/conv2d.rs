//! 2-D convolution (cross-correlation) as an implicit matrix product in NHWC. PyTorch: `torch.nn.functional.conv2d`.
//!
//! Forward: y[n,p,q,o] = Σ x[n, p·stride + r − padding, q·stride + s − padding, i] · w[r,s,i,o].
//! Gradient of the input: the same gather with transposed weights, once per class of input pixels modulo the stride, so no multiply is
//! wasted. Gradient of the weight: a sum over output pixels, dealt out to partial sums that are added in order.
//!
//! Variants: `broadcast`, `broadcast32` and, into few channels, `narrow` for software devices with subgroups of 8, `tile` for GPUs, `plain` everywhere.

use super::groups;
use crate::gpu::{KernelSpec, Params, Specialization};
use crate::graph::{Backward, DType, Graph, Lowering, Node, Op, Tensor, TensorId, pad4};

/// Window of a convolution.
#[derive(Clone, Copy)]
struct Window {
    stride: usize,
    padding: usize,
}

struct Conv2d(Window);
struct Transpose;
struct InputGradient(Window);
struct WeightGradient(Window);

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
            let [r, s, i, o] = w.nhwc();
            let transposed = graph.intermediate("transposed_weight", &[r, s, pad4(o), i], w.dtype());
            graph.record(Transpose, &[&w], &[&transposed]);
            let dx = graph.intermediate("grad_input", &x.shape(), x.dtype());
            graph.record(InputGradient(self.0), &[&dy, &transposed], &[&dx]);
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
        gather(cx, "conv2d", &grid, node.inputs[0], node.inputs[1], node.outputs[0]);
    }
}

impl Op for Transpose {
    fn name(&self) -> &'static str {
        "transpose_weight"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![None; cx.inputs()]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let [r, s, i, o] = cx.nhwc(node.inputs[0]);
        let (in_quads, out_quads) = (i / 4, o.div_ceil(4));
        let count = r * s * in_quads * out_quads;
        let params = Params::default().u32("count", count).u32("in_quads", in_quads).u32("out_quads", out_quads).u32("splits", 0);
        let kernel = KernelSpec::new("conv2d_weight", "transpose_blocks").with(weight_knob(cx.info(node.inputs[0]).dtype));
        cx.launch(kernel, params, groups(count), &node.inputs, &node.outputs);
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
                gather(cx, "conv2d_input_gradient", &grid, node.inputs[0], node.inputs[1], node.outputs[0]);
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

/// Kernel variants this adapter can run, the likely best first.
fn offered(cx: &Lowering<'_>) -> Vec<&'static str> {
    use crate::gpu::DeviceKind;
    match (cx.caps().kind, cx.caps().subgroup_size) {
        (DeviceKind::Cpu, Some(8)) => vec!["broadcast", "plain", "tile"],
        (DeviceKind::Cpu, _) => vec!["plain", "tile"],
        (_, Some(8)) => vec!["tile", "broadcast", "plain"],
        _ => vec!["tile", "plain"],
    }
}

/// As [`offered`] for `rows` by `columns` quads, with the kinds of `broadcast` that gather has; their results are the same to the last bit.
fn gathers(cx: &Lowering<'_>, rows: usize, columns: usize) -> Vec<&'static str> {
    // Few columns, such as the gradient of an image has, would leave most lanes idle.
    let narrow = columns <= 2;
    // Large tiles are a fifth faster; they must not waste as much, and there must be enough of them for all cores.
    let large = rows.div_ceil(32) * 32 * 5 < rows.div_ceil(16) * 16 * 6 && rows.div_ceil(32) * columns.div_ceil(8) >= 16;
    let kinds: &[&str] = if narrow {
        &["narrow", "broadcast"]
    } else if large {
        &["broadcast32", "broadcast"]
    } else {
        &["broadcast", "broadcast32"]
    };
    let all = offered(cx);
    all.into_iter().flat_map(|name| if name == "broadcast" { kinds.to_vec() } else { vec![name] }).collect()
}

fn gather(cx: &mut Lowering<'_>, op: &str, g: &Gather, input: TensorId, weight: TensorId, output: TensorId) {
    let rows = g.grid.iter().product::<usize>();
    let [_, _, in_channels, out_channels] = cx.nhwc(weight);
    let (in_quads, out_quads) = (in_channels / 4, out_channels.div_ceil(4));
    let kernel_w = cx.nhwc(weight)[1];
    let key = format!("{rows}x{}x{in_channels}x{out_channels}", g.taps[0] * g.taps[1]);
    let (shader, tile_rows, tile_quads) = match cx.choose(op, &key, &gathers(cx, rows, out_quads)) {
        "narrow" => ("conv2d_narrow", 32, 1),
        "broadcast" => ("conv2d_broadcast", 16, 8),
        "broadcast32" => ("conv2d_broadcast", 32, 8),
        "tile" => ("conv2d_tile", 64, 16),
        _ => ("conv2d_plain", 1, 1),
    };
    let column_tiles = out_quads.div_ceil(tile_quads);
    let tiles = rows.div_ceil(tile_rows) * column_tiles;
    let dtype = cx.info(input).dtype;
    let mut knobs = weight_knob(cx.info(weight).dtype);
    if dtype != DType::F32 {
        knobs = knobs.alias("Element", dtype.wgsl());
    }
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
    if tile_rows == 32 && shader == "conv2d_broadcast" {
        knobs = knobs.u32("ROWS", 32);
    }
    let groups = if shader == "conv2d_plain" { groups(tiles) } else { tiles };
    cx.launch(KernelSpec::new(shader, "gather").with(knobs), params, groups, &[input, weight], &[output]);
}

impl Op for WeightGradient {
    fn name(&self) -> &'static str {
        "conv2d_weight_gradient"
    }

    fn differentiate(&self, cx: &Backward<'_>) -> Vec<Option<Tensor>> {
        vec![None; cx.inputs()]
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let (x, dy, dw) = (node.inputs[0], node.inputs[1], node.outputs[0]);
        let ([n, h, w, _], [_, p, q, _], [r, s, i, o]) = (cx.nhwc(x), cx.nhwc(dy), cx.nhwc(dw));
        let Window { stride, padding } = self.0;
        let (in_quads, out_quads, quads, pixels) = (i / 4, o.div_ceil(4), r * s * (i / 4), n * p * q);
        // A 1x1 window without stride sees pixels in order: cut them into even segments instead of image rows.
        let pointwise = r * s == 1 && stride == 1 && padding == 0;
        let (in_h, in_w, out_h, segment) = if pointwise { (1, SEGMENT, 1, SEGMENT) } else { (h, w, p, q) };
        let segments = pixels.div_ceil(segment);
        let key = format!("{pixels}x{}x{i}x{o}", r * s);
        let (shader, tile_quads, tile_columns) = match cx.choose(self.name(), &key, &offered(cx)) {
            "broadcast" => ("conv2d_weight_broadcast", 8, 8),
            "tile" => ("conv2d_weight_tile", 16, 16),
            _ => ("conv2d_weight_plain", 1, 1),
        };
        let column_tiles = out_quads.div_ceil(tile_columns);
        let row_tiles = quads.div_ceil(tile_quads);
        let wanted = if cx.caps().kind == crate::gpu::DeviceKind::Cpu { 16 } else { 1024 };
        let parallel = if shader == "conv2d_weight_plain" { row_tiles * column_tiles / super::WORKGROUP } else { row_tiles * column_tiles };
        let splits = split_count(segments, segment, quads * out_quads * 64, wanted / parallel.max(1));
        let per_split = segments.div_ceil(splits);
        let splits = segments.div_ceil(per_split);
        let tiles = row_tiles * column_tiles * splits;
        let target = if splits == 1 { dw } else { cx.scratch("partial_sums", &[splits, r * s * i, o], DType::F32) };
        let params = Params::default()
            .u32("quads", quads)
            .u32("in_quads", in_quads)
            .u32("out_quads", out_quads)
            .u32("kernel_w", s)
            .u32("stride", stride)
            .i32("padding", signed(padding))
            .u32("in_h", in_h)
            .u32("in_w", in_w)
            .u32("out_h", out_h)
            .u32("segments", segments)
            .u32("segment_pixels", segment)
            .u32("pixels", pixels)
            .u32("splits", splits)
            .u32("segments_per_split", per_split)
            .u32("column_tiles", column_tiles)
            .u32("tiles", tiles);
        let launched = if shader == "conv2d_weight_plain" { groups(tiles) } else { tiles };
        let kernel = super::kernel_for(cx, x, shader, "reduce");
        cx.launch(kernel, params, launched, &[x, dy], &[target]);
        if splits > 1 {
            let count = quads * 4 * out_quads;
            let params = Params::default().u32("count", count).u32("in_quads", 0).u32("out_quads", 0).u32("splits", splits);
            cx.launch(KernelSpec::new("conv2d_weight", "sum_splits"), params, groups(count), &[target], &[dw]);
        }
    }
}

/// Pixels of a segment where the window is a single pixel.
const SEGMENT: usize = 64;

/// Partial sums to deal `segments` of `segment` pixels out to: at least `wanted` for parallelism within 64 MiB of scratch, and always
/// enough to keep an invocation far below the 65,535 loop iterations that some software drivers allow.
fn split_count(segments: usize, segment: usize, bytes: usize, wanted: usize) -> usize {
    const MOST_PIXELS: usize = 16_384;
    let least = (segments * segment).div_ceil(MOST_PIXELS);
    let affordable = ((64 << 20) / bytes.max(1)).max(1);
    wanted.min(affordable).max(least).clamp(1, segments.max(1))
}

#[cfg(test)]
mod tests {
    use super::split_count;

    /// The loops of a weight gradient, over segments and over their pixels, stay below what drivers that cut loops allow.
    #[test]
    fn no_invocation_sums_more_pixels_than_any_driver_allows() {
        for (segments, segment) in [(1, 1), (1, 65_535), (144_400, 1), (760, 190), (4_096 * 112, 112), (1_000_000, 64), (7, 9_000)] {
            for wanted in [0, 1, 16, 1_024] {
                let splits = split_count(segments, segment, 1 << 20, wanted);
                let per_split: usize = segments.div_ceil(splits);
                assert!((1..=segments).contains(&splits));
                assert!(per_split == 1 || per_split * (segment + 1) < 65_535, "{segments} of {segment}: {per_split} each");
            }
        }
    }
}
