//! Accesses beyond a binding are counted, and not only hidden.

use swav_wgpu::gpu::{Binding, Buffer, Dispatch, Gpu, KernelSpec, Params, Recording, UploadRing};

#[test]
fn accesses_beyond_a_binding_are_counted() {
    let gpu = Gpu::open_checked(None).unwrap();
    let run = |count: usize| {
        let binding = || Binding { buffer: Buffer::new(&gpu, "two vec4s", 32).unwrap(), offset: 0, bytes: 32 };
        let kernel = gpu.kernels(&[&KernelSpec::new("relu", "forward")]).unwrap().remove(0);
        let params = Params::default().u32("count", count);
        let dispatch = Dispatch { kernel, params, bindings: vec![binding(), binding()], grid: [1, 1, 1], label: "relu".into() };
        let recording = Recording::new(&gpu, vec![dispatch]).unwrap();
        recording.replay(&gpu, &mut UploadRing::new(&gpu, 16).unwrap(), &[], &[], None).unwrap();
        gpu.overruns().unwrap()
    };
    // Three more of them read one vec4 and write one.
    assert_eq!([run(2), run(5)], [Some(0), Some(6)]);
    assert_eq!(Gpu::open(None).unwrap().overruns().unwrap(), None);
}
