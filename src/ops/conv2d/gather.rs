//! Launches of a gather: forward, and the gradient of the input.

use super::kernels::{Kernel, Product, WINOGRAD};
use super::winograd::{Pixels, Tiles};
use super::{signed, weight_knob};
use crate::gpu::{DeviceKind, KernelSpec, MOST_ITERATIONS, Params, Specialization};
use crate::graph::{DType, Fusing, Lowering, TensorId, View, Window as Images, pad4};
use crate::ops::{element, groups};

/// A row grid, its pixels and its taps: see `shaders/lib/conv2d.wgsl`.
pub(super) struct Gather {
    pub(super) grid: [usize; 3],
    pub(super) output: [usize; 2],
    pub(super) out_step: usize,
    pub(super) out_origin: [usize; 2],
    pub(super) input: [usize; 2],
    pub(super) in_step: usize,
    pub(super) in_origin: [i32; 2],
    pub(super) tap_step: i32,
    pub(super) taps: [usize; 2],
    pub(super) first_tap: [usize; 2],
    pub(super) tap_stride: usize,
}

/// What a gather reads.
#[derive(Clone, Copy)]
pub(super) struct Input {
    pub(super) tensor: TensorId,
    /// Moments, gamma and beta, where relu(batch_norm(tensor)) is meant.
    pub(super) norm: Option<[TensorId; 3]>,
}

/// What becomes of the results of a gather besides being written: `shaders/lib/store*.wgsl`.
#[derive(Clone, Copy)]
pub(in crate::ops) enum Epilogue {
    /// Nothing.
    Plain,
    /// Another gradient of the same tensor is added.
    Sum { addend: TensorId },
    /// Moments of each chunk of rows are noted.
    Statistics { chunks: TensorId },
    /// They are gradients of relu?(batch_norm(normalized)): masked, and sums of each chunk of rows noted.
    Gradient { normalized: TensorId, moments: TensorId, gamma: TensorId, beta: TensorId, relu: bool, chunks: TensorId },
    /// The same of joined = relu(batch_norm(normalized) + residual), another gradient added first.
    Join { addend: TensorId, normalized: TensorId, joined: TensorId, moments: TensorId, chunks: TensorId },
}

/// How rows were cut into chunks for sums over the batch: windows of `window_rows` rows, the last of which may have fewer, in chunks of `chunk` rows.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::ops) struct Tallied {
    pub(in crate::ops) rows: usize,
    pub(in crate::ops) chunk: usize,
    pub(in crate::ops) chunks: usize,
    pub(in crate::ops) window_rows: usize,
    pub(in crate::ops) window_chunks: usize,
}

/// Rows of the smallest chunk that a kernel with tiles tallies.
const LEAST_CHUNK: usize = 8;
/// More chunks there may be, because windows and classes of pixels end with a chunk of their own.
const CUT_CHUNKS: usize = 64;

/// Whether a convolution that writes `rows` may note sums of them: the chunks' sums are bound whole, and `finalize` takes all of them by loops that
/// no driver cuts.
pub(in crate::ops) fn can_tally(cx: &Fusing<'_>, rows: TensorId) -> bool {
    let info = cx.info(rows);
    let (channels, pixels) = info.shape.split_last().expect("channels last");
    // Software devices without subgroups of 8 have `plain`, which may tally every row by itself.
    let least = if cx.caps().kind == DeviceKind::Cpu && cx.caps().subgroup_size != Some(8) { 1 } else { LEAST_CHUNK };
    let chunks = pixels.iter().product::<usize>().div_ceil(least) + CUT_CHUNKS;
    let bytes = (2 * chunks * pad4(*channels) * DType::F32.bytes()) as u64;
    bytes <= cx.caps().max_binding_bytes && chunks.div_ceil(64) < MOST_ITERATIONS
}

impl Epilogue {
    /// What it notes goes here.
    pub(super) fn chunks(&self) -> Option<TensorId> {
        match *self {
            Self::Plain | Self::Sum { .. } => None,
            Self::Statistics { chunks } | Self::Gradient { chunks, .. } | Self::Join { chunks, .. } => Some(chunks),
        }
    }

    pub(super) fn reads(&self, images: Images) -> Vec<View> {
        match *self {
            Self::Plain | Self::Statistics { .. } => Vec::new(),
            Self::Sum { addend } => vec![images.of(addend)],
            Self::Gradient { normalized, moments, gamma, beta, .. } => vec![images.of(normalized), moments.into(), gamma.into(), beta.into()],
            Self::Join { addend, normalized, joined, moments, .. } => {
                vec![images.of(addend), images.of(normalized), images.of(joined), moments.into()]
            }
        }
    }

