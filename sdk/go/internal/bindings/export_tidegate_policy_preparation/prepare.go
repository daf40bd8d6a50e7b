//go:build wasip1

// Package export_tidegate_policy_preparation prewarms an instance. The generated bindings import it by this name.
package export_tidegate_policy_preparation

import "tidegate/policy/internal/host"

// Prepare runs the work that needs no request.
func Prepare() {
	host.Open()
	defer host.Close()
	host.Warm()
	if host.Prepare != nil {
		host.Prepare()
	}
}
