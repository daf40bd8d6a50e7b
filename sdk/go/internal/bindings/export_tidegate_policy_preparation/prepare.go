//go:build wasip1

// Package export_tidegate_policy_preparation is where the generated bindings prepare an instance; they name it.
package export_tidegate_policy_preparation

import "tidegate/policy/internal/host"

// Prepare does what needs no request.
func Prepare() {
	host.Open()
	defer host.Close()
	host.Warm()
	if host.Prepare != nil {
		host.Prepare()
	}
}
