//! WGSL composition: `#import name` and host-set `const` and `alias` values.
//!
//! Every file in `shaders/` is plain WGSL that other tools can read. A line `#import index` appends `shaders/lib/index.wgsl` once (module
//! scope is free of order, so naga's line numbers stay those of the file as long as nothing is unrolled); [`Specialization::import`] puts another file of the same interface in
//! its place. A top-level `const NAME: T = default;` or
//! `alias NAME = type;` is a knob: [`Specialization`] replaces its value by name, and a name that no line declares is an error. A line `#unroll` has the
//! loop below it written out, `#unroll CONDITION` where that constant is true (`gpu/unroll.rs`).
//!
//! Adapters without f16 in shaders store it all the same, packed in words, and compute in f32 ([`Specialization::packed`]). So that each
//! kernel stays one source, a kernel over an alias `E` declares its buffers as `array<vec4<E>>`, reads them only as `vec4<f32>(buffer[..])`,
//! and writes them only as `vec4<E>(..)` of a `vec4<f32>`; `widen` and `narrow` of `lib/packed.wgsl` then take the place of these conversions.

use super::unroll::unroll;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Why a shader could not be composed: a mistake in the program.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShaderError {
    /// No shader of that name.
    #[error("{shader}:{line}: no shader `{import}` to import")]
    UnknownImport {
        /// File that imports.
        shader: String,
        /// Line, from 1.
        line: usize,
        /// Name it asks for.
        import: String,
    },
    /// A loop to be unrolled that cannot be.
    #[error("{shader}: {reason}")]
    Loop {
        /// The shader.
        shader: String,
        /// Which loop.
        reason: String,
    },
    /// A specialisation of a constant that the shader does not declare.
    #[error("{shader}: no top-level `const {name}` or `alias {name}` to set, nor an `#import {name}`")]
    UnknownConstant {
        /// The shader.
        shader: String,
        /// The knob asked for.
        name: String,
    },
}

/// Values for a shader's knobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Specialization(BTreeMap<&'static str, String>);

impl Specialization {
    /// Sets a `const NAME: u32`.
    #[must_use]
    pub fn u32(mut self, name: &'static str, value: u32) -> Self {
        self.0.insert(name, format!("{value}u"));
        self
    }

    /// Sets a `const NAME: bool`.
    #[must_use]
    pub fn bool(mut self, name: &'static str, value: bool) -> Self {
        self.0.insert(name, value.to_string());
        self
    }

    /// Sets an `alias NAME`.
    #[must_use]
    pub fn alias(mut self, name: &'static str, ty: &str) -> Self {
        self.0.insert(name, ty.to_owned());
        self
    }

    /// Has `#import name` bring `file` instead.
    #[must_use]
    pub fn import(mut self, name: &'static str, file: &str) -> Self {
        self.0.insert(name, file.to_owned());
        self
    }

    /// Adds the values of `other`, which win.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0.extend(other.0.iter().map(|(name, value)| (*name, value.clone())));
        self
    }

    /// The same with f16 packed: storage only.
    #[must_use]
    pub fn packed(mut self) -> Self {
        self.0.values_mut().filter(|value| *value == "f16").for_each(|value| *value = PACKED.to_owned());
        self
    }

    /// `NAME=value` pairs, for labels.
    pub fn label(&self) -> String {
        self.0.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
    }
}

/// Value of an alias that stands for packed f16; also the name of the shader that brings the conversions.
const PACKED: &str = "packed";

/// Composes shader `name`, whose text `find` gives.
pub fn compose(name: &str, find: impl Fn(&str) -> Option<&'static str>, spec: &Specialization) -> Result<String, ShaderError> {
    let mut composer = Composer { find: &find, spec, seen: BTreeSet::new(), unused: spec.0.keys().copied().collect(), tail: String::new() };
    let text = find(name).ok_or_else(|| ShaderError::UnknownImport { shader: name.into(), line: 0, import: name.into() })?;
    let body = composer.expand(name, text)?;
    if let Some(unused) = composer.unused.first() {
        return Err(ShaderError::UnknownConstant { shader: name.into(), name: (*unused).into() });
    }
    let packed: Vec<&str> = spec.0.iter().filter(|(_, value)| *value == PACKED).map(|(alias, _)| *alias).collect();
    let mut composed = packed.iter().fold(body + &composer.tail, |text, alias| pack(text, alias));
    if !packed.is_empty() {
        let text = find(PACKED).ok_or_else(|| ShaderError::UnknownImport { shader: name.into(), line: 0, import: PACKED.into() })?;
        composed.push_str(text);
    }
    let f16 = composed.contains("f16>") || composed.contains("= f16;");
    // On one line with the file's first, so that line numbers stay true.
    let composed = if f16 { format!("enable f16; {composed}") } else { composed };
    unroll(composed).map_err(|reason| ShaderError::Loop { shader: name.into(), reason })
}

