//! Winograd's minimal filtering F(4x4, 3x3) for 3x3 windows without stride: a quarter of the products, as 36 matrix products over tiles of 4x4 outputs
//! (Lavin and Gray 2016; `shaders/lib/winograd.wgsl`). It rounds some seven times as much as adding in order does, which is still a hundredth of what
//! TF32 loses, and it pays where tiles are many. Activations and weights are f32.

use super::gather::{Epilogue, Gather, Input, Tallied, Weights};
use super::kernels::{Kernel, Product};
use super::weight::{Geometry, SEGMENT, Splits, onto, sum_room};
use crate::gpu::{DeviceKind, KernelSpec, MOST_ITERATIONS, Params, Specialization};
use crate::graph::{DType, Lowering, TensorId, View, Window as Images, pad4};

/// Outputs of a tile, in height and width.
const TILE: usize = 4;
/// Frequencies of a tile: inputs it sees.
const FREQUENCIES: usize = 36;
/// Loop iterations for a tile of the kernel that transforms a row of them back.
const TILE_ITERATIONS: usize = 11;

/// The tiles of a convolution, and in how many goes they are transformed.
pub(super) struct Tiles {
    /// Of an image, in height and width.
    count: [usize; 2],
    /// Images that are transformed at a time.
    windows: Vec<Images>,
    /// Rows of a frequency in transformed tensors.
    stride: usize,
    /// Channels in and out of the products, padded.
    channels: [usize; 2],
    /// Images, height and width of the outputs.
    outputs: [usize; 3],
}

/// What a transform visits: see `shaders/lib/winograd.wgsl`.
#[derive(Default)]
struct Visit {
    rows: usize,
    /// Tiles, or column quads of all rows of a weight.
    count: usize,
    size: [usize; 2],
    origin: i32,
    splits: usize,
    first_chunk: usize,
    normalizes: bool,
}

/// What a convolution does with pixels.
pub(super) struct Pixels {
    /// Images, and height and width of outputs.
    pub(super) outputs: [usize; 3],
    /// Height and width of inputs.
    pub(super) inputs: [usize; 2],
    /// The input pixel that the first output's window begins with, in height and width.
    pub(super) origin: i32,
}

impl Tiles {
    /// Tiles of 4x4 `outputs` (images, height, width) between two of `tensors` (pixels read and written or read too, and weights), which have so many
    /// `channels` in and out. None where they are not f32, where a transformed tensor would not fit a
    /// binding, or where a row of tiles is longer than a loop may be.
    pub(super) fn new(cx: &Lowering<'_>, outputs: [usize; 3], tensors: [TensorId; 3], channels: [usize; 2]) -> Option<Self> {
        let single = |t: &TensorId| cx.info(*t).dtype == DType::F32;
        let [n, h, w] = outputs;
        let (count, channels) = ([h.div_ceil(TILE), w.div_ceil(TILE)], channels.map(pad4));
        let widest = channels[0].max(channels[1]);
        let row = FREQUENCIES * widest * DType::F32.bytes();
        let cpu = cx.caps().kind == DeviceKind::Cpu;
        let whole = if cpu { 32 } else { 128 };
        let most = (room(cx) / row / whole * whole / (count[0] * count[1])).max(1);
        let windows = cx.windows_of_at_most(n, most, &tensors[..2]);
        let tiles = windows[0].count * count[0] * count[1];
        // Whole tiles of the kernels belong to one frequency.
        let multiple = match tiles {
            ..=16 if cpu => 16,
            ..512 if !cpu => 64,
            _ => whole,
        };
        let stride = tiles.next_multiple_of(multiple);
        let largest = (row * stride).max(FREQUENCIES * channels[0] * channels[1] * DType::F32.bytes()) as u64;
        let short = count[1] * TILE_ITERATIONS < MOST_ITERATIONS;
        (short && tensors.iter().all(single) && largest <= cx.caps().max_binding_bytes).then_some(Self { count, windows, stride, channels, outputs })
    }

