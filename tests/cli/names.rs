//! Names that terminals and browsers would obey: of files, classes, tensors, keys, in arguments. Each way of text out of the program is tried.

use crate::rig::{Ran, Rig, finished};
use std::collections::BTreeMap;
use swav_wgpu::weights::{AnyTensor, write_safetensors};

/// Colour, a line that looks like the program's, a link, a C1 sequence, right-to-left, no width.
const RUDE: &str = "a\x1b[31m\nerror: forged\r\x1b]8;;x\x07\u{9b}2J\u{202e}gnp\u{200b}";
/// How that is shown.
const SHOWN: &str = "a\\u001b[31m\\nerror: forged\\r\\u001b]8;;x\\u0007\\u009b2J\\u202egnp\\u200b";

fn hides(c: char) -> bool {
    c.is_control() || ['\u{202e}', '\u{200b}'].contains(&c)
}

/// Nothing of it reaches the terminal as it is, and all of it can be seen.
#[track_caller]
fn shown(ran: &Ran) {
    let all = format!("{}{}", ran.out, ran.err);
    assert!(!all.chars().any(|c| hides(c) && c != '\n') && !all.lines().any(|l| l.starts_with("error: forged")), "{all:?}");
    assert!(all.contains(SHOWN), "{all}");
}

/// The line, and then arguments with anything in them.
fn with(rig: &Rig, line: &str, arguments: &[&str]) -> Ran {
    let mut command = rig.command(line);
    command.args(arguments);
    finished(command)
}

#[test]
fn arguments_and_keys() {
    let rig = Rig::new();
    for line in [
        "",
        "info --config pretrain.toml",
        "info --config pretrain.toml --adapter",
        "devices --tune",
        "eval-knn --weights random --k",
        "train --config",
    ] {
        let ran = with(&rig, line, &[RUDE]);
        assert!([Some(2), Some(3)].contains(&ran.code), "{line}: {:?}", ran.code);
        shown(&ran);
    }
    for (line, argument) in [
        ("info --config pretrain.toml --set", format!("{RUDE}=1")),
        ("info --config pretrain.toml --set", format!("data.mean={RUDE}")),
        ("bench --list --filter", format!("({RUDE}")),
        ("replay", RUDE.to_owned()),
        ("convert", format!("{RUDE}.pth")),
    ] {
        let more: &[&str] = if line == "convert" { &["out.safetensors"] } else { &[] };
        let ran = with(&rig, line, &[&[argument.as_str()], more].concat());
        assert_eq!(ran.code, Some(2), "{line}");
        assert!(!ran.err.chars().any(|c| hides(c) && c != '\n') && !ran.err.lines().any(|l| l.starts_with("error: forged")), "{:?}", ran.err);
    }
}

#[test]
fn tensors_and_metadata() {
    let rig = Rig::new();
    rig.train("run", "--max-steps 1");
    rig.run("convert run plain.safetensors --to torchvision -q").ok();
    let file = swav_wgpu::weights::read_safetensors(rig.path("plain.safetensors")).unwrap();
    let mut tensors: BTreeMap<String, AnyTensor<'static>> = BTreeMap::new();
    for name in file.names() {
        let tensor = file.f32(name);
        if let Ok(tensor) = tensor {
            tensors.insert(name.to_owned(), AnyTensor::from_f32(&tensor.shape, &tensor.data).into_owned());
        }
    }
    tensors.insert(RUDE.into(), AnyTensor::from_f32(&[1], &[1.0]).into_owned());
    write_safetensors(rig.path("rude.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    let ran = rig.run("convert rude.safetensors out.safetensors").ok();
    shown(&ran);
    let json = rig.run("convert rude.safetensors again.safetensors --json -q").ok();
    assert!(!json.out.trim_end().chars().any(hides), "{:?}", json.out);
    assert_eq!(json.json()["unmatched"][0], RUDE);
}

/// File systems of Windows have no such names.
#[cfg(unix)]
#[test]
fn files_classes_pages_and_logs() {
    let rig = Rig::new();
    let class = RUDE.replace('/', "");
    for part in ["train", "val"] {
        std::fs::rename(rig.path(&format!("data/{part}/red")), rig.path(&format!("data/{part}/{class}"))).unwrap();
    }
    let image = rig.path(&format!("data/val/{class}/00.png")).display().to_string();
    // A run in a folder of that name, whose configuration names data of that name.
    let data = rig.path(RUDE).display().to_string();
    std::os::unix::fs::symlink(rig.path("data"), &data).unwrap();
    let run = format!("run{RUDE}");
    let ran = with(&rig, "train --config pretrain.toml --max-steps 2", &["--data", &data, "--out", &run]).ok();
    shown(&ran);
    let page = std::fs::read_to_string(rig.path(&run).join("report.html")).unwrap();
    assert!(!page.chars().any(|c| hides(c) && c != '\n') && page.contains(&format!("<h1>run{SHOWN}</h1>")), "{page}");
    let ran = with(&rig, "info --config pretrain.toml", &["--data", &data]).ok();
    shown(&ran);
    let json = with(&rig, "info --config pretrain.toml --json -q", &["--data", &data]).ok();
    assert!(json.json()["recipe"]["data"]["path"] == data && !json.out.trim_end().chars().any(hides), "{}", json.out);

    with(&rig, "eval-linear --config linear.toml --out linear -q --set train.epochs=1", &["--weights", &run]).ok();
    let predict = |more: &str| with(&rig, &format!("predict --head linear {more}"), &["--weights", &run, &image]);
    shown(&predict("").ok());
    let json = predict("--json -q").ok();
    assert_eq!(json.json()[0]["image"], image);
    assert!(!json.out.trim_end().chars().any(hides), "{:?}", json.out);
    with(&rig, "clusters --data data --out gallery -q", &["--weights", &run]).ok();
    let page = std::fs::read_to_string(rig.path("gallery/index.html")).unwrap();
    let lines = std::fs::read_to_string(rig.path("gallery/assignments.jsonl")).unwrap();
    assert!(![page, lines].concat().chars().any(|c| hides(c) && c != '\n'));

    std::fs::write(rig.path(&format!("data/val/{class}/00.png")), "no image").unwrap();
    let ran = predict("").fails(4, &[]);
    shown(&ran);
    shown(&with(&rig, "clusters --data data --out other", &["--weights", &run]).fails(4, &[]));
}
