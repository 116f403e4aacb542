//! Repair of naga's SPIR-V for kernels with cooperative matrices.
//!
//! Such modules declare the Vulkan memory model, in which an access takes part in the order that barriers make only when it says so
//! (`NonPrivatePointer`), and what one invocation writes reaches another only when it is made available and visible. naga 30 says
//! neither (wgpu issue 8805), so by the letter nothing written to workgroup memory before a `workgroupBarrier` need be seen after it.
//! The repair adds `MakePointerAvailable` to every store and `MakePointerVisible` to every load of workgroup memory, both with
//! `NonPrivatePointer` and the scope of the workgroup; barriers of a subgroup, which naga has order nothing but subgroup memory, order workgroup memory
//! too. Source: the SPIR-V specification 1.6, "Memory Operands" and `OpMemoryModel`.

use std::collections::{HashMap, HashSet};

/// Words of a module before its first instruction.
const HEADER: usize = 5;
/// Word of the header that bounds the ids.
const BOUND: usize = 3;

const OP_UNDEF: u32 = 1;
const OP_CAPABILITY: u32 = 17;
const OP_TYPE_INT: u32 = 21;
const OP_TYPE_FLOAT: u32 = 22;
const OP_TYPE_POINTER: u32 = 32;
const OP_CONSTANT: u32 = 43;
const OP_FUNCTION: u32 = 54;
const OP_FUNCTION_PARAMETER: u32 = 55;
const OP_VARIABLE: u32 = 59;
const OP_LOAD: u32 = 61;
const OP_STORE: u32 = 62;
const OP_COPY_MEMORY: u32 = 63;
const OP_COPY_MEMORY_SIZED: u32 = 64;
const OP_ACCESS_CHAIN: u32 = 65;
const OP_IN_BOUNDS_ACCESS_CHAIN: u32 = 66;
const OP_PTR_ACCESS_CHAIN: u32 = 67;
const OP_COPY_OBJECT: u32 = 83;
const OP_SELECT: u32 = 169;
const OP_CONTROL_BARRIER: u32 = 224;
const OP_PHI: u32 = 245;
const OP_TYPE_COOPERATIVE_MATRIX: u32 = 4456;
const OP_COOPERATIVE_MATRIX_LOAD: u32 = 4457;
const OP_COOPERATIVE_MATRIX_STORE: u32 = 4458;

const CAPABILITY_FLOAT16: u32 = 9;
/// Of a cooperative matrix, the accumulator.
const ROLE_SUM: u32 = 2;
const STORAGE_CLASS_WORKGROUP: u32 = 4;
const SCOPE_WORKGROUP: u32 = 2;
const SCOPE_SUBGROUP: u32 = 3;
/// AcquireRelease, WorkgroupMemory, MakeAvailable, MakeVisible.
const WORKGROUP_MEMORY_ORDERED: u32 = 0x8 | 0x100 | 0x2000 | 0x4000;
const MAKE_POINTER_AVAILABLE: u32 = 0x8;
const MAKE_POINTER_VISIBLE: u32 = 0x10;
const NON_PRIVATE_POINTER: u32 = 0x20;

/// An instruction's opcode and all its words.
struct Instruction<'a> {
    op: u32,
    words: &'a [u32],
}

/// Splits a module into instructions.
fn instructions(module: &[u32]) -> Result<Vec<Instruction<'_>>, String> {
    let mut rest = module.get(HEADER..).ok_or("shorter than a header")?;
    let mut all = Vec::new();
    while let Some(&first) = rest.first() {
        let length = (first >> 16) as usize;
        let words = rest.get(..length).filter(|w| !w.is_empty()).ok_or("an instruction runs past the end")?;
        all.push(Instruction { op: first & 0xffff, words });
        rest = &rest[length..];
    }
    Ok(all)
}

/// How an instruction touches memory through a pointer.
struct MemoryAccess {
    pointer: u32,
    /// Word count without memory operands.
    bare: usize,
    make: u32,
}

