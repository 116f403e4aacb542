//! Weight files as a user meets them: what is said of a good one, and that a bad one costs nothing.

use crate::hostile_files::{call, deflated_zeros, dict, legacy, safetensors, tensor, text, torch_zip, zip};
use crate::rig::{PROGRAM, Ran, Rig, finished, repository};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use swav_wgpu::weights::{AnyTensor, load, read_safetensors, read_tensors, write_safetensors};

fn golden(name: &str) -> String {
    repository("tests/golden/ckpt").join(name).display().to_string()
}

#[test]
fn what_is_in_a_file_is_said() {
    let rig = Rig::new();
    let network = "a ResNet of bottleneck blocks [1, 1, 1, 1], width 2, standard stem, SwAV head 64-6-5 with 7 prototypes";
    let said = |line: &str| rig.run(line).ok().err;
    let official = said(&format!("convert {} a.pth --to mmpretrain", golden("tiny.swav_released_legacy.pth.tar")));
    assert_eq!(official, format!("{}: swav layout, 112 of 112 tensors matched: {network}\n", golden("tiny.swav_released_legacy.pth.tar")));
    let lightly = golden("tiny.lightly.ckpt");
    let expected = format!(
        "{lightly}: lightly layout, 111 of 112 tensors matched: {network}\n\
         note: projection_head.0.bias is not in the file and taken as 0, which is the same: a batch norm follows it\n\
         note: not used: 1 tensor: state_dict.prototypes.heads.0.bias\n\
         note: state_dict.prototypes.heads.0.bias is left out: SwAV's prototypes have no bias, so scores differ by it\n"
    );
    assert_eq!(said(&format!("convert {lightly} a.pth --to swav")), expected);
    assert_eq!(said(&format!("convert {lightly} a.pth --to swav -q")), "");
    let json = rig.run(&format!("convert {lightly} a.safetensors --json")).ok().json();
    assert_eq!((json["source_layout"].as_str(), json["matched"].as_u64(), json["tensors"].as_u64()), (Some("lightly"), Some(111), Some(102)));
    assert_eq!(json["unmatched"], serde_json::json!(["state_dict.prototypes.heads.0.bias"]));
    assert_eq!((json["remarks"].as_array().map(Vec::len), json["dropped"].as_array().map(Vec::len)), (Some(1), Some(10)));
    let dropped = said(&format!("convert {} a.pth", golden("tiny.mm.pth")));
    assert!(dropped.contains("note: prototypes.weight is left out: this layout has no place for it\n"), "{dropped}");
    let solo = said(&format!("convert {} a.pth", golden("tiny.solo.ckpt")));
    assert!(solo.contains("note: state_dict.queue is left out: the queue belongs to a training run"), "{solo}");

    let training = said(&format!("convert {} a.pth --to swav", golden("tiny.swav_train.pth.tar")));
    assert!(training.contains("112 of 112 tensors matched") && training.contains("note: not used: ") && training.contains("optimizer.state. ("));

    // The same is said wherever weights are taken.
    let images = AnyTensor::from_f32(&[1, 3, 8, 8], &[0.5; 192]);
    write_safetensors(rig.path("images.safetensors"), &[("images".to_owned(), images)].into(), &[].into()).unwrap();
    let features = said(&format!("features --weights {lightly} --input images.safetensors --out f.safetensors"));
    assert!(features.starts_with(&expected), "{features}");
    rig.train("run", "--max-steps 1");
    let again = rig.run("train --config pretrain.toml --out again --max-steps 1 --init run").ok().err;
    assert!(again.contains("step-000000001.safetensors: swav-wgpu layout, ") && again.contains(" tensors matched: "), "{again}");
    let first = |run: &str| load(&rig.checkpoints(run)[0]).unwrap();
    assert_ne!(first("run").tensors, first("again").tensors, "the second run did not start where the first one ended");
    rig.run(&format!("train --config pretrain.toml --out wrong --init {lightly}")).fails(2, &["bottleneck", "basic", "expected"]);
}

