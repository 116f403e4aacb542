//! Damaged and hostile weight files: one line of error, within a second, without much memory, and never a panic.

use crate::hostile_files::{call, deflated_zeros, dict, legacy, safetensors, tensor, text, torch_zip, zip};
use cpu_time::ThreadTime;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use swav_wgpu::weights::{load, load_classifier, read_tensors};

/// Loads bytes in all three ways; every error must be quick and one line. Gives the message of `load`, or nothing when it loads.
fn attempt(bytes: &[u8]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.pth");
    fs::write(&path, bytes).unwrap();
    let (start, work) = (Instant::now(), ThreadTime::now());
    let message = load(&path).err().map(|error| error.to_string());
    // The second is of processor time; the other limit also counts waiting for whatever else the machine does.
    let (elapsed, worked) = (start.elapsed(), work.elapsed());
    assert!(worked < Duration::from_secs(1) && elapsed < Duration::from_secs(20), "{worked:?} in {elapsed:?}: {message:?}");
    let others = [read_tensors(&path).err(), load_classifier(&path).err()];
    for text in others.into_iter().flatten().map(|error| error.to_string()).chain(message.clone()) {
        assert!(!text.contains('\n') && text.len() < 1000 && text.contains("hostile.pth: "), "{text}");
    }
    message
}

fn refused(bytes: &[u8], expected: &str) {
    let message = attempt(bytes).expect("a hostile file was loaded");
    assert!(message.contains(expected), "{message}\nlacks: {expected}");
}

fn fixtures() -> Vec<(PathBuf, Vec<u8>)> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let folders = ["ckpt", "pickles"].map(|name| fs::read_dir(golden.join(name)).unwrap());
    let mut files: Vec<_> = folders.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| !path.to_string_lossy().ends_with(".md") && !path.to_string_lossy().ends_with(".json"));
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn code_in_pickles_is_refused_and_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let witness = folder.path().join("witness");
    for (module, function) in [("posix", "system"), ("os", "system"), ("subprocess", "Popen"), ("__builtin__", "eval"), ("builtins", "exec")] {
        let call = call(module, function, &format!("touch {}", witness.display()));
        for pickle in [dict("state_dict", &call), dict("meta", &[b"]", &call[..], b"a"].concat())] {
            refused(&torch_zip(&pickle), &format!("calls {module}.{function}"));
            refused(&legacy(&pickle), &format!("calls {module}.{function}"));
        }
    }
    assert!(!witness.exists());
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let terabyte = 1 << 38;
    for (numel, extent, stride) in [
        (terabyte, terabyte, 1),
        (terabyte, 1 << 30, 1),
        (16, 1 << 34, 0),
        (16, 1 << 30, 0),
        (16, 17, 1),
        (16, 4, u64::MAX >> 1),
        (u64::MAX, u64::MAX, 1),
        (u64::MAX >> 1, u64::MAX >> 1, 1),
    ] {
        for key in ["conv1.weight", "fc.weight"] {
            let pickle = dict(key, &tensor(numel, extent, stride));
            refused(&torch_zip(&pickle), "");
            refused(&legacy(&pickle), "");
        }
    }
}

#[test]
fn pickle_bombs_are_refused() {
    let nested = [b"\x80\x02".to_vec(), vec![b']'; 300_000], vec![b'a'; 299_999], b".".to_vec()].concat();
    let mut doubling = b"\x80\x02]q\0".to_vec();
    for index in 0..200u8 {
        doubling.extend([b'(', b'h', index, b'h', index, b'l', b'q', index + 1]);
    }
    doubling.push(b'.');
    let huge_text = [&b"\x80\x02}X"[..], &[0xff; 4], b"a."].concat();
    let huge_long = [&b"\x80\x02}\x8b"[..], &[0xff, 0xff, 0xff, 0x7f], b"a."].concat();
    for pickle in [nested, dict("a", &doubling[2..doubling.len() - 1]), huge_text, huge_long, b"\x80\x02".to_vec(), b".".to_vec(), Vec::new()] {
        refused(&torch_zip(&pickle), "");
        refused(&legacy(&pickle), "");
    }
    let lists = [b"\x80\x02(".to_vec(), vec![b']'; 8_000_000], b"l.".to_vec()].concat();
    refused(&torch_zip(&lists), "a pickle that would take more than");
    refused(&legacy(&lists), "a pickle that would take more than");
}

