#!/usr/bin/env bash
# Installs helm and kubeconform outside the tree (once), with schemas of Kubernetes' own kinds and of the two
# kinds of others that the chart can make. Prints the directory: bin/, schemas/ and crds/ are in it.
# Nothing but the Go module proxy is asked: kubeconform's own schemas are on a server of their own.
set -euo pipefail

HELM=v3.22.0
KUBECONFORM=v0.8.0
KUBERNETES=v1.36.3
PROMETHEUS_OPERATOR=v0.85.0
KEDA=v2.21.0
BASE="${XDG_CACHE_HOME:-$HOME/.cache}/skylb/kubernetes"
HERE="$(cd "$(dirname "$0")" && pwd)"
PYTHON="${PYTHON:-${PY:-python3}}" # it needs PyYAML

if ! command -v go >/dev/null; then
    echo "the tests of the chart build their tools with Go: go is not on the PATH" >&2
    exit 1
fi
mkdir -p "$BASE/bin"
exec 9>"$BASE/lock"
flock 9

# The build cache is worth gigabytes, and nothing needs it afterwards.
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
export GOCACHE="$scratch/go-build" GOFLAGS="-p=2" GOBIN="$BASE/bin" GOTOOLCHAIN=local

install_tool() { # NAME PACKAGE VERSION
    if [ "$(cat "$BASE/bin/.$1" 2>/dev/null)" != "$3" ]; then
        echo "== $1 $3" >&2
        nice go install -trimpath -ldflags '-s -w' "$2@$3" >&2
        echo "$3" >"$BASE/bin/.$1"
    fi
}

directory_of() { # MODULE VERSION: where its files are
    (cd "$scratch" && go mod download -json "$1@$2") | "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["Dir"])'
}

install_tool kubeconform github.com/yannh/kubeconform/cmd/kubeconform "$KUBECONFORM"
made="$KUBERNETES $PROMETHEUS_OPERATOR $KEDA $(cat "$HERE/schemas.py" "$HERE/tools.sh" | cksum)"
if [ "$(cat "$BASE/schemas/.made" 2>/dev/null)" != "$made" ]; then
    echo "== schemas of Kubernetes $KUBERNETES" >&2
    rm -rf "$BASE/schemas" "$BASE/crds"
    mkdir "$BASE/crds"
    install -m 644 "$(directory_of github.com/prometheus-operator/prometheus-operator "$PROMETHEUS_OPERATOR")/example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml" \
        "$(directory_of github.com/kedacore/keda/v2 "$KEDA")/config/crd/bases/keda.sh_scaledobjects.yaml" "$BASE/crds/"
    "$PYTHON" "$HERE/schemas.py" "$BASE/schemas" \
        "$(directory_of k8s.io/kubernetes "$KUBERNETES")/api/openapi-spec/swagger.json" "$BASE"/crds/*.yaml
    echo "$made" >"$BASE/schemas/.made"
fi
install_tool helm helm.sh/helm/v3/cmd/helm "$HELM"
echo "$BASE"