#[test]
fn a_prefix_chooses_among_backbones() {
    let rig = Rig::new();
    let own = read_tensors(golden("tiny.torchvision.pth")).unwrap();
    let backbone = || own.iter().filter(|(name, _)| !name.starts_with("fc."));
    let mut tensors: std::collections::BTreeMap<_, _> = backbone().map(|(name, t)| (format!("module.encoder_q.{name}"), t.clone())).collect();
    for (name, tensor) in backbone() {
        let halves = tensor.to_f32().map(|data| data.iter().map(|x| x / 2.0).collect::<Vec<f32>>());
        let halved = halves.map_or_else(|_| tensor.clone(), |data| AnyTensor::from_f32(tensor.shape(), &data).into_owned());
        tensors.insert(format!("module.encoder_k.{name}"), halved);
    }
    tensors.insert("module.queue".to_owned(), AnyTensor::from_f32(&[2, 2], &[0.0; 4]).into_owned());
    write_safetensors(rig.path("moco.safetensors"), &tensors, &[].into()).unwrap();
    let said = rig.run("convert moco.safetensors q.safetensors").ok().err;
    for part in [
        "encoder layout, 102 of 205 tensors matched",
        "note: the backbone is the one under `module.encoder_q.`; there is another one under `module.encoder_k.` (`--backbone PREFIX` chooses)\n",
        "note: not used: 103 tensors: module.encoder_k. (102), module.queue\n",
    ] {
        assert!(said.contains(part), "{said}\nlacks: {part}");
    }
    let json = rig.run("convert moco.safetensors k.safetensors --backbone encoder_k --json").ok().json();
    assert_eq!(json["unused"][0], serde_json::json!({"prefix": "module.encoder_q.", "tensors": 102}));
    assert_eq!((json["unusable"].clone(), json["unmatched"].as_array().map(Vec::len)), (serde_json::json!({}), Some(103)));
    let value = |file: &str| read_safetensors(rig.path(file)).unwrap().f32("conv1.weight").unwrap().data[0];
    assert_eq!(value("q.safetensors"), 2.0 * value("k.safetensors"));
    for line in [
        "convert moco.safetensors out.pth",
        "features --weights moco.safetensors --data data --out out.safetensors",
        "eval-knn --weights moco.safetensors --data data",
        "eval-linear --config linear.toml --weights moco.safetensors",
        "finetune --config linear.toml --weights moco.safetensors",
        "clusters --weights moco.safetensors --data data --out out",
        "train --config pretrain.toml --init moco.safetensors --out out",
    ] {
        rig.run(&format!("{line} --backbone student"))
            .fails(2, &["has no backbone under `student`; there is one under `module.encoder_k.` and `module.encoder_q.`"]);
    }
    rig.run("eval-knn --weights random --config pretrain.toml --data data --backbone a").fails(2, &["--backbone", "random"]);
    rig.run("train --config pretrain.toml --out out --backbone a").fails(2, &["--init"]);
}

#[test]
fn less_than_a_backbone_is_refused_with_a_list() {
    let rig = Rig::new();
    let mut tensors = read_tensors(golden("tiny.torchvision.pth")).unwrap();
    tensors.retain(|name, _| !name.contains("running_var") && !name.starts_with("layer3.0.bn2.") && name != "layer4.0.conv1.weight");
    write_safetensors(rig.path("part.safetensors"), &tensors, &[].into()).unwrap();
    let list = "part.safetensors: the backbone is not whole: 21 of 85 tensors are missing: *.running_var, layer3.0.bn2.*, layer4.0.conv1.weight";
    for line in [
        "convert part.safetensors out.pth",
        "features --weights part.safetensors --data data --out out.safetensors",
        "eval-knn --weights part.safetensors --data data",
        "eval-linear --config linear.toml --weights part.safetensors",
        "finetune --config linear.toml --weights part.safetensors",
        "clusters --weights part.safetensors --data data --out out.pth",
        "train --config pretrain.toml --init part.safetensors --out out.pth",
    ] {
        rig.run(line).fails(2, &[list]);
        assert!(["out.pth", "out.safetensors"].iter().all(|out| !rig.path(out).exists()), "{line}");
    }
    let head = golden("linear.official.pth.tar");
    rig.run(&format!("convert {head} out.pth")).fails(2, &["linear classifier only, no backbone", "predict --head"]);
    rig.run(&format!("predict --weights {} --head {head} --size 32 data/val/red/00.png", golden("tiny.vissl.torch"))).ok();
}

