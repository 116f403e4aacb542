//! Kernels that count their accesses beyond a binding.
//!
//! Bounds checks only hide such accesses: reads are moved to a place that exists, and what is read there is mostly not used. But the kernels of a
//! release have no checks, nor has a device on Vulkan (`gpu/unbounded.rs`), so that there must be none. A watched kernel (`Gpu::open_checked`) looks at
//! every index into a storage array before it is used.

use std::fmt::Write as _;
use wgpu::naga::{AddressSpace, ArraySize, GlobalVariable, Module, TypeInner, front::wgsl};

/// A shader that counts, and where the counter is bound: behind everything else that its file binds.
pub(super) struct Watched {
    pub(super) text: String,
    pub(super) binding: u32,
}

/// `text` with every index into a storage array through a function that adds to the counter where it is beyond the array. `None` where the counter
/// would be more than `most` storage buffers. Errors say what is not valid, or cannot be watched.
pub(super) fn watched(text: &str, most: u32) -> Result<Option<Watched>, String> {
    let module = wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let bound = module.global_variables.iter().filter_map(|(_, variable)| Some(variable.binding.as_ref()?.binding));
    let binding = bound.max().map_or(0, |last| last + 1);
    // Binding 0 is uniform.
    if binding > most {
        return Ok(None);
    }
    let mut out = text.to_owned();
    for name in storage_arrays(&module)? {
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
    Ok(Some(Watched { text: out, binding }))
}

/// Names of a shader's storage variables, which are all arrays without an end.
fn storage_arrays(module: &Module) -> Result<Vec<String>, String> {
    let stored = module.global_variables.iter().filter(|(_, variable)| matches!(variable.space, AddressSpace::Storage { .. }));
    let name = |variable: &GlobalVariable| {
        let name = variable.name.clone().unwrap_or_default();
        let endless = matches!(module.types[variable.ty].inner, TypeInner::Array { size: ArraySize::Dynamic, .. });
        if endless { Ok(name) } else { Err(format!("{name} is no array whose accesses can be watched")) }
    };
    stored.map(|(_, variable)| name(variable)).collect()
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
        let watched_by = |text: &str| watched(text, 4);
        let watched = watched_by(text).unwrap().unwrap();
        assert_eq!(watched.binding, 4);
        assert!(watched.text.contains("y[within_y(0)] = x[within_x(1u)]"), "{}", watched.text);
        assert_eq!(watched.text.matches("fn within_").count(), 2);
        wgsl::parse_str(&watched.text).unwrap();
        assert!(super::watched(text, 3).unwrap().is_none(), "one buffer too many");
        let number = "@group(0) @binding(1) var<storage, read_write> n: u32; @compute @workgroup_size(1) fn main() { n = 1u; }";
        assert_eq!(watched_by(number).map(|_| ()).unwrap_err(), "n is no array whose accesses can be watched");
    }
}
