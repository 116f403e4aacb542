//! Which kernels there are for the two products of a convolution, and which of them to use.

use super::winograd::Tiles;
use crate::gpu::{CooperativeMatrix, DeviceKind, ProductShape, Specialization};
use crate::graph::{DType, Lowering};

/// A matrix product that kernels compete for.
pub(super) struct Product {
    /// Pixels, or rows of the weight.
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Terms that must be added in one go: a whole sum, or the segment of pixels it can be cut into.
    pub(super) depth: usize,
    /// Type of the activations.
    pub(super) dtype: DType,
    /// Gradient of a weight: sums over pixels, which can be dealt out to more workgroups.
    pub(super) reduces: bool,
    /// Whether inputs or results of a gather are more than loaded and stored.
    pub(super) fused: bool,
}

/// A kernel for a product.
pub(super) struct Kernel {
    pub(super) shader: &'static str,
    /// Rows and quads of columns of a workgroup; `None` where each invocation has one quad (or one quad by one quad).
    pub(super) tile: Option<[usize; 2]>,
    /// Rows of which a gather tallies its results together; `None` where the host says.
    pub(super) chunk: Option<usize>,
    pub(super) knobs: Specialization,
    /// More knobs for factors in f16 of which eight neighbours can be loaded at a time.
    pub(super) octs: Option<Specialization>,
    /// Terms that it adds in a turn, where it can do without looking whether they are there.
    pub(super) slab: Option<usize>,
    /// Knobs with which it reads weights (tap, out, in) as (tap, in, out), where it can and is told they are turned.
    pub(super) turns_weights: Option<Specialization>,
    /// Pixels to sum at most, give or take a segment, within the loop iterations that every driver allows.
    pub(super) longest_sum: usize,
}

/// Pixels that an invocation of the kernels without cooperative matrices sums at most.
const LONGEST_SUM: usize = 16_384;

/// Workgroups that keep a large card busy.
const BUSY: usize = 256;

/// Registers with which gathers of 8x8 sums an invocation do without memory, according to Mesa's compilers.
const REGISTERS_OF_8X8: u32 = 192;

/// The gather of large tiles for GPUs of few registers.
const LEAN: &str = "lean128x64";

/// Prefix of variants that multiply transformed tiles ([`super::winograd`]) with the kernel whose name follows.
pub(super) const WINOGRAD: &str = "winograd-";

/// Kernels that can multiply transformed tiles, as variants of a convolution.
const WINOGRAD_KERNELS: [&str; 7] = [
    "winograd-broadcast32",
    "winograd-broadcast",
    "winograd-tile128",
    "winograd-tile128x64",
    "winograd-lean128x64",
    "winograd-tile",
    "winograd-plain",
];

