//! Do cooperative matrices compute right here? Drivers are young, and an order that a barrier should make but does not goes wrong only now
//! and then: the kernels themselves run several times on random factors, and every result must be that of the plain kernels.

use super::{Binding, Buffer, CooperativeMatrix, Dispatch, Gpu, KernelSpec, Params, ProductShape, Recording, Specialization, UploadRing, grid_fold};
use crate::error::Result;
use half::f16;

/// Runs of each kernel.
const RUNS: usize = 20;

// Sizes past the edges of workgroups (64, 128) and slabs (32, 64) on every side, in vec4s but for the pixels: even numbers, so that eight values may be moved at a time.
const PIXELS: usize = 203;
const IN_QUADS: usize = 38;
const OUT_QUADS: usize = 34;
// The same where slabs are whole, so that kernels need not look for what is missing.
const WHOLE_PIXELS: usize = 192;
const WHOLE_IN_QUADS: usize = 32;

/// Whether what is summed (channels in, or pixels) ends in the middle of a slab.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slabs {
    Cut,
    Whole,
}

impl Slabs {
    fn in_quads(self) -> usize {
        if self == Self::Whole { WHOLE_IN_QUADS } else { IN_QUADS }
    }

    fn pixels(self) -> usize {
        if self == Self::Whole { WHOLE_PIXELS } else { PIXELS }
    }

    fn knobs(self) -> Specialization {
        if self == Self::Whole { Specialization::default().bool("PADDED", false) } else { Specialization::default() }
    }
}

/// Why kernels on cooperative matrices cannot be trusted on this device. `fault` is added to their knobs.
pub(super) fn fault(gpu: &Gpu, matrix: CooperativeMatrix, fault: &Specialization) -> Option<String> {
    let tests = |(shape, knobs, slabs): (ProductShape, Specialization, [Slabs; 2])| {
        let (knobs, rows) = (knobs.and(fault), matrix.tallied_rows(shape));
        [forward(shape, &knobs, slabs[0]).with_statistics(rows), input_gradient(shape, &knobs, slabs[1]), weight_gradient(shape, &knobs, slabs[0])]
    };
    // All shapes with the widest access there is; the smallest with 8 bytes at a time, which few layers need, and slabs the other way round, because
    // software devices take a second to compile each.
    let wide = |shape| {
        let knobs = matrix.octs(shape).map_or_else(|| matrix.knobs(shape), |octs| matrix.knobs(shape).and(&octs));
        (shape, knobs, [Slabs::Cut, Slabs::Whole])
    };
    let small = (ProductShape::Small, matrix.knobs(ProductShape::Small), [Slabs::Whole, Slabs::Cut]);
    let tests: Vec<Test> = ProductShape::ALL.into_iter().map(wide).chain([small]).flat_map(tests).collect();
    let failed = |e: crate::Error| Some(e.to_string());
    // Built side by side; what cannot be is named by the test that needs it.
    let _ = gpu.kernels(&tests.iter().map(|test| &test.tested.0).collect::<Vec<_>>());
    tests.iter().find_map(|test| test.run(gpu).unwrap_or_else(failed))
}

