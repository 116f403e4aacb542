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

# Seconds to wait for another package manager (new cloud machines update themselves for minutes), and between two attempts.
patience=${SWAV_WGPU_PACKAGE_WAIT:-600}
pause=${SWAV_WGPU_PACKAGE_PAUSE:-5}

# Runs a package manager; while another process holds its lock, waits and tries again, and says so once for each holder. What fails for any other reason
# fails at once, with the manager's own words.
patiently() {
    local began=$SECONDS holder='' now words status
    while :; do
        status=0
        # Words that can be recognised, and no questions.
        words=$(
            as_root env LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@" 2>&1 >/dev/null </dev/null | tee >(grep -i "$waits" >&2)
            exit "${PIPESTATUS[0]}"
        ) || status=$?
        if [ "$status" = 0 ]; then return 0; fi
        if ! grep -Eiq "$busy" <<<"$words"; then
            printf '%s\n' "$words" >&2
            return "$status"
        fi
        if [ $((SECONDS - began)) -ge "$patience" ]; then
            printf '%s\n' "$words" >&2
            echo "The package manager was busy for $patience seconds: run this again when it is done." >&2
            return "$status"
        fi
        now=$(holder_in "$words")
        if [ "$now" != "$holder" ]; then
            holder=$now
            echo "Waiting for another package manager: $holder (at most $patience seconds)." >&2
        fi
        sleep "$pause"
    done
}

# What apt, dnf, zypper, pacman and apk say while another one is at work.
busy='could not get lock|unable to (acquire|lock)|is another process using|another app is currently holding|transaction lock|is locked by'
# What dnf says while it waits by itself.
waits='waiting for process'

# Who holds the lock, as far as the manager's words tell.
holder_in() {
    local found
    found=$(grep -Eio 'held by process [0-9]+( \([^)]*\))?|(application with )?pid:? [0-9]+( \([^)]*\))?|process with pid [0-9]+' <<<"$1" | head -n 1)
    if [ -z "$found" ]; then found=$(grep -Eo '/[^ ,:;]+(lock|lck)[^ ,:;]*' <<<"$1" | head -n 1); found=${found:+"who holds "$found}; fi
    echo "${found:-"who it is, it does not say"}" | sed -E 's/^(held by|application with) //'
}

install_with_apt() {
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
    if ! patiently apt-get update -qq; then
        # A mirror without backports must not stand in the way.
        as_root rm -f /etc/apt/sources.list.d/swav-wgpu-backports.list
        options=()
        patiently apt-get update -qq
    fi
    patiently apt-get install -y -qq --no-install-recommends "${options[@]}" mesa-vulkan-drivers libvulkan1 ||
        patiently apt-get install -y -qq --no-install-recommends mesa-vulkan-drivers libvulkan1
}

if command -v apt-get >/dev/null; then install_with_apt
elif command -v dnf >/dev/null; then patiently dnf install -y -q mesa-vulkan-drivers vulkan-loader
elif command -v pacman >/dev/null; then patiently pacman -S --noconfirm --needed vulkan-swrast vulkan-icd-loader
elif command -v zypper >/dev/null; then patiently zypper --non-interactive install libvulkan_lvp libvulkan1
elif command -v apk >/dev/null; then patiently apk add mesa-vulkan-swrast vulkan-loader
else
    echo "No known package manager here: install a Vulkan driver (Mesa's lavapipe is a software one) and run this again." >&2
    exit 3
fi
"$program" devices >&2
