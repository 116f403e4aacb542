//! The command line program.

fn main() -> std::process::ExitCode {
    swav_wgpu::cli::main()
}
