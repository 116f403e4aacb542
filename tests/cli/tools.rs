//! Commands that need no training: info, devices, replay, completions, bench.

use crate::rig::{Rig, repository};
use serde_json::Value;
use std::collections::BTreeMap;
use swav_wgpu::weights::{AnyTensor, read_safetensors, write_safetensors};

#[test]
fn info_counts_what_the_references_count() {
    let rig = Rig::new();
    let config = repository("configs/swav_resnet50_8xb32-mcrop-coslr-200e_in1k-224px-96px.toml").display().to_string();
    let info = rig.run(&format!("info --config {config} --json -q")).ok().json();
    assert_eq!(info["parameters"].as_u64(), Some(28_354_752));
    assert_eq!(info["parameters_by_part"], serde_json::json!({"backbone": 23_508_032, "neck": 4_462_720, "prototypes": 384_000}));
    assert_eq!((info["flops"].as_u64(), info["image_size"].as_u64()), (Some(4_109_364_224), Some(224)));
    let memory = &info["memory"];
    let part = |key: &str| memory[key].as_u64().unwrap();
    assert!(part("weights") >= 4 * 28_354_752 && part("optimizer") >= 8 * 28_354_752 && part("activations") > 1 << 30);
    assert_eq!(part("peak_bytes"), part("weights") + part("optimizer") + part("queue") + part("activations") + part("staging"));
    let half = rig.run(&format!("info --config {config} --json -q --set train.precision=f16")).ok().json();
    let activations = half["memory"]["activations"].as_u64().unwrap();
    assert!(activations < part("activations") * 6 / 10 && half["flops"] == info["flops"], "{activations}");
    let text = rig.run(&format!("info --config {config} -q")).ok().out;
    assert!(text.contains("28,354,752") && text.contains("4,109,364,224"), "{text}");
}

#[test]
fn devices_say_what_they_can() {
    let rig = Rig::new();
    let devices = rig.run("devices --json").ok().json();
    let first = &devices[0];
    for key in ["index", "name", "backend", "driver", "kind", "f16", "cooperative_matrix", "max_binding_bytes"] {
        assert!(!first[key].is_null(), "{key} of {first}");
    }
    assert!(first["index"] == 0 && first["f16"].is_boolean() && first["cooperative_matrix"].is_array());
    assert!(first["max_binding_bytes"].as_u64().unwrap() >= 128 << 20);
    // Cooperative matrices are tried before it is said that they are used.
    let matrices = first["cooperative_matrix"].as_array().unwrap().iter().any(|m| m == "8x8x8 f16->f32" || m == "16x16x16 f16->f32");
    let status = &first["cooperative_matrix_status"];
    let told = |text: &str| text == "in use" || text.starts_with("not used: ");
    assert!(if matrices { status.as_str().is_some_and(told) } else { status.is_null() }, "{first}");
    let name = first["name"].as_str().unwrap();
    assert!(rig.run("devices").ok().out.contains(name));
    // One of them, or one that is not there.
    assert_eq!(rig.run("devices --json --adapter 0").ok().json().as_array().unwrap().len(), 1);
    rig.run("devices --adapter no-such-card").fails(3, &["no-such-card", name]);
    let part = name.split_whitespace().next().unwrap().to_uppercase();
    rig.run(&format!("eval-knn --weights random:0 --config pretrain.toml --data data -q --adapter {part}")).ok();
}

#[test]
fn recorded_trajectories_are_reproduced() {
    let rig = Rig::new();
    for (name, steps) in [("b4w8.mm_queue", 5), ("b4w8.zi_queue", 5), ("b4w8.mm_stress", 5), ("b2111w8.zi_stress", 4)] {
        let file = repository(&format!("tests/golden/replay/{name}.safetensors")).display().to_string();
        let result = rig.run(&format!("replay {file} --json")).ok().json();
        assert_eq!(
            (result["pass"].as_bool(), result["steps"].as_u64(), result["loss"].as_array().map(Vec::len)),
            (Some(true), Some(steps), Some(steps as usize)),
            "{name}"
        );
        let error = |key: &str| result[key].as_f64().unwrap();
        assert!(error("grad0_error_all") < 1e-4 && error("final_update_error_all") < 1e-3, "{name}: {result}");
        assert!(error("running_error_all") < 1e-5, "{name}: {result}");
        assert!(result["loss_error"].as_array().unwrap().iter().all(|e| e.as_f64().unwrap() < 1e-3));
        assert!(result["grad0_error"].as_object().unwrap().len() > 30);
        // In f16 they are near, and not the same.
        let half = rig.run(&format!("replay {file} --json --precision f16")).ok().json();
        assert!(half["grad0_error_all"].as_f64().unwrap() > 1e-3 && half["loss"][0] != result["loss"][0], "{name}: {half}");
    }
}