/// Kilobytes of data that the program may have: with its code and libraries less than 100 MB.
const MEMORY: u32 = 85 << 10;

/// Runs the program with so much memory and a second of processor time; more of either kills it.
fn limited(rig: &Rig, line: &str, memory: u32) -> Ran {
    if !cfg!(target_os = "linux") {
        return rig.run(line);
    }
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -d {memory} && ulimit -t 1 && exec \"$0\" \"$@\""), PROGRAM]).args(line.split_whitespace());
    command.current_dir(rig.path("")).env("NO_COLOR", "1").env_remove("RUST_LOG");
    finished(command)
}

/// Refused in every place that takes weights: one line, exit code 2, nothing written, within the limits.
#[track_caller]
fn refused(rig: &Rig, file: &str, what: &str) {
    for line in [&format!("convert {file} out.pth")[..], &format!("features --weights {file} --input {file} --out out.safetensors")] {
        let start = Instant::now();
        let ran = limited(rig, line, MEMORY);
        // Processor time is limited above; this one also counts waiting for other tests.
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: {:?}", start.elapsed());
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{what}: {}", ran.err);
        assert!(ran.err.starts_with(&format!("error: {file}: ")) && ran.err.lines().count() == 1 && ran.err.len() < 1000, "{what}: {}", ran.err);
        assert!(!rig.path("out.pth").exists(), "{what}");
    }
}

#[test]
fn hostile_files_cost_nothing() {
    let rig = Rig::new();
    let witness = rig.text("witness");
    let os_system = dict("state_dict", &call("os", "system", &format!("touch {witness}")));
    let terabyte = dict("conv1.weight", &tensor(1 << 38, 1 << 38, 1));
    let repeated = dict("conv1.weight", &tensor(16, 1 << 38, 0));
    let many_names = (0..112_000).flat_map(|i| [text(&i.to_string()), b"K\0".to_vec()].concat());
    let many_names = [b"\x80\x02}(".to_vec(), many_names.collect(), b"u.".to_vec()].concat();
    let texts = [&b"\x80\x02}("[..], &text(&"a".repeat(1 << 20)), b"q\0", &b"h\0h\0".repeat(31), b"Nu."].concat();
    let lists = [b"\x80\x02(".to_vec(), vec![b']'; 8_000_000], b"l.".to_vec()].concat();
    let mut doubling = b"]q\0".to_vec();
    for index in 0..200u8 {
        doubling.extend([b'(', b'h', index, b'h', index, b'l', b'q', index + 1]);
    }
    let (bomb, size) = deflated_zeros(4_000_000);
    let claims = dict("conv1.weight", &tensor(u64::from(size) / 4, u64::from(size) / 4, 1));
    let claims = ("a/data.pkl", 0, &claims[..], claims.len() as u32);
    let entry = |name: usize, shape: u64| format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":[{shape}],\"data_offsets\":[0,{}]}}", 4 * shape);
    let names: Vec<String> = (0..100_000).map(|name| entry(name, 0)).collect();
    let layers: Vec<String> =
        (1..=4).map(|stage| format!("\"layer{stage}.999.bn1.bias\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[588,588]}}")).collect();
    let conv1 = "\"conv1.weight\":{\"dtype\":\"F32\",\"shape\":[1,3,7,7],\"data_offsets\":[0,588]}";
    let blocks = format!("{{{conv1},{}}}", layers.join(","));
    for (what, bytes) in [
        ("os.system, zip", torch_zip(&os_system)),
        ("os.system, legacy", legacy(&os_system)),
        ("a terabyte, zip", torch_zip(&terabyte)),
        ("a terabyte, legacy", legacy(&terabyte)),
        ("a repeated element, zip", torch_zip(&repeated)),
        ("a repeated element, legacy", legacy(&repeated)),
        ("long texts, copied", torch_zip(&texts)),
        ("names of nothing, zip", torch_zip(&many_names)),
        ("names of nothing, legacy", legacy(&many_names)),
        ("many lists, zip", torch_zip(&lists)),
        ("many lists, legacy", legacy(&lists)),
        ("doubling lists", torch_zip(&dict("a", &doubling))),
        ("a pickle that inflates to a gigabyte", zip(&[("a/data.pkl", 8, &bomb, size)])),
        ("weights that inflate to a gigabyte", zip(&[claims, ("a/data/0", 8, &bomb, size)])),
        ("a lie about what inflates", zip(&[claims, ("a/data/0", 8, &bomb, 64)])),
        ("a header of 2^64 bytes", [&u64::MAX.to_le_bytes()[..], b"{}"].concat()),
        ("a header of 8 MiB", [&(8u64 << 20).to_le_bytes()[..], b"{", &vec![b' '; (8 << 20) - 1]].concat()),
        ("a hundred thousand tensors", safetensors(&format!("{{{}}}", names.join(",")), b"")),
        ("a deep header", safetensors(&"{\"a\":".repeat(1_000_000), b"")),
        ("a tensor of a terabyte", safetensors(&format!("{{{}}}", entry(0, 1 << 38)), b"")),
        ("a network of 4000 blocks", safetensors(&blocks, &[0; 588])),
        ("nothing", Vec::new()),
        ("zeros", vec![0; 1 << 20]),
    ] {
        rig.write("hostile", bytes);
        refused(&rig, "hostile", what);
    }
    assert!(!Path::new(&witness).exists(), "code in a pickle was run");

    // Files with holes are as long as they say, and still nothing is read of them.
    for (what, header) in [
        ("a hole of 64 GiB", format!("{{{}}}", entry(0, 1 << 34))),
        ("a first layer of 64 GiB", "{\"conv1.weight\":{\"dtype\":\"F32\",\"shape\":[116870000,3,7,7],\"data_offsets\":[0,68719560000]}}".to_owned()),
    ] {
        rig.write("hostile", safetensors(&header, b""));
        let data = read_end(&header);
        let file = std::fs::OpenOptions::new().write(true).open(rig.path("hostile")).unwrap();
        if file.set_len(8 + header.len() as u64 + data).is_ok() {
            refused(&rig, "hostile", what);
        }
    }
}