struct Composer<'a> {
    find: &'a dyn Fn(&str) -> Option<&'static str>,
    spec: &'a Specialization,
    seen: BTreeSet<String>,
    unused: BTreeSet<&'static str>,
    tail: String,
}

impl Composer<'_> {
    fn expand(&mut self, shader: &str, text: &'static str) -> Result<String, ShaderError> {
        let mut out = String::with_capacity(text.len());
        for (i, line) in text.lines().enumerate() {
            if let Some(import) = line.strip_prefix("#import ").map(str::trim) {
                self.unused.remove(import);
                let import = self.spec.0.get(import).map_or(import, String::as_str);
                if self.seen.insert(import.to_owned()) {
                    let error = || ShaderError::UnknownImport { shader: shader.into(), line: i + 1, import: import.into() };
                    let body = (self.find)(import).ok_or_else(error)?;
                    let own = self.expand(import, body)?;
                    self.tail.push_str(&own);
                }
                out.push('\n');
                continue;
            }
            match declared(line).and_then(|(head, name)| self.spec.0.get_key_value(name).map(|kv| (head, kv))) {
                // Nothing is left of the type: the line keeps its default.
                Some((_, (name, value))) if value == PACKED => {
                    self.unused.remove(name);
                    let _ = writeln!(out, "{line}");
                }
                Some((head, (name, value))) => {
                    self.unused.remove(name);
                    let _ = writeln!(out, "{head} = {value};");
                }
                None => {
                    let _ = writeln!(out, "{line}");
                }
            }
        }
        Ok(out)
    }
}

/// Packs the buffers over `alias`: see the head of this file.
fn pack(text: String, alias: &str) -> String {
    let array = format!("array<vec4<{alias}>>");
    let buffers = text.lines().filter(|line| line.contains(&array)).filter_map(|line| line.split_once("> ")?.1.split_once(':'));
    let names: Vec<String> = buffers.map(|(name, _)| name.to_owned()).collect();
    let packed = text.replace(&array, "array<vec2<u32>>").replace(&format!("vec4<{alias}>("), "narrow(");
    names.iter().fold(packed, |text, name| text.replace(&format!("vec4<f32>({name}["), &format!("widen({name}[")))
}

/// `const WG: u32 = 64u;` is (`const WG: u32`, `WG`); `alias Element = f32;` is (`alias Element`, `Element`).
fn declared(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("const ").or_else(|| line.strip_prefix("alias "))?;
    let (head, _) = line.split_once(" =")?;
    Some((head, rest.split([':', ' ']).next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> Option<&'static str> {
        Some(match name {
            "main" => "#import lib\nconst SIZE: u32 = 1u;\nalias Element = f32;\nfn f() {}\n",
            "lib" => "#import lib\nfn g() {}\n",
            "other" => "fn h() {}\n",
            "half" => {
                "alias E = f32;\n@binding(1) var<storage, read> x: array<vec4<E>>;\nfn f() { y[0] = vec4<E>(vec4<f32>(x[i[0]]) + vec4<f32>(z[0])); }\n"
            }
            "packed" => "fn widen() {}\n",
            "broken" => "fn f() {}\n#import nowhere\n",
            _ => return None,
        })
    }

    #[test]
    fn sets_constants_and_appends_imports_once() {
        let spec = Specialization::default().u32("SIZE", 8).alias("Element", "f16");
        let text = compose("main", find, &spec).unwrap();
        assert_eq!(text, "enable f16; \nconst SIZE: u32 = 8u;\nalias Element = f16;\nfn f() {}\n\nfn g() {}\n");
    }

    #[test]
    fn another_file_takes_the_place_of_an_import() {
        let text = compose("main", find, &Specialization::default().import("lib", "other")).unwrap();
        assert!(text.ends_with("fn h() {}\n") && !text.contains("fn g"), "{text}");
    }

    #[test]
    fn packs_f16_where_shaders_have_none() {
        let text = compose("half", find, &Specialization::default().alias("E", "f16").packed()).unwrap();
        let body = "@binding(1) var<storage, read> x: array<vec2<u32>>;\nfn f() { y[0] = narrow(widen(x[i[0]]) + vec4<f32>(z[0])); }\n";
        assert_eq!(text, format!("alias E = f32;\n{body}fn widen() {{}}\n"));
        let f32 = Specialization::default().alias("E", "f32");
        assert_eq!(f32.clone().packed(), f32);
    }

    #[test]
    fn names_what_is_unknown() {
        let unknown = compose("main", find, &Specialization::default().u32("TYPO", 1)).unwrap_err();
        assert_eq!(unknown.to_string(), "main: no top-level `const TYPO` or `alias TYPO` to set, nor an `#import TYPO`");
        assert_eq!(compose("broken", find, &Specialization::default()).unwrap_err().to_string(), "broken:2: no shader `nowhere` to import");
    }
}
