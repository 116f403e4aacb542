#!/usr/bin/env bash
# Makes sure that the program finds a GPU. Where there is none at all, installs a software Vulkan device (Mesa's lavapipe): the
# newest that the package manager offers. Installs nothing where any device is found.
#
#   scripts/ensure-vulkan.sh PATH-OF-SWAV-WGPU
set -euo pipefail
program=$1

if "$program" devices --quiet >/dev/null 2>&1; then exit 0; fi
echo "No Vulkan, Metal or DX12 device was found: installing a software one." >&2

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

install_with_apt() {
    export DEBIAN_FRONTEND=noninteractive
    local codename mirror options=()
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    # Backports bring a Mesa that is ten times faster than Debian 12's own. They come from the mirror this machine uses already.
    if [ "$(. /etc/os-release && echo "${ID:-}")" = debian ] && [ -n "$codename" ]; then
        if ! grep -rqs "$codename-backports" /etc/apt/sources.list /etc/apt/sources.list.d; then
            mirror=$("$(dirname "$0")/debian-mirror.sh")
            echo "deb $mirror $codename-backports main" | as_root tee /etc/apt/sources.list.d/swav-wgpu-backports.list >/dev/null
        fi
        options=(-t "$codename-backports")
    fi
    if ! as_root apt-get update -qq; then
        # A mirror without backports must not stand in the way.
        as_root rm -f /etc/apt/sources.list.d/swav-wgpu-backports.list
        options=()
        as_root apt-get update -qq
    fi
    as_root apt-get install -y -qq --no-install-recommends "${options[@]}" mesa-vulkan-drivers libvulkan1 >/dev/null ||
        as_root apt-get install -y -qq --no-install-recommends mesa-vulkan-drivers libvulkan1 >/dev/null
}

if command -v apt-get >/dev/null; then install_with_apt
elif command -v dnf >/dev/null; then as_root dnf install -y -q mesa-vulkan-drivers vulkan-loader
elif command -v pacman >/dev/null; then as_root pacman -S --noconfirm --needed vulkan-swrast vulkan-icd-loader
elif command -v zypper >/dev/null; then as_root zypper --non-interactive install libvulkan_lvp libvulkan1
elif command -v apk >/dev/null; then as_root apk add mesa-vulkan-swrast vulkan-loader
else
    echo "No known package manager here: install a Vulkan driver (Mesa's lavapipe is a software one) and run this again." >&2
    exit 3
fi
"$program" devices >&2
