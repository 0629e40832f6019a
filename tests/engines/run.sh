#!/usr/bin/env bash
# make test-engines: real vLLM servers on the CPU. PY is the interpreter of .venv.
set -euo pipefail
cd "$(dirname "$0")/../.."
SKYLB_VLLM="$(PYTHON="${PYTHON:-$PY}" tests/engines/environment.sh)"
export SKYLB_VLLM
exec "$PY" -m pytest tests/engines -o addopts="-v --strict-markers -p no:cacheprovider" -o timeout=600 "$@"
