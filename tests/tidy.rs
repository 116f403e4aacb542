//! The house rules of ARCHITECTURE.md, as tests.

use std::fs;
use std::path::{Path, PathBuf};

/// Layers, lowest first. A module may use those before it. `error`, `fault` and `atomic` are for everyone.
const LAYERS: &[&str] =
    &["error", "fault", "atomic", "data", "gpu", "graph", "ops", "tune", "check", "nn", "optim", "swav", "weights", "train", "bench", "cli"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            all.extend(files(&entry, ending));
        } else if entry.extension().is_some_and(|e| e == ending) {
            all.push(entry);
        }
    }
    all.sort();
    all
}

fn layer_of(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    inside.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// Lines of code before the file's tests, with comments cut off.
fn code(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap();
    code.lines().map(|l| l.split("//").next().unwrap().to_owned()).collect()
}

#[test]
fn layers_import_only_from_lower_ones() {
    let mut wrong = Vec::new();
    for path in files(&root().join("src"), "rs") {
        let own = layer_of(&path);
        let Some(height) = LAYERS.iter().position(|l| *l == own) else {
            assert!(["lib", "main"].contains(&own.as_str()), "{} belongs to no layer", path.display());
            continue;
        };
        for (number, line) in code(&path).iter().enumerate() {
            for used in line.split("crate::").skip(1) {
                // Every module on a line of its own, or this sees none.
                assert!(!used.starts_with('{'), "{}:{}: modules imported in a group", path.display(), number + 1);
                let name: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if LAYERS.iter().position(|l| *l == name).is_some_and(|other| other > height) {
                    wrong.push(format!("{}:{}: {own} uses {name}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_module_list_is_in_layer_order() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let listed: Vec<&str> = lib.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(listed, LAYERS);
}

#[test]
fn only_the_gpu_layer_knows_wgpu_and_only_the_command_line_prints() {
    let mut wrong = Vec::new();
    for path in files(&root().join("src"), "rs") {
        let own = layer_of(&path);
        for (number, line) in code(&path).iter().enumerate() {
            let place = || format!("{}:{}: {}", path.display(), number + 1, line.trim());
            if own != "gpu" && line.contains("wgpu::") && !line.contains("swav_wgpu::") {
                wrong.push(place());
            }
            if own != "cli" && ["println!", "eprintln!", "print!("].iter().any(|p| line.contains(p)) {
                wrong.push(place());
            }
            if own == "data" && ["crate::gpu", "crate::graph"].iter().any(|p| line.contains(p)) {
                wrong.push(place());
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn files_can_be_read_in_one_go_and_say_what_they_are() {
    let mut wrong = Vec::new();
    let shaders = files(&root().join("shaders"), "wgsl");
    for path in files(&root().join("src"), "rs").into_iter().chain(files(&root().join("tests"), "rs")).chain(shaders) {
        let text = fs::read_to_string(&path).unwrap();
        if text.lines().count() > 400 {
            wrong.push(format!("{} has {} lines", path.display(), text.lines().count()));
        }
        // An op's test says what it is by its name; its cases are described where they are made.
        if path.starts_with(root().join("tests/ops")) || path.file_name().is_some_and(|n| n == "tests.rs") {
            continue;
        }
        let opening = if path.extension().is_some_and(|e| e == "wgsl") { "// " } else { "//!" };
        if !text.starts_with(opening) {
            wrong.push(format!("{} does not begin by saying what it is", path.display()));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_shader_belongs_to_one_source_file() {
    for path in files(&root().join("shaders"), "wgsl") {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.parent().unwrap().ends_with("lib") {
            continue;
        }
        let quoted = format!("\"{name}\"");
        let users: Vec<_> = ["src/ops", "src/optim", "src/check"]
            .iter()
            .flat_map(|f| files(&root().join(f), "rs"))
            .filter(|f| !f.starts_with(root().join("src/check/cases")) && fs::read_to_string(f).unwrap().contains(&quoted))
            .collect();
        // conv2d, linear and cast share names with ops that others mention in errors; at least one owner, a few mentions.
        assert!((1..=3).contains(&users.len()), "{name}.wgsl is launched by {users:?}");
    }
}