    /// What a kernel writes: its part of `output`, and what is noted.
    pub(super) fn writes(&self, images: Images, output: TensorId) -> Vec<View> {
        [images.of(output)].into_iter().chain(self.chunks().map(View::from)).collect()
    }

    pub(super) fn knobs(&self) -> Specialization {
        let file = |name| Specialization::default().import("store", name);
        match self {
            Self::Plain => Specialization::default(),
            Self::Sum { .. } => file("store_sum"),
            Self::Statistics { .. } => file("store_statistics"),
            Self::Gradient { relu: true, .. } => file("store_gradient"),
            Self::Gradient { .. } => file("store_gradient").bool("RELU", false),
            Self::Join { .. } => file("store_join"),
        }
    }
}

/// Whether a kernel must be able to do more than to load, multiply and store.
fn fuses(input: Input, epilogue: &Epilogue) -> bool {
    input.norm.is_some() || !matches!(epilogue, Epilogue::Plain)
}

/// Knobs of a kernel that reads through `shaders/lib/load*.wgsl`, where that is more than loading.
pub(super) fn load_knobs(normalizes: bool) -> Specialization {
    if normalizes { Specialization::default().import("load", "load_normalized").u32("STORE", 6) } else { Specialization::default() }
}

/// Weights of a gather, (tap, in, out) as stored or with in and out changed places.
pub(super) enum Weights {
    AsStored(TensorId),
    /// Kernels that cannot turn them while loading share a turned copy, made when the first of them needs it.
    Turned {
        stored: TensorId,
        copy: Option<TensorId>,
    },
}

