//! Cooperative matrices (tensor cores): which ones an adapter offers to kernels, and how kernels are cut for them.

use super::{MOST_ITERATIONS, Specialization};

/// The matrices that kernels use: square, f16 factors, f32 sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CooperativeMatrix {
    /// Rows, columns and depth of a product: 8 or 16.
    pub tile: u32,
    /// Invocations that share a matrix.
    pub subgroup: u32,
    /// How their numbers can be moved.
    pub access: Access,
    /// Bytes of workgroup memory, at least [`Self::LEAST_MEMORY`].
    pub memory: u32,
}

/// Neighbouring f16 that one access to a kernel's factors moves, in workgroup memory and from buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Four from buffers, one at a time in workgroup memory: Metal loads no matrices from vectors.
    Single,
    /// Four.
    Quads,
    /// Eight, 16 bytes as cards like it, where channels are multiples of 8; else four. Takes SPIR-V of our own (`spirv_repair`).
    Octs,
}

/// How much of a product a workgroup computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductShape {
    /// 64 by 64 sums.
    Small,
    /// 128 by 64 sums: for large products of few columns.
    Tall,
    /// 128 by 128 sums: half the loads a sum, for products large enough to keep a whole card busy.
    Large,
}

impl ProductShape {
    /// All of them, smallest first.
    pub const ALL: [Self; 3] = [Self::Small, Self::Tall, Self::Large];

    /// The variant of a convolution that has it.
    pub fn variant(self) -> &'static str {
        match self {
            Self::Small => "coop",
            Self::Tall => "coop128x64",
            Self::Large => "coop128",
        }
    }

    /// Rows and columns of a workgroup's sums.
    pub fn sides(self) -> [usize; 2] {
        self.sides32().map(|side| side as usize)
    }

    fn sides32(self) -> [u32; 2] {
        match self {
            Self::Small => [64, 64],
            Self::Tall => [128, 64],
            Self::Large => [128, 128],
        }
    }
}

impl CooperativeMatrix {
    /// Bytes of workgroup memory that all kernels fit: no adapter has less.
    pub const LEAST_MEMORY: u32 = 32 << 10;

    /// Features a device must be opened with, on this backend. Vulkan needs its SPIR-V repaired, so passed through, without wgpu's check of what it uses.
    pub(super) fn features(backend: wgpu::Backend) -> wgpu::Features {
        let all = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
        all | if backend == wgpu::Backend::Vulkan { wgpu::Features::PASSTHROUGH_SHADERS } else { wgpu::Features::SUBGROUP_BARRIER }
    }

    /// What kernels may use on `adapter`: the largest square matrices with f16 factors and f32 sums, where workgroups are large enough.
    /// Where subgroups may have several sizes (AMD: 32 and 64), each of them, largest first, and each with the widest access first: what is right
    /// on a driver only running them tells.
    pub(super) fn of(adapter: &wgpu::Adapter) -> Vec<Self> {
        let (info, limits) = (adapter.get_info(), adapter.limits());
        let able = adapter.features().contains(Self::features(info.backend));
        // wgpu gives the range of all of Metal's devices; those with such matrices have 32.
        let [least, most] = if info.backend == wgpu::Backend::Metal { [32; 2] } else { [info.subgroup_min_size, info.subgroup_max_size] };
        let offered = adapter.cooperative_matrix_properties();
        let usable = |tile: u32| {
            offered.iter().any(|p| {
                [p.m_size, p.n_size, p.k_size] == [tile; 3]
                    && p.ab_type == wgpu::CooperativeScalarType::F16
                    && p.cr_type == wgpu::CooperativeScalarType::F32
                    && !p.saturating_accumulation
            })
        };
        let Some(tile) = [16, 8].into_iter().find(|&tile| able && usable(tile)) else { return Vec::new() };
        let sizes = [64, 32, 16, 8].into_iter().filter(|size| (least..=most).contains(size));
        let accesses: &[Access] = if info.backend == wgpu::Backend::Vulkan { &[Access::Octs, Access::Quads] } else { &[Access::Single] };
        let memory = limits.max_compute_workgroup_storage_size;
        sizes.flat_map(|subgroup| accesses.iter().map(move |&access| Self { tile, subgroup, access, memory })).collect()
    }

    /// Subgroups of a workgroup along rows and columns: within 256 invocations. Small subgroups belong to
    /// software devices, whose compilers take long over more than a few matrices each. Of eight subgroups most lie along the columns: left factors take
    /// fewer instructions to load than right ones (Mesa reckons 15 % fewer cycles for it), and a subgroup tallies twice as many rows.
    fn subgroups(self, shape: ProductShape) -> [u32; 2] {
        match (shape, self.subgroup, self.tile) {
            (_, 8, 8) => [8, 4],
            (ProductShape::Small, 8, _) | (ProductShape::Large, 16, 8) => [4, 4],
            (ProductShape::Large, 32, _) => [2, 4],
            (ProductShape::Tall, 8 | 16, _) | (ProductShape::Small, 16, _) | (ProductShape::Large, ..=16, _) => [4, 2],
            _ => [2, 2],
        }
    }

