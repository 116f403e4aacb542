//! Convolution: all three products, every kernel variant.

#[test]
fn matches_the_reference() {
    crate::check("conv2d");
}

#[test]
fn matches_pytorch() {
    use crate::golden::{Golden, Run};
    Golden::open("conv", 3e-6).each("", |case| {
        let mut run = Run::default();
        let (x, w) = (run.input("x", case.tensor("x")), run.input("w", case.weight("w")));
        let y = x.conv2d(&w, case.size("stride"), case.size("padding"));
        run.output("y", &y);
        run.gradients(&y, case.tensor("gy"), &[("gx", &x), ("gw", &w)]);
        let got = run.call();
        case.hold("y", &got.f32("y"), &case.tensor("y").1);
        case.hold("gx", &got.f32("gx"), &case.tensor("gx").1);
        case.hold("gw", &got.f32("gw"), &case.weight("gw").1);
    });
}

/// Cards keep the tiles of minimal filtering in registers, by loops that are written out.
#[test]
fn tiles_in_registers_match_the_reference() {
    let mut gpu = swav_wgpu::gpu::Gpu::open_checked(None).unwrap();
    gpu.act_as(swav_wgpu::gpu::DeviceKind::Discrete);
    crate::check_on(&gpu, "^conv2d 7x10x9x8 .* f32|^block 7x");
}

/// Minimal filtering transforms as many images at a time as its tensors' room allows: all products, and sums of chunks noted on the way, where that is a
/// few images.
#[test]
fn tiles_of_a_few_images_at_a_time_match_the_reference() {
    use swav_wgpu::check::Force;
    use swav_wgpu::gpu::Gpu;
    use swav_wgpu::graph::{DType, Graph, lower};
    let mut gpu = Gpu::open_checked(None).unwrap();
    gpu.limit_bindings(40 << 10);
    let graph = Graph::new();
    let (x, w) = (graph.input("x", &[7, 10, 9, 8], DType::F32), graph.input("w", &[3, 3, 8, 7], DType::F32));
    let transforms = |caps| {
        let lowered = lower(&graph, &[x.conv2d(&w, 1, 1).id()], caps, &Force("winograd-plain".into()));
        lowered.launches.iter().filter(|l| l.label.contains("winograd_input")).count()
    };
    assert_eq!((transforms(crate::GPU.caps()), transforms(gpu.caps())), (1, 3));
    crate::check_on(&gpu, "^conv2d 7x10x9x8 .* f32|^block 7x");
}
