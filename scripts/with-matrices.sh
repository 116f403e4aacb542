#!/usr/bin/env bash
# Runs a program on a software Vulkan device that has cooperative matrices: lavapipe of Mesa 26 from Debian 13's backports, unpacked
# under target/ (300 MB) with the C library it was built against, so the system stays as it is. Programs that PROGRAM starts do not get it.
#
#   scripts/with-matrices.sh PROGRAM [ARG ...]
#   scripts/with-matrices.sh --install             # only downloads and unpacks, once; needs no root
#   CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=scripts/with-matrices.sh cargo test --release --test cooperative_matrix
#
# For Debian on x86-64; exits with 3 elsewhere.
set -euo pipefail
scripts=$(cd "$(dirname "$0")" && pwd)
home=$(dirname "$scripts")/target/mesa
root=$home/root
libraries=$root/usr/lib/x86_64-linux-gnu

install() {
    local mirror stage package options
    mirror=$("$scripts/debian-mirror.sh") || true
    if [ -z "$mirror" ] || [ "$(uname -m)" != x86_64 ]; then
        echo "Mesa with cooperative matrices can be brought to Debian on x86-64 alone." >&2
        exit 3
    fi
    # apt with a state of its own: what the system has installed, and where it looks, does not matter.
    stage=$home.new.$$
    trap "rm -rf '$stage'" EXIT
    mkdir -p "$stage"/{state/lists/partial,cache/archives/partial,root}
    : >"$stage/status"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
        "$mirror" trixie "$mirror" trixie-backports >"$stage/sources.list"
    options=(-qq -o Dir::State="$stage/state" -o Dir::State::status="$stage/status" -o Dir::Cache="$stage/cache"
        -o Dir::Etc::sourcelist="$stage/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null -o APT::Sandbox::User="$(id -un)"
        -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o Debug::NoLocking=1 -o Acquire::Retries=3)
    apt-get "${options[@]}" update >&2
    apt-get "${options[@]}" install -y --download-only --no-install-recommends -t trixie-backports mesa-vulkan-drivers libvulkan1 >&2
    for package in "$stage"/cache/archives/*.deb; do dpkg -x "$package" "$stage/root"; done
    # From where the file lies.
    echo '{"file_format_version":"1.0.1","ICD":{"api_version":"1.4.0","library_path":"./root/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so"}}' >"$stage/lavapipe.json"
    rm -rf "$home" "$stage"/{state,cache,status,sources.list}
    mv -T "$stage" "$home"
}

if [ $# = 0 ]; then sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; fi
[ -f "$home/lavapipe.json" ] || install
[ "$1" != --install ] || exit 0
program=$(command -v -- "$1") || { echo "no program $1" >&2; exit 127; }
shift
export VK_DRIVER_FILES=$home/lavapipe.json VK_ICD_FILENAMES=$home/lavapipe.json
exec "$libraries/ld-linux-x86-64.so.2" --argv0 "$program" --library-path "$libraries" "$program" "$@"