fn access(i: &Instruction<'_>) -> Option<MemoryAccess> {
    let (at, bare, make) = match i.op {
        OP_LOAD => (3, 4, MAKE_POINTER_VISIBLE),
        OP_STORE => (1, 3, MAKE_POINTER_AVAILABLE),
        // Both with layout and stride, which naga always gives.
        OP_COOPERATIVE_MATRIX_LOAD => (3, 6, MAKE_POINTER_VISIBLE),
        OP_COOPERATIVE_MATRIX_STORE => (1, 5, MAKE_POINTER_AVAILABLE),
        _ => return None,
    };
    Some(MemoryAccess { pointer: *i.words.get(at)?, bare, make })
}

/// Ids of the pointers into workgroup memory.
fn workgroup_pointers(all: &[Instruction<'_>]) -> HashSet<u32> {
    let is_type = |i: &&Instruction<'_>| i.op == OP_TYPE_POINTER && i.words[2] == STORAGE_CLASS_WORKGROUP;
    let types: HashSet<u32> = all.iter().filter(is_type).map(|i| i.words[1]).collect();
    let makes_pointer = |op: u32| {
        matches!(
            op,
            OP_VARIABLE
                | OP_ACCESS_CHAIN
                | OP_IN_BOUNDS_ACCESS_CHAIN
                | OP_PTR_ACCESS_CHAIN
                | OP_FUNCTION_PARAMETER
                | OP_COPY_OBJECT
                | OP_SELECT
                | OP_PHI
                | OP_UNDEF
        )
    };
    all.iter().filter(|i| makes_pointer(i.op) && types.contains(&i.words[1])).map(|i| i.words[2]).collect()
}

/// Values of 32-bit constants by id.
fn constants(all: &[Instruction<'_>]) -> HashMap<u32, u32> {
    all.iter().filter(|i| i.op == OP_CONSTANT && i.words.len() == 4).map(|i| (i.words[2], i.words[3])).collect()
}

/// The module as kernels with cooperative matrices mean it. Errors say what was met that the repair does not know.
pub(super) fn repair(module: &[u32]) -> Result<Vec<u32>, String> {
    order_workgroup_memory(&half_factors(module)?)
}

/// The module with factors in f16 where naga has them in f32: it gives matrices the type of the memory they are loaded from, where SPIR-V lets memory
/// be of any vectors. Strides count in those.
fn half_factors(module: &[u32]) -> Result<Vec<u32>, String> {
    let all = instructions(module)?;
    let known = constants(&all);
    let float = |bits: u32| all.iter().find(|i| i.op == OP_TYPE_FLOAT && i.words[2] == bits).map(|i| i.words[1]);
    let is_wide_factor = |i: &Instruction<'_>| {
        let factor = i.op == OP_TYPE_COOPERATIVE_MATRIX && known.get(&i.words[6]).is_some_and(|role| *role != ROLE_SUM);
        factor && Some(i.words[2]) == float(32)
    };
    if !all.iter().any(is_wide_factor) {
        return Ok(module.to_vec());
    }
    let mut out = module[..HEADER].to_vec();
    let half = float(16).unwrap_or_else(|| {
        out[BOUND] += 1;
        module[BOUND]
    });
    let declares_half = |i: &Instruction<'_>| i.op == OP_CAPABILITY && i.words[1] == CAPABILITY_FLOAT16;
    if !all.iter().any(declares_half) {
        out.extend([(2 << 16) | OP_CAPABILITY, CAPABILITY_FLOAT16]);
    }
    let mut declared = false;
    for i in &all {
        if i.op == OP_TYPE_FLOAT && i.words[1] == half {
            // Before the first matrix, or here if that comes later.
            if declared {
                continue;
            }
            declared = true;
        }
        if is_wide_factor(i) {
            if !declared {
                out.extend([(3 << 16) | OP_TYPE_FLOAT, half, 16]);
                declared = true;
            }
            out.extend([&i.words[..2], &[half], &i.words[3..]].concat());
        } else {
            out.extend(i.words);
        }
    }
    Ok(out)
}

/// The module with every access to workgroup memory ordered by barriers.
fn order_workgroup_memory(module: &[u32]) -> Result<Vec<u32>, String> {
    let all = instructions(module)?;
    let pointers = workgroup_pointers(&all);
    let uint = all.iter().find(|i| i.op == OP_TYPE_INT && i.words[2..] == [32, 0]).map(|i| i.words[1]);
    let uint = uint.ok_or("no 32-bit unsigned integer to name a scope with")?;
    let known = constants(&all);
    // Constants of our own: equal ones may be declared twice.
    let (scope, ordered) = (module[BOUND], module[BOUND] + 1);
    let mut out = module[..HEADER].to_vec();
    out[BOUND] += 2;
    let mut declared = false;
    for i in &all {
        if i.op == OP_FUNCTION && !declared {
            out.extend([(4 << 16) | OP_CONSTANT, uint, scope, SCOPE_WORKGROUP]);
            out.extend([(4 << 16) | OP_CONSTANT, uint, ordered, WORKGROUP_MEMORY_ORDERED]);
            declared = true;
        }
        if i.op == OP_CONTROL_BARRIER && known.get(&i.words[1]) == Some(&SCOPE_SUBGROUP) {
            out.extend([i.words[0], i.words[1], scope, ordered]);
            continue;
        }
        let touches = |id: &u32| pointers.contains(id);
        if matches!(i.op, OP_COPY_MEMORY | OP_COPY_MEMORY_SIZED) && i.words[1..3].iter().any(touches) {
            return Err("a copy within workgroup memory".into());
        }
        match access(i).filter(|a| touches(&a.pointer)) {
            Some(a) if i.words.len() == a.bare => {
                let length = u32::try_from(a.bare + 2).expect("an instruction is short");
                out.push((length << 16) | i.op);
                out.extend(&i.words[1..]);
                out.extend([a.make | NON_PRIVATE_POINTER, scope]);
            }
            // A later naga that orders its accesses itself.
            Some(a) if i.words.get(a.bare).is_some_and(|mask| mask & NON_PRIVATE_POINTER != 0) => out.extend(i.words),
            Some(_) => return Err(format!("an access to workgroup memory (opcode {}) with unknown operands", i.op)),
            None => out.extend(i.words),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::cooperative::{Access, CooperativeMatrix, ProductShape};
    use crate::gpu::{compose, passthrough, source};
    use std::collections::BTreeSet;

    /// Accesses to workgroup memory by opcode: all, and those that barriers order.
    fn count(module: &[u32]) -> HashMap<u32, [usize; 2]> {
        let all = instructions(module).unwrap();
        let pointers = workgroup_pointers(&all);
        let constants = constants(&all);
        let mut counts = HashMap::<u32, [usize; 2]>::new();
        for i in &all {
            if let Some(a) = access(i).filter(|a| pointers.contains(&a.pointer)) {
                let ordered = i.words.len() == a.bare + 2
                    && i.words[a.bare] == a.make | NON_PRIVATE_POINTER
                    && constants.get(&i.words[a.bare + 1]) == Some(&SCOPE_WORKGROUP);
                let entry = counts.entry(i.op).or_default();
                entry[0] += 1;
                entry[1] += usize::from(ordered);
            }
        }
        counts
    }

    /// Scope of execution and semantics of every barrier.
    fn barriers(module: &[u32]) -> Vec<(u32, u32)> {
        let all = instructions(module).unwrap();
        let values = constants(&all);
        all.iter().filter(|i| i.op == OP_CONTROL_BARRIER).map(|i| (values[&i.words[1]], values[&i.words[3]])).collect()
    }

    fn words(text: &str, checked: bool) -> Vec<u32> {
        let kernel = passthrough::Translated::new(text, "main", checked).unwrap();
        kernel.words
    }

    const EXAMPLE: &str = "enable f16; enable wgpu_cooperative_matrix;
        @group(0) @binding(0) var<storage, read> x: array<f16>;
        @group(0) @binding(1) var<storage, read_write> y: array<f32>;
        var<workgroup> factor: array<f16, 64>;
        var<workgroup> stage: array<f32, 64>;
        @compute @workgroup_size(8)
        fn main(@builtin(local_invocation_index) local: u32) {
            factor[local] = x[local];
            factor[local + 8u] = x[local + 8u];
            workgroupBarrier();
            let a = coopLoadT<coop_mat8x8<f16, A>>(&factor[0], 8u);
            let b = coopLoad<coop_mat8x8<f16, B>>(&x[0], 8u);
            coopStoreT(coopMultiplyAdd(a, b, coop_mat8x8<f32, C>()), &stage[0], 8u);
            subgroupBarrier();
            y[local] = stage[local];
        }";

    /// Every access to workgroup memory gets its operands, and nothing else changes.
    #[test]
    fn orders_every_access_to_workgroup_memory_and_no_other() {
        let before = words(EXAMPLE, false);
        let after = order_workgroup_memory(&before).unwrap();
        let expected = |ordered: bool| {
            let pair = |n: usize| [n, if ordered { n } else { 0 }];
            HashMap::from([(OP_STORE, pair(2)), (OP_LOAD, pair(1)), (OP_COOPERATIVE_MATRIX_LOAD, pair(1)), (OP_COOPERATIVE_MATRIX_STORE, pair(1))])
        };
        // If naga orders its accesses one day, this fails and the repair can go.
        assert_eq!(count(&before), expected(false));
        assert_eq!(count(&after), expected(true));
        // Two words for each of five accesses, four for each of two constants.
        assert_eq!(after.len(), before.len() + 2 * 5 + 8);
        assert_eq!(count(&order_workgroup_memory(&after).unwrap()), expected(true), "a second repair changes nothing");
        assert_eq!([barriers(&before), barriers(&after)], [vec![(2, 0x108), (3, 0x88)], vec![(2, 0x108), (3, WORKGROUP_MEMORY_ORDERED)]]);
    }

    /// Bits of the numbers of a module's matrices by role, and whether it says that it has f16, and once.
    fn matrices(module: &[u32]) -> (BTreeSet<(u32, u32)>, bool) {
        let all = instructions(module).unwrap();
        let known = constants(&all);
        let floats: Vec<(u32, u32)> = all.iter().filter(|i| i.op == OP_TYPE_FLOAT).map(|i| (i.words[1], i.words[2])).collect();
        let bits: HashMap<u32, u32> = floats.iter().copied().collect();
        let types = all.iter().enumerate().filter(|(_, i)| i.op == OP_TYPE_COOPERATIVE_MATRIX);
        let of = types.map(|(at, i)| {
            let declared = all[..at].iter().any(|d| d.op == OP_TYPE_FLOAT && d.words[1] == i.words[2]);
            assert!(declared, "a matrix of numbers that come later");
            (known[&i.words[6]], bits[&i.words[2]])
        });
        let halves = floats.iter().filter(|(_, bits)| *bits == 16).count();
        let capabilities = all.iter().filter(|i| i.op == OP_CAPABILITY && i.words[1] == CAPABILITY_FLOAT16).count();
        (of.collect(), [halves, capabilities] == [1, 1])
    }

    /// Whether the module has other f16 before its matrices, behind them or not at all.
    #[test]
    fn factors_in_memory_of_f32_are_of_f16() {
        let text = |first: &str, last: &str| {
            format!(
                "enable f16; enable wgpu_cooperative_matrix;
                {first}
                var<workgroup> factor: array<vec4<f32>, 16>;
                var<workgroup> stage: array<vec4<f32>, 16>;
                @group(0) @binding(0) var<storage, read_write> y: array<vec4<f32>>;
                {last}
                @compute @workgroup_size(8)
                fn main(@builtin(local_invocation_index) local: u32) {{
                    factor[local] = y[local];
                    workgroupBarrier();
                    let a = coopLoadT<coop_mat8x8<f32, A>>(&factor[0], 1u);
                    let b = coopLoad<coop_mat8x8<f32, B>>(&factor[8], 1u);
                    coopStoreT(coopMultiplyAdd(a, b, coop_mat8x8<f32, C>()), &stage[0], 2u);
                    workgroupBarrier();
                    y[local] = vec4<f32>(stage[local] {});
                }}",
                if last.is_empty() { "" } else { "+ vec4(f32(z[local]))" }
            )
        };
        let halves = "@group(0) @binding(1) var<storage, read> z: array<f16>;";
        let first = text(&format!("alias Half = vec2<f16>; const_assert Half(1h).x == 1h; {halves}"), " ");
        for text in [first, text("", halves), text("", "")] {
            let before = words(&text, false);
            assert_eq!(matrices(&before).0, [(0, 32), (1, 32), (2, 32)].into());
            let after = repair(&before).unwrap();
            assert_eq!(matrices(&after), ([(0, 16), (1, 16), (2, 32)].into(), true), "{text}");
            assert_eq!(repair(&after).unwrap(), order_workgroup_memory(&after).unwrap(), "nothing is left to do");
        }
    }

    #[test]
    fn repairs_the_kernels_for_both_matrix_sizes() {
        for (tile, subgroup) in [(8, 8), (8, 32), (16, 32), (16, 64)] {
            for shape in ProductShape::ALL {
                let matrix = CooperativeMatrix { tile, subgroup, access: Access::Octs, memory: CooperativeMatrix::LEAST_MEMORY };
                let quads = matrix.knobs(shape).alias("Element", "f16");
                let octs = quads.clone().and(&matrix.octs(shape).unwrap());
                let turned = octs.clone().bool("TURNED", true);
                for (shader, entry, knobs) in [
                    ("conv2d_coop", "gather", &quads),
                    ("conv2d_coop", "gather", &octs),
                    ("conv2d_coop", "gather", &turned),
                    ("conv2d_weight_coop", "reduce", &quads),
                    ("conv2d_weight_coop", "reduce", &octs),
                ] {
                    for checked in [false, true] {
                        let text = compose(shader, source, knobs).unwrap();
                        let module = passthrough::Translated::new(&text, entry, checked).unwrap();
                        let repaired = repair(&module.words).unwrap();
                        assert_eq!(matrices(&repaired).0, [(0, 16), (1, 16), (2, 32)].into(), "{shader}");
                        let counts = count(&repaired);
                        assert!(counts.values().all(|[all, ordered]| all == ordered), "{shader}: {counts:?}");
                        for op in [OP_LOAD, OP_STORE, OP_COOPERATIVE_MATRIX_LOAD, OP_COOPERATIVE_MATRIX_STORE] {
                            assert!(counts.get(&op).is_some_and(|n| n[0] > 0), "{shader}: {counts:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn says_what_it_cannot_repair() {
        assert!(order_workgroup_memory(&[1, 2]).unwrap_err().contains("header"));
        let mut cut = words(EXAMPLE, false);
        // Behind the last store come only a return and the end of the function.
        cut.truncate(cut.len() - 3);
        assert!(order_workgroup_memory(&cut).unwrap_err().contains("past the end"));
        // A volatile access, which naga never makes.
        let mut odd = words(EXAMPLE, false);
        let all = instructions(&odd).unwrap();
        let pointers = workgroup_pointers(&all);
        let mut at = HEADER;
        for i in &all {
            if i.op == OP_LOAD && pointers.contains(&i.words[3]) {
                break;
            }
            at += i.words.len();
        }
        odd[at] = (5 << 16) | OP_LOAD;
        odd.insert(at + 4, 1);
        assert!(order_workgroup_memory(&odd).unwrap_err().contains("opcode 61"));
    }
}