    /// Terms that a workgroup adds between two barriers: many if workgroup memory has room for them, beside what results leave through, and
    /// invocations for those that they bring. On an NVIDIA H200 gathers of 128x128 were 10 % faster with 64 than with 32.
    pub fn depth(self, shape: ProductShape) -> u32 {
        let [rows, columns] = self.subgroups(shape);
        let [height, width] = shape.sides32();
        let right = |depth: u32| (depth * (width + 8)).max(width * (depth + 8));
        let bytes = |depth: u32| 2 * (height * (depth + 8) + right(depth)) + rows * columns * self.tile * (self.tile + 4) * 4;
        let loads = self.loads(height, 64, shape) + self.loads(width, 64, shape);
        if bytes(64) <= self.memory && loads <= 16 { 64 } else { 32 }
    }

    /// vec4s that an invocation brings of so many rows or columns: even numbers.
    fn loads(self, side: u32, depth: u32, shape: ProductShape) -> u32 {
        let [rows, columns] = self.subgroups(shape);
        side * depth / 4 / (self.subgroup * rows * columns)
    }

    /// Neighbouring rows whose results one subgroup has.
    pub fn tallied_rows(self, shape: ProductShape) -> usize {
        (shape.sides32()[0] / self.subgroups(shape)[0]) as usize
    }

    /// Knobs of `shaders/lib/coop.wgsl`.
    pub fn knobs(self, shape: ProductShape) -> Specialization {
        let (tile, [height, width], [rows, columns]) = (self.tile, shape.sides32(), self.subgroups(shape));
        let loads = |side: u32| self.loads(side, self.depth(shape), shape);
        let matrix = |of: &str| format!("coop_mat{tile}x{tile}<{of}>");
        let single = self.access == Access::Single;
        let memory = if single { Specialization::default() } else { Specialization::default().import("coop_scalars", "coop_vectors") };
        memory
            .alias("Left", &matrix("f16,A"))
            .alias("Right", &matrix("f16,B"))
            .alias("Sum", &matrix("f32,C"))
            .u32("TILE", tile)
            .u32("DEPTH", self.depth(shape))
            .u32("LANES", self.subgroup)
            .u32("ROWS", height)
            .u32("COLUMNS", width)
            .u32("SUBGROUP_ROWS", rows)
            .u32("SUBGROUP_COLUMNS", columns)
            .u32("STEP", tile)
            .u32("ROW_TILES", height / rows / tile)
            .u32("COLUMN_TILES", width / columns / tile)
            .u32("LEFT_LOADS", loads(height))
            .u32("RIGHT_LOADS", loads(width))
            .u32("PUTS", (tile * tile / 4).div_ceil(self.subgroup))
    }

    /// Knobs on top of [`Self::knobs`] for factors in f16 whose channels are multiples of 8; none without [`Access::Octs`].
    pub fn octs(self, shape: ProductShape) -> Option<Specialization> {
        let [left, right] = shape.sides32().map(|side| self.loads(side, self.depth(shape), shape));
        let matrix = |role: &str| format!("coop_mat{0}x{0}<f32,{role}>", self.tile);
        (self.access == Access::Octs).then(|| {
            Specialization::default()
                .import("coop_scalars", "coop_octs")
                .import("coop_input", "coop_input_octs")
                .import("input", "input_octs")
                .alias("Left", &matrix("A"))
                .alias("Right", &matrix("B"))
                .alias("LeftPiece", "vec4<u32>")
                .alias("RightPiece", "vec4<u32>")
                .u32("WIDTH", 8)
                .u32("LEFT_LOADS", left / 2)
                .u32("RIGHT_LOADS", right / 2)
        })
    }

    /// The longest sum that one dispatch may compute without any invocation running more than [`MOST_ITERATIONS`].
    pub fn longest_sum(self, shape: ProductShape) -> usize {
        // Of loops only that over slabs is not written out, and that of a tally, which is short.
        (MOST_ITERATIONS - 64) * self.depth(shape) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_are_as_deep_as_memory_allows() {
        let depths =
            |memory: u32| ProductShape::ALL.map(|shape| CooperativeMatrix { tile: 16, subgroup: 32, access: Access::Quads, memory }.depth(shape));
        assert_eq!((depths(CooperativeMatrix::LEAST_MEMORY), depths(48 << 10)), ([64, 32, 32], [64, 32, 64]));
    }
}