#[test]
fn zip_bombs_are_refused() {
    let (bomb, size) = deflated_zeros(400_000);
    assert_eq!(size, 103_200_001);
    let pickle = dict("conv1.weight", &tensor(25_800_000, 25_800_000, 1));
    let plain = ("a/data.pkl", 0, &pickle[..], pickle.len() as u32);
    refused(&zip(&[("a/data.pkl", 8, &bomb, size)]), "compressed pickle of 103200001 bytes");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.pth");
    fs::write(&path, zip(&[plain, ("a/data/0", 8, &bomb, size)])).unwrap();
    assert!(read_tensors(&path).unwrap_err().to_string().contains("claims 103200000 bytes of weights"));
    refused(&fs::read(&path).unwrap(), "no backbone");
    // The directory may lie about the size, too.
    refused(&zip(&[("a/data.pkl", 8, &bomb, 1000)]), "");
    let small = dict("conv1.weight", &tensor(16, 16, 1));
    let small = ("a/data.pkl", 0, &small[..], small.len() as u32);
    refused(&zip(&[small, ("a/data/0", 8, &bomb, 64)]), "");
    refused(&zip(&[small, ("a/data/0", 0, &[0; 64], 1 << 30)]), "");
    refused(&zip(&[small]), "");
    refused(&zip(&[("../../etc/passwd", 0, b"x", 1)]), "");
}

#[test]
fn safetensors_headers_are_checked() {
    let file = safetensors;
    let entry = |name: &str, shape: &str, from: usize, to: usize| {
        format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}")
    };
    let object = |entries: &[String]| format!("{{{}}}", entries.join(","));
    refused(&[&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "header of 18446744073709551615 bytes; at most");
    refused(&[&1000u64.to_le_bytes()[..], b"{}"].concat(), "cut short");
    let many = |count: usize| object(&(0..count).map(|index| entry(&index.to_string(), "[0]", 0, 0)).collect::<Vec<_>>());
    refused(&file(&many(500_000), b""), "at most 8388608 are accepted");
    refused(&file(&many(100_000), b""), "more than 20000 tensors");
    for (header, size, expected) in [
        (object(&[entry("a", "[2]", 0, 8), entry("b", "[2]", 4, 12)]), 12, "invalid offset for tensor `b`"),
        (object(&[entry("a", "[2]", 0, 8), entry("b", "[2]", 12, 20)]), 20, "invalid offset for tensor `b`"),
        (object(&[entry("a", "[2]", 0, 8)]), 4, "its tensors have 8 bytes, 4 follow the header"),
        (object(&[entry("a", "[2]", 0, 8)]), 12, "its tensors have 8 bytes, 12 follow the header"),
        (object(&[entry("a", "[3]", 0, 8)]), 8, "invalid shape"),
        (object(&[entry("a", "[-1]", 0, 8)]), 8, "not a valid"),
        (object(&[entry("a", "[4294967296,4294967296,4294967296]", 0, 8)]), 8, "overflow"),
        (object(&[entry("a", "[2]", 8, 0)]), 8, "invalid offset"),
        (object(&[entry("a", "[1]", 0, 4), entry("a", "[1]", 0, 4)]), 4, "tensor a appears twice"),
        ("{".repeat(100_000), 0, "not a valid"),
        ("[".repeat(100_000), 0, "no known kind"),
        ("{}".to_owned(), 0, "no backbone"),
    ] {
        refused(&file(&header, &vec![0; size]), expected);
    }
}

