//! Convolution on cooperative matrices: when it is chosen, that it agrees with the plain kernels on every convolution of ResNet-50, and
//! that a device on which it computes wrong is found out. Where the adapter has no such matrices, three of the tests say so and end;
//! `scripts/test-matrices.sh` runs them on one that has.

#[path = "support/worst.rs"]
mod worst;

use std::collections::BTreeSet;
use std::time::Instant;
use swav_wgpu::check::Force;
use swav_wgpu::gpu::{Access, Caps, CooperativeMatrix, DeviceKind, Gpu, Specialization};
use swav_wgpu::graph::{DType, Graph, Program, Store, Tensor, Variables, differentiate, lower, stored_elements};
use swav_wgpu::nn::architecture::Backbone;
use swav_wgpu::tune::BestGuess;
use worst::worst;

/// Channels in and out, window, stride, padding.
type Shape = [usize; 5];

fn caps(subgroup: u32) -> Caps {
    Caps {
        kind: DeviceKind::Discrete,
        f16: true,
        subgroup_size: Some(subgroup),
        registers: 255,
        cooperative_matrix: Some(CooperativeMatrix { tile: 16, subgroup, access: Access::Octs, memory: CooperativeMatrix::LEAST_MEMORY }),
        max_binding_bytes: 1 << 31,
        max_buffer_bytes: 1 << 31,
        memory_bytes: None,
        max_workgroups: 65_535,
        offset_alignment: 256,
        timestamp_period: None,
    }
}

#[expect(clippy::print_stderr, reason = "a test that did nothing says so")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// An adapter whose cooperative matrices kernels could use.
fn open() -> Option<Gpu> {
    let gpu = Gpu::open(None).unwrap_or_else(|e| panic!("these tests need a Vulkan, Metal or DX12 adapter, software will do: {e}"));
    if gpu.caps().cooperative_matrix.is_none() {
        say(&format!("skipped: {} has no cooperative matrices", gpu.description().name));
        return None;
    }
    Some(gpu)
}

/// y, and the gradients of x and w.
fn convolution(graph: &Graph, [batch, height, width]: [usize; 3], [inputs, outputs, k, stride, padding]: Shape, dtype: DType) -> [Tensor; 3] {
    let x = graph.input("x", &[batch, height, width, inputs], dtype);
    let w = graph.input("w", &[k, k, inputs.next_multiple_of(4), outputs], dtype);
    let y = x.conv2d(&w, stride, padding);
    let dy = graph.input("dy", &y.shape(), dtype);
    let [dx, dw] = differentiate(&y, dy, &[x, w], Tensor::add).try_into().unwrap();
    [y, dx.unwrap(), dw.unwrap()]
}

fn kernels(caps: &Caps, images: [usize; 3], shape: Shape, dtype: DType) -> Vec<String> {
    let graph = Graph::new();
    let ids = convolution(&graph, images, shape, dtype).map(|t| t.id());
    lower(&graph, &ids, caps, &BestGuess).launches.into_iter().map(|l| l.kernel.label()).collect()
}

#[test]
fn only_activations_in_f16_are_multiplied_in_f16() {
    let layer = [64, 64, 3, 1, 1];
    let exact = kernels(&caps(32), [32, 56, 56], layer, DType::F32);
    assert!(!exact.is_empty() && exact.iter().all(|k| !k.contains("coop")), "{exact:?}");
    let halves = kernels(&caps(32), [32, 56, 56], layer, DType::F16);
    for product in ["conv2d_coop/gather", "conv2d_weight_coop/reduce"] {
        assert!(halves.iter().any(|k| k.starts_with(product)), "{halves:?}");
    }
    // The gradient of the input has weights the other way round: matrices are loaded so, and nothing is copied.
    assert_eq!(
        halves.iter().map(|k| (k.contains("TURNED=true"), k.contains("transpose"))).filter(|k| *k != (false, false)).collect::<Vec<_>>(),
        [(true, false)]
    );
    // So do tiles.
    assert!(exact.iter().any(|k| k.contains("TURNED=true")) && !exact.iter().any(|k| k.contains("transpose")), "{exact:?}");
    let without = kernels(&Caps { cooperative_matrix: None, ..caps(32) }, [32, 56, 56], layer, DType::F16);
    assert!(without.iter().all(|k| !k.contains("coop")), "{without:?}");
}

