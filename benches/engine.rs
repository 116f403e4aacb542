//! `cargo bench`: the cases of `swav-wgpu bench` without the command line, one JSON line each. Arguments that are no flags filter
//! by part of the name.

use swav_wgpu::bench::{BUDGET, cases, measure};
use swav_wgpu::gpu::Gpu;
use swav_wgpu::tune::BestGuess;

#[expect(clippy::print_stdout, reason = "a program of its own")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let gpu = Gpu::open(None)?;
    for case in cases().iter().filter(|c| wanted.is_empty() || wanted.iter().any(|w| c.name.contains(w.as_str()))) {
        println!("{}", serde_json::to_string(&measure(&gpu, &BestGuess, case, BUDGET)?)?);
    }
    Ok(())
}
