#!/usr/bin/env bash
# Prints the Debian mirror that this machine's package manager uses, from its sources in either form; nothing where there is none.
cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
    sed -nE 's/^URIs: *([^ ]+).*/\1/p; s/^deb( +\[[^]]*\])? +([^ ]+).*/\2/p' | grep -E '/debian/?$' | head -n 1
