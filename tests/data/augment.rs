//! The augmentation against what Pillow, torchvision and mmcv produced (`golden/README.md` says how it was recorded).

use std::collections::HashMap;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use swav_wgpu::data::augment::color::{Gray, brightness, contrast, grayscale, hue, saturation};
use swav_wgpu::data::augment::resize::{Rect, ResizeScratch, resize};
use swav_wgpu::data::augment::{blur, random_box};
use swav_wgpu::data::rng::Stream;
use swav_wgpu::data::{AugmentConfig, CropGroup, EvalTransform, MultiCrop, Order, Rgb8, Scratch, TrainTransform, crop_bytes};

const TENSORS: &[u8] = include_bytes!("../golden/augment.safetensors");
const CASES: &str = include_str!("../golden/augment.json");

/// The recorded cases of the named operations: (case, input, expected bytes).
fn cases(ops: &[&str]) -> Vec<(Value, Rgb8, Vec<u8>)> {
    let tensors = SafeTensors::deserialize(TENSORS).unwrap();
    let all: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let chosen = all.into_iter().filter(|c| ops.contains(&c["op"].as_str().unwrap()));
    let cases: Vec<_> = chosen
        .map(|c| {
            let expected = tensors.tensor(c["name"].as_str().unwrap()).unwrap().data().to_vec();
            (c.clone(), source(c["source"].as_str().unwrap()), expected)
        })
        .collect();
    assert!(!cases.is_empty());
    cases
}

fn source(name: &str) -> Rgb8 {
    let tensors = SafeTensors::deserialize(TENSORS).unwrap();
    let image = tensors.tensor(&format!("source/{name}")).unwrap();
    assert_eq!(image.dtype(), Dtype::U8);
    Rgb8 { width: image.shape()[1], height: image.shape()[0], pixels: image.data().to_vec() }
}

fn doubles(name: &str) -> Vec<f64> {
    let tensors = SafeTensors::deserialize(TENSORS).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), Dtype::F64);
    tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

