//! Gradient of a convolution's weight: a sum over output pixels, dealt out to partial sums that are added in order.

use super::gather::{Input, load_knobs};
use super::kernels::{Kernel, Product, WINOGRAD};
use super::winograd::{Pixels, Tiles};
use super::{Window, normalized_from, signed};
use crate::gpu::{DeviceKind, KernelSpec, Params, Specialization};
use crate::graph::{DType, Fused, Fusing, Lowering, Node, Op, TensorId, View, Window as Images};
use crate::ops::{Rewrite, WORKGROUP, element, groups, wants};
use std::rc::Rc;

/// Reads [x, dy]; where x is to be normalised (and cut off at 0) first, also [moments, gamma, beta]; then another gradient of the weight to add, where
/// there is a `sum`. Writes [dw].
#[derive(Clone, Copy)]
pub(in crate::ops) struct WeightGradient {
    pub(super) window: Window,
    pub(super) normalizes: bool,
    pub(in crate::ops) sum: bool,
}

impl Op for WeightGradient {
    fn name(&self) -> &'static str {
        "conv2d_weight_gradient"
    }

    fn fuse(&self, cx: &Fusing<'_>) -> Option<Fused> {
        let node = cx.node();
        let [x, moments, gamma, beta] = normalized_from(cx, node.inputs[0]).filter(|_| !self.normalizes && !self.sum)?;
        let op = Self { normalizes: true, ..*self };
        let inputs = vec![x, node.inputs[1], moments, gamma, beta];
        wants(cx, Rewrite::WeightGradientInput).then(|| Fused { op: Rc::new(op), inputs, outputs: node.outputs.clone(), replaces: None })
    }

    fn lower(&self, cx: &mut Lowering<'_>, node: &Node) {
        let (x, dy, dw) = (node.inputs[0], node.inputs[1], node.outputs[0]);
        let ([n, h, w, _], [_, p, q, _], [r, s, i, o]) = (cx.nhwc(x), cx.nhwc(dy), cx.nhwc(dw));
        let segment = self.segment([r, s, i, o], q);
        let windows = cx.windows(n, 1, &[x, dy]);
        let dtype = cx.info(x).dtype;
        let norm = self.normalizes.then(|| [2, 3, 4].map(|i| node.inputs[i]));
        let addend = if self.sum { node.inputs.last().copied() } else { None };
        let product = Product { rows: r * s * i, columns: o, depth: segment, dtype, reduces: true, fused: false };
        let minimal = [r, s, self.window.stride] == [3, 3, 1];
        let tiles = if minimal { Tiles::new(cx, [n, p, q], [x, dy, dw], [i, o]) } else { None };
        let tiles = tiles.filter(|tiles| tiles.can_sum(cx));
        let key = format!("{}x{}x{i}x{o}{}", windows[0].count * p * q, r * s, tiles.as_ref().map_or(String::new(), Tiles::images));
        let chosen = product.choose(cx, self.name(), &key, tiles.as_ref());
        if let (Some(kernel), Some(tiles)) = (chosen.strip_prefix(WINOGRAD), tiles) {
            let pixels = Pixels { outputs: [n, p, q], inputs: [h, w], origin: -signed(self.window.padding) };
            return tiles.reduce(cx, kernel, (Input { tensor: x, norm }, dy, dw), &pixels, addend);
        }
        let kernel = Kernel::named(chosen, true, cx.caps().cooperative_matrix, segment);
        self.reduce(cx, &kernel, &windows, (Input { tensor: x, norm }, dy, dw), addend);
    }
}

/// How the pixels of some images are dealt out to partial sums.
#[derive(Clone, Copy)]
pub(super) struct Splits {
    pixels: usize,
    segment: usize,
    segments: usize,
    per_split: usize,
    pub(super) splits: usize,
}

/// Quads of weight rows and of columns that a workgroup (or invocation) computes.
fn tile(kernel: &Kernel) -> [usize; 2] {
    kernel.tile.map_or([1, 1], |[rows, quads]| [rows / 4, quads])
}

/// Bytes that the partial sums of a gradient may take.
pub(super) fn sum_room(cx: &Lowering<'_>) -> usize {
    usize::try_from(MOST_SCRATCH.min(cx.caps().max_binding_bytes)).expect("at most MOST_SCRATCH")
}

/// Knob that adds another gradient of the same weight to what is written.
pub(super) fn onto(addend: Option<TensorId>) -> Specialization {
    if addend.is_some() { Specialization::default().import("store_weight", "store_weight_sum") } else { Specialization::default() }
}

