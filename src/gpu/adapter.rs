//! Which adapters there are, and what the chosen one can do.

use super::CooperativeMatrix;
use crate::error::{Error, Result};
use serde::Serialize;

/// What sort of device an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// A graphics card of its own.
    Discrete,
    /// Part of the processor.
    Integrated,
    /// Handed through by a virtual machine.
    Virtual,
    /// Software on the processor (lavapipe, SwiftShader, WARP).
    Cpu,
    /// Not known.
    Other,
}

/// What kernels and plans may rely on, read from the adapter.
#[derive(Clone, Debug)]
pub struct Caps {
    /// Kind of device: decides between kernels for GPUs and for processors.
    pub kind: DeviceKind,
    /// `enable f16` works in storage and arithmetic. Elsewhere f16 is packed in storage, and computed in f32.
    pub f16: bool,
    /// Lanes of a subgroup, when subgroups exist and have one fixed size.
    pub subgroup_size: Option<u32>,
    /// Registers of 32 bits that an invocation can have, as far as the maker of the device tells.
    pub registers: u32,
    /// Cooperative matrices (tensor cores) that kernels may use, before a test the likeliest.
    pub cooperative_matrix: Option<CooperativeMatrix>,
    /// Largest range a storage binding may span, in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer, in bytes.
    pub max_buffer_bytes: u64,
    /// The device's own memory in bytes (the machine's, where it has none), when the interface tells.
    pub memory_bytes: Option<u64>,
    /// Workgroups a dispatch may have in one dimension.
    pub max_workgroups: u32,
    /// Alignment of storage and uniform binding offsets, in bytes.
    pub offset_alignment: u64,
    /// Nanoseconds of a timestamp tick, when timestamps can be written inside a pass.
    pub timestamp_period: Option<f32>,
}

/// One line of `devices`: an adapter as a user or a script wants to know it.
#[derive(Clone, Debug, Serialize)]
pub struct AdapterDescription {
    /// Position in the list, as `--adapter` takes it.
    pub index: usize,
    /// Marketing name.
    pub name: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// Driver name and version.
    pub driver: String,
    /// Kind of device.
    pub kind: DeviceKind,
    /// 16-bit floats in shaders.
    pub f16: bool,
    /// Smallest and largest subgroup, when subgroup operations exist.
    pub subgroup_size: Option<[u32; 2]>,
    /// Cooperative matrix shapes, for example `8x8x8 f16->f32`.
    pub cooperative_matrix: Vec<String>,
    /// Whether kernels use them: [`super::Gpu::cooperative_matrix_status`], where the device was opened to find out.
    pub cooperative_matrix_status: Option<String>,
    /// Timestamps inside a pass.
    pub timestamps: bool,
    /// Largest storage binding in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer in bytes.
    pub max_buffer_bytes: u64,
    /// Device memory in bytes, when the interface tells.
    pub memory_bytes: Option<u64>,
    /// Invocations of a workgroup.
    pub max_workgroup_invocations: u32,
    /// Workgroup memory in bytes.
    pub max_workgroup_memory_bytes: u32,
    /// Storage buffers of a kernel.
    pub max_storage_buffers: u32,
}

pub(super) fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    descriptor.backend_options = wgpu::BackendOptions::from_env_or_default();
    descriptor.backends = wgpu::Backends::from_env().unwrap_or(wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12);
    wgpu::Instance::new(descriptor)
}

fn kind_of(info: &wgpu::AdapterInfo) -> DeviceKind {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => DeviceKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => DeviceKind::Integrated,
        wgpu::DeviceType::VirtualGpu => DeviceKind::Virtual,
        wgpu::DeviceType::Cpu => DeviceKind::Cpu,
        wgpu::DeviceType::Other => DeviceKind::Other,
    }
}

fn describe(index: usize, adapter: &wgpu::Adapter) -> AdapterDescription {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    AdapterDescription {
        index,
        name: info.name.clone(),
        backend: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        kind: kind_of(&info),
        f16: features.contains(wgpu::Features::SHADER_F16),
        subgroup_size: features.contains(wgpu::Features::SUBGROUP).then_some([info.subgroup_min_size, info.subgroup_max_size]),
        cooperative_matrix: adapter
            .cooperative_matrix_properties()
            .iter()
            .map(|p| format!("{}x{}x{} {:?}->{:?}", p.m_size, p.n_size, p.k_size, p.ab_type, p.cr_type).to_lowercase())
            .collect(),
        cooperative_matrix_status: None,
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES),
        max_binding_bytes: limits.max_storage_buffer_binding_size.min(MOST_BOUND),
        max_buffer_bytes: limits.max_buffer_size,
        memory_bytes: memory_bytes(adapter),
        max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        max_workgroup_memory_bytes: limits.max_compute_workgroup_storage_size,
        max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
    }
}

