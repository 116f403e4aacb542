//! `swav-wgpu convert` and `swav-wgpu completions`.

use super::args::{Cli, CompletionsArgs, ConvertArgs, Global, Layout, Shell};
use super::report::progress::grouped;
use super::{common, output};
use crate::error::Result;
use crate::weights::{Target, check_output, convert};
use clap::CommandFactory;
use clap_complete::Shell as Completed;

pub(super) fn run(args: &ConvertArgs, global: &Global) -> Result<()> {
    let target = match args.to {
        Layout::Torchvision => Target::Torchvision,
        Layout::Swav => Target::Swav,
        Layout::Mmpretrain => Target::Mmpretrain,
    };
    // A name that cannot be written is refused before a large file is read.
    let output = check_output(&args.output)?;
    common::output_file(output, &[&args.input])?;
    let checkpoint = common::checkpoint(&args.input, args.backbone.as_deref(), global)?;
    common::make_folder_of(output)?;
    let summary = convert(&checkpoint, output, target)?;
    if global.json {
        return output::json(&summary);
    }
    let (tensors, parameters) = (summary.tensors, grouped(summary.parameters as u64));
    output::line(&format!("{} -> {}: {tensors} tensors, {parameters} parameters", summary.source_layout, args.output.display()))?;
    summary.dropped.iter().for_each(|name| common::note(global, &format!("note: {name} is left out: this layout has no place for it")));
    Ok(())
}

/// Prints the completion script of a shell.
pub(super) fn completions(args: &CompletionsArgs) -> Result<()> {
    let shell = match args.shell {
        Shell::Bash => Completed::Bash,
        Shell::Elvish => Completed::Elvish,
        Shell::Fish => Completed::Fish,
        Shell::PowerShell => Completed::PowerShell,
        Shell::Zsh => Completed::Zsh,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "swav-wgpu", &mut script);
    output::raw(String::from_utf8_lossy(&script).trim_end())
}