impl WeightGradient {
    /// The same onto another gradient.
    pub(in crate::ops) fn with_sum(self) -> Self {
        Self { sum: true, ..self }
    }

    /// A 1x1 window without stride sees pixels in order: they are cut into even segments instead of image rows.
    fn pointwise(&self, [r, s, ..]: [usize; 4]) -> bool {
        r * s == 1 && self.window.stride == 1 && self.window.padding == 0
    }

    /// Pixels that are summed in one go, of image rows of `out_w`.
    fn segment(&self, weight: [usize; 4], out_w: usize) -> usize {
        if self.pointwise(weight) { SEGMENT } else { out_w }
    }

    /// Launches the gradient `dw` from the input and the gradient `dy` of the output, window by window of images, with one kernel for all.
    fn reduce(
        &self,
        cx: &mut Lowering<'_>,
        kernel: &Kernel,
        windows: &[Images],
        (input, dy, dw): (Input, TensorId, TensorId),
        addend: Option<TensorId>,
    ) {
        let ([_, h, w, _], [_, p, q, _], [r, s, i, o]) = (cx.nhwc(input.tensor), cx.nhwc(dy), cx.nhwc(dw));
        let geometry = self.geometry([h, w], p, [r, s, i, o]);
        let segment = self.segment([r, s, i, o], q);
        let room = sum_room(cx) / windows.len();
        let parts: Vec<Splits> = windows.iter().map(|w| geometry.splits(cx, kernel, (w.count * p * q, segment), room)).collect();
        let splits = parts.iter().map(|part| part.splits).sum();
        let target = if splits == 1 { dw } else { cx.scratch("partial_sums", &[splits, r * s * i, o], DType::F32) };
        // What is added last adds the other gradient too.
        let (at_once, at_last) = if splits == 1 { (addend, None) } else { (None, addend) };
        let mut knobs = element(cx.info(input.tensor).dtype).and(&kernel.knobs).and(&load_knobs(self.normalizes)).and(&onto(at_once));
        if let Some(octs) = kernel.wide_loads([cx.info(input.tensor).dtype, cx.info(dy).dtype], [i, o]) {
            knobs = knobs.and(octs);
        }
        if self.pointwise([r, s, i, o]) {
            // Pixels in order, dealt out by segments.
            knobs = knobs.and(&kernel.whole_slabs(windows.iter().map(|w| w.count * p * q).chain([SEGMENT])));
        }
        let spec = KernelSpec::new(kernel.shader, "reduce").with(knobs);
        let mut first_split = 0;
        for (images, part) in windows.iter().zip(parts) {
            let (params, launched) = geometry.params(kernel, &part, first_split);
            let mut reads = vec![images.of(input.tensor), images.of(dy)];
            reads.extend(input.norm.into_iter().flatten().chain(at_once).map(View::from));
            cx.launch(spec.clone(), params, launched, &reads, &[target]);
            first_split += part.splits;
        }
        if splits > 1 {
            let count = r * s * i * o.div_ceil(4);
            let params = Params::default().u32("count", count).u32("in_quads", 0).u32("out_quads", 0).u32("splits", splits);
            let reads: Vec<TensorId> = [target].into_iter().chain(at_last).collect();
            // Cards are not busy with one invocation a sum; software devices are, and pay for barriers, but where that is nothing against the kernel.
            let alone = cx.caps().kind == DeviceKind::Cpu && kernel.tile.is_some();
            let lanes = if alone { 1 } else { (splits / 4).next_power_of_two().min(16) };
            let knobs = Specialization::default().u32("STORE", 2).u32("LANES", u32::try_from(lanes).expect("at most 16")).and(&onto(at_last));
            cx.launch(KernelSpec::new("conv2d_weight", "sum_splits").with(knobs), params, groups(count * lanes), &reads, &[dw]);
        }
    }

    fn geometry(&self, input: [usize; 2], out_h: usize, weight: [usize; 4]) -> Geometry {
        let Window { stride, padding } = self.window;
        let [r, s, i, o] = weight;
        let (input, out_h) = if self.pointwise(weight) { ([1, SEGMENT], 1) } else { (input, out_h) };
        Geometry { quads: r * s * (i / 4), in_quads: i / 4, out_quads: o.div_ceil(4), kernel_w: s, stride, padding, input, out_h, group_rows: 0 }
    }
}

/// What a sum over pixels reads: see `Reduce` of `shaders/lib/conv2d.wgsl`.
pub(super) struct Geometry {
    quads: usize,
    in_quads: usize,
    out_quads: usize,
    kernel_w: usize,
    stride: usize,
    padding: usize,
    input: [usize; 2],
    out_h: usize,
    group_rows: usize,
}

