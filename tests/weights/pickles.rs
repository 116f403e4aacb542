//! Whatever `torch.save` puts beside tensors, in every protocol and container (`tests/golden/pickles`), against what `torch.load` gives.

use crate::hostile_files::{dict, legacy, text, torch_zip};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use swav_wgpu::weights::{AnyTensor, load, read_safetensors, read_tensors};

/// Types that the old container cannot keep.
const NEW_TYPES: &[&str] = &["uint16", "uint32", "uint64"];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pickles").join(name)
}

fn expected(name: &str) -> BTreeMap<String, AnyTensor<'static>> {
    let file = read_safetensors(golden(&format!("{name}.expected.safetensors"))).unwrap();
    file.names().map(|name| (name.to_owned(), file.get(name).unwrap().into_owned())).collect()
}

#[track_caller]
fn assert_same(found: &BTreeMap<String, AnyTensor>, expected: &BTreeMap<String, AnyTensor>, what: &str) {
    let names = |tensors: &BTreeMap<String, AnyTensor>| tensors.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(found), names(expected), "{what}");
    for (name, tensor) in found {
        assert_eq!(tensor, &expected[name], "{what}: {name}");
    }
}

/// Python's protocol 0 is not among them: `torch.load` refuses its own files in it.
#[test]
fn every_protocol_and_container_gives_what_torch_load_gives() {
    for name in ["objects", "kinds", "module"] {
        for container in ["zip", "legacy"] {
            for protocol in 1..=5 {
                let file = format!("{name}.{container}{protocol}.pth");
                let mut expected = expected(name);
                // Python cannot pickle slots before protocol 2.
                let is_new = |name: &str| name.rsplit('.').next().is_some_and(|last| NEW_TYPES.contains(&last));
                expected.retain(|name, _| (protocol > 1 || !name.starts_with("slots.")) && (container == "zip" || !is_new(name)));
                assert!(expected.len() > 5, "{file}");
                assert_same(&read_tensors(golden(&file)).unwrap(), &expected, &file);
            }
        }
    }
}

#[test]
fn every_writer_of_zip_files_is_read() {
    let plain = expected("plain");
    // The stem is a part of the members' names: 21 characters make the first record of the directory as long as the end of a zip64's.
    for file in ["stem_of_21_characters.pth", "no_checksums.pth", "big_endian.pth"] {
        assert_same(&read_tensors(golden(file)).unwrap(), &plain, file);
    }
    assert_same(&read_tensors(golden("script.pth")).unwrap(), &expected("script"), "TorchScript");
}

#[test]
fn the_oldest_files_are_read() {
    let mut plain: BTreeMap<_, _> = expected("plain").into_iter().map(|(name, tensor)| (format!("state_dict.{name}"), tensor)).collect();
    let first = plain["state_dict.conv.weight"].to_f32().unwrap();
    let last = first[first.len() - 2..].to_vec();
    plain.insert("state_dict.view".to_owned(), AnyTensor::from_f32(&[2], &last).into_owned());
    assert_same(&read_tensors(golden("old.tar.pth")).unwrap(), &plain, "tar");
}

#[test]
fn lightning_files_with_settings_of_omegaconf_are_read() {
    assert_same(&read_tensors(golden("lightning.ckpt")).unwrap(), &expected("lightning"), "lightning");
}

#[test]
fn tensors_of_other_kinds_are_named() {
    let message = load(golden("kinds.zip2.pth")).unwrap_err().to_string();
    for part in ["no backbone", "unusable.array is a NumPy array", "unusable.complex128 is of complex numbers", "8 more are of kinds"] {
        assert!(message.contains(part), "{message}\nlacks: {part}");
    }
}

/// Loads the only tensor of a pickle around the opcodes of a value.
fn names_in(value: &[u8]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pth");
    let mut names = Vec::new();
    for bytes in [torch_zip(value), legacy(value)] {
        std::fs::write(&path, bytes).unwrap();
        names.push(load(&path).err().map(|error| error.to_string()).unwrap_or_default());
    }
    names
}

#[test]
fn what_no_pickler_writes_is_an_error_in_words() {
    let cases: [(&[u8], &str); 12] = [
        (b"\x80\x06N.", "protocol 6"),
        (b"\x80\x02a.", "takes a value that is not there"),
        (b"\x80\x02(a.", "takes a value that is not there"),
        (b"\x80\x02e.", "a mark that is not there"),
        (b"\x80\x02h\x05.", "recalls a value that it never had"),
        (b"\x80\x02}(Nu.", "a key without a value"),
        (b"\x80\x02NNa.", "appends to what is no list"),
        (b"\x80\x02NNNs.", "what is no dictionary"),
        (b"\x80\x02\xff.", "unknown operation 0xff"),
        (b"\x80\x02gx\n.", "no number where one must be"),
        (b"\x80\x02K\x01Q.", "tensor 1 is missing"),
        (b"\x80\x02(o.", "an object of no class"),
    ];
    for (pickle, expected) in cases {
        for message in names_in(pickle) {
            assert!(message.contains(expected), "{message}\nlacks: {expected}");
        }
    }
    for message in names_in(&dict("a", &[&b"ctorch._utils\n_rebuild_tensor_v2\n"[..], &text("x"), b"\x85R"].concat())) {
        assert!(message.contains("a tensor without storage"), "{message}");
    }
}
