//go:build wasip1

package policy

import (
	"log/slog"

	// What the component exports.
	_ "tidegate/policy/internal/bindings/wit_exports"
)

// In a component the default logger writes to the gateway's log.
func init() {
	slog.SetDefault(slog.New(LogHandler{}))
}