/// A 1x1 convolution of one row of pixels.
fn forward(shape: ProductShape, knobs: &Specialization, slabs: Slabs) -> Test {
    let in_quads = slabs.in_quads();
    let tiles = |rows: usize, quads: usize| [OUT_QUADS.div_ceil(quads), PIXELS.div_ceil(rows) * OUT_QUADS.div_ceil(quads)];
    let params = |[column_tiles, tiles]: [usize; 2]| {
        let row =
            [("rows", PIXELS), ("grid_h", 1), ("grid_w", PIXELS), ("out_h", 1), ("out_w", PIXELS), ("out_step", 1), ("out_h0", 0), ("out_w0", 0)];
        let row = row.into_iter().chain([("in_h", 1), ("in_w", PIXELS)]).fold(Params::default(), |p, (name, value)| p.u32(name, value));
        let row = row.i32("in_step", 1).i32("in_h0", 0).i32("in_w0", 0).i32("tap_step", 1);
        let taps = [("taps_h", 1), ("taps_w", 1), ("first_h", 0), ("first_w", 0), ("tap_stride", 1), ("kernel_w", 1)];
        let sizes = [("in_quads", in_quads), ("out_quads", OUT_QUADS), ("column_tiles", column_tiles), ("tiles", tiles), ("first_chunk", 0)];
        let choices = [("tile_rows", 0), ("turned", 0), ("group_rows", u32::MAX as usize)];
        taps.into_iter().chain(sizes).chain(choices).fold(row, |p, (name, value)| p.u32(name, value))
    };
    let types = Specialization::default().alias("Element", "f16").alias("Weight", "f16");
    let plain = tiles(1, 1);
    Test {
        factors: [PIXELS * in_quads, 4 * in_quads * OUT_QUADS],
        turned: None,
        tallied_rows: None,
        products: PIXELS * OUT_QUADS * 4,
        oracle: (KernelSpec::new("conv2d_plain", "gather").with(types.clone()), params(plain), plain[1].div_ceil(64)),
        tested: {
            let [rows, columns] = shape.sides();
            let tiles = tiles(rows, columns / 4);
            (KernelSpec::new("conv2d_coop", "gather").with(types.and(knobs).and(&slabs.knobs())), params(tiles), tiles[1])
        },
        half: true,
    }
}

/// The same with weights in the other order, as the gradient of an input has them.
fn input_gradient(shape: ProductShape, knobs: &Specialization, slabs: Slabs) -> Test {
    let test = forward(shape, &knobs.clone().bool("TURNED", true), slabs);
    Test { turned: Some([4 * slabs.in_quads(), 4 * OUT_QUADS]), ..test }
}

/// The gradient of its weight.
fn weight_gradient(shape: ProductShape, knobs: &Specialization, slabs: Slabs) -> Test {
    const SEGMENT: usize = 64;
    let pixels = slabs.pixels();
    let tiles = |rows: usize, columns: usize| [OUT_QUADS.div_ceil(columns), IN_QUADS.div_ceil(rows) * OUT_QUADS.div_ceil(columns)];
    let params = |[column_tiles, tiles]: [usize; 2]| {
        let segments = pixels.div_ceil(SEGMENT);
        let window = Params::default().u32("quads", IN_QUADS).u32("in_quads", IN_QUADS).u32("out_quads", OUT_QUADS).u32("kernel_w", 1);
        let sizes = [("in_h", 1), ("in_w", SEGMENT), ("out_h", 1), ("segments", segments), ("segment_pixels", SEGMENT), ("pixels", pixels)];
        let splits = [
            ("splits", 1),
            ("first_split", 0),
            ("segments_per_split", segments),
            ("column_tiles", column_tiles),
            ("tiles", tiles),
            ("group_rows", 0),
        ];
        let window = window.u32("stride", 1).i32("padding", 0);
        sizes.into_iter().chain(splits).fold(window, |p, (name, value)| p.u32(name, value))
    };
    let types = Specialization::default().alias("Element", "f16");
    let plain = tiles(1, 1);
    Test {
        factors: [pixels * IN_QUADS, pixels * OUT_QUADS],
        turned: None,
        tallied_rows: None,
        products: 4 * IN_QUADS * OUT_QUADS * 4,
        oracle: (KernelSpec::new("conv2d_weight_plain", "reduce").with(types.clone()), params(plain), plain[1].div_ceil(64)),
        tested: {
            let [rows, columns] = shape.sides();
            let tiles = tiles(rows / 4, columns / 4);
            (KernelSpec::new("conv2d_weight_coop", "reduce").with(types.and(knobs).and(&slabs.knobs())), params(tiles), tiles[1])
        },
        half: false,
    }
}

/// A kernel, its parameters and its number of workgroups.
type Launch = (KernelSpec, Params, usize);

