#!/usr/bin/env bash
# make test-otlp: a real collector between the balancers and what the tests read. PY is the interpreter of .venv.
set -euo pipefail
cd "$(dirname "$0")/../.."
ROTEL="$(PYTHON="${PYTHON:-$PY}" tests/otlp/environment.sh)"
export ROTEL
exec "$PY" -m pytest tests/otlp -o addopts="-v -rP --strict-markers -p no:cacheprovider" -o timeout=120
