//! k-nearest neighbours over several products on the device, against plain loops.

use swav_wgpu::data::rng::Stream;
use swav_wgpu::gpu::Gpu;
use swav_wgpu::train::knn::{Judged, Labelled, knn};
use swav_wgpu::tune::BestGuess;

const CHANNELS: usize = 6;
const CLASSES: usize = 9;

/// Features and labels. From the 4000th image on features are those of the first ones once more, as near as they are.
fn drawn(seed: u64, images: usize) -> (Vec<f32>, Vec<usize>) {
    let mut stream = Stream::new(seed, 0, 0, 0);
    let mut features: Vec<f32> = (0..images.min(4000) * CHANNELS).map(|_| stream.below(200_001) as f32 / 1e5 - 1.0).collect();
    features.extend_from_within(..images.saturating_sub(4000) * CHANNELS);
    (features, (0..images).map(|_| stream.below(CLASSES as u64) as usize).collect())
}

fn labelled((features, labels): &(Vec<f32>, Vec<usize>)) -> Labelled<'_> {
    Labelled { features, labels }
}

/// Top-1 of the votes of the `k` nearest, per cent: exp(similarity / temperature) each, ties to the earlier image and the lower class.
fn expected(train: &(Vec<f32>, Vec<usize>), val: &(Vec<f32>, Vec<usize>), k: usize, temperature: f64) -> f64 {
    let norm = |row: &[f32]| row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let right = val.0.chunks(CHANNELS).zip(&val.1).filter(|(query, label)| {
        let similarity = |key: &[f32]| query.iter().zip(key).map(|(a, b)| f64::from(a * b)).sum::<f64>() / norm(query) / norm(key);
        let mut near: Vec<(f64, usize)> = train.0.chunks(CHANNELS).map(similarity).zip(0..).collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut votes = [0.0; CLASSES];
        near[..k].iter().for_each(|(similarity, i)| votes[train.1[*i]] += (similarity / temperature).exp());
        (0..CLASSES).fold(0, |best, class| if votes[class] > votes[best] { class } else { best }) == **label
    });
    100.0 * right.count() as f64 / val.1.len() as f64
}

/// 4,096 training and 256 validation images make a product: here are two of each, neither full.
#[test]
fn many_images_vote_as_in_plain_loops() {
    let gpu = Gpu::open_checked(None).unwrap();
    let (train, val) = (drawn(1, 4100), drawn(2, 300));
    let got = knn(&gpu, &BestGuess, labelled(&train), Judged::Others(labelled(&val)), CLASSES, &[1, 20], 0.07).unwrap();
    for (got, k) in got.iter().zip([1, 20]) {
        let want = expected(&train, &val, k, 0.07);
        // Roundings may decide one image whose votes are almost even.
        assert!((got.top1 - want).abs() < 0.34 && got.k == k, "k {k}: {} for {want}", got.top1);
    }
    assert_eq!(gpu.overruns().unwrap(), Some(0), "accesses beyond a binding");
}

/// The same where each image is judged by all others: 300 queries of one bank, over two products.
#[test]
fn an_image_that_is_left_out_does_not_vote_for_itself() {
    let gpu = Gpu::open_checked(None).unwrap();
    let all = drawn(3, 4100);
    let few = (all.0[..300 * CHANNELS].to_vec(), all.1[..300].to_vec());
    let got = knn(&gpu, &BestGuess, labelled(&few), Judged::EachByTheRest, CLASSES, &[1, 5], 0.07).unwrap();
    for (got, k) in got.iter().zip([1, 5]) {
        let right = (0..300).filter(|&i| {
            let without = |step: usize, v: usize| v / step != i;
            let bank = (
                few.0.iter().enumerate().filter(|(at, _)| without(CHANNELS, *at)).map(|(_, v)| *v).collect(),
                few.1.iter().enumerate().filter(|(at, _)| without(1, *at)).map(|(_, v)| *v).collect(),
            );
            expected(&bank, &(few.0[i * CHANNELS..][..CHANNELS].to_vec(), vec![few.1[i]]), k, 0.07) > 50.0
        });
        let want = 100.0 * right.count() as f64 / 300.0;
        assert!((got.top1 - want).abs() < 0.34 && got.top1 < 50.0, "k {k}: {} for {want}", got.top1);
    }
    // By itself each would be right.
    let itself = knn(&gpu, &BestGuess, labelled(&few), Judged::Others(labelled(&few)), CLASSES, &[1], 0.07).unwrap();
    assert!(itself[0].top1 > 99.0);
    // Twins lie in two products here.
    let twins = knn(&gpu, &BestGuess, labelled(&all), Judged::EachByTheRest, CLASSES, &[1], 0.07).unwrap();
    assert!(twins[0].top1 < 50.0, "{}", twins[0].top1);
}
