//! Configurations, overrides, logs and tables.

use super::harness::fuzz;
use std::path::Path;
use swav_wgpu::train::config::{LinearConfig, PretrainConfig};
use swav_wgpu::train::metrics_log::read_each;
use swav_wgpu::tune::{Identity, Table};

fn recipes(kind: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let texts = files.into_iter().filter_map(|path| std::fs::read(path).ok());
    // Those that stand by themselves: a file that extends another would look for it here.
    let fits = |text: &Vec<u8>| String::from_utf8_lossy(text).contains(kind) && !String::from_utf8_lossy(text).contains("extends");
    texts.filter(fits).collect()
}

#[test]
fn pretraining_configurations() {
    fuzz("pretrain.toml", &recipes("kind = \"pretrain\""), |path| PretrainConfig::load(path, &[]).is_ok());
}

#[test]
fn linear_configurations() {
    fuzz("linear.toml", &recipes("kind = \"linear\""), |path| LinearConfig::load(path, &[]).is_ok());
}

#[test]
fn overrides() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/digits.toml");
    let seeds =
        ["optimizer.lr=1.2", "crops.size=[32, 16]", "data.mean=[0.5,0.5,0.5]", "method=\"swav\"", "train.epochs=20"].map(|s| s.as_bytes().to_vec());
    fuzz("override", &seeds, |path| {
        let text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        PretrainConfig::load(&config, &[text]).is_ok()
    });
}

#[test]
fn logs() {
    let lines = (0..9).map(|step| format!("{{\"step\":{step},\"loss\":1.5,\"extra\":[1,null,\"a\"]}}\n")).collect::<String>();
    fuzz("metrics.jsonl", &[lines.into_bytes()], |path| read_each(path, |object| assert!(object.len() < 1 << 20)).is_ok());
}

#[test]
fn tables_of_measured_kernels() {
    let identity = Identity { adapter: "a".into(), driver: "d".into(), backend: "vulkan".into(), program: "1".into(), shaders: "s".into() };
    let folder = tempfile::tempdir().unwrap();
    let mut table = Table::open(folder.path(), identity.clone());
    table.insert("conv2d 1x5", [("plain".to_owned(), 1.5), ("tile".to_owned(), 0.5)].into());
    table.save();
    let file = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).find(|p| p.extension().is_some_and(|e| e == "json")).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    fuzz(&name, &[std::fs::read(&file).unwrap()], |path| {
        // A damaged one is as if it were not there.
        let table = Table::open(path.parent().unwrap(), identity.clone());
        table.best("conv2d 1x5", &["plain", "tile"]).is_some_and(|best| best == "tile")
    });
}
