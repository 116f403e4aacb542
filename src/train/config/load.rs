//! Reading, merging and naming what is wrong.

use super::suggest::{self, closest};
use super::{Kind, check::Check, normalize_std};
use crate::error::{Error, Result};
use crate::train::event::Warning;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

const MAX_FILE: u64 = 1 << 20;
/// How `--set` is named in error messages.
const SET: &str = "--set";

/// Which file (or `--set`) each key was last given in.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    root: String,
    keys: BTreeMap<String, String>,
    /// What a file said of a key that `--set` then gave, and which file.
    replaced: BTreeMap<String, (Value, String)>,
    /// Keys that `--set` gave again, with another value.
    repeated: BTreeMap<String, Value>,
}

impl Origins {
    /// Everything comes from one place.
    pub fn of(file: impl Into<String>) -> Self {
        Self { root: file.into(), ..Self::default() }
    }

    /// Whether `key` was given anywhere.
    pub(super) fn gives(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Whether `--set` gave `key`.
    pub(super) fn sets(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(|file| file == SET)
    }

    /// What stood in a file in the place of what `--set` gave for `key`, and that file.
    pub(super) fn replaced(&self, key: &str) -> Option<&(Value, String)> {
        self.replaced.get(key)
    }

    /// A warning of each key that `--set` gave several values for.
    pub(super) fn repeated(&self) -> impl Iterator<Item = Warning> {
        self.repeated.iter().map(|(key, last)| Warning::new(key, format!("is --set more than once: the last, {last}, counts")))
    }

    /// The file that gave `key`, or the table it is in, or else the file that was loaded.
    pub fn file_of(&self, key: &str) -> &str {
        let mut key = key.split('[').next().unwrap_or(key);
        loop {
            if let Some(file) = self.keys.get(key) {
                return file;
            }
            match key.rsplit_once('.') {
                Some((table, _)) => key = table,
                None => return &self.root,
            }
        }
    }
}

fn read(path: &Path) -> Result<Table> {
    let name = path.display();
    let bad = |what: String| Error::Usage(format!("{name}: {what}"));
    let file = std::fs::File::open(path).map_err(|e| bad(format!("cannot be opened: {e}")))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| bad(format!("cannot be read: {e}")))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(bad(format!("is larger than {MAX_FILE} bytes, so it is no configuration file")));
    }
    let text = String::from_utf8(bytes).map_err(|e| bad(format!("is not UTF-8 text (byte {} on)", e.utf8_error().valid_up_to())))?;
    text.parse::<Table>().map_err(|e| {
        let line = e.span().map_or(0, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
        let message = e.message().trim().replace('\n', ", ");
        // The parser speaks of Rust's types there.
        let beyond = ["u64 value was too large", " as i128", " as u128"].iter().any(|sign| message.contains(sign));
        let message = if beyond { format!("whole numbers are from {} to {}", i64::MIN, i64::MAX) } else { message };
        bad(format!("line {line}: {message}"))
    })
}

