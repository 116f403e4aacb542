//! Winograd's way wherever it is offered.

use swav_wgpu::graph::Variants;

/// The first variant that multiplies transformed tiles, where there is one; else what another chooses.
pub struct Minimal<'a>(pub &'a dyn Variants);

impl Variants for Minimal<'_> {
    fn choose<'v>(&self, op: &str, shape: &str, offered: &[&'v str]) -> &'v str {
        offered.iter().copied().find(|v| v.starts_with("winograd-")).unwrap_or_else(|| self.0.choose(op, shape, offered))
    }
}
