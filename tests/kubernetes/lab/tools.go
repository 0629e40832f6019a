//go:build tools

// Package lab names the programs that environment.sh builds, so that go.mod and go.sum hold all that they need.
package lab

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
)