/// What kernels take for granted: invocations and bytes of memory of a workgroup, storage buffers of a kernel.
const LEAST: [(u32, &str); 3] = [(256, "invocations"), (CooperativeMatrix::LEAST_MEMORY, "bytes of workgroup memory"), (8, "storage buffers")];

/// What an adapter has too little of, if anything.
fn lacks(limits: &wgpu::Limits) -> Option<String> {
    let has = [limits.max_compute_invocations_per_workgroup, limits.max_compute_workgroup_storage_size, limits.max_storage_buffers_per_shader_stage];
    let short = has.into_iter().zip(LEAST).find(|(has, (least, _))| has < least);
    short.map(|(has, (least, what))| format!("{has} {what}, and kernels need {least}"))
}

/// What to say where there is no adapter.
pub fn none_found() -> String {
    let allowed = std::env::var("WGPU_BACKEND").map(|backend| format!(" on the backends that WGPU_BACKEND={backend} names")).unwrap_or_default();
    let all = pollster::block_on(instance().enumerate_adapters(wgpu::Backends::all()));
    let small: Vec<String> = all.iter().filter_map(|a| Some(format!("; {} has {}", a.get_info().name, lacks(&a.limits())?))).collect();
    format!("no Vulkan, Metal or DX12 adapter with compute shaders was found{allowed}{}", small.concat())
}

/// Every adapter of this machine, best first: cards, then integrated and virtual devices, then software.
pub fn adapters() -> Vec<AdapterDescription> {
    list(&instance()).iter().enumerate().map(|(i, a)| describe(i, a)).collect()
}

/// The adapter that `selector` names: a position in [`adapters`], or part of a name.
pub fn adapter(selector: &str) -> Result<AdapterDescription> {
    Ok(choose(Some(selector))?.1)
}

fn list(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let mut found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    found.retain(|a| lacks(&a.limits()).is_none());
    let rank = |a: &wgpu::Adapter| match kind_of(&a.get_info()) {
        DeviceKind::Discrete => 0,
        DeviceKind::Integrated => 1,
        DeviceKind::Virtual => 2,
        DeviceKind::Other => 3,
        DeviceKind::Cpu => 4,
    };
    found.sort_by_key(rank);
    found
}

/// The adapter that `selector` names (a position in [`adapters`] or part of a name, any case), or the best one.
/// `WGPU_ADAPTER_NAME`, a part of a name as in any wgpu program, serves when there is no selector.
pub(super) fn choose(selector: Option<&str>) -> Result<(wgpu::Adapter, AdapterDescription)> {
    let found = list(&instance());
    if found.is_empty() {
        return Err(Error::NoAdapter(none_found()));
    }
    let names: Vec<String> = found.iter().map(|a| a.get_info().name).collect();
    let from_env = std::env::var("WGPU_ADAPTER_NAME").ok().filter(|name| !name.trim().is_empty());
    let (asked, wanted, index) = match (selector, &from_env) {
        (Some(wanted), _) => ("--adapter", wanted, position(&names, wanted)),
        (None, Some(wanted)) => ("WGPU_ADAPTER_NAME", wanted.as_str(), named(&names, wanted)),
        (None, None) => ("", "", Some(0)),
    };
    let index = index.ok_or_else(|| {
        let listed: Vec<String> = names.iter().enumerate().map(|(i, n)| format!("{i}: {n}")).collect();
        Error::UnknownAdapter(format!("{asked} `{wanted}` is none of {}", listed.join(", ")))
    })?;
    let description = describe(index, &found[index]);
    Ok((found.into_iter().nth(index).expect("index within the list"), description))
}

/// Where the adapter is that `wanted` stands for. A whole number is a position and nothing else: names are full of digits.
fn position(names: &[String], wanted: &str) -> Option<usize> {
    let wanted = wanted.trim();
    if wanted.trim_start_matches(['+', '-']).bytes().all(|b| b.is_ascii_digit()) {
        return wanted.parse().ok().filter(|i| *i < names.len());
    }
    named(names, wanted)
}