impl Kernel {
    /// The kernel of that name: one that [`Product::offered`] gave.
    ///
    /// # Panics
    /// When it gave none of that name.
    pub(super) fn named(name: &str, reduces: bool, matrix: Option<CooperativeMatrix>, depth: usize) -> Self {
        let plain = |shader, tile: Option<[usize; 2]>| Self {
            shader,
            tile,
            chunk: tile.map(|[rows, _]| rows),
            knobs: Specialization::default(),
            octs: None,
            slab: None,
            turns_weights: None,
            longest_sum: LONGEST_SUM,
        };
        let turned = || Specialization::default().bool("TURNED", true);
        let tiled = |shader, tile| Self { slab: Some(16), turns_weights: (!reduces).then(turned), ..plain(shader, Some(tile)) };
        // Its invocations share their weights: it turns them by a parameter.
        let broadcast = |tile| Self { turns_weights: Some(Specialization::default()), ..plain("conv2d_broadcast", Some(tile)) };
        let coop = |matrix: CooperativeMatrix, shape: ProductShape| Self {
            shader: if reduces { "conv2d_weight_coop" } else { "conv2d_coop" },
            tile: Some([shape.sides()[0], shape.sides()[1] / 4]),
            chunk: Some(matrix.tallied_rows(shape)),
            knobs: matrix.knobs(shape),
            octs: matrix.octs(shape),
            slab: Some(matrix.depth(shape) as usize),
            turns_weights: (!reduces).then(turned),
            longest_sum: LONGEST_SUM.min(matrix.longest_sum(shape).saturating_sub(depth)),
        };
        if let (Some(matrix), Some(shape)) = (matrix, ProductShape::ALL.into_iter().find(|shape| shape.variant() == name)) {
            return coop(matrix, shape);
        }
        match (name, reduces, matrix) {
            ("narrow", false, _) => plain("conv2d_narrow", Some([32, 1])),
            ("broadcast", false, _) => broadcast([16, 8]),
            ("broadcast32", false, _) => broadcast([32, 8]),
            ("broadcast", true, _) => plain("conv2d_weight_broadcast", Some([32, 8])),
            ("tile", false, _) => tiled("conv2d_tile", [64, 16]),
            ("tile", true, _) => tiled("conv2d_weight_tile", [64, 16]),
            ("tile128", false, _) => tiled("conv2d_tile128", [128, 32]),
            ("tile128x64", false, _) => {
                Self { knobs: Specialization::default().u32("QUADS", 16).u32("ROW_LOADS", 4), ..tiled("conv2d_tile128", [128, 16]) }
            }
            (LEAN, false, _) => Self { knobs: Specialization::default().u32("QUADS", 16).u32("EACH_QUADS", 1), ..tiled("conv2d_tile128", [128, 16]) },
            ("tile128", true, _) => tiled("conv2d_weight_tile128", [128, 32]),
            ("plain", false, _) => plain("conv2d_plain", None),
            ("plain", true, _) => plain("conv2d_weight_plain", None),
            _ => panic!("there is no convolution kernel {name:?} here"),
        }
    }

    /// Knobs by which it loads eight neighbouring channels at a time, where its factors are such.
    pub(super) fn wide_loads(&self, factors: [DType; 2], channels: [usize; 2]) -> Option<&Specialization> {
        let able = factors == [DType::F16; 2] && channels.iter().all(|c| c.is_multiple_of(8));
        self.octs.as_ref().filter(|_| able)
    }

    /// Knobs for sums of so many terms, all of which are there: without a look for others, where they come in whole slabs.
    pub(super) fn whole_slabs(&self, terms: impl IntoIterator<Item = usize>) -> Specialization {
        let whole = self.slab.is_some_and(|slab| terms.into_iter().all(|n| n.is_multiple_of(slab)));
        if whole { Specialization::default().bool("PADDED", false) } else { Specialization::default() }
    }
}

