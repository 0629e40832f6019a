#!/usr/bin/env bash
# make test-engines: real vLLM servers on the CPU. PY is the interpreter of .venv; arguments: test files,
# else all tests (not the timed ones of bench_*.py).
set -euo pipefail
cd "$(dirname "$0")/../.."
VLLM_ENVIRONMENT="$(PYTHON="${PYTHON:-$PY}" tests/engines/environment.sh)"
export VLLM_ENVIRONMENT
exec "$PY" -m pytest "${@:-tests/engines}" -o addopts="-v -rP --strict-markers -p no:cacheprovider" -o timeout=2400 -o timeout_func_only=true
