#!/usr/bin/env bash
# Prints the mirror that this Debian machine's packages come from: that of its release's own source, in either form. Nothing on other systems.
[ "$(. /etc/os-release 2>/dev/null && echo "${ID:-}")" = debian ] || exit 0
release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
mirror=$({
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
        sed -nE 's/^deb( +\[[^]]*\])? +([^ ]+) +([^ ]+) +(.*)$/\2 \3 \4/p'
    # Paragraphs with several fields, as one line each.
    awk 'BEGIN { RS = ""; FS = "\n" }
        { delete field; for (i = 1; i <= NF; i++) if (match($i, /^[A-Za-z-]+:/)) { field[substr($i, 1, RLENGTH - 1)] = substr($i, RLENGTH + 1) }
          split(field["URIs"], uris, " "); n = split(field["Suites"], suites, " ")
          for (i = 1; i <= n; i++) print uris[1], suites[i], field["Components"] }' /etc/apt/sources.list.d/*.sources 2>/dev/null
} | awk -v release="$release" '$2 == release && / main( |$)/ { print $1; exit }')
echo "${mirror:-http://deb.debian.org/debian}"
