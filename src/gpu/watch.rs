//! Kernels that count their accesses beyond a binding.
//!
//! Bounds checks only hide such accesses: reads are moved to a place that exists, and what is read there is mostly not used. But the kernels of a
//! release have no checks, nor has a device on Vulkan (`gpu/unbounded.rs`), so that there must be none. A watched kernel (`Gpu::open_checked`) looks at
//! every index into a storage array before it is used.

use std::fmt::Write as _;
use wgpu::naga::front::wgsl;

/// A shader that counts, and where the counter is bound: behind everything else that its file binds.
pub(super) struct Watched {
    pub(super) text: String,
    pub(super) binding: u32,
}

/// `text` with every index into a storage array through a function that adds to the counter where it is beyond the array. Errors say what is not valid.
pub(super) fn watched(text: &str) -> Result<Watched, String> {
    let module = wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let bound = module.global_variables.iter().filter_map(|(_, variable)| Some(variable.binding.as_ref()?.binding));
    let binding = bound.max().map_or(0, |last| last + 1);
    let mut out = text.to_owned();
    for name in storage_arrays(text) {
        out = through(&out, &name);
        let _ = write!(
            out,
            "
fn within_{name}(at: u32) -> u32 {{
    let length = arrayLength(&{name});
    if at >= length {{ atomicAdd(&overruns, 1u); }}
    return min(at, length - 1u);
}}"
        );
    }
    let _ = write!(out, "\n@group(0) @binding({binding}) var<storage, read_write> overruns: atomic<u32>;");
    Ok(Watched { text: out, binding })
}

/// Names of the runtime-sized storage arrays of a shader, each once.
fn storage_arrays(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| line.contains("var<storage") && line.contains(": array<")) {
        let declared = line.split_once("> ").and_then(|(_, rest)| rest.split_once(": array<"));
        names.extend(declared.map(|(name, _)| name.trim().to_owned()).filter(|name| !names.contains(name)));
    }
    names
}

/// `text` with `name[index]` as `name[within_name(index)]` wherever it stands.
fn through(text: &str, name: &str) -> String {
    let (start, mut out, mut rest) = (format!("{name}["), String::new(), text);
    // Ends of the indices that are open: brackets within them.
    let mut open: Vec<usize> = Vec::new();
    while let Some(c) = rest.chars().next() {
        let part_of_a_name = out.chars().next_back().is_some_and(|before| before.is_alphanumeric() || before == '_' || before == '.');
        if let Some(after) = rest.strip_prefix(&start).filter(|_| !part_of_a_name) {
            let _ = write!(out, "{start}within_{name}(");
            open.push(0);
            rest = after;
            continue;
        }
        match (c, open.last_mut()) {
            ('[', Some(inner)) => *inner += 1,
            (']', Some(0)) => {
                out.push(')');
                open.pop();
            }
            (']', Some(inner)) => *inner -= 1,
            _ => {}
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_go_through_their_array_s_function() {
        let text = "a[i] = b[a[j[0]] + c.a[1]] + ba[2];";
        assert_eq!(through(text, "a"), "a[within_a(i)] = b[a[within_a(j[0])] + c.a[1]] + ba[2];");
        assert_eq!(through("a[a[1]]", "a"), "a[within_a(a[within_a(1)])]");
    }

    #[test]
    fn the_counter_is_bound_behind_the_rest() {
        let text = "const STORE: u32 = 2u;
            @group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
            @group(0) @binding(STORE + 1u) var<storage, read_write> y: array<vec4<f32>>;
            @compute @workgroup_size(1) fn main() { y[0] = x[1u]; }";
        assert_eq!(storage_arrays(text), ["x", "y"]);
        let watched = watched(text).unwrap();
        assert_eq!(watched.binding, 4);
        assert!(watched.text.contains("y[within_y(0)] = x[within_x(1u)]"), "{}", watched.text);
        wgsl::parse_str(&watched.text).unwrap();
    }
}