/// The last number of a header: where its data ends.
fn read_end(header: &str) -> u64 {
    header.trim_end_matches(['}', ']']).rsplit(',').next().unwrap().parse().unwrap()
}

#[test]
fn files_cut_at_every_page_are_refused() {
    let rig = Rig::new();
    for name in ["tiny.mm.pth", "tiny.swav_released_legacy.pth.tar", "tiny.torchvision_deflated.pth", "tiny.official.safetensors"] {
        let bytes = std::fs::read(golden(name)).unwrap();
        for length in (0..bytes.len()).step_by(4096).chain([bytes.len() - 1]) {
            rig.write("cut", &bytes[..length]);
            let ran = limited(&rig, "convert cut out.pth", MEMORY);
            assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{name} cut to {length}: {}", ran.err);
            assert!(ran.err.starts_with("error: cut: ") && ran.err.lines().count() == 1, "{name} cut to {length}: {}", ran.err);
        }
        assert!(!rig.path("out.pth").exists());
    }
}

/// The limits of the tests above are limits: a whole file passes them, and smaller ones stop it.
#[cfg(target_os = "linux")]
#[test]
fn the_limits_bite() {
    let rig = Rig::new();
    let line = format!("convert {} out.pth --to swav", golden("tiny.mm.pth"));
    limited(&rig, &line, MEMORY).ok();
    assert!(read_safetensors(rig.path("out.pth")).is_err() && load(rig.path("out.pth")).is_ok());
    let zeros = vec![0f32; 30 << 20];
    let big = AnyTensor::from_f32(&[1, 3, 1 << 10, 10 << 10], &zeros);
    write_safetensors(rig.path("big.safetensors"), &[("images".to_owned(), big)].into(), &[].into()).unwrap();
    let ran = limited(&rig, &format!("features --weights {} --input big.safetensors --out f.safetensors", golden("tiny.mm.pth")), MEMORY);
    assert_ne!(ran.code, Some(0), "120 MB were read within the limit");
}
