//! f16 on adapters that have none in shaders: packed in storage, f32 in between.

use swav_wgpu::gpu::Gpu;

#[test]
fn matches_the_reference() {
    let gpu = Gpu::open_without_f16(None).unwrap();
    crate::check_on(&gpu, "f16$");
}

/// Conversions there and back: what f16 holds stays, the rest is rounded to a neighbour, and what lies beyond becomes infinite.
#[test]
fn values_beyond_f16_are_infinite() {
    use swav_wgpu::graph::{DType, Graph, Program, Store, Variables};
    let gpu = Gpu::open_without_f16(None).unwrap();
    let graph = Graph::new();
    let x = graph.input("x", &[12], DType::F32);
    let y = x.cast(DType::F16).cast(DType::F32);
    let store = Store::new(&gpu, Variables::new()).unwrap();
    let mut program = Program::new(&gpu, &store, &graph, &[("y", &y)], &swav_wgpu::tune::BestGuess).unwrap();
    let values = [1.0, -0.333_251_95, 65_504.0, -65_504.0, 65_519.0, 65_520.0, -1e6, 3e38, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 6e-8];
    let got = program.call(&gpu, &[("x", bytemuck::cast_slice(&values))]).unwrap().f32("y");
    let infinite = f32::INFINITY;
    let expected = [1.0, -0.333_251_95, 65_504.0, -65_504.0, 65_504.0, infinite, -infinite, infinite, infinite, -infinite];
    assert_eq!(got[..10], expected);
    assert!(got[10].is_nan() && got[11] >= 0.0 && got[11] < 1.3e-7);
}