impl Product {
    /// Chooses a variant for `op` at `shape`: a kernel, or [`WINOGRAD`] and a kernel where there are `tiles` to multiply so.
    pub(super) fn choose(&self, cx: &Lowering<'_>, op: &str, shape: &str, tiles: Option<&Tiles>) -> &'static str {
        let mut offered = self.offered(cx);
        if let Some(tiles) = tiles {
            let variants = tiles.product(self).offered(cx).into_iter().filter_map(|kernel| {
                let variant = WINOGRAD_KERNELS.into_iter().find(|v| v.strip_prefix(WINOGRAD) == Some(kernel))?;
                let tile = Kernel::named(kernel, self.reduces, None, 0).tile;
                tile.is_none_or(|[rows, _]| tiles.group(self).is_multiple_of(rows)).then_some(variant)
            });
            let at = if tiles.pay(cx, self) { 0 } else { offered.len() };
            offered.splice(at..at, variants);
        }
        cx.choose(op, shape, &offered)
    }

    /// Kernels this adapter can run, the likely best first.
    fn offered(&self, cx: &Lowering<'_>) -> Vec<&'static str> {
        let exact = match (cx.caps().kind, cx.caps().subgroup_size) {
            (DeviceKind::Cpu, Some(8)) => [self.broadcasts(), &["plain"], &self.tiles(cx)].concat(),
            (DeviceKind::Cpu, _) => [&["plain"], &*self.tiles(cx)].concat(),
            (_, Some(8)) => [&*self.tiles(cx), self.broadcasts(), &["plain"]].concat(),
            _ => [&*self.tiles(cx), &["plain"]].concat(),
        };
        // Cooperative matrices round their factors to f16: for activations in f16 no loss, for others one that nobody asked for.
        match (self.cooperative(cx), self.dtype) {
            (coop, DType::F16) => [coop, exact].concat(),
            (coop, _) if cx.may_round() => [exact, coop].concat(),
            _ => exact,
        }
    }

    /// Tiles through workgroup memory. The large ones load half as much, where there are enough of them to keep a card busy and not half of their
    /// columns are missing; a weight's gradient is dealt out to as many as it takes. Of two large ones that with fewer columns was 15 % faster on an
    /// NVIDIA H200 over all gathers of a ResNet-50 step: more of its workgroups share a processor. The lean one has half as many sums an invocation.
    fn tiles(&self, cx: &Lowering<'_>) -> Vec<&'static str> {
        let (mut all, columns) = if self.reduces { (vec!["tile128"], 128) } else { (vec!["tile128x64", "tile128", LEAN], 64) };
        if cx.caps().registers < REGISTERS_OF_8X8 {
            all.rotate_right(1);
        }
        let tiles = self.rows.div_ceil(128) * self.columns.div_ceil(columns);
        let fits = self.rows * self.columns * 4 >= tiles * 128 * columns * 3 && (self.reduces || tiles >= BUSY);
        all.insert(if fits { all.len() } else { 0 }, "tile");
        all
    }

    /// The kinds of `broadcast`; their products are the same to the last bit, what they tally of them is not: chunks of rows differ.
    fn broadcasts(&self) -> &'static [&'static str] {
        let (rows, quads) = (self.rows, self.columns.div_ceil(4));
        if self.reduces {
            return &["broadcast"];
        }
        // Few columns, such as the gradient of an image has, would leave most lanes idle. What is computed again without an epilogue takes what it took with it.
        if quads <= 2 && !self.fused {
            return &["narrow", "broadcast", "broadcast32"];
        }
        // Large tiles are a fifth faster; they must not waste as much, and there must be enough of them for all cores.
        let large = rows.div_ceil(32) * 32 * 5 < rows.div_ceil(16) * 16 * 6 && rows.div_ceil(32) * quads.div_ceil(8) >= 16;
        if large { &["broadcast32", "broadcast"] } else { &["broadcast", "broadcast32"] }
    }

    fn cooperative(&self, cx: &Lowering<'_>) -> Vec<&'static str> {
        let Some(matrix) = cx.caps().cooperative_matrix else { return Vec::new() };
        // The largest of which there are enough to keep a card busy, with more than half of its columns; a weight's gradient, which is dealt out to as
        // many as it takes, should fill it.
        let pays = |shape: ProductShape| {
            let [rows, columns] = shape.sides();
            let workgroups = self.rows.div_ceil(rows) * self.columns.div_ceil(columns);
            if self.reduces { self.rows >= rows && self.columns >= columns } else { workgroups >= BUSY && self.columns > columns / 2 }
        };
        let mut all = ProductShape::ALL;
        all.sort_by_key(|shape| (!pays(*shape), std::cmp::Reverse(shape.sides())));
        if !all.iter().any(|shape| pays(*shape)) {
            all.reverse();
        }
        // Segments can be summed apart, but none of them in pieces; and one more than fits may come along.
        let shortest = if self.reduces { 2 * self.depth } else { self.depth };
        all.into_iter().filter(|shape| shortest <= matrix.longest_sum(*shape)).map(ProductShape::variant).collect()
    }
}
