//! `scripts/ensure-vulkan.sh` beside a package manager that is at work, with stand-ins for everything that would touch the machine.

use crate::rig::{Ran, finished, repository};
use std::path::Path;
use std::process::Command;

/// A program of this name that is a shell script.
fn stand_in(folder: &Path, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs the script with an `apt-get` that does `apt` (its calls are counted in `$calls`), on a machine whose device is there once it has installed.
fn ensure(folder: &Path, apt: &str, patience: &str) -> Ran {
    let root = folder.display();
    stand_in(folder, "program", &format!("[ -e {root}/installed ] && echo 'a device' >&2"));
    stand_in(folder, "sudo", "exec \"$@\"");
    // Nothing is written where packages come from.
    stand_in(folder, "tee", "case \"$1\" in /etc/*) cat >/dev/null ;; *) exec /usr/bin/tee \"$@\" ;; esac");
    stand_in(folder, "rm", "case \"$*\" in */etc/*) ;; *) exec /bin/rm \"$@\" ;; esac");
    let counted = format!("echo x >>{root}/calls; calls=$(wc -l <{root}/calls)\n{apt}\ncase \"$*\" in *install*) touch {root}/installed ;; esac");
    stand_in(folder, "apt-get", &counted);
    let mut command = Command::new("bash");
    let path = format!("{root}:{}", std::env::var("PATH").unwrap());
    command.arg(repository("scripts/ensure-vulkan.sh")).arg(folder.join("program")).env("PATH", path);
    command.env("SWAV_WGPU_PACKAGE_WAIT", patience).env("SWAV_WGPU_PACKAGE_PAUSE", "0.1");
    finished(command)
}

const HELD: &str = "echo \"E: Could not get lock /var/lib/apt/lists/lock. It is held by process 4711 (unattended-upgr)\nE: Unable to lock directory /var/lib/apt/lists/\" >&2; exit 100";

#[test]
fn a_busy_package_manager_is_waited_for_and_named_once() {
    let folder = tempfile::tempdir().unwrap();
    let ran = ensure(folder.path(), &format!("if [ $calls -le 4 ]; then {HELD}; fi"), "60").ok();
    let said = "Waiting for another package manager: process 4711 (unattended-upgr) (at most 60 seconds).";
    assert!(ran.err.matches(said).count() == 1 && ran.err.contains("a device"), "{}", ran.err);
    assert!(!ran.err.contains("Could not get lock"), "{}", ran.err);
}

#[test]
fn it_is_not_waited_for_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let ran = ensure(folder.path(), HELD, "1");
    assert!(ran.code == Some(100) && ran.err.contains("was busy for 1 seconds") && ran.err.contains("held by process 4711"), "{}", ran.err);
}

#[test]
fn what_fails_for_another_reason_fails_at_once_in_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let ran = ensure(folder.path(), "case \"$*\" in *install*) echo 'E: No space left on device' >&2; exit 100 ;; esac", "60");
    assert!(ran.code == Some(100) && ran.err.contains("E: No space left") && !ran.err.contains("Waiting"), "{}", ran.err);
}
