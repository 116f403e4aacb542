//! Every shader as data, without a GPU: parses, validates, and translates to what Vulkan, Metal and DX12 compile.

use swav_wgpu::gpu::{Access, CooperativeMatrix, ProductShape, SHADERS, Specialization, compose, source};
use wgpu::naga;
use wgpu::naga::back::{hlsl, msl, spv};

/// Bytes of workgroup memory of most cards, where tiles of matrices go deeper than where there is the least.
const MORE_MEMORY: u32 = 48 << 10;

/// Knobs a shader offers: types (f32, f16, and f16 packed for adapters that have none in shaders), and the shapes of cooperative matrices.
/// (Those have no translation to HLSL, which lacks them.)
fn specializations(text: &str) -> Vec<Specialization> {
    let mut all = vec![Specialization::default()];
    if text.contains("#import coop") {
        all.extend([CooperativeMatrix::LEAST_MEMORY, MORE_MEMORY].into_iter().flat_map(matrices));
        // Deeper slabs are all that comes of more memory.
        all.sort_by_key(Specialization::label);
        all.dedup();
    }
    for name in ["Element", "Weight", "Source", "Target"] {
        if text.contains(&format!("alias {name} = ")) {
            all = all.into_iter().flat_map(|s| [s.clone(), s.alias(name, "f16")]).collect();
        }
    }
    // What takes the place of an import; where the input is normalised, results come behind what that needs.
    if text.contains("#import store_weight") {
        all = all.into_iter().flat_map(|s| [s.clone(), s.import("store_weight", "store_weight_sum")]).collect();
    } else if text.contains("#import store") {
        let stores = ["store", "store_sum", "store_statistics", "store_gradient", "store_join"];
        all = all.into_iter().flat_map(|s| stores.map(|file| s.clone().import("store", file))).collect();
    }
    if text.contains("#import tile_registers") || text.contains("fn sum_splits") {
        // They read one tensor before what they write.
        all = all.into_iter().map(|s| if text.contains("#import store") { s.u32("STORE", 2) } else { s }).collect();
    }
    if text.contains("#import tile_registers") {
        all = all.into_iter().flat_map(|s| [s.clone(), s.import("tile_registers", "tile_shared")]).collect();
    }
    if text.contains("#import coop_weights") || text.contains("#import tile_weights") {
        all = all.into_iter().flat_map(|s| [s.clone(), s.bool("TURNED", true)]).collect();
    }
    if text.contains("#import depth") || text.contains("#import pixels") {
        all = all.into_iter().flat_map(|s| [s.clone(), s.bool("PADDED", false)]).collect();
    }
    if text.contains("const ROW_LOADS: u32") {
        all = all
            .into_iter()
            .flat_map(|s| [s.clone(), s.clone().u32("QUADS", 16).u32("ROW_LOADS", 4), s.u32("QUADS", 16).u32("EACH_QUADS", 1)])
            .collect();
    }
    if text.contains("#import load") {
        let loads = |s: Specialization| {
            // Nothing is both: gradients are not normalised on the way in.
            let both = ["store_sum", "store_gradient", "store_join"].iter().any(|file| s.label().contains(&format!("store={file}")));
            let normalized = (!both).then(|| s.clone().import("load", "load_normalized").u32("STORE", 6));
            [Some(s), normalized].into_iter().flatten()
        };
        all = all.into_iter().flat_map(loads).collect();
    }
    // Matrices have f16 factors: where there are some, f16 is not packed.
    if text.contains("#import coop") {
        return all;
    }
    let packed: Vec<Specialization> = all.iter().map(|s| s.clone().packed()).collect();
    [all, packed].concat()
}

/// Knobs of every shape of cooperative matrices with so much workgroup memory.
fn matrices(memory: u32) -> impl Iterator<Item = Specialization> {
    let sizes = [(8, 8), (8, 16), (8, 32), (8, 64), (16, 8), (16, 16), (16, 32), (16, 64)];
    sizes.into_iter().flat_map(move |(tile, subgroup)| {
        let access = if tile == 16 { Access::Octs } else { Access::Single };
        let matrix = CooperativeMatrix { tile, subgroup, access, memory };
        ProductShape::ALL.into_iter().flat_map(move |shape| {
            let octs = matrix.octs(shape).map(|octs| matrix.knobs(shape).and(&octs));
            [Some(matrix.knobs(shape)), octs].into_iter().flatten()
        })
    })
}