    /// The images, for the name of a choice: products of the same size may be made of images with other tiles, or with a stride and none.
    pub(super) fn images(&self) -> String {
        let [n, h, w] = self.outputs;
        format!(" of {n}x{h}x{w}")
    }

    /// The product over tiles in place of `direct`.
    pub(super) fn product(&self, direct: &Product) -> Product {
        let [i, o] = self.channels;
        let (rows, depth) = if direct.reduces { (FREQUENCIES * i, SEGMENT) } else { (FREQUENCIES * self.stride, i) };
        Product { rows, columns: o, depth, dtype: DType::F32, reduces: direct.reduces, fused: true }
    }

    /// Rows of that product that belong to one frequency: whole tiles of a kernel.
    pub(super) fn group(&self, direct: &Product) -> usize {
        if direct.reduces { self.channels[0] } else { self.stride }
    }

    /// Whether it is likely to be faster than any direct kernel.
    pub(super) fn pay(&self, cx: &Lowering<'_>, direct: &Product) -> bool {
        let [i, o] = self.channels;
        let (of_weights, pixels) = (i * o, self.outputs.iter().product::<usize>());
        // With fewer channels the transforms cost as much as they save.
        if i.min(o) < 64 {
            return false;
        }
        match (cx.caps().kind, cx.caps().subgroup_size) {
            (DeviceKind::Cpu, Some(8)) => {}
            (DeviceKind::Cpu, _) => return false,
            // On an NVIDIA H200 a SwAV step of ResNet-50 at batch 64 takes a tenth less time with it everywhere; smaller products were not measured.
            _ => return 9 * pixels * of_weights >= 1 << 30,
        }
        // Costs on lavapipe, in products: a number loaded or stored is as much as 14; what is before and after a sum, as 16 more of its terms; a launch,
        // as a million. Of the direct kernel's nine taps those beyond the edges, one in nine of small images, cost nothing.
        let last = self.windows.last().map_or(0, |w| self.of(*w));
        let tiles = (self.windows.len() - 1) * self.of(self.windows[0]) + last;
        let rows = if direct.reduces { tiles } else { self.windows.len() * self.stride };
        let filtered = FREQUENCIES * rows * (i + 16) * o + 14 * (72 * tiles * i + 52 * tiles * o + 45 * of_weights) + 3_000_000;
        let pixels = if direct.reduces { pixels } else { pixels.next_multiple_of(16) };
        filtered < 8 * pixels * of_weights
    }

    /// Whether rows of tiles do as chunks: not where images are so narrow that there would be more than [`super::can_tally`] reckons with.
    pub(super) fn can_tally(&self, [_, h, w]: [usize; 3]) -> bool {
        self.count[0] * 8 <= h * w
    }

    /// Whether the partial sums of a weight's gradient, at least one a window, fit a binding.
    pub(super) fn can_sum(&self, cx: &Lowering<'_>) -> bool {
        let bytes = self.windows.len() * FREQUENCIES * self.channels[0] * self.channels[1] * DType::F32.bytes();
        bytes as u64 <= cx.caps().max_binding_bytes
    }

    /// Tiles of some images.
    fn of(&self, images: Images) -> usize {
        images.count * self.count[0] * self.count[1]
    }

    /// A transformed tensor.
    fn transformed(&self, cx: &mut Lowering<'_>, name: &str, channels: usize) -> TensorId {
        cx.scratch(name, &[FREQUENCIES * self.stride, channels], DType::F32)
    }

    /// What a transform of `images` of height and width `size` visits, whose tiles begin at `origin`.
    fn visit(&self, images: Images, size: [usize; 2], origin: i32) -> Visit {
        Visit { rows: images.count * size[0] * size[1], count: self.of(images), size, origin, ..Visit::default() }
    }

