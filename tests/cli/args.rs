//! The command line's grammar: what parses, what does not, and that every command explains itself.

use clap::{CommandFactory, Parser};
use swav_wgpu::cli::args::{Cli, Command, Layout, Tune, Weights};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("swav-wgpu").chain(line.split_whitespace()))
}

#[test]
fn every_command_of_the_interface_parses() {
    Cli::command().debug_assert();
    for line in [
        "devices --json",
        "check --filter conv",
        "info --config c.toml --batch 4",
        "info --config c.toml --images 50000 --data d --lr-at 0,10,99",
        "train --config c.toml --data d --out o --resume --max-steps 3 --set a.b=1 --set c=x",
        "train --out runs/a --resume",
        "train --config c.toml --init w.pth",
        "eval-linear --config c.toml --weights w.safetensors --data d --out o",
        "eval-knn --weights random:3 --data d --k 20 --temperature 0.07",
        "eval-knn --weights w --k 10,20,100,200",
        "finetune --config c.toml --weights w --fraction 0.01",
        "features --weights w --data d --out f.safetensors",
        "features --weights w --input t.safetensors --out f.safetensors",
        "clusters --weights w --data d --out o",
        "predict --weights w --head h a.png b.png",
        "convert a.pth b.safetensors --to mmpretrain",
        "replay f.safetensors --tolerance 1e-2 --steps 1",
        "replay f.safetensors --precision f16",
        "bench --filter step --list",
        "bench --filter step --seconds 0.5 --tune full --tune-seconds 30",
        "bench --fuse none",
        "train --config c.toml --fuse statistics,activation",
        "completions zsh",
        "--adapter 1 -vv --json devices",
        "devices --adapter nvidia -q",
    ] {
        parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
}

#[test]
fn values_arrive() {
    let cli = parse("eval-knn --weights random:7 --adapter llvm -v").unwrap();
    assert_eq!((cli.global.adapter.as_deref(), cli.global.verbose, cli.global.json), (Some("llvm"), 1, false));
    assert_eq!((cli.global.tune, cli.global.tune_seconds), (Tune::Table, 120.0));
    let Command::EvalKnn(knn) = cli.command else { panic!() };
    assert_eq!((knn.weights, knn.k, knn.temperature), (Weights::Random { seed: 7 }, vec![20], 0.07));
    let Command::Convert(convert) = parse("convert a b --to swav").unwrap().command else { panic!() };
    assert_eq!(convert.to, Layout::Swav);
    let Command::Train(train) = parse("train --config c --set seed=1 --set optimizer.lr=-1").unwrap().command else { panic!() };
    assert_eq!(train.set, ["seed=1", "optimizer.lr=-1"]);
    let weights = |w: &str| w.parse::<Weights>();
    assert_eq!(weights("random").unwrap(), Weights::Random { seed: 0 });
    for file in ["./random", "randomly.pth"] {
        assert_eq!(weights(file).unwrap(), Weights::File(file.into()));
    }
}

#[test]
fn help_names_every_rewrite() {
    let help = parse("bench --help").unwrap_err().to_string();
    assert!(swav_wgpu::ops::Rewrite::ALL.iter().all(|rewrite| help.contains(&format!("- {rewrite}:"))), "{help}");
}

#[test]
fn wrong_use_exits_2() {
    for line in [
        "",
        "trian --config c",
        "train",
        "train --resume",
        "train --config c --bogus",
        "train --config c --out o --resume --init w",
        "train --config c --max-steps -1",
        "train --config c --max-steps 0",
        "eval-knn --weights random:x",
        "eval-knn --weights w --k 0",
        "eval-knn --weights w --k 10,",
        "info --config c --lr-at -1",
        "info --config c --images 0",
        "eval-knn --weights w --temperature 0",
        "finetune --config c --weights w --fraction 1.5",
        "finetune --config c --weights w --fraction nan",
        "features --weights w --out f",
        "features --weights w --out f --data d --input i",
        "predict --weights w --head h",
        "convert a b --to onnx",
        "completions cmd",
        "devices -q -v",
        "bench --tune some",
        "bench --fuse some",
        "bench --fuse statistics,",
        "bench --tune-seconds -1",
        "bench --seconds 0",
        "bench --seconds 1e300",
        "bench --tune-seconds 1e300",
    ] {
        let error = parse(line).expect_err(line);
        assert!(error.use_stderr() && error.exit_code() == 2, "{line}");
    }
    assert!(parse("trian").unwrap_err().to_string().contains("'train'"));
    // A configuration alone suffices, and so does a folder to go on in.
    let missing = parse("train").unwrap_err().to_string();
    assert!(missing.contains("--config <FILE>") && !missing.contains("--out"), "{missing}");
    let missing = parse("train --resume").unwrap_err().to_string();
    assert!(missing.contains("--config <FILE>|--out <DIR>"), "{missing}");
    parse("train --config c --resume").unwrap();
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in Cli::command().get_subcommands_mut() {
        let help = command.render_long_help().to_string();
        assert!(help.contains("Example") && help.contains(&format!("  swav-wgpu {}", command.get_name())), "{help}");
        assert!(command.get_arguments().all(|a| a.get_help().is_some()), "{}", command.get_name());
    }
    for flag in ["--help", "--version", "train --help"] {
        assert!(!parse(flag).unwrap_err().use_stderr());
    }
}