/// Two kernels for one product.
struct Test {
    /// vec4s of both factors, in f16.
    factors: [usize; 2],
    /// Rows and columns of the second factor, where the kernel under test has them the other way round.
    turned: Option<[usize; 2]>,
    /// Rows of a chunk whose moments the kernel under test notes, if it does.
    tallied_rows: Option<usize>,
    /// Values of the product.
    products: usize,
    oracle: Launch,
    tested: Launch,
    /// Whether the product is stored in f16, else in f32.
    half: bool,
}

impl Test {
    /// The same with the moments of each chunk of `rows` products noted, as for a batch norm.
    fn with_statistics(mut self, rows: usize) -> Self {
        self.tested.0.constants = self.tested.0.constants.import("store", "store_statistics");
        Self { tallied_rows: Some(rows), ..self }
    }

    /// What is wrong with the kernel under test.
    fn run(&self, gpu: &Gpu) -> Result<Option<String>> {
        let mut state = 1;
        let factors = self.factors.map(|vec4s| (0..4 * vec4s).map(|_| random(&mut state)).collect::<Vec<f16>>());
        let bind = |values: &[f16]| -> Result<Binding> {
            let bytes = size_of_val(values) as u64;
            let buffer = Buffer::new(gpu, "self-test factor", bytes)?;
            gpu.write(&buffer, 0, bytemuck::cast_slice(values))?;
            Ok(Binding { bytes, offset: 0, buffer })
        };
        let [first, second] = [bind(&factors[0])?, bind(&factors[1])?];
        let other = match self.turned {
            Some([rows, columns]) => bind(&(0..rows * columns).map(|i| factors[1][i % rows * columns + i / rows]).collect::<Vec<f16>>())?,
            None => second.clone(),
        };
        let bytes = (self.products * if self.half { 2 } else { 4 }) as u64;
        let each = bytes.next_multiple_of(gpu.caps().offset_alignment.max(16));
        let products = Buffer::new(gpu, "self-test products", each * (RUNS as u64 + 1))?;
        // Mean and sum of squared deviations of each chunk and column quad.
        let chunks = self.tallied_rows.map_or(0, |rows| PIXELS.div_ceil(rows));
        let noted = (chunks * OUT_QUADS * 32) as u64;
        let apart = noted.next_multiple_of(gpu.caps().offset_alignment.max(16));
        let moments = Buffer::new(gpu, "self-test moments", apart * (RUNS as u64 + 1))?;
        let dispatch = |(spec, params, groups): &Launch, second: &Binding, run: u64| -> Result<Dispatch> {
            let mut bindings = vec![first.clone(), second.clone(), Binding { buffer: products.clone(), offset: run * each, bytes }];
            if noted > 0 && run > 0 {
                bindings.push(Binding { buffer: moments.clone(), offset: run * apart, bytes: noted });
            }
            let grid = grid_fold(*groups as u64, gpu.caps().max_workgroups);
            let kernel = gpu.kernels(&[spec])?.remove(0);
            Ok(Dispatch { kernel, params: params.clone(), bindings, grid, label: "self-test".into() })
        };
        let mut dispatches = vec![dispatch(&self.oracle, &second, 0)?];
        for run in 1..=RUNS {
            dispatches.push(dispatch(&self.tested, &other, run as u64)?);
        }
        Recording::new(gpu, dispatches)?.replay(gpu, &mut UploadRing::new(gpu, 16)?, &[], &[], None)?;
        let read = |run: u64| gpu.read(&products, run * each, bytes.next_multiple_of(16)).map(|stored| self.values(&stored));
        let want = read(0)?;
        // Two roundings to f16, or sums in another order.
        let relative = if self.half { 2e-3 } else { 1e-5 };
        let limit = relative * want.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        if limit == 0.0 {
            // A device that runs nothing would agree with itself.
            return Ok(Some(format!("{}: nothing but zeros", self.oracle.0.label())));
        }
        for run in 1..=RUNS {
            // NaN is never close.
            let close = |(got, want): &(&f32, &f32)| (**got - **want).abs() <= limit;
            let wrong = want.len() - read(run as u64)?.iter().zip(&want).filter(close).count();
            if wrong > 0 {
                return Ok(Some(format!("{}: {wrong} of {} values wrong in run {run} of {RUNS}", self.tested.0.label(), want.len())));
            }
            if let Some(rows) = self.tallied_rows {
                let stored = gpu.read(&moments, run as u64 * apart, noted)?;
                let got: Vec<f32> = stored.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
                if let Some(fault) = wrong_moments(&got, &want, rows) {
                    return Ok(Some(format!("{}: {fault} in run {run} of {RUNS}", self.tested.0.label())));
                }
            }
        }
        Ok(None)
    }

