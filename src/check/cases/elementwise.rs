//! Element-wise ops, copies, and more workgroups than one dimension of a dispatch holds.

use super::super::case::{Case, Entry, Kind};
use crate::graph::{DType, Tensor};
use crate::ops::{PixelStatistics, concat_rows};

pub(super) fn cases(dtype: DType, all: &mut Vec<Entry>) {
    let mut shapes: Vec<Vec<usize>> = vec![vec![1, 1], vec![5, 7], vec![257, 3], vec![2, 3, 5, 30]];
    if dtype == DType::F32 {
        // 65,537 workgroups of 64 vec4s.
        shapes.push(vec![65_537, 256]);
    }
    for shape in shapes {
        all.push(relu(&shape, dtype));
        if shape[0] < 60_000 {
            all.push(add(&shape, dtype));
        }
    }
    if dtype == DType::F32 {
        all.extend([vec![1, 1], vec![13, 33]].map(|shape| cast(&shape)));
    }
    if dtype == DType::F32 {
        all.extend([vec![1, 1], vec![17, 5]].map(|shape| accumulate(&shape)));
        all.push(clear());
    }
    all.extend([[1, 1, 1], [3, 5, 7], [2, 16, 9]].map(|images| pixels(images, dtype)));
    all.push(concat(dtype));
    all.push(slice(dtype));
}

fn relu(shape: &[usize], dtype: DType) -> Entry {
    let shape = shape.to_vec();
    Entry::new("relu", format!("{shape:?}"), dtype, move |random| {
        let count = shape.iter().product();
        let mut case =
            Case::new(Box::new(|t: &[Tensor]| vec![t[0].relu()]), Box::new(|v: &[Vec<f64>]| vec![v[0].iter().map(|x| x.max(0.0)).collect()]))
                .input("input", &shape, random.values(count, 1.0), dtype)
                .sized(1, 8 * count);
        case.kink = Some(Box::new(|v| v[0].iter().map(|x| x.abs()).collect()));
        case
    })
}

fn add(shape: &[usize], dtype: DType) -> Entry {
    let shape = shape.to_vec();
    Entry::new("add", format!("{shape:?}"), dtype, move |random| {
        let count = shape.iter().product();
        Case::new(
            Box::new(|t: &[Tensor]| vec![t[0].add(&t[1])]),
            Box::new(|v: &[Vec<f64>]| vec![v[0].iter().zip(&v[1]).map(|(a, b)| a + b).collect()]),
        )
        .input("input", &shape, random.values(count, 1.0), dtype)
        .input("other", &shape, random.values(count, 1.0), dtype)
        .sized(1, 8 * count)
    })
}

fn accumulate(shape: &[usize]) -> Entry {
    let shape = shape.to_vec();
    Entry::new("accumulate_into", format!("{shape:?}"), DType::F32, move |random| {
        let count = shape.iter().product();
        let build = |t: &[Tensor]| {
            t[0].accumulate_into(&t[1]);
            vec![t[1].clone()]
        };
        Case::new(Box::new(build), Box::new(|v: &[Vec<f64>]| vec![v[0].iter().zip(&v[1]).map(|(a, b)| a + b).collect()]))
            .fixed("input", &shape, random.values(count, 1.0))
            .variable("total", &shape, random.values(count, 1.0))
    })
}

fn clear() -> Entry {
    Entry::new("clear", "33x5".into(), DType::F32, |random| {
        let build = |t: &[Tensor]| {
            t[0].clear();
            vec![t[0].clone()]
        };
        Case::new(Box::new(build), Box::new(|v: &[Vec<f64>]| vec![vec![0.0; v[0].len()]])).variable("total", &[33, 5], random.values(165, 1.0))
    })
}

/// To f16 and back.
fn cast(shape: &[usize]) -> Entry {
    let shape = shape.to_vec();
    Entry::new("cast", format!("{shape:?}"), DType::F16, move |random| {
        let count = shape.iter().product();
        Case::new(Box::new(|t: &[Tensor]| vec![t[0].cast(DType::F16).cast(DType::F32)]), Box::new(|v: &[Vec<f64>]| vec![v[0].clone()]))
            .input("input", &shape, random.values(count, 1.0), DType::F32)
            .sized(1, count)
    })
}

/// Images of a height and width that are no whole vec4s of pixels; the fourth byte is noise.
fn pixels([images, height, width]: [usize; 3], dtype: DType) -> Entry {
    const BY: PixelStatistics = PixelStatistics { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    Entry::new("normalize_pixels", format!("{images}x{height}x{width}"), dtype, move |random| {
        let bytes: Vec<[usize; 4]> = (0..images * height * width).map(|_| [(); 4].map(|()| random.below(256))).collect();
        #[expect(clippy::cast_precision_loss, reason = "four bytes are exact in f64")]
        let packed = bytes.iter().map(|p| p.iter().rev().fold(0, |word, byte| word << 8 | byte) as f64).collect();
        let channel = |level: usize, c: usize| (level as f64 / 255.0 - f64::from(BY.mean[c])) / f64::from(BY.std[c]);
        let expected: Vec<f64> = bytes.iter().flat_map(|p| [channel(p[0], 0), channel(p[1], 1), channel(p[2], 2)]).collect();
        let build = move |t: &[Tensor]| vec![t[0].normalize_pixels([height, width], &BY, dtype)];
        Case::new(Box::new(build), Box::new(move |_: &[Vec<f64>]| vec![expected.clone()]))
            .with("pixels", &[images, height * width], packed, DType::U32, Kind::Input, false)
            .sized(4, 4 * images * height * width)
    })
}

fn concat(dtype: DType) -> Entry {
    Entry::new("concat_rows", "3 + 1 + 5 rows of 7".into(), dtype, move |random| {
        let build = |t: &[Tensor]| vec![concat_rows(&[&t[0], &t[1], &t[2]])];
        let mut case = Case::new(Box::new(build), Box::new(|v: &[Vec<f64>]| vec![v.concat()]));
        for (name, rows) in [("first", 3), ("second", 1), ("third", 5)] {
            case = case.input(name, &[rows, 7], random.values(rows * 7, 1.0), dtype);
        }
        case
    })
}

fn slice(dtype: DType) -> Entry {
    Entry::new("slice_rows", "rows 2..5 of 11x2x3x6".into(), dtype, move |random| {
        let build = |t: &[Tensor]| vec![t[0].slice_rows(2, 3)];
        Case::new(Box::new(build), Box::new(|v: &[Vec<f64>]| vec![v[0][2 * 36..5 * 36].to_vec()])).input(
            "input",
            &[11, 2, 3, 6],
            random.values(11 * 36, 1.0),
            dtype,
        )
    })
}
