#!/usr/bin/env bash
# make test-kubernetes: a real API server, the real EndpointSlice controller and etcd. PY is the interpreter of
# .venv; arguments: test files, else all tests.
#
# Slices refuse loopback addresses, so the tests run in a network namespace of their own, where every address of
# 10.88.0.0/16 is local. /run is theirs too (a service account's files stand there), and all that they start
# ends with them.
set -euo pipefail
cd "$(dirname "$0")/../.."
KUBERNETES_PROGRAMS="$(tests/kubernetes/environment.sh)"
export KUBERNETES_PROGRAMS
if [ -x tests/kubernetes/tools.sh ]; then
    KUBERNETES_TOOLS="$(tests/kubernetes/tools.sh)"
    export KUBERNETES_TOOLS
fi
[ "$#" -gt 0 ] || set -- tests/kubernetes
user=()
[ "$(id -u)" = 0 ] || user=(--user --map-root-user)
# shellcheck disable=SC2016 # it is the inner shell that expands
exec unshare "${user[@]}" --net --mount --pid --fork --mount-proc --kill-child bash -c '
    set -euo pipefail
    ip link set lo up
    ip route add local 10.88.0.0/16 dev lo
    mount -t tmpfs tmpfs /run
    "$PY" -m pytest "$@" -o addopts="-v -rP --strict-markers -p no:cacheprovider" -o timeout=300 &
    tests=$!
    # The first process of a namespace gets only the signals that it asks for.
    trap "kill -TERM $tests" INT TERM
    wait "$tests"
' tests "$@"