fn module(name: &str, spec: &Specialization) -> (naga::Module, naga::valid::ModuleInfo) {
    let text = compose(name, source, spec).unwrap();
    let module = naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{name} [{}]: {}", spec.label(), e.emit_to_string(&text)));
    let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
    let info = validator.validate(&module).unwrap_or_else(|e| panic!("{name} [{}]: {}", spec.label(), e.emit_to_string(&text)));
    (module, info)
}

#[test]
fn every_shader_is_valid_under_every_type() {
    let valid: usize = kernels().map(|(name, spec)| module(name, &spec).0.entry_points.len()).sum();
    assert!(valid > 500, "{valid} kernels");
}

fn kernels() -> impl Iterator<Item = (&'static str, Specialization)> {
    let kernels = SHADERS.iter().filter(|(name, _)| !name.starts_with("lib/"));
    kernels.flat_map(|(name, text)| specializations(text).into_iter().map(move |spec| (*name, spec)))
}

#[test]
fn every_shader_translates_to_what_vulkan_metal_and_dx12_compile() {
    let (mut translated, spirv) = (0, spv::Options { lang_version: (1, 3), ..Default::default() });
    for (name, spec) in kernels() {
        let what = format!("{name} [{}]", spec.label());
        let (module, info) = module(name, &spec);
        let text = compose(name, source, &spec).unwrap();
        let matrices = text.contains("enable wgpu_cooperative_matrix;");
        // Metal's matrices are 8x8.
        let metal = !matrices || !text.contains("const TILE: u32 = 16u;");
        let (halves, subgroups) = (text.contains("enable f16;"), text.contains("subgroup"));
        for entry in &module.entry_points {
            let entry_point = Some((naga::ShaderStage::Compute, entry.name.clone()));
            let pipeline = spv::PipelineOptions { shader_stage: naga::ShaderStage::Compute, entry_point: entry.name.clone() };
            spv::write_vec(&module, &info, &spirv, Some(&pipeline)).unwrap_or_else(|e| panic!("{what}: {e}"));
            if metal {
                let options = msl::Options { lang_version: (2, 4), ..Default::default() };
                let pipeline = msl::PipelineOptions { entry_point: entry_point.clone(), ..Default::default() };
                msl::write_string(&module, &info, &options, &pipeline).unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            if !matrices {
                // What DX12 has without and with its newer compiler.
                let shader_model = if halves || subgroups { hlsl::ShaderModel::V6_2 } else { hlsl::ShaderModel::V5_1 };
                let (options, pipeline) = (hlsl::Options { shader_model, ..Default::default() }, hlsl::PipelineOptions { entry_point });
                let mut text = String::new();
                hlsl::Writer::new(&mut text, &options, &pipeline).write(&module, &info, None).unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            translated += 1;
        }
    }
    assert!(translated > 500, "{translated} kernels");
}

#[test]
fn bindings_fit_the_smallest_adapters() {
    let with_least: Vec<Vec<String>> = matrices(CooperativeMatrix::LEAST_MEMORY).map(|s| s.label().split(',').map(str::to_owned).collect()).collect();
    for (name, spec) in kernels() {
        let (module, info) = module(name, &spec);
        // What is not chosen with the least memory has more.
        let label = spec.label();
        let more = name.contains("coop") && !with_least.iter().any(|knobs| knobs.iter().all(|knob| label.contains(knob.as_str())));
        for (i, entry) in module.entry_points.iter().enumerate() {
            let used = |handle: naga::Handle<naga::GlobalVariable>| !info.get_entry_point(i)[handle].is_empty();
            let bindings: Vec<u32> =
                module.global_variables.iter().filter(|(h, _)| used(*h)).filter_map(|(_, v)| v.binding.map(|b| b.binding)).collect();
            assert!(bindings.len() <= 9, "{name}/{}: {bindings:?}", entry.name);
            // Parameters first, then storage without gaps: what a recording binds.
            let mut sorted = bindings.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..).take(sorted.len()).collect::<Vec<u32>>(), "{name}/{}", entry.name);
            assert!((1..=256).contains(&entry.workgroup_size.iter().product::<u32>()), "{name}/{}", entry.name);
            let shared = module.global_variables.iter().filter(|(h, v)| used(*h) && v.space == naga::AddressSpace::WorkGroup);
            let bytes: u32 = shared.map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx())).sum();
            let limit = if more { MORE_MEMORY } else { CooperativeMatrix::LEAST_MEMORY };
            assert!(bytes <= limit, "{name}/{} [{}]: {bytes} bytes of workgroup memory", entry.name, spec.label());
        }
    }
}
