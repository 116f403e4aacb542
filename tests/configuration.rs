//! `docs/configuration.md` is what the sources say of every key: `UPDATE_DOCS=1 cargo test --release --test configuration` writes it anew.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use swav_wgpu::train::config::{LinearConfig, PretrainConfig};
use toml::{Table, Value};

/// A documented struct: what it is, and its fields (name, type, meaning).
#[derive(Default)]
struct Section {
    about: String,
    fields: Vec<[String; 3]>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every public struct of the configuration's sources by name.
fn sections() -> HashMap<String, Section> {
    let (mut all, mut open, mut about) = (HashMap::new(), None::<(String, Section)>, String::new());
    for file in ["mod", "pretrain", "linear", "deepcluster"] {
        for line in fs::read_to_string(root().join(format!("src/train/config/{file}.rs"))).unwrap().lines() {
            let line = line.trim();
            if let Some(text) = line.strip_prefix("///") {
                about = format!("{about} {}", text.trim()).trim().to_owned();
            } else if let Some(name) = line.strip_prefix("pub struct ").and_then(|l| l.strip_suffix(" {")) {
                open = Some((name.to_owned(), Section { about: std::mem::take(&mut about), fields: Vec::new() }));
            } else if line == "}" {
                all.extend(open.take());
            } else if let (Some((_, section)), Some((name, ty))) = (&mut open, line.strip_prefix("pub ").and_then(|l| l.split_once(": "))) {
                section.fields.push([name.to_owned(), ty.trim_end_matches(',').to_owned(), std::mem::take(&mut about)]);
            } else if !line.starts_with("#[") {
                about.clear();
            }
        }
    }
    all
}

/// Tables of the keys of `config`, whose defaults are `defaults`.
fn keys(config: &str, defaults: &Table, sections: &HashMap<String, Section>) -> String {
    let mut text = String::new();
    let plain = |about: &str| about.replace("[`Cosine`]", "`src/optim/schedule.rs`").replace("[`", "`").replace("`]", "`").replace('|', "\\|");
    let rows = |fields: &[&[String; 3]], defaults: Option<&Table>| {
        let row = |[name, _, about]: &&[String; 3]| {
            let default = match defaults.and_then(|d| d.get(name)) {
                // One per core of whoever asks.
                Some(_) if name == "workers" => "cores".to_owned(),
                Some(value) => format!("`{value}`"),
                None => "–".to_owned(),
            };
            format!("| `{name}` | {default} | {} |\n", plain(about))
        };
        format!("| key | default | meaning |\n| --- | --- | --- |\n{}\n", fields.iter().map(row).collect::<String>())
    };
    let inner = |ty: &str| sections.get(ty.trim_start_matches("Option<").trim_end_matches('>'));
    let (tables, top): (Vec<_>, Vec<_>) = sections[config].fields.iter().partition(|[_, ty, _]| inner(ty).is_some());
    text += &rows(&top, Some(defaults));
    for [name, ty, about] in tables {
        let section = inner(ty).unwrap();
        let said = section.about.strip_prefix(&format!("`[{name}]`")).unwrap_or(&section.about).trim_start_matches([':', '.']).trim();
        let said = if said.is_empty() || said.starts_with("of ") { about } else { said };
        let fields: Vec<&[String; 3]> = section.fields.iter().collect();
        let (first, rest) = said.split_at(said.chars().next().map_or(0, char::len_utf8));
        let said = first.to_uppercase() + rest;
        let _ = write!(text, "### `[{name}]`\n{}\n\n{}", plain(&said), rows(&fields, defaults.get(name).and_then(Value::as_table)));
    }
    text
}

#[test]
fn every_key_is_documented_as_its_source_says() {
    let sections = sections();
    let defaults = |text: String| text.parse::<Table>().unwrap();
    let pretrain = keys("PretrainConfig", &defaults(PretrainConfig::default().to_toml().unwrap()), &sections);
    let linear = keys("LinearConfig", &defaults(LinearConfig::default().to_toml().unwrap()), &sections);
    let wanted = format!(
        "# Configuration keys\n\
        Both kinds of TOML file, with the program's defaults. `extends = [\"other.toml\"]` takes over what a file does not say; `--set section.key=VALUE` overrides a key; \
        `swav-wgpu info --config FILE` prints all of them resolved. Unknown keys and values out of range are errors that name file, key and value. `data.path` is relative to the \
        folder the program is started in.\n\n\
        ## `kind = \"pretrain\"`: `train`\n{pretrain}## `kind = \"linear\"`: `eval-linear` and `finetune`\n{linear}"
    );
    let path = root().join("docs/configuration.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "docs/configuration.md is not what the sources say: UPDATE_DOCS=1 cargo test --release --test configuration");
    for key in ["`recompute`", "`backbone_lr`", "`kmeans_iterations`", "`feat_dim`", "`workers`"] {
        assert!(wanted.contains(key), "{key} is missing: the sources are read wrong");
    }
}