    fn params(&self, visit: &Visit) -> Params {
        Params::default()
            .u32("rows", visit.rows)
            .u32("tiles_h", self.count[0])
            .u32("tiles_w", self.count[1])
            .u32("count", visit.count)
            .u32("stride", self.stride)
            .u32("height", visit.size[0])
            .u32("width", visit.size[1])
            .i32("origin", visit.origin)
            .u32("in_quads", self.channels[0] / 4)
            .u32("out_quads", self.channels[1] / 4)
            .u32("splits", visit.splits)
            .u32("first_chunk", visit.first_chunk)
            .u32("normalizes", usize::from(visit.normalizes))
            .u32("all", u32::MAX as usize)
    }

    /// Launches Bt x B of the inputs of `images`, normalised first where the input is.
    fn transform_input(&self, cx: &mut Lowering<'_>, input: Input, images: Images, pixels: &Pixels, to: TensorId) {
        let spec = transform(cx, "conv2d_winograd_input", "tiles", Specialization::default());
        let x = images.of(input.tensor);
        let reads: Vec<View> = [x].into_iter().chain(input.norm.map_or([x; 3], |norm| norm.map(View::from))).collect();
        let visit = Visit { normalizes: input.norm.is_some(), ..self.visit(images, pixels.inputs, pixels.origin) };
        cx.launch(spec, self.params(&visit), workgroups(cx, self.of(images) * self.channels[0] / 4), &reads, &[View::from(to)]);
    }

    /// Launches a gather with the kernel `kernel` of the product over tiles. Weights that change places, those of the gradient of the input, are
    /// flipped as well.
    pub(super) fn gather(
        &self,
        cx: &mut Lowering<'_>,
        kernel: &str,
        (input, weights, output): (Input, &Weights, TensorId),
        pixels: &Pixels,
        (epilogue, first_chunk): (&Epilogue, usize),
    ) -> Tallied {
        let kernel = Kernel::named(kernel, false, None, 0);
        let [_, height, width] = pixels.outputs;
        let [i, o] = self.channels;
        let (stored, flipped) = (weights.stored(), matches!(weights, Weights::Turned { .. }));
        let count = i * o / 4;
        let transformed = cx.scratch("transformed_weight", &if flipped { [6, 6, o, i] } else { [6, 6, i, o] }, DType::F32);
        let spec = transform(cx, "conv2d_winograd_weight", "transform", Specialization::default());
        let visit = Visit { count, origin: if flipped { 8 } else { 0 }, ..Visit::default() };
        cx.launch(spec, self.params(&visit), workgroups(cx, count), &[stored], &[transformed]);
        let mut weights = if flipped { Weights::Turned { stored: transformed, copy: None } } else { Weights::AsStored(transformed) };
        let (tiles, products) = (self.transformed(cx, "tiles", i), self.transformed(cx, "products", o));
        let rows = FREQUENCIES * self.stride;
        let chunk = TILE * width;
        let mut tallied = Tallied { rows: 0, chunk, chunks: 0, window_rows: height * width, window_chunks: self.count[0] };
        for &images in &self.windows {
            self.transform_input(cx, input, images, pixels, tiles);
            let product = (Input { tensor: tiles, norm: None }, &mut weights, products);
            Gather::matrix(rows).launch(cx, &kernel, &[Images::whole(rows)], product, (&Epilogue::Plain, 0), Some(self.stride));
            let lines = images.count * self.count[0];
            let visit = Visit { first_chunk: first_chunk + tallied.chunks, ..self.visit(images, [height, width], 0) };
            let spec = transform(cx, "conv2d_winograd_output", "pixels", Specialization::default().u32("STORE", 2).and(&epilogue.knobs()));
            let reads: Vec<View> = [products.into()].into_iter().chain(epilogue.reads(images)).collect();
            cx.launch(spec, self.params(&visit), workgroups(cx, lines * o / 4), &reads, &epilogue.writes(images, output));
            tallied.rows += images.count * height * width;
            tallied.chunks += lines;
        }
        tallied
    }

