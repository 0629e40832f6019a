#!/usr/bin/env bash
# Installs rotel, a collector written in Rust, outside the tree (10 MB, once). Prints the path of its program.
set -euo pipefail

VERSION=0.0.1a15
ENV="${XDG_CACHE_HOME:-$HOME/.cache}/skylb/rotel-$VERSION"
PYTHON="${PYTHON:-python3}"

if [ ! -f "$ENV/.ready" ]; then
    rm -rf "$ENV"
    "$PYTHON" -m venv "$ENV"
    "$ENV/bin/python" -m pip install --quiet --no-deps --disable-pip-version-check "rotel==$VERSION" >&2
    touch "$ENV/.ready"
fi
find "$ENV" -name rotel-agent -type f