#[test]
fn other_files_are_named() {
    refused(b"", "is empty");
    refused(b"<!DOCTYPE html><html>", "looks like a web page");
    refused(b"\x80\x02}.", "bare pickle");
    refused(b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer");
    refused(&[0xff; 100], "no known kind");
    refused(b"PK\x03\x04", "not a whole zip file");
}

#[test]
fn truncation_anywhere_is_refused() {
    for (path, bytes) in fixtures() {
        for length in (0..bytes.len()).step_by(4096).chain(1..32).chain([bytes.len() - 1]) {
            assert!(attempt(&bytes[..length]).is_some(), "{} cut to {length} bytes was loaded", path.display());
        }
    }
}

#[test]
fn flipped_bits_never_panic() {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    for (_, bytes) in fixtures() {
        for _ in 0..60 {
            let mut damaged = bytes.clone();
            for _ in 0..3 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let place = (state >> 8) as usize % damaged.len();
                damaged[place] ^= 1 << (state & 7);
            }
            attempt(&damaged);
        }
    }
}

/// Attacks on time: many ways to one tensor, long names used again and again, lists copied over and over.
#[test]
fn tangled_pickles_are_refused_in_time() {
    let body = |parts: &[&[u8]]| [b"\x80\x02", &parts.concat()[..], b"."].concat();
    let float = tensor(1, 1, 1);
    // Each list holds the one before it twice, down to a tensor.
    let doubling = |start: &[u8], how: &dyn Fn(u8) -> Vec<u8>| body(&[start, b"q\0", &(0..60).flat_map(how).collect::<Vec<u8>>()]);
    let lists = doubling(&float, &|i| vec![b'(', b'h', i, b'h', i, b'l', b'q', i + 1]);
    // Tables of modules, whose names add nothing, and states in tuples.
    let tables = doubling(&float, &|i| {
        let table = |name: &str| [&text(name)[..], b"(X\x01\0\0\0xh", &[i], b"d"].concat();
        [&b"cm\nM\n)\x81}("[..], &table("_modules"), &table("_parameters"), &table("_buffers"), b"ubq", &[i + 1]].concat()
    });
    let states = doubling(&float, &|i| [b"cm\nM\n)\x81h", &[i][..], b"h", &[i], b"\x86bq", &[i + 1]].concat());
    let wide = body(&[b"]q\0(", &float, &vec![b'N'; 500_000], b"e(", &b"h\0".repeat(500_000), b"l"]);
    let long_name = format!("c{}\n{}\nq\0", "m".repeat(4000), "n".repeat(4000));
    let long_names = body(&[long_name.as_bytes(), b")q\x010(", &b"h\0h\x01R".repeat(1_000_000), b"l"]);
    let pairs = body(&[b"](", &b"NN\x86".repeat(300_000), b"Ne\x85q\0ccollections\nOrderedDict\nq\x010(", &b"h\x01h\0R".repeat(300_000), b"l"]);
    let states_copied = body(&[b"}(", &b"NN".repeat(300_000), b"uq\0}q\x01", &b"h\0b".repeat(500_000)]);
    let marks = body(&[&vec![b'('; 8_000_000]]);
    let nothing = body(&[&b"N0".repeat(8_000_000)]);
    let memos = body(&[b"N", &(0..2_000_000u32).flat_map(|i| [&b"r"[..], &i.to_le_bytes()].concat()).collect::<Vec<u8>>()]);
    let cycle = body(&[b"]q\0(h\0", &float, b"h\0e"]);
    let chain = body(&[&float, &vec![0x85; 100_000]]);
    for (what, pickle) in [
        ("lists", lists),
        ("tables", tables),
        ("states", states),
        ("wide", wide),
        ("long names", long_names),
        ("pairs", pairs),
        ("copied states", states_copied),
        ("marks", marks),
        ("nothing", nothing),
        ("memos", memos),
        ("a cycle", cycle),
        ("a chain", chain),
    ] {
        for file in [torch_zip(&pickle), legacy(&pickle)] {
            assert!(attempt(&file).is_some(), "{what}");
        }
    }
}

