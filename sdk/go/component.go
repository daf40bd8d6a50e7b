//go:build wasip1

package policy

import (
	"log/slog"

	// The exports of the component.
	_ "tidegate/policy/internal/bindings/wit_exports"
)

// Makes the gateway's log the default logger of a component.
func init() {
	slog.SetDefault(slog.New(LogHandler{}))
}
