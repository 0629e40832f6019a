#!/usr/bin/env bash
# Unpacks Debian's package of Prometheus outside the tree (once): nothing is installed. Prints the directory with
# prometheus and promtool. A machine that has both on its PATH uses those.
set -euo pipefail

if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    dirname "$(command -v prometheus)"
    exit
fi
BASE="${XDG_CACHE_HOME:-$HOME/.cache}/skylb/prometheus"
if [ ! -x "$BASE/usr/bin/promtool" ]; then
    scratch="$(mktemp -d)"
    trap 'rm -rf "$scratch"' EXIT
    echo "== prometheus" >&2
    (cd "$scratch" && apt-get download --quiet prometheus >&2 && dpkg -x prometheus_*.deb unpacked)
    mkdir -p "$(dirname "$BASE")"
    rm -rf "$BASE"
    mv "$scratch/unpacked" "$BASE"
fi
echo "$BASE/usr/bin"
