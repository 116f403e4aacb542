//! `swav-wgpu convert` and `swav-wgpu completions`.

use super::args::{Cli, CompletionsArgs, ConvertArgs, Global, Layout, Shell};
use super::report::progress::grouped;
use super::{common, output};
use crate::error::Result;
use crate::train::weight_file;
use crate::weights::{Target, convert};
use clap::CommandFactory;
use clap_complete::Shell as Completed;

pub(super) fn run(args: &ConvertArgs, global: &Global) -> Result<()> {
    let target = match args.to {
        Layout::Torchvision => Target::Torchvision,
        Layout::Swav => Target::Swav,
        Layout::Mmpretrain => Target::Mmpretrain,
    };
    let summary = convert(weight_file(&args.input)?, &args.output, target)?;
    if global.json {
        return output::json(&summary);
    }
    let (tensors, parameters) = (summary.tensors, grouped(summary.parameters as u64));
    output::line(&format!("{} -> {}: {tensors} tensors, {parameters} parameters", summary.source_layout, args.output.display()))?;
    for (names, why) in [(&summary.unmatched, "was not understood"), (&summary.dropped, "has no place in this layout")] {
        names.iter().for_each(|name| common::note(global, &format!("left out: {name} {why}")));
    }
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
    output::line(String::from_utf8_lossy(&script).trim_end())
}