fn merge(base: &mut Table, over: Table, prefix: &str, file: &str, origins: &mut Origins) {
    // depth and blocks say the same thing in two ways: the later file's way replaces the earlier one's.
    if prefix == "model." {
        if over.contains_key("blocks") && !over.contains_key("depth") {
            base.remove("depth");
        } else if over.contains_key("depth") && !over.contains_key("blocks") {
            base.remove("blocks");
            base.remove("block");
        }
    }
    for (key, value) in over {
        let path = format!("{prefix}{key}");
        let before = origins.keys.insert(path.clone(), file.to_owned());
        if file == SET && before.as_deref() == Some(SET) && !value.is_table() && base.get(&key).is_some_and(|old| *old != value) {
            origins.repeated.insert(path.clone(), value.clone());
        }
        if let (SET, Some(before), Some(old)) = (file, before.filter(|before| before != SET), base.get(&key)) {
            origins.replaced.insert(path.clone(), (old.clone(), before));
        }
        match (base.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new, &format!("{path}."), file, origins),
            (_, Value::Table(new)) => {
                let mut table = Table::new();
                merge(&mut table, new, &format!("{path}."), file, origins);
                base.insert(key, Value::Table(table));
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Most files that a configuration may be made of: each may name others, and those again.
const MOST_FILES: usize = 256;

fn read_extended(path: &Path, (open, files): (&mut Vec<PathBuf>, &mut usize), into: &mut Table, origins: &mut Origins) -> Result<()> {
    let name = path.display().to_string();
    *files += 1;
    if *files > MOST_FILES {
        return Err(Error::config(name, "extends", format!("more than {MOST_FILES} files are read, each as often as it is named")));
    }
    let mut table = read(path)?;
    let real = path.canonicalize().map_err(|e| Error::Usage(format!("{name}: cannot be opened: {e}")))?;
    if open.contains(&real) {
        let chain: Vec<_> = open.iter().chain([&real]).map(|p| p.file_name().unwrap_or_default().to_string_lossy()).collect();
        return Err(Error::config(name, "extends", format!("goes round in a circle: {}", chain.join(" -> "))));
    }
    let parents = match table.remove("extends") {
        None => vec![],
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) if many.iter().all(Value::is_str) => many.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
        Some(other) => return Err(Error::config(name, "extends", format!("is {other}: must be a list of file names"))),
    };
    open.push(real);
    for parent in parents {
        let parent = path.parent().unwrap_or(Path::new("")).join(parent);
        read_extended(&parent, (open, files), into, origins).map_err(|e| match e {
            Error::Usage(text) if !text.contains("(extended by ") => Error::Usage(format!("{text} (extended by {name})")),
            other => other,
        })?;
    }
    open.pop();
    normalize_std::rename(&mut table, &name)?;
    merge(into, table, "", &name, origins);
    Ok(())
}

/// `a.b=VALUE` as a table; a VALUE that is no TOML is a string.
fn parse_set(text: &str) -> Result<Table> {
    let bad = |key: &str, what: &str| Error::config(SET, key, what);
    let (path, value) = text.split_once('=').ok_or_else(|| bad(text, "must read key=value, for example optimizer.lr=0.3"))?;
    let path = path.trim();
    let good = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    if !path.split('.').all(good) {
        return Err(bad(path, "is no key; it must read like optimizer.lr"));
    }
    // The parsed text must hold this one value and nothing after it.
    let digits = value.trim().trim_start_matches('+').replace('_', "");
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<i64>().is_err() {
        return Err(bad(path, &format!("is {}: a whole number is at most {}", value.trim(), i64::MAX)));
    }
    let parsed = format!("v = {value}").parse::<Table>().ok().filter(|t| t.len() == 1).and_then(|mut t| t.remove("v"));
    let mut value = parsed.unwrap_or_else(|| Value::String(value.trim().to_owned()));
    for part in path.rsplit('.') {
        value = Value::Table(Table::from_iter([(part.to_owned(), value)]));
    }
    match value {
        Value::Table(table) => Ok(table),
        _ => Err(bad(path, "is no key")),
    }
}

fn merged(path: &Path, sets: &[String]) -> Result<(Table, Origins)> {
    let mut origins = Origins::of(path.display().to_string());
    let mut table = Table::new();
    read_extended(path, (&mut Vec::new(), &mut 0), &mut table, &mut origins)?;
    for set in sets {
        let mut set = parse_set(set)?;
        normalize_std::rename(&mut set, SET)?;
        merge(&mut table, set, "", SET, &mut origins);
    }
    Ok((table, origins))
}

fn kind_in(table: &Table, origins: &Origins) -> Result<Kind> {
    match table.get("kind") {
        Some(Value::String(k)) if k == "pretrain" => Ok(Kind::Pretrain),
        Some(Value::String(k)) if k == "linear" => Ok(Kind::Linear),
        Some(other) => Err(Error::config(origins.file_of("kind"), "kind", format!("is {other}: allowed: \"pretrain\", \"linear\""))),
        None => Ok(if ["head", "image"].iter().any(|k| table.contains_key(*k)) { Kind::Linear } else { Kind::Pretrain }),
    }
}

/// Kind of a configuration file, without checking the rest of it.
pub fn kind_of(path: &Path, sets: &[String]) -> Result<Kind> {
    let (table, origins) = merged(path, sets)?;
    kind_in(&table, &origins)
}

/// Refuses other values where `whole` has a table: a list would pass for one, and its elements for the table's keys in their order.
fn expect_tables(table: &Table, whole: &Table, prefix: &str, c: &Check) -> Result<()> {
    for (key, inner) in whole.iter().filter_map(|(key, value)| Some((key, value.as_table()?))) {
        let path = format!("{prefix}{key}");
        match table.get(key) {
            Some(Value::Table(given)) => expect_tables(given, inner, &format!("{path}."), c)?,
            Some(other) => return Err(c.error(&path, format!("is {other}: must be a table"))),
            None => {}
        }
    }
    Ok(())
}

/// Reads a file with its parents and overrides into `T`, whose kind must be `want`; `whole` has all of its tables. Ranges are not yet checked.
pub(super) fn load<T: DeserializeOwned + Serialize>(path: &Path, sets: &[String], want: Kind, whole: &T) -> Result<(T, Origins)> {
    let (mut table, origins) = merged(path, sets)?;
    let kind = kind_in(&table, &origins)?;
    if kind != want {
        let message = format!("is \"{kind}\", but this command takes a configuration of kind \"{want}\"");
        return Err(Error::config(origins.file_of("kind"), "kind", message));
    }
    table.insert("kind".into(), Value::String(kind.to_string()));
    let whole = Table::try_from(whole).map_err(|e| Error::Failed(format!("the configuration cannot be written as TOML: {e}")))?;
    expect_tables(&table, &whole, "", &Check { origins: &origins })?;
    match serde_path_to_error::deserialize(Value::Table(table)) {
        Ok(config) => Ok((config, origins)),
        Err(error) => {
            let (key, message) = explain(&error.path().to_string(), error.inner().message(), &whole);
            Err(Check { origins: &origins }.error(&key, message))
        }
    }
}

/// serde's message in the words of the configuration: the full key, and what is allowed.
fn explain(path: &str, message: &str, whole: &Table) -> (String, String) {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if let [wrong, allowed @ ..] = quoted.as_slice() {
        let list =
            || format!("allowed: {}{}", allowed.join(", "), closest(wrong, allowed).map_or(String::new(), |c| format!(" (did you mean {c}?)")));
        if message.starts_with("unknown field") {
            let key = match path {
                "." => (*wrong).to_owned(),
                p if p == *wrong || p.ends_with(&format!(".{wrong}")) => p.to_owned(),
                p => format!("{p}.{wrong}"),
            };
            let elsewhere = suggest::elsewhere(&key, whole);
            return (key, format!("unknown key; {}", elsewhere.unwrap_or_else(list)));
        }
        if message.starts_with("unknown variant") {
            let key = path.strip_suffix(&format!(".{wrong}")).unwrap_or(path);
            return (key.to_owned(), format!("is \"{wrong}\": {}", list()));
        }
    }
    let mut text = message.replace('`', "").replace('\n', ", ");
    for (from, to) in [
        ("invalid type: ", "is "),
        ("invalid value: ", "is "),
        ("invalid length ", "has a wrong length of "),
        (", expected ", ": must be "),
        ("floating point ", ""),
        ("integer ", ""),
        ("boolean ", ""),
        ("string ", ""),
        ("must be a string", "must be text"),
        ("must be u64", "must be a whole number >= 0"),
        ("must be usize", "must be a whole number >= 0"),
        ("must be u32", "must be a whole number from 0 to 4294967295"),
        ("must be f64", "must be a number"),
        ("must be a sequence", "must be a list"),
        ("must be an array of length ", "must be a list of "),
        ("must be a tuple of size ", "must be a list of "),
    ] {
        text = text.replace(from, to);
    }
    if let Some(at) = text.find("must be struct ") {
        text.replace_range(at.., "must be a table");
    }
    (path.to_owned(), text)
}

/// Keys whose values differ between two resolved configurations (TOML text): `(key, first, second)`, for `--resume` with a changed file.
pub fn differences(first: &str, second: &str) -> Vec<(String, String, String)> {
    fn flat(prefix: &str, value: &Value, out: &mut BTreeMap<String, String>) {
        match value {
            Value::Table(table) => table.iter().for_each(|(k, v)| flat(&if prefix.is_empty() { k.clone() } else { format!("{prefix}.{k}") }, v, out)),
            other => _ = out.insert(prefix.to_owned(), other.to_string()),
        }
    }
    let [a, b] = [first, second].map(|text| {
        let mut out = BTreeMap::new();
        flat("", &Value::Table(text.parse().unwrap_or_default()), &mut out);
        out
    });
    let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let get = |m: &BTreeMap<String, String>, k: &String| m.get(k).cloned().unwrap_or_else(|| "(absent)".into());
    keys.into_iter().filter(|k| a.get(*k) != b.get(*k)).map(|k| (k.clone(), get(&a, k), get(&b, k))).collect()
}