    fn values(&self, stored: &[u8]) -> Vec<f32> {
        let all: Vec<f32> = if self.half {
            stored.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
        } else {
            stored.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()
        };
        all[..self.products].to_vec()
    }
}

/// What is wrong with the moments `got` of chunks of `rows` rows of the products `want`, which are rounded to f16.
fn wrong_moments(got: &[f32], want: &[f32], rows: usize) -> Option<String> {
    let columns = 4 * OUT_QUADS;
    let largest = want.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    want.chunks(rows * columns).enumerate().find_map(|(chunk, products)| {
        (0..columns).find_map(|column| {
            let values = || products.iter().skip(column).step_by(columns);
            let count = values().count() as f32;
            let mean = values().sum::<f32>() / count;
            let deviations = values().map(|v| (v - mean) * (v - mean)).sum::<f32>();
            let at = (chunk * OUT_QUADS + column / 4) * 8 + column % 4;
            let close = |got: f32, want: f32, scale: f32| (got - want).abs() <= 4e-3 * scale;
            let right = close(got[at], mean, largest) && close(got[at + 4], deviations, count * largest * largest);
            (!right).then(|| format!("moments of column {column} of chunk {chunk} wrong"))
        })
    })
}

/// Between -1 and 1 (Marsaglia's xorshift).
fn random(state: &mut u32) -> f16 {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    let value = i16::try_from(*state >> 21).expect("eleven bits") - 1024;
    f16::from_f32(f32::from(value) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Access, compose, kernel, source};

    #[test]
    fn wrong_moments_are_found() {
        let (rows, columns) = (3, 4 * OUT_QUADS);
        let want: Vec<f32> = (0..5 * columns).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut got = vec![0.0; 2 * OUT_QUADS * 8];
        for (chunk, products) in want.chunks(rows * columns).enumerate() {
            for column in 0..columns {
                let values: Vec<f32> = products.iter().skip(column).step_by(columns).copied().collect();
                let mean = values.iter().sum::<f32>() / values.len() as f32;
                let at = (chunk * OUT_QUADS + column / 4) * 8 + column % 4;
                got[at] = mean;
                got[at + 4] = values.iter().map(|v| (v - mean).powi(2)).sum();
            }
        }
        assert_eq!(wrong_moments(&got, &want, rows), None);
        for at in [8 * OUT_QUADS + 1, 8 * OUT_QUADS + 5] {
            let mut wrong = got.clone();
            wrong[at] += 0.1;
            assert!(wrong_moments(&wrong, &want, rows).unwrap().contains("column 1 of chunk 1"));
        }
    }

    /// What only adapters with cooperative matrices would find out otherwise.
    #[test]
    fn every_kernel_gets_the_parameters_it_declares() {
        let knobs =
            CooperativeMatrix { tile: 8, subgroup: 8, access: Access::Quads, memory: CooperativeMatrix::LEAST_MEMORY }.knobs(ProductShape::Small);
        for test in [forward(ProductShape::Small, &knobs, Slabs::Cut), weight_gradient(ProductShape::Small, &knobs, Slabs::Cut)] {
            for (spec, params, _) in [test.oracle, test.tested] {
                let text = compose(spec.shader, source, &spec.constants).unwrap();
                assert!(kernel::params_fields(&text).unwrap().iter().eq(&params.names), "{}", spec.label());
            }
        }
    }
}
