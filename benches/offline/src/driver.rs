//! The first Vulkan device: compiles, and tells statistics (`VK_KHR_pipeline_executable_properties`).

use crate::kernels::Kernel;
use ash::vk;
use std::error::Error;
use std::ffi::{CStr, CString};

/// Storage buffers of a kernel at most, behind its parameters.
const BUFFERS: u32 = 8;

/// An open device. It lives as long as the program: nothing is given back.
pub struct Driver {
    /// The device's name.
    pub name: String,
    device: ash::Device,
    properties: ash::khr::pipeline_executable_properties::Device,
    layout: vk::PipelineLayout,
}

impl Driver {
    pub fn open() -> Result<Self, Box<dyn Error>> {
        // SAFETY: handles are used where they come from, and what is chained lives until the call is over.
        unsafe {
            let entry = ash::Entry::load()?;
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let instance = entry.create_instance(&vk::InstanceCreateInfo::default().application_info(&application), None)?;
            let adapter = *instance.enumerate_physical_devices()?.first().ok_or("there is no Vulkan device")?;
            let name = instance.get_physical_device_properties(adapter).device_name_as_c_str()?.to_string_lossy().into_owned();
            let offered = instance.enumerate_device_extension_properties(adapter)?;
            let has = |wanted: &CStr| offered.iter().any(|e| e.extension_name_as_c_str() == Ok(wanted));
            let mut extensions = vec![ash::khr::pipeline_executable_properties::NAME.as_ptr()];
            let mut statistics = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
            let mut halves = vk::PhysicalDeviceVulkan11Features::default().storage_buffer16_bit_access(true);
            let mut memory = vk::PhysicalDeviceVulkan12Features::default().shader_float16(true).vulkan_memory_model(true);
            let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default().cooperative_matrix(true);
            let queue = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
            // Accesses are not bounded, as the program opens its device.
            let mut info = vk::DeviceCreateInfo::default().queue_create_infos(&queue);
            info = info.push_next(&mut statistics).push_next(&mut halves).push_next(&mut memory);
            if has(ash::khr::cooperative_matrix::NAME) {
                extensions.push(ash::khr::cooperative_matrix::NAME.as_ptr());
                info = info.push_next(&mut matrices);
            }
            let device = instance.create_device(adapter, &info.enabled_extension_names(&extensions), None)?;
            let properties = ash::khr::pipeline_executable_properties::Device::new(&instance, &device);
            let binding = |i: u32| {
                let ty = if i == 0 { vk::DescriptorType::UNIFORM_BUFFER } else { vk::DescriptorType::STORAGE_BUFFER };
                vk::DescriptorSetLayoutBinding::default()
                    .binding(i)
                    .descriptor_type(ty)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            };
            let bindings: Vec<_> = (0..=BUFFERS).map(binding).collect();
            let set = [device.create_descriptor_set_layout(&vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings), None)?];
            let layout = device.create_pipeline_layout(&vk::PipelineLayoutCreateInfo::default().set_layouts(&set), None)?;
            Ok(Self { name, device, properties, layout })
        }
    }

    /// Compiles a kernel: `NAME value`, comma by comma, in the driver's words.
    pub fn statistics(&self, kernel: &Kernel) -> Result<String, Box<dyn Error>> {
        let entry = CString::new(kernel.entry)?;
        // SAFETY: the words are naga's translation of a validated module, and the layout has all bindings that kernels use.
        let all = unsafe {
            let module = self.device.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&kernel.words), None)?;
            let stage = vk::PipelineShaderStageCreateInfo::default().stage(vk::ShaderStageFlags::COMPUTE).module(module).name(&entry);
            let info =
                vk::ComputePipelineCreateInfo::default().stage(stage).layout(self.layout).flags(vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR);
            let pipelines = self.device.create_compute_pipelines(vk::PipelineCache::null(), &[info], None).map_err(|(_, e)| e)?;
            self.properties.get_pipeline_executable_statistics(&vk::PipelineExecutableInfoKHR::default().pipeline(pipelines[0]))?
        };
        let told = all.iter().map(|s| {
            let name = s.name_as_c_str().unwrap_or_default().to_string_lossy();
            // SAFETY: the format says which of them the value is.
            unsafe {
                match s.format {
                    vk::PipelineExecutableStatisticFormatKHR::FLOAT64 => format!("{name} {:.1}", s.value.f64),
                    vk::PipelineExecutableStatisticFormatKHR::INT64 => format!("{name} {}", s.value.i64),
                    vk::PipelineExecutableStatisticFormatKHR::BOOL32 => format!("{name} {}", s.value.b32 != 0),
                    _ => format!("{name} {}", s.value.u64),
                }
            }
        });
        Ok(told.collect::<Vec<_>>().join(", "))
    }
}