#[test]
fn a_wrong_trajectory_is_told() {
    let rig = Rig::new();
    let recorded = read_safetensors(repository("tests/golden/replay/b4w8.mm_queue.safetensors")).unwrap();
    let mut tensors: BTreeMap<String, AnyTensor<'_>> = recorded.names().map(|n| (n.to_owned(), recorded.get(n).unwrap())).collect();
    let mut weight = recorded.f32("init/layer2.0.conv2.weight").unwrap();
    weight.data[7] += 0.05;
    tensors.insert("init/layer2.0.conv2.weight".into(), AnyTensor::from_f32(&weight.shape, &weight.data));
    write_safetensors(rig.path("wrong.safetensors"), &tensors, recorded.metadata()).unwrap();
    let ran = rig.run("replay wrong.safetensors --json");
    let result: Value = serde_json::from_str(ran.out.trim()).unwrap();
    assert_eq!(result["pass"].as_bool(), Some(false));
    ran.fails(1, &["wrong.safetensors", "not reproduced"]);
    rig.run("replay wrong.safetensors --steps 1").fails(1, &["not reproduced"]);
    for steps in ["0", "99"] {
        rig.run(&format!("replay wrong.safetensors --steps {steps}")).fails(2, &["--steps", steps, "wrong.safetensors has "]);
    }
    rig.run("replay pretrain.toml").fails(2, &["pretrain.toml"]);
    // Nothing passes because it is not there, or only a part of it.
    let init = "init/layer2.0.conv2.weight";
    tensors.insert(init.into(), recorded.get(init).unwrap());
    for (name, short) in [("grad0/conv1.weight", None), ("final/conv1.weight", None), ("final/bn1.bias", Some([4])), ("q/1", Some([4]))] {
        let whole = tensors.remove(name).unwrap();
        if let Some(shape) = short {
            tensors.insert(name.into(), AnyTensor::from_f32(&shape, &[0.0; 4]));
        }
        write_safetensors(rig.path("less.safetensors"), &tensors, recorded.metadata()).unwrap();
        rig.run("replay less.safetensors").fails(2, &["less.safetensors", name]);
        tensors.insert(name.into(), whole);
    }
    for (from, to) in [("\"width\": 8", "\"width\": 0"), ("[1, 1, 1, 1]", "[1, 1, 1, 0]"), ("\"queue\": 2", "\"queue\": 99999999")] {
        let about = recorded.metadata().iter().map(|(key, text)| (key.clone(), text.replace(from, to))).collect();
        write_safetensors(rig.path("odd.safetensors"), &tensors, &about).unwrap();
        rig.run("replay odd.safetensors").fails(2, &["odd.safetensors", "metadata `swav`", "must be"]);
    }
    tensors.remove("crops/2/1");
    write_safetensors(rig.path("torn.safetensors"), &tensors, recorded.metadata()).unwrap();
    rig.run("replay torn.safetensors").fails(2, &["torn.safetensors", "crops/2/1"]);
}

#[test]
fn completions_know_every_command() {
    let rig = Rig::new();
    let help = rig.run("--help").ok().out;
    let listed = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let listed = listed.filter(|l| !l.starts_with("   ")).map(|l| l.split_whitespace().next().unwrap().to_owned());
    let words: Vec<String> = listed.filter(|word| word != "help").chain(["swav-wgpu".into(), "temperature".into()]).collect();
    assert!(words.len() > 14, "{words:?}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = rig.run(&format!("completions {shell}")).ok().out;
        let missing: Vec<&String> = words.iter().filter(|word| !script.contains(word.as_str())).collect();
        assert!(missing.is_empty(), "{shell} lacks {missing:?}");
    }
}

#[test]
fn output_that_nobody_reads_is_no_error() {
    let rig = Rig::new();
    let ran = rig.run("bench --list").ok();
    assert!(ran.out.lines().any(|l| l == "matmul_512"), "{}", ran.out);
    for line in ["bench --list", "completions zsh"] {
        // Whoever reads is gone before the first word.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = rig.command(line).stdout(writer).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(0) && said.is_empty(), "{line}: {:?} {said}", output.status);
    }
}