impl Weights {
    pub(super) fn stored(&self) -> TensorId {
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

impl Gather {
    /// A product of a matrix of `rows` rows.
    pub(super) fn matrix(rows: usize) -> Self {
        Self {
            grid: [rows, 1, 1],
            output: [1, 1],
            out_step: 1,
            out_origin: [0, 0],
            input: [1, 1],
            in_step: 1,
            in_origin: [0, 0],
            tap_step: 1,
            taps: [1, 1],
            first_tap: [0, 0],
            tap_stride: 1,
        }
    }

    /// Launches it with the variant that is chosen. Chunks are numbered from `first_chunk` on.
    pub(super) fn lower(
        &self,
        cx: &mut Lowering<'_>,
        op: &str,
        (input, weights, output): (Input, &mut Weights, TensorId),
        (epilogue, first_chunk): (&Epilogue, usize),
    ) -> Tallied {
        let windows = cx.windows(self.grid[0], 1, &[input.tensor, output]);
        let rows = windows[0].count * self.grid[1] * self.grid[2];
        let [_, _, in_channels, out_channels] = weights.shape(cx);
        let taps = self.taps[0] * self.taps[1];
        let dtype = cx.info(input.tensor).dtype;
        let fused = fuses(input, epilogue);
        let product = Product { rows, columns: out_channels, depth: taps * in_channels, dtype, reduces: false, fused };
        let pixels = self.three_by_three();
        let tiles = pixels.as_ref().and_then(|p| Tiles::new(cx, p.outputs, [input.tensor, output, weights.stored()], [in_channels, out_channels]));
        let tiles = tiles.filter(|tiles| epilogue.chunks().is_none() || tiles.can_tally(self.grid));
        let (images, how) = (tiles.as_ref().map_or(String::new(), Tiles::images), if fused { " fused" } else { "" });
        let key = format!("{rows}x{taps}x{in_channels}x{out_channels}{images}{how}");
        let chosen = product.choose(cx, op, &key, tiles.as_ref());
        if let (Some(kernel), Some(tiles), Some(pixels)) = (chosen.strip_prefix(WINOGRAD), tiles, pixels) {
            return tiles.gather(cx, kernel, (input, weights, output), &pixels, (epilogue, first_chunk));
        }
        let kernel = Kernel::named(chosen, false, cx.caps().cooperative_matrix, product.depth);
        self.launch(cx, &kernel, &windows, (input, weights, output), (epilogue, first_chunk), None)
    }

    /// Whether there is one input pixel under every row.
    fn sees_all(&self) -> bool {
        let inside = |d: usize| {
            let last = self.in_origin[d] + signed((self.grid[d + 1] - 1) * self.in_step);
            self.in_origin[d] >= 0 && last < signed(self.input[d])
        };
        self.taps == [1, 1] && inside(0) && inside(1)
    }

    /// What it does with pixels, where its window is 3x3 and has no stride.
    fn three_by_three(&self) -> Option<Pixels> {
        let plain = self.taps == [3, 3] && self.first_tap == [0, 0] && [self.tap_stride, self.in_step, self.out_step] == [1; 3];
        // Backwards, the last tap comes first.
        let origin = if self.tap_step == 1 { self.in_origin[0] } else { self.in_origin[0] - 2 };
        plain.then_some(Pixels { outputs: self.grid, inputs: self.input, origin })
    }

    /// Launches it, window by window of images, with one kernel for all. Where taps are matrices of `groups` of so many rows, it is a product of each
    /// group and its matrix.
    pub(super) fn launch(
        &self,
        cx: &mut Lowering<'_>,
        kernel: &Kernel,
        windows: &[Images],
        (input, weights, output): (Input, &mut Weights, TensorId),
        (epilogue, first_chunk): (&Epilogue, usize),
        group: Option<usize>,
    ) -> Tallied {
        let rows = |images: &Images| images.count * self.grid[1] * self.grid[2];
        let [_, kernel_w, in_channels, out_channels] = weights.shape(cx);
        let (in_quads, out_quads, taps) = (in_channels / 4, out_channels.div_ceil(4), self.taps[0] * self.taps[1]);
        let dtype = cx.info(input.tensor).dtype;
        let knobs = element(dtype).and(&weight_knob(cx.info(weights.stored()).dtype)).and(&kernel.knobs);
        let mut knobs = knobs.and(&load_knobs(input.norm.is_some())).and(&epilogue.knobs());
        if let Some(octs) = kernel.wide_loads([dtype, cx.info(weights.stored()).dtype], [in_channels, out_channels]) {
            knobs = knobs.and(octs);
        }
        if self.sees_all() {
            knobs = knobs.and(&kernel.whole_slabs([in_channels]));
        }
        let turned = kernel.turns_weights.as_ref().filter(|_| matches!(weights, Weights::Turned { .. }));
        if let Some(turned) = turned {
            knobs = knobs.and(turned);
        }
        // More rows an invocation, so that it has something to tally.
        let span =
            if kernel.tile.is_none() && epilogue.chunks().is_some() { (MOST_ITERATIONS / (taps * (in_quads + 1) + 1)).clamp(1, 16) } else { 1 };
        if span > 1 {
            knobs = knobs.u32("SPAN", u32::try_from(span).expect("at most 16"));
        }
        let weight = weights.bind(cx, kernel.turns_weights.is_some());
        let [tile_rows, tile_quads] = kernel.tile.unwrap_or([span, 1]);
        let column_tiles = out_quads.div_ceil(tile_quads);
        let chunk = kernel.chunk.unwrap_or(span);
        let mut tallied = Tallied { rows: 0, chunk, chunks: 0, window_rows: rows(&windows[0]), window_chunks: rows(&windows[0]).div_ceil(chunk) };
        for &images in windows {
            let rows = rows(&images);
            let tiles = rows.div_ceil(tile_rows) * column_tiles;
            let params = self
                .params(rows, kernel_w)
                .u32("in_quads", in_quads)
                .u32("out_quads", out_quads)
                .u32("column_tiles", column_tiles)
                .u32("tiles", tiles)
                .u32("first_chunk", first_chunk + tallied.chunks)
                .u32("tile_rows", tile_rows)
                .u32("turned", usize::from(turned.is_some()))
                .u32("group_rows", group.unwrap_or(u32::MAX as usize));
            let launched = if kernel.tile.is_none() { groups(tiles) } else { tiles };
            let mut reads = vec![images.of(input.tensor), weight.into()];
            reads.extend(input.norm.into_iter().flatten().map(View::from));
            reads.extend(epilogue.reads(images));
            let writes = epilogue.writes(images, output);
            cx.launch(KernelSpec::new(kernel.shader, "gather").with(knobs.clone()), params, launched, &reads, &writes);
            tallied.rows += rows;
            tallied.chunks += rows.div_ceil(chunk);
        }
        tallied
    }

    fn params(&self, rows: usize, kernel_w: usize) -> Params {
        Params::default()
            .u32("rows", rows)
            .u32("grid_h", self.grid[1])
            .u32("grid_w", self.grid[2])
            .u32("out_h", self.output[0])
            .u32("out_w", self.output[1])
            .u32("out_step", self.out_step)
            .u32("out_h0", self.out_origin[0])
            .u32("out_w0", self.out_origin[1])
            .u32("in_h", self.input[0])
            .u32("in_w", self.input[1])
            .i32("in_step", signed(self.in_step))
            .i32("in_h0", self.in_origin[0])
            .i32("in_w0", self.in_origin[1])
            .i32("tap_step", self.tap_step)
            .u32("taps_h", self.taps[0])
            .u32("taps_w", self.taps[1])
            .u32("first_h", self.first_tap[0])
            .u32("first_w", self.first_tap[1])
            .u32("tap_stride", self.tap_stride)
            .u32("kernel_w", kernel_w)
    }
}