/// Pickles of operations in any order, with arguments that fit and that do not.
#[test]
fn random_pickles_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    let pieces: Vec<Vec<u8>> = [
        &b"("[..],
        b"0",
        b"1",
        b"2",
        b"N",
        b"\x88",
        b"\x89",
        b"]",
        b"}",
        b")",
        b"l",
        b"d",
        b"t",
        b"a",
        b"e",
        b"s",
        b"u",
        b"R",
        b"b",
        b"o",
        b"Q",
        b"\x81",
        b"\x85",
        b"\x86",
        b"\x87",
        b"\x8f",
        b"\x90",
        b"\x91",
        b"\x92",
        b"\x93",
        b"\x94",
        b"\x97",
        b"\x98",
        b"K\x03",
        b"M\0\x01",
        b"J\xff\xff\xff\xff",
        b"G\x3f\xf0\0\0\0\0\0\0",
        b"\x8a\x01\x05",
        b"\x8a\0",
        b"\x8b\x02\0\0\0\xff\xff",
        b"I01\n",
        b"L5L\n",
        b"F1.5\n",
        b"S'a\\x41'\n",
        b"V\\u00e9\n",
        b"X\x01\0\0\0x",
        b"\x8c\x01y",
        b"U\x01z",
        b"C\x01z",
        b"h\0",
        b"q\0",
        b"h\x01",
        b"q\x01",
        b"g1\n",
        b"p1\n",
        b"im\nn\n",
        b"ccollections\nOrderedDict\n",
        b"ccollections\ndefaultdict\n",
        b"ccollections\ndeque\n",
        b"cbuiltins\nset\n",
        b"ccopyreg\n_reconstructor\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch._utils\n_rebuild_tensor_v3\n",
        b"ctorch._utils\n_rebuild_parameter\n",
        b"ctorch._tensor\n_rebuild_from_type_v2\n",
        b"ctorch\nFloatStorage\n",
        b"ctorch\nSize\n",
        b"cm\nM\n",
        b"\x80\x04",
        b"\x95\0\0\0\0\0\0\0\0",
    ]
    .iter()
    .map(|piece| piece.to_vec())
    .chain(["storage", "_modules", "_parameters", "_buffers", "0", "cpu", "conv1.weight"].map(text))
    .chain([tensor(16, 16, 1), tensor(16, 4, 4)])
    .collect();
    for _ in 0..500 {
        let mut pickle = b"\x80\x02".to_vec();
        for _ in 0..1 + draw(60) {
            pickle.extend(&pieces[draw(pieces.len())]);
            if draw(60) == 0 {
                pickle.push(draw(256) as u8);
            }
        }
        pickle.push(b'.');
        attempt(&torch_zip(&pickle));
        attempt(&legacy(&pickle));
    }
}

/// Says to [`all_in_one_process`] that it runs alone.
#[cfg(target_os = "linux")]
const ALONE: &str = "HOSTILE_TEST_ALONE";

/// Runs only as the child of the next test: other tests of this program hold memory of their own.
#[cfg(target_os = "linux")]
#[test]
fn all_in_one_process() {
    if std::env::var_os(ALONE).is_none() {
        return;
    }
    code_in_pickles_is_refused_and_not_run();
    sizes_that_cannot_be_are_refused();
    pickle_bombs_are_refused();
    tangled_pickles_are_refused_in_time();
    zip_bombs_are_refused();
    safetensors_headers_are_checked();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 256 * 1024, "{peak}");
}

/// Every attack in one process, and the most memory that it ever held.
#[cfg(target_os = "linux")]
#[test]
fn memory_stays_small() {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", "hostile::all_in_one_process", "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
