//! The smallest inputs at the limits of what is a number, with what PyTorch makes of them in
//! float64 (`tests/golden/special.json`): forward and gradients, every variant.

use crate::golden::{Run, assert_spoilt};
use serde_json::Value;
use std::path::Path;
use swav_wgpu::graph::Tensor;
use swav_wgpu::ops::{BatchNormMode, BatchNormParameters};

/// Shape and values of an input.
fn numbers(input: &Value) -> (Vec<usize>, Vec<f64>) {
    let shape = input["shape"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
    (shape, values(&input["values"]))
}

fn values(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|v| v.as_str().unwrap().parse().unwrap()).collect()
}

/// (R, S, C, O) with C padded.
fn padded((mut shape, values): (Vec<usize>, Vec<f64>)) -> (Vec<usize>, Vec<f64>) {
    let (rows, columns) = (shape[2], shape[3]);
    shape[2] = rows.next_multiple_of(4);
    let pad = vec![0.0; (shape[2] - rows) * columns];
    (shape, values.chunks_exact(rows * columns).flat_map(|tap| [tap, &pad].concat()).collect())
}

/// Records a case: its result and the operands that it is differentiated by, by name.
fn record(case: &Value, run: &mut Run) -> (Tensor, Vec<(&'static str, Tensor)>) {
    let (inputs, attrs) = (&case["inputs"], &case["attrs"]);
    let size = |name: &str| attrs[name].as_u64().unwrap() as usize;
    let x = run.input("x", numbers(&inputs["x"]));
    let own = |x: &Tensor| vec![("grad.x", x.clone())];
    match case["op"].as_str().unwrap() {
        "relu" => (x.relu(), own(&x)),
        "normalize" => (x.normalize(), own(&x)),
        "max_pool2d" => (x.max_pool2d(size("kernel"), size("stride"), size("padding")), own(&x)),
        "cross_entropy" => {
            // Labels are recorded as the floats that have their bits.
            let (shape, labels) = numbers(&inputs["y"]);
            let labels = labels.iter().map(|v| f64::from((*v as f32).to_bits())).collect();
            (x.cross_entropy(&run.labels("y", (shape, labels))), own(&x))
        }
        "soft_ce" => {
            let number = |name: &str| attrs[name].as_f64().unwrap() as f32;
            let targets = run.input("y", numbers(&inputs["y"]));
            (x.soft_cross_entropy(&targets, number("temperature"), number("scale")), own(&x))
        }
        "batch_norm" => {
            let [weight, bias] = ["weight", "bias"].map(|name| run.input(name, numbers(&inputs[name])));
            let [running_mean, running_var] = ["rm", "rv"].map(|name| run.variable(name, numbers(&inputs[name])));
            let parameters = BatchNormParameters { weight: weight.clone(), bias: bias.clone(), running_mean, running_var };
            let y = x.batch_norm(&parameters, BatchNormMode::Training { momentum: attrs["momentum"].as_f64().unwrap() as f32 });
            run.output("out1", &parameters.running_mean);
            run.output("out2", &parameters.running_var);
            let y = if attrs["relu"].as_bool().unwrap() { y.relu() } else { y };
            (y, vec![("grad.x", x), ("grad.weight", weight), ("grad.bias", bias)])
        }
        "conv_relu" => {
            let w = run.input("w", padded(numbers(&inputs["w"])));
            (x.conv2d(&w, size("stride"), size("padding")).relu(), vec![("grad.x", x), ("grad.w", w)])
        }
        other => panic!("no such op: {other}"),
    }
}

#[test]
fn limits_are_as_in_pytorch() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/special.json");
    let cases: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (name, case) in cases.as_object().unwrap() {
        let (mut run, expected) = (Run::default(), &case["expected"]);
        if case["op"] == "argmax" {
            let y = run.input("x", numbers(&case["inputs"]["x"])).argmax_rows();
            run.output("out0", &y);
            let got: Vec<f64> = run.call().u32("out0").into_iter().map(f64::from).collect();
            assert_eq!(got, values(&expected["out0"]), "{name}");
            continue;
        }
        let (y, wrt) = record(case, &mut run);
        run.output("out0", &y);
        let wrt: Vec<(&str, &Tensor)> = wrt.iter().map(|(name, t)| (*name, t)).collect();
        run.gradients(&y, numbers(&case["inputs"]["grad_output"]), &wrt);
        run.each_variant(|variant, got| {
            for (output, want) in expected.as_object().unwrap() {
                let what = format!("{name} {output} [{variant}]");
                let mut want = values(want);
                if output == "grad.w" {
                    want = padded((vec![3, 3, 3, 5], want)).1;
                }
                if name.starts_with("bn.big") {
                    // The variance of the middle channel is 5e58: no f32, so that its results are
                    // not finite, where float64 has some.
                    want.iter_mut().skip(1).step_by(3).for_each(|v| *v = f64::NAN);
                    if output == "out1" || output == "grad.bias" {
                        continue;
                    }
                }
                let winograd = variant.starts_with("winograd");
                assert_spoilt(&what, &got.f32(output), &want, (1e-5, 1e-12), winograd);
            }
        });
    }
}