impl Geometry {
    /// `count` products of matrices that lie one after another, each of `rows` rows.
    pub(super) fn groups(count: usize, [i, o]: [usize; 2], rows: usize) -> Self {
        let (in_quads, out_quads) = (i / 4, o / 4);
        let (quads, input) = (count * in_quads, [1, SEGMENT]);
        Self { quads, in_quads, out_quads, kernel_w: 1, stride: 1, padding: 0, input, out_h: 1, group_rows: rows }
    }

    /// Deals `pixels` out, `segment` at a time. `room`: bytes for the partial sums.
    pub(super) fn splits(&self, cx: &Lowering<'_>, kernel: &Kernel, (pixels, segment): (usize, usize), room: usize) -> Splits {
        let segments = pixels.div_ceil(segment);
        let [tile_quads, tile_columns] = tile(kernel);
        let tiles = self.quads.div_ceil(tile_quads) * self.out_quads.div_ceil(tile_columns);
        let parallel = if kernel.tile.is_none() { tiles / WORKGROUP } else { tiles };
        let wanted = if cx.caps().kind == DeviceKind::Cpu { 16 } else { 512 };
        let affordable = room / (self.quads * self.out_quads * 64).max(1);
        let splits = split_count(segments, segment, affordable, wanted / parallel.max(1), kernel.longest_sum);
        let per_split = segments.div_ceil(splits);
        Splits { pixels, segment, segments, per_split, splits: segments.div_ceil(per_split) }
    }

    /// Parameters of a launch, and its workgroups.
    pub(super) fn params(&self, kernel: &Kernel, part: &Splits, first_split: usize) -> (Params, usize) {
        let [tile_quads, tile_columns] = tile(kernel);
        let column_tiles = self.out_quads.div_ceil(tile_columns);
        let tiles = self.quads.div_ceil(tile_quads) * column_tiles * part.splits;
        let params = Params::default()
            .u32("quads", self.quads)
            .u32("in_quads", self.in_quads)
            .u32("out_quads", self.out_quads)
            .u32("kernel_w", self.kernel_w)
            .u32("stride", self.stride)
            .i32("padding", signed(self.padding))
            .u32("in_h", self.input[0])
            .u32("in_w", self.input[1])
            .u32("out_h", self.out_h)
            .u32("segments", part.segments)
            .u32("segment_pixels", part.segment)
            .u32("pixels", part.pixels)
            .u32("splits", part.splits)
            .u32("first_split", first_split)
            .u32("segments_per_split", part.per_split)
            .u32("column_tiles", column_tiles)
            .u32("tiles", tiles)
            .u32("group_rows", self.group_rows);
        (params, if kernel.tile.is_none() { groups(tiles) } else { tiles })
    }
}

/// Pixels of a segment where the window is a single pixel.
pub(super) const SEGMENT: usize = 64;

/// Bytes that partial sums may take, unless there are more windows of images than that, each with a sum of its own.
const MOST_SCRATCH: u64 = 64 << 20;

/// Partial sums to deal `segments` of `segment` pixels out to: at least `wanted` for parallelism where so many are `affordable`, and always
/// enough that none sums more than `longest` pixels and a segment, which keeps an invocation far below the 65,535 loop iterations that some
/// software drivers allow.
fn split_count(segments: usize, segment: usize, affordable: usize, wanted: usize, longest: usize) -> usize {
    let least = (segments * segment).div_ceil(longest);
    wanted.min(affordable.max(1)).max(least).clamp(1, segments.max(1))
}

#[cfg(test)]
mod tests {
    use super::split_count;

    /// The loops of a weight gradient, over segments and over their pixels, stay below what drivers that cut loops allow.
    #[test]
    fn no_invocation_sums_more_pixels_than_any_driver_allows() {
        for (segments, segment) in [(1, 1), (1, 65_535), (144_400, 1), (760, 190), (4_096 * 112, 112), (1_000_000, 64), (7, 9_000)] {
            for wanted in [0, 1, 16, 1_024] {
                let splits = split_count(segments, segment, 64, wanted, 16_384);
                let per_split: usize = segments.div_ceil(splits);
                assert!((1..=segments).contains(&splits));
                assert!(per_split == 1 || per_split * (segment + 1) < 65_535, "{segments} of {segment}: {per_split} each");
                // A kernel with more to do for each pixel.
                let few = segments.div_ceil(split_count(segments, segment, 64, wanted, 9_000));
                assert!(few == 1 || few * segment < 9_000 + segment, "{segments} of {segment}: {few} each");
            }
        }
    }
}
