//! Bytes to what a network reads.

use safetensors::SafeTensors;
use swav_wgpu::data::{EvalTransform, Rgb8, Scratch, crop_bytes};
use swav_wgpu::graph::{DType, Graph, Program, Store, Variables};
use swav_wgpu::nn::Images;
use swav_wgpu::ops::PixelStatistics;
use swav_wgpu::tune::BestGuess;

#[test]
fn matches_the_reference() {
    crate::check("normalize_pixels");
}

/// The centre of an image, from the loader's crop to the device's numbers.
#[test]
fn crops_are_what_to_tensor_and_normalize_make_of_them() {
    const OFFICIAL: PixelStatistics = PixelStatistics { mean: [0.485, 0.456, 0.406], std: [0.228, 0.224, 0.225] };
    const SIDE: usize = 39;
    let file = SafeTensors::deserialize(include_bytes!("../golden/augment.safetensors")).unwrap();
    let source = file.tensor("source/china").unwrap();
    let [height, width] = [source.shape()[0], source.shape()[1]];
    let image = Rgb8 { width, height, pixels: source.data().to_vec() };
    let expected = file.tensor("to_tensor_normalize/china_official").unwrap();
    let expected: Vec<f64> = expected.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(); // (3, height, width)
    let mut crop = vec![0; crop_bytes(SIDE)];
    EvalTransform { resize: None, crop: SIDE }.crop(&image, &mut crop, &mut Scratch::default());

    let gpu = &*crate::GPU;
    let (graph, form) = (Graph::new(), Images::Bytes(OFFICIAL));
    assert_eq!(form.bytes([SIDE; 2]), crop.len());
    let pixels = form.input(&graph, "images", 1, [SIDE; 2], DType::F32);
    let store = Store::new(gpu, Variables::new()).unwrap();
    let mut program = Program::new(gpu, &store, &graph, &[("pixels", &pixels)], &BestGuess).unwrap();
    let normalized = program.call(gpu, &[("images", &crop)]).unwrap().f32("pixels");
    let (top, left) = ((height - SIDE) / 2, (width - SIDE) / 2);
    for (i, got) in normalized.iter().enumerate() {
        let (c, x, y) = (i % 3, i / 3 % SIDE + left, i / 3 / SIDE + top);
        let want = expected[(c * height + y) * width + x];
        assert!((f64::from(*got) - want).abs() < 1e-6, "{got} against {want} at {x},{y},{c}");
    }
    assert_eq!(normalized.len(), 3 * SIDE * SIDE);
}
