//! A Vulkan device that does not bound accesses to buffers.
//!
//! wgpu asks for robust buffer access wherever it is to be had. Drivers whose hardware has no bounds (NVIDIA's) test every access for it, number by
//! number: Mesa's compiler makes 4 loads of each vec4, and takes 200 registers for 168 in the 128x128 gather. Kernels must stay within their bindings by themselves.

/// Opens `adapter` so. `None` where it is not Vulkan's, or does not let itself be opened so: then wgpu's own way may serve.
#[cfg(not(target_vendor = "apple"))]
#[expect(unsafe_code, reason = "wgpu has no way to do without")]
pub(super) fn open(adapter: &wgpu::Adapter, descriptor: &wgpu::DeviceDescriptor<'_>) -> Option<(wgpu::Device, wgpu::Queue)> {
    use ash::vk;
    fn refused<E: std::fmt::Display>(error: E) -> E {
        tracing::warn!("the device is opened with bounds checks of its own, which can cost time: {error}");
        error
    }
    // SAFETY: the device is made as wgpu makes it, of the extensions and features that it names for what is asked, but for the bounds; the kernels
    // need none. What is pointed to lives until the device is there.
    let opened = unsafe {
        let hal = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let mut extensions = hal.required_device_extensions(descriptor.required_features);
        extensions.retain(|name| *name != ash::ext::robustness2::NAME);
        let mut features = hal.physical_device_features(&extensions, descriptor.required_features);
        let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
        let names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
        let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&names);
        let info = features.add_to_device_create(info);
        let unbounded = vk::PhysicalDeviceFeatures { robust_buffer_access: vk::FALSE, ..*info.p_enabled_features };
        let info = info.enabled_features(&unbounded);
        let raw = hal.shared_instance().raw_instance().create_device(hal.raw_physical_device(), &info, None).map_err(refused).ok()?;
        let (features, limits) = (descriptor.required_features, &descriptor.required_limits);
        hal.device_from_raw(raw, None, &extensions, features, limits, &descriptor.memory_hints, 0, 0).map_err(refused).ok()?
    };
    // SAFETY: it was made from this adapter, with these features.
    unsafe { adapter.create_device_from_hal::<wgpu::hal::api::Vulkan>(opened, descriptor) }.map_err(refused).ok()
}

/// Metal has no such bounds.
#[cfg(target_vendor = "apple")]
pub(super) fn open(_: &wgpu::Adapter, _: &wgpu::DeviceDescriptor<'_>) -> Option<(wgpu::Device, wgpu::Queue)> {
    None
}