fn numbers(v: &Value) -> Vec<usize> {
    v.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

fn assert_same(case: &Value, ours: &[u8], expected: &[u8]) {
    assert_eq!(ours.len(), expected.len(), "{case}");
    let differing = ours.iter().zip(expected).filter(|(a, b)| a != b).count();
    let worst = ours.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert_eq!(worst, 0, "{case}: {differing} of {} values differ, by up to {worst}", ours.len());
}

#[test]
fn resize_is_pillows_to_the_bit() {
    let mut scratch = ResizeScratch::default();
    let mut out = Vec::new();
    for (case, image, expected) in cases(&["resized_crop"]) {
        let (b, size) = (numbers(&case["box"]), numbers(&case["out"]));
        let crop = Rect { x: b[0], y: b[1], width: b[2] - b[0], height: b[3] - b[1] };
        resize(&image, crop, (size[0], size[1]), Rect::full(size[0], size[1]), &mut scratch, &mut out);
        assert_same(&case, &out, &expected);
    }
}

#[test]
fn blur_is_pillows_to_the_bit() {
    let mut scratch = blur::BlurScratch::default();
    for (case, mut image, expected) in cases(&["gaussian_blur"]) {
        blur::gaussian_blur(&mut image.pixels, image.width, case["radius"].as_f64().unwrap(), &mut scratch);
        assert_same(&case, &image.pixels, &expected);
    }
}

#[test]
fn colour_changes_are_pillows_to_the_bit() {
    let ops = ["brightness", "contrast", "saturation", "hue", "mm_brightness", "mm_contrast", "mm_saturation", "mm_hue"];
    for (case, mut image, expected) in cases(&ops) {
        let factor = case["factor"].as_f64().unwrap();
        let change = match case["op"].as_str().unwrap().trim_start_matches("mm_") {
            "brightness" => brightness,
            "contrast" => contrast,
            "saturation" => saturation,
            _ => hue,
        };
        change(&mut image.pixels, factor);
        assert_same(&case, &image.pixels, &expected);
    }
}

#[test]
fn jitter_in_any_order_is_torchvisions_to_the_bit() {
    for (case, mut image, expected) in cases(&["jitter_sequence"]) {
        for op in numbers(&case["order"]) {
            match op {
                0 => brightness(&mut image.pixels, 1.3),
                1 => contrast(&mut image.pixels, 0.6),
                2 => saturation(&mut image.pixels, 1.5),
                _ => hue(&mut image.pixels, -0.11),
            }
        }
        assert_same(&case, &image.pixels, &expected);
    }
}

#[test]
fn both_greys_are_exact_and_differ() {
    for (case, mut image, expected) in cases(&["grayscale", "mm_gray"]) {
        let (kind, other) = if case["op"] == "mm_gray" { (Gray::Weighted, Gray::Pillow) } else { (Gray::Pillow, Gray::Weighted) };
        let mut wrong = image.pixels.clone();
        grayscale(&mut image.pixels, kind);
        grayscale(&mut wrong, other);
        assert_same(&case, &image.pixels, &expected);
        assert_ne!(wrong, expected, "{case}");
    }
}

#[test]
fn evaluation_transform_is_torchvisions() {
    for (case, image, expected) in cases(&["eval_transform"]) {
        let transform = EvalTransform { resize: case["resize"].as_u64().map(|v| v as usize), crop: case["crop"].as_u64().unwrap() as usize };
        assert_same(&case, transform.crop_rgb(&image, &mut Scratch::default()), &expected);
    }
}

#[test]
fn evaluation_frames_small_images_and_takes_fitting_ones_as_they_are() {
    let image = source("saturated"); // 4 wide, 3 high
    let mut scratch = Scratch::default();
    let framed = EvalTransform { resize: None, crop: 6 }.crop_rgb(&image, &mut scratch).to_vec();
    for y in 0..6 {
        for x in 0..6 {
            let inside = (1..4).contains(&y) && (1..5).contains(&x);
            let expected = if inside { &image.pixels[((y - 1) * 4 + x - 1) * 3..][..3] } else { &[0, 0, 0][..] };
            assert_eq!(&framed[(y * 6 + x) * 3..][..3], expected, "at {x},{y}");
        }
    }
    let ramp = source("ramp");
    assert_eq!(EvalTransform { resize: None, crop: 16 }.crop_rgb(&ramp, &mut scratch), ramp.pixels);
    assert_eq!(EvalTransform { resize: Some(16), crop: 16 }.crop_rgb(&ramp, &mut scratch), ramp.pixels);
    // Between even and odd: 3 - 2 leaves one pixel, and half of it rounds to 0 (to even).
    let centre = EvalTransform { resize: None, crop: 2 }.crop_rgb(&image, &mut scratch).to_vec();
    assert_eq!(centre[..6], image.pixels[3..9]);
}

#[test]
fn crop_boxes_are_distributed_as_torchvisions() {
    let all: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let stats: Vec<_> = all.into_iter().filter(|c| c["op"] == "random_resized_crop_stats").collect();
    assert_eq!(stats.len(), 4);
    for case in stats {
        let size = numbers(&case["image"]);
        let (width, height) = (size[0], size[1]);
        let scale = [case["scale"][0].as_f64().unwrap(), case["scale"][1].as_f64().unwrap()];
        let mut drawn: HashMap<&str, Vec<f64>> = HashMap::new();
        for i in 0..20_000 {
            let b = random_box(&mut Stream::new(5, 0, i, 0), width, height, scale, [0.75, 4.0 / 3.0]);
            let (w, h) = (b.width as f64, b.height as f64);
            drawn.entry("area").or_default().push(w * h / (width * height) as f64);
            drawn.entry("logratio").or_default().push((w / h).ln());
            drawn.entry("cx").or_default().push((b.x as f64 + w / 2.0) / width as f64);
            drawn.entry("cy").or_default().push((b.y as f64 + h / 2.0) / height as f64);
        }
        for (what, mut values) in drawn {
            values.sort_by(f64::total_cmp);
            let expected = doubles(&format!("{}/{what}_quantiles", case["name"].as_str().unwrap()));
            let spread = expected[20] - expected[0];
            for (k, want) in expected.iter().enumerate().take(20).skip(1) {
                let got = values[k * (values.len() - 1) / 20];
                // Both sides are samples of 20,000: their quantiles scatter by under a hundredth of the spread. On tiny images the values
                // come in steps of one pixel, so a quantile may fall on the neighbouring step.
                let step = if width.min(height) < 64 { 0.12 } else { 0.0 };
                assert!((got - want).abs() < spread * (0.025 + step), "{case} {what} quantile {k}: {got} against {want} of {spread}");
            }
        }
    }
}

fn pipeline(augment: AugmentConfig) -> MultiCrop {
    let group = CropGroup { count: 2, size: 24, scale: [0.3, 1.0], ratio: [0.75, 4.0 / 3.0] };
    let small = CropGroup { count: 3, size: 12, scale: [0.05, 0.3], ..group };
    MultiCrop { groups: vec![group, small], augment, seed: 3 }
}

fn augment(order: Order) -> AugmentConfig {
    AugmentConfig {
        flip: 0.5,
        jitter_probability: 0.8,
        jitter: [0.8, 0.8, 0.8, 0.2],
        grayscale: 0.2,
        blur_probability: 0.5,
        blur_sigma: [0.1, 2.0],
        order,
    }
}

fn crops(p: &MultiCrop, image: &Rgb8, epoch: u64, index: u64, scratch: &mut Scratch) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = [24, 24, 12, 12, 12].iter().map(|s| vec![99; crop_bytes(*s)]).collect();
    p.crops(image, epoch, index, &mut out.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(), scratch);
    out
}