#[test]
fn large_products_use_large_tiles() {
    let of = |rows: usize, columns: usize| move |k: &&String| k.contains(&format!("[COLUMNS={columns}u")) && k.contains(&format!(",ROWS={rows}u"));
    let coop = |images, layer| -> Vec<String> { kernels(&caps(32), images, layer, DType::F16).into_iter().filter(|k| k.contains("coop")).collect() };
    for (images, layer, [rows, columns]) in [
        ([64, 28, 28], [128, 512, 1, 1, 0], [128, 128]),
        // Half of a large tile's columns would be missing.
        ([64, 56, 56], [64, 64, 1, 1, 0], [128, 64]),
        // Too few of either for a whole card.
        ([1, 7, 7], [64, 64, 1, 1, 0], [64, 64]),
    ] {
        let used = coop(images, layer);
        let gathers: Vec<&String> = used.iter().filter(|k| k.contains("gather")).collect();
        assert!(gathers.len() == 2 && gathers.into_iter().all(|k| of(rows, columns)(&k)), "{used:?}");
    }
}

/// In f32, where no matrices are used, registers decide how much an invocation adds up.
#[test]
fn gpus_of_few_registers_add_up_less_at_a_time() {
    for (registers, lean) in [(255, false), (128, true)] {
        let used = kernels(&Caps { registers, ..caps(32) }, [64, 28, 28], [128, 512, 1, 1, 0], DType::F32);
        let gathers: Vec<&String> = used.iter().filter(|k| k.starts_with("conv2d_tile128/gather")).collect();
        assert!(gathers.len() == 2 && gathers.iter().all(|k| k.contains("EACH_QUADS=1u") == lean), "{registers}: {used:?}");
    }
}

/// Where every row has its pixel and every slab its channels, none is looked for.
#[test]
fn padding_is_looked_for_only_where_there_may_be_some() {
    // Forward, the gradient of the input, that of the weight.
    for (images, layer, expected) in [
        ([64, 28, 28], [128, 512, 1, 1, 0], [true, true, true]),
        ([64, 28, 28], [128, 128, 3, 2, 1], [false, false, false]),
        // 100 channels are no whole slabs, and 63 x 27 x 27 pixels neither.
        ([64, 28, 28], [100, 512, 1, 1, 0], [false, true, true]),
        ([63, 27, 27], [128, 512, 1, 1, 0], [true, true, false]),
    ] {
        for (dtype, kind) in [(DType::F16, "_coop/"), (DType::F32, "_tile")] {
            let used = kernels(&caps(32), images, layer, dtype);
            let all: Vec<bool> = used.iter().filter(|k| k.contains(kind)).map(|k| k.contains("PADDED=false")).collect();
            // A stride leaves a class of input pixels a single tap, which sees them all.
            let [forward, of_input @ .., of_weight] = all.as_slice() else { panic!("{used:?}") };
            let classes = layer[3] * layer[3];
            assert_eq!((*forward, of_input.len(), *of_weight), (expected[0], classes, expected[2]), "{layer:?}: {used:?}");
            let whole = of_input.iter().filter(|whole| **whole).count();
            assert_eq!(whole, if expected[1] { classes } else { classes / 4 }, "{layer:?}: {used:?}");
        }
    }
    // Products of tiles transformed by Winograd's way: all three.
    let used = kernels(&caps(32), [64, 28, 28], [128, 128, 3, 1, 1], DType::F32);
    let tiles: Vec<&String> = used.iter().filter(|k| k.contains("_tile")).collect();
    assert!(tiles.len() >= 3 && tiles.iter().all(|k| k.contains("PADDED=false")), "{used:?}");
}

/// No invocation may run as many turns as these sums would take: other kernels deal with them.
#[test]
fn sums_too_long_for_one_loop_are_left_to_others() {
    let coop = |channels| kernels(&caps(32), [1, 1, 1], [channels, 8, 1, 1, 0], DType::F16)[0].contains("conv2d_coop");
    assert_eq!([1_000_000, 4_000_000].map(coop), [true, false]);
}