    /// Launches the gradient `dw` of a weight from the input and the gradient `dy` of the output, with the kernel `kernel` of the product over tiles.
    pub(super) fn reduce(
        &self,
        cx: &mut Lowering<'_>,
        kernel: &str,
        (input, dy, dw): (Input, TensorId, TensorId),
        pixels: &Pixels,
        addend: Option<TensorId>,
    ) {
        let kernel = Kernel::named(kernel, true, None, 0);
        let [_, p, q] = pixels.outputs;
        let [i, o] = self.channels;
        let (x_tiles, dy_tiles) = (self.transformed(cx, "tiles", i), self.transformed(cx, "grad_tiles", o));
        let geometry = Geometry::groups(FREQUENCIES, self.channels, self.stride);
        let room = sum_room(cx) / self.windows.len();
        let parts: Vec<Splits> = self.windows.iter().map(|w| geometry.splits(cx, &kernel, (self.of(*w), SEGMENT), room)).collect();
        let splits = parts.iter().map(|part| part.splits).sum();
        let sums = cx.scratch("partial_sums", &[splits, FREQUENCIES * i, o], DType::F32);
        let knobs = kernel.knobs.clone().and(&kernel.whole_slabs(self.windows.iter().map(|w| self.of(*w)).chain([SEGMENT])));
        let mut first_split = 0;
        for (&images, part) in self.windows.iter().zip(parts) {
            self.transform_input(cx, input, images, pixels, x_tiles);
            let spec = transform(cx, "conv2d_winograd_weight", "grad_output", Specialization::default());
            cx.launch(
                spec,
                self.params(&self.visit(images, [p, q], 0)),
                workgroups(cx, self.of(images) * o / 4),
                &[images.of(dy)],
                &[View::from(dy_tiles)],
            );
            let (params, launched) = geometry.params(&kernel, &part, first_split);
            cx.launch(KernelSpec::new(kernel.shader, "reduce").with(knobs.clone()), params, launched, &[x_tiles, dy_tiles], &[sums]);
            first_split += part.splits;
        }
        let onto = Specialization::default().u32("STORE", 2).and(&onto(addend));
        let reads: Vec<TensorId> = [sums].into_iter().chain(addend).collect();
        let visit = Visit { count: i * o / 4, splits, ..Visit::default() };
        let spec = transform(cx, "conv2d_winograd_weight", "finish", onto);
        cx.launch(spec, self.params(&visit), workgroups(cx, i * o / 4), &reads, &[dw]);
    }
}

/// A kernel that transforms: with loops that stay loops where a processor compiles them.
fn transform(cx: &Lowering<'_>, shader: &'static str, entry: &'static str, knobs: Specialization) -> KernelSpec {
    let knobs = if cx.caps().kind == DeviceKind::Cpu { knobs.import("tile_registers", "tile_shared") } else { knobs };
    KernelSpec::new(shader, entry).with(knobs.u32("LANES", lanes(cx)))
}

/// Invocations of a workgroup of such a kernel: fewer where they keep their tiles in workgroup memory.
fn lanes(cx: &Lowering<'_>) -> u32 {
    if cx.caps().kind == DeviceKind::Cpu { 16 } else { 64 }
}

/// Workgroups of such a kernel for one invocation per item.
fn workgroups(cx: &Lowering<'_>, items: usize) -> usize {
    items.div_ceil(lanes(cx) as usize)
}

/// Bytes that a transformed tensor may take: as many as keep a card busy, or near what a processor's caches hold.
fn room(cx: &Lowering<'_>) -> usize {
    let wanted: u64 = if cx.caps().kind == DeviceKind::Cpu { 32 << 20 } else { 128 << 20 };
    usize::try_from(wanted.min(cx.caps().max_binding_bytes)).expect("at most what is wanted")
}
