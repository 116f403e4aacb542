//! What a Vulkan driver's compiler makes of the kernels of a training step: registers, spills, scratch memory, instructions; and how
//! much memory its launches bind together.
//!
//! Nothing runs, so a driver serves that only pretends to have its card; docs/performance.md says how to come by one. The step is lowered for a
//! card with subgroups and matrices as the flags say, whatever the driver's own, and each distinct kernel is compiled once.

mod driver;
mod kernels;

use clap::Parser;
use std::error::Error;
use std::path::PathBuf;
use swav_wgpu::gpu::{Access, Caps, CooperativeMatrix, DeviceKind};

#[derive(Parser)]
struct Args {
    /// Configuration of the pre-training run
    #[arg(long)]
    config: PathBuf,
    /// Override a key of the configuration; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Invocations of a subgroup; 0 where their number is not fixed
    #[arg(long, value_name = "N", default_value_t = 32)]
    subgroup: u32,
    /// Registers of an invocation
    #[arg(long, value_name = "N", default_value_t = 255)]
    registers: u32,
    /// Side of the cooperative matrices: 16 or 8; 0 for none
    #[arg(long, value_name = "N", default_value_t = 16)]
    matrix: u32,
    /// Workgroup memory
    #[arg(long, value_name = "KIB", default_value_t = 48)]
    memory: u32,
    /// Only kernels whose label matches
    #[arg(long, value_name = "REGEX")]
    filter: Option<regex::Regex>,
    /// Keep their SPIR-V here, for other tools
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
}

impl Args {
    /// A card as the flags say.
    fn caps(&self) -> Caps {
        let matrix = CooperativeMatrix { tile: self.matrix, subgroup: self.subgroup, access: Access::Octs, memory: self.memory << 10 };
        Caps {
            kind: DeviceKind::Discrete,
            f16: true,
            subgroup_size: (self.subgroup > 0).then_some(self.subgroup),
            registers: self.registers,
            cooperative_matrix: (self.matrix > 0).then_some(matrix),
            max_binding_bytes: 2 << 30,
            max_buffer_bytes: 4 << 30,
            memory_bytes: None,
            max_workgroups: 65_535,
            offset_alignment: 64,
            timestamp_period: None,
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut all = kernels::of_a_step(&args.config, &args.set, &args.caps())?;
    all.retain(|kernel| args.filter.as_ref().is_none_or(|filter| filter.is_match(&kernel.label)));
    if let Some(folder) = &args.save {
        std::fs::create_dir_all(folder)?;
        for (i, kernel) in all.iter().enumerate() {
            let bytes: Vec<u8> = kernel.words.iter().flat_map(|word| word.to_le_bytes()).collect();
            std::fs::write(folder.join(format!("{i:03}-{}.spv", kernel.entry)), bytes)?;
            println!("{i:03} {}", kernel.label);
        }
        return Ok(());
    }
    let driver = driver::Driver::open()?;
    println!("{}", driver.name);
    for kernel in &all {
        let statistics = driver.statistics(kernel).unwrap_or_else(|e| format!("is not compiled: {e}"));
        let megabytes = kernel.traffic as f64 / 1e6;
        println!("{:>5} x {megabytes:>8.1} MB {}: {statistics}", kernel.launches, kernel.label);
    }
    Ok(())
}