/// Eight numbers are moved at a time where channels come in eights.
#[test]
fn wide_accesses_need_channels_in_eights() {
    let wide = |layer, access| -> Vec<bool> {
        let matrix = CooperativeMatrix { access, ..caps(32).cooperative_matrix.unwrap() };
        let used = kernels(&Caps { cooperative_matrix: Some(matrix), ..caps(32) }, [64, 28, 28], layer, DType::F16);
        used.iter().filter(|k| k.contains("_coop/")).map(|k| k.contains("WIDTH=8u")).collect()
    };
    for (layer, expected) in [([136, 72, 3, 1, 1], true), ([132, 72, 3, 1, 1], false), ([136, 68, 3, 1, 1], false)] {
        assert_eq!(wide(layer, Access::Octs), [expected; 3], "{layer:?}");
        assert_eq!(wide(layer, Access::Quads), [false; 3], "{layer:?}");
    }
}

/// Every convolution of ResNet-50, and its projection head's first layer.
fn shapes() -> BTreeSet<Shape> {
    let net = Backbone::resnet(50).unwrap();
    let mut all = BTreeSet::from([[3, 64, 7, 2, 3], [net.features(), 2_048, 1, 1, 0]]);
    for (stage, blocks) in [3, 4, 6, 3].into_iter().enumerate() {
        for block in 0..blocks {
            let (inputs, width, stride) = (net.block_inputs(stage, block), net.stage_width(stage), net.stride(stage, block));
            all.extend([[inputs, width, 1, 1, 0], [width, width, 3, stride, 1], [width, 4 * width, 1, 1, 0]]);
            if net.has_downsample(stage, block) {
                all.insert([inputs, 4 * width, 1, stride, 0]);
            }
        }
    }
    all
}

/// Stored values between -1 and 1 in f16, padding zero (Marsaglia's xorshift).
fn random(state: &mut u32, shape: &[usize]) -> Vec<u8> {
    let columns = shape[shape.len() - 1];
    let mut next = || {
        *state ^= *state << 13;
        *state ^= *state >> 17;
        *state ^= *state << 5;
        half::f16::from_f32((*state >> 8) as f32 / (1 << 23) as f32 - 1.0)
    };
    let padded = columns.next_multiple_of(4);
    let values: Vec<half::f16> = (0..stored_elements(shape)).map(|i| if i % padded < columns { next() } else { half::f16::ZERO }).collect();
    bytemuck::cast_slice(&values).to_vec()
}

/// Outputs of one variant, and the seconds of a second run.
fn run(gpu: &Gpu, images: [usize; 3], shape: Shape, variant: &str) -> ([Vec<f32>; 3], f64) {
    let graph = Graph::new();
    let [y, dx, dw] = convolution(&graph, images, shape, DType::F16);
    let store = Store::new(gpu, Variables::new()).unwrap();
    let outputs = [("y", &y), ("dx", &dx), ("dw", &dw)];
    let mut program = Program::new(gpu, &store, &graph, &outputs, &Force(variant.into())).unwrap();
    let [inputs, columns, k, ..] = shape;
    let mut state = 7;
    let x = random(&mut state, &[images[0], images[1], images[2], inputs]);
    let mut w = random(&mut state, &[k, k, inputs.next_multiple_of(4), columns]);
    // Rows of padding channels are zero.
    let row = 2 * columns.next_multiple_of(4);
    let rows = w.chunks_exact_mut(row).enumerate();
    rows.filter(|(i, _)| i % inputs.next_multiple_of(4) >= inputs).for_each(|(_, row)| row.fill(0));
    let dy = random(&mut state, &y.shape());
    let operands = [("x", x.as_slice()), ("w", &w), ("dy", &dy)];
    program.call(gpu, &operands).unwrap();
    let start = Instant::now();
    let got = program.call(gpu, &operands).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    assert!(["y", "dx", "dw"].iter().all(|name| got.padding_is_zero(name)), "{variant} {shape:?}");
    ([got.f16("y"), got.f16("dx"), got.f32("dw")], seconds)
}