/// Where the first name is that has this part, in any case.
fn named(names: &[String], part: &str) -> Option<usize> {
    let part = part.trim().to_lowercase();
    names.iter().position(|name| name.to_lowercase().contains(&part))
}

/// Vulkan tells the size of its heaps; Metal and DX12 are not asked.
#[cfg(not(target_vendor = "apple"))]
#[expect(unsafe_code, reason = "wgpu does not tell the size of memory; Vulkan's handles can be asked")]
fn memory_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    const DEVICE_LOCAL: u32 = 1;
    // SAFETY: the handles are only read, while the guard keeps the adapter alive.
    let properties = unsafe {
        let vulkan = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        vulkan.shared_instance().raw_instance().get_physical_device_memory_properties(vulkan.raw_physical_device())
    };
    let heaps = &properties.memory_heaps[..properties.memory_heap_count as usize];
    let bytes: u64 = heaps.iter().filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).sum();
    // SwiftShader says 2 GiB whatever the machine has.
    let constant = adapter.get_info().device_type == wgpu::DeviceType::Cpu && bytes == 1 << 31;
    (!constant).then_some(bytes)
}

#[cfg(target_vendor = "apple")]
fn memory_bytes(_: &wgpu::Adapter) -> Option<u64> {
    None
}

/// Bytes that a kernel may see of a tensor: their offsets have 32 bits in some shading languages, and Metal would bind more.
const MOST_BOUND: u64 = (1 << 32) - 256;

/// Registers of an invocation on a device of the PCI vendor: 128 on Intel's (4 KiB a thread of 8, from Xe2 on 8 KiB a thread of 16). Others than NVIDIA's and
/// AMD's, who tell of 255 and 256, are taken for as small.
fn registers(vendor: u32) -> u32 {
    const NVIDIA: u32 = 0x10de;
    const AMD: u32 = 0x1002;
    match vendor {
        NVIDIA | AMD => 255,
        _ => 128,
    }
}

pub(super) fn caps(adapter: &wgpu::Adapter, features: wgpu::Features, timestamp_period: f32) -> Caps {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    let fixed = info.subgroup_min_size == info.subgroup_max_size && features.contains(wgpu::Features::SUBGROUP);
    Caps {
        kind: kind_of(&info),
        f16: features.contains(wgpu::Features::SHADER_F16),
        subgroup_size: fixed.then_some(info.subgroup_min_size),
        registers: registers(info.vendor),
        cooperative_matrix: None,
        max_binding_bytes: limits.max_storage_buffer_binding_size.min(MOST_BOUND),
        max_buffer_bytes: limits.max_buffer_size,
        memory_bytes: memory_bytes(adapter),
        max_workgroups: limits.max_compute_workgroups_per_dimension,
        offset_alignment: u64::from(limits.min_storage_buffer_offset_alignment.max(limits.min_uniform_buffer_offset_alignment)),
        timestamp_period: features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES).then_some(timestamp_period),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_too_small() {
        let of = |bytes| wgpu::Limits { max_compute_workgroup_storage_size: bytes, ..wgpu::Limits::default() };
        assert_eq!(lacks(&of(32 << 10)), None);
        assert_eq!(lacks(&of(16 << 10)).as_deref(), Some("16384 bytes of workgroup memory, and kernels need 32768"));
        let few = wgpu::Limits { max_storage_buffers_per_shader_stage: 4, ..of(32 << 10) };
        assert_eq!(lacks(&few).as_deref(), Some("4 storage buffers, and kernels need 8"));
    }

    #[test]
    fn makers_tell_how_many_registers_there_are() {
        let [nvidia, amd, intel, software] = [0x10de, 0x1002, 0x8086, 0x10005].map(registers);
        assert_eq!([nvidia, amd, intel, software], [255, 255, 128, 128]);
    }

    #[test]
    fn whole_numbers_are_positions_and_nothing_else() {
        let names = ["NVIDIA GeForce RTX 3090", "llvmpipe (LLVM 15.0.6, 256 bits)"].map(String::from);
        for (wanted, at) in [("0", Some(0)), ("1", Some(1)), (" llvm ", Some(1)), ("rtx 3090", Some(0)), ("15.0", Some(1))] {
            assert_eq!(position(&names, wanted), at, "{wanted:?}");
        }
        for wanted in ["2", "5", "3090", "-1", "", " ", "99999999999999999999999", "radeon"] {
            assert_eq!(position(&names, wanted), None, "{wanted:?}");
        }
    }
}