#[test]
fn a_crop_depends_on_seed_epoch_index_and_view_and_not_on_what_the_buffers_held() {
    let image = source("china");
    let p = pipeline(augment(Order::Official));
    let mut used = Scratch::default();
    let first = crops(&p, &image, 0, 0, &mut used);
    crops(&p, &source("flower"), 0, 1, &mut used);
    assert_eq!(first, crops(&p, &image, 0, 0, &mut used));
    assert_eq!(first, crops(&p, &image, 0, 0, &mut Scratch::default()));
    assert!(first.iter().flat_map(|crop| crop.chunks_exact(4)).all(|pixel| pixel[3] == 0));
    assert_ne!(first[0], first[1]);
    assert_ne!(first, crops(&p, &image, 1, 0, &mut used));
    assert_ne!(first, crops(&p, &image, 0, 1, &mut used));
    assert_ne!(first, crops(&MultiCrop { seed: 4, ..p.clone() }, &image, 0, 0, &mut used));
}

/// What each part of the configuration does to whole crops, seen over many of them.
#[test]
fn probabilities_and_switches_do_what_they_say() {
    let image = source("china");
    let off = AugmentConfig { flip: 0.0, jitter_probability: 0.0, grayscale: 0.0, blur_probability: 0.0, ..augment(Order::Official) };
    let scratch = &mut Scratch::default();
    let plain = |i: u64, scratch: &mut Scratch| crops(&pipeline(off.clone()), &image, 0, i, scratch).swap_remove(0);
    let share = |change: AugmentConfig, scratch: &mut Scratch| {
        let p = pipeline(change);
        let changed = (0..400).filter(|&i| crops(&p, &image, 0, i, scratch)[0] != plain(i, scratch)).count();
        changed as f64 / 400.0
    };
    assert_eq!(share(off.clone(), scratch), 0.0);
    for (config, expected) in [
        (AugmentConfig { flip: 0.3, ..off.clone() }, 0.3),
        (AugmentConfig { jitter_probability: 0.8, ..off.clone() }, 0.8),
        (AugmentConfig { jitter_probability: 1.0, jitter: [0.0; 4], ..off.clone() }, 0.0),
        (AugmentConfig { grayscale: 0.2, ..off.clone() }, 0.2),
        (AugmentConfig { blur_probability: 0.5, blur_sigma: [1.0, 2.0], ..off.clone() }, 0.5),
    ] {
        let got = share(config.clone(), scratch);
        assert!((got - expected).abs() < 0.08, "{config:?}: {got}");
    }
    // A flip is the mirror image and nothing else.
    let flipped = crops(&pipeline(AugmentConfig { flip: 1.0, ..off.clone() }), &image, 0, 7, scratch).swap_remove(0);
    let mirrored: Vec<u8> = plain(7, scratch).chunks_exact(24 * 4).flat_map(|row| row.rchunks_exact(4).flatten().copied()).collect();
    assert_eq!(flipped, mirrored);
    // The two references differ only in their grey, by the last level.
    let grey = |order| crops(&pipeline(AugmentConfig { grayscale: 1.0, order, ..off.clone() }), &image, 0, 7, scratch).swap_remove(0);
    let mut grey = grey;
    let (official, weighted) = (grey(Order::Official), grey(Order::Mmpretrain));
    let worst = official.iter().zip(&weighted).map(|(a, b)| a.abs_diff(*b)).max();
    assert_eq!(worst, Some(1));
}

#[test]
fn supervised_crops_come_from_the_image() {
    let red = Rgb8 { width: 9, height: 30, pixels: [200, 10, 0].repeat(270) };
    let transform = TrainTransform { size: 8, scale: [0.08, 1.0], ratio: [0.75, 4.0 / 3.0], flip: 0.5 };
    let mut out = vec![99; crop_bytes(8)];
    transform.crop(&red, &mut Stream::new(0, 0, 0, 0), &mut out, &mut Scratch::default());
    assert!(out.chunks_exact(4).all(|p| p == [200, 10, 0, 0]));
}