/// Channels, windows and strides are the network's; images are few and small, because software devices run this too.
#[test]
fn agrees_with_the_plain_kernels_on_every_convolution_of_resnet50() {
    let Some(gpu) = open() else { return };
    assert_eq!(gpu.cooperative_matrix_status().as_deref(), Some("in use"));
    // Right at once: what would be tried next is slower.
    assert_eq!(gpu.tested_caps().cooperative_matrix, gpu.caps().cooperative_matrix);
    let (mut work, mut seconds) = (0.0, [0.0; 3]);
    // 1x1 products of few channels once more with three slabs of pixels, where nothing is looked for.
    let whole = shapes().into_iter().filter(|[inputs, outputs, k, stride, _]| inputs + outputs <= 384 && [*k, *stride] == [1, 1]);
    let all: Vec<([usize; 3], Shape)> = shapes().into_iter().map(|s| ([2, 4, 5], s)).chain(whole.map(|s| ([2, 8, 12], s))).collect();
    assert!(all.len() > shapes().len());
    for (images, shape) in all {
        let (want, _) = run(&gpu, images, shape, "plain");
        for (variant, spent) in ["coop", "coop128x64", "coop128"].into_iter().zip(&mut seconds) {
            let (got, time) = run(&gpu, images, shape, variant);
            *spent += time;
            // Results in f16 may be off by a rounding, sums in f32 by their order.
            for ((name, limit), (got, want)) in [("y", 1e-3), ("dx", 1e-3), ("dw", 1e-5)].into_iter().zip(got.iter().zip(&want)) {
                let largest = want.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                let error = worst(got, want);
                assert!(largest > 0.0 && error <= limit * f64::from(largest), "{variant} {shape:?} {name}: {error} of {largest}");
            }
        }
        let [inputs, outputs, k, stride, padding] = shape;
        let pixels = images[0] * images[1..].iter().map(|side| (side + 2 * padding - k) / stride + 1).product::<usize>();
        work += 6.0 * (pixels * k * k * inputs * outputs) as f64;
    }
    say(&format!(
        "{} shapes; GFLOP/s with upload and read-back: coop {:.2}, coop128x64 {:.2}, coop128 {:.2}",
        shapes().len(),
        work / seconds[0] / 1e9,
        work / seconds[1] / 1e9,
        work / seconds[2] / 1e9
    ));
}

#[test]
fn a_wrong_kernel_is_found_and_no_longer_used() {
    let Some(gpu) = open() else { return };
    // Adds a part of the terms only.
    let found = gpu.tested_caps_with(&Specialization::default().u32("STEP", 32));
    assert!(found.cooperative_matrix.is_none() && gpu.caps().cooperative_matrix.is_some());
    let status = gpu.cooperative_matrix_status().unwrap();
    assert!(status.starts_with("not used: conv2d_coop/gather") && status.contains("values wrong in run 1 of 20"), "{status}");
    let used = kernels(gpu.tested_caps(), [2, 8, 8], [64, 64, 3, 1, 1], DType::F16);
    assert!(!used.is_empty() && used.iter().all(|k| !k.contains("coop")), "{used:?}");
    // A program in f16 falls back to the exact kernels.
    let (images, shape) = ([1, 5, 6], [12, 20, 3, 1, 1]);
    assert_eq!(run(&gpu, images, shape, "coop").0[2].len(), 9 * 12 * 20);
    assert_eq!(run(&gpu, images, shape, "coop").0, run(&gpu, images, shape, kernel_of_choice(&gpu)).0);
    // So does one whose kernel does not even build.
    let gpu = Gpu::open(None).unwrap();
    assert!(gpu.tested_caps_with(&Specialization::default().u32("NO_SUCH_KNOB", 1)).cooperative_matrix.is_none());
    assert!(gpu.cooperative_matrix_status().unwrap().contains("NO_SUCH_KNOB"));
}

/// As on AMD's cards, where subgroups may have 32 or 64 invocations.
#[test]
fn the_size_of_subgroups_is_found_by_trying() {
    let Some(mut gpu) = open() else { return };
    let right = gpu.caps().cooperative_matrix.unwrap();
    let sized = |subgroup| CooperativeMatrix { subgroup, ..right };
    gpu.offer_matrices([64, 32, 16, 8].map(sized).to_vec());
    assert_eq!(gpu.tested_caps().cooperative_matrix, Some(right));
    assert_eq!(gpu.cooperative_matrix_status().as_deref(), Some("in use"));
    let mut gpu = Gpu::open(None).unwrap();
    gpu.offer_matrices([64, 32, 16, 8].map(sized).into_iter().filter(|m| *m != right).collect());
    assert_eq!(gpu.tested_caps().cooperative_matrix, None);
    assert!(gpu.cooperative_matrix_status().unwrap().starts_with("not used: conv2d_coop/gather"));
}

/// What an adapter without cooperative matrices uses for f16.
fn kernel_of_choice(gpu: &Gpu) -> &'static str {
    let used = kernels(gpu.tested_caps(), [1, 5, 6], [12, 20, 3, 1, 1], DType::F16);
    ["broadcast", "tile", "plain"].into_iter().find(|v| used.iter().any(|k| k.contains(v))).expect("a variant")
}
