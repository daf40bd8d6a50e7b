package policy

import (
	"context"
	"log/slog"
	"strings"

	"tidegate/policy/internal/host"
)

// LogHandler writes records to the gateway's log, which adds the time, the request's id and the policy's digest. It is the default
// handler of a component, exported for use within other handlers.
type LogHandler struct {
	// Formatted attributes that precede those of the record.
	attributes string
	group      string
}

// Enabled returns true, because the gateway filters by level.
func (LogHandler) Enabled(context.Context, slog.Level) bool {
	return true
}

// Handle writes a line.
func (h LogHandler) Handle(_ context.Context, record slog.Record) error {
	line := []byte(record.Message)
	line = append(line, h.attributes...)
	record.Attrs(func(attribute slog.Attr) bool {
		line = appendAttribute(line, h.group, attribute)
		return true
	})
	host.Current.Log(level(record.Level), strings.ToValidUTF8(string(line), "\uFFFD"))
	return nil
}

// WithAttrs adds attributes to every line.
func (h LogHandler) WithAttrs(attributes []slog.Attr) slog.Handler {
	line := []byte(h.attributes)
	for _, attribute := range attributes {
		line = appendAttribute(line, h.group, attribute)
	}
	h.attributes = string(line)
	return h
}

// WithGroup prefixes the names of all further attributes.
func (h LogHandler) WithGroup(name string) slog.Handler {
	if name != "" {
		h.group += name + "."
	}
	return h
}

func appendAttribute(line []byte, group string, attribute slog.Attr) []byte {
	value := attribute.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if attribute.Key != "" {
			group += attribute.Key + "."
		}
		for _, member := range value.Group() {
			line = appendAttribute(line, group, member)
		}
		return line
	}
	if attribute.Equal(slog.Attr{}) {
		return line
	}
	line = append(line, " "+group+attribute.Key+"="...)
	return append(line, value.String()...)
}

func level(level slog.Level) uint8 {
	switch {
	case level < slog.LevelInfo:
		return host.Debug
	case level < slog.LevelWarn:
		return host.Info
	case level < slog.LevelError:
		return host.Warn
	default:
		return host.Error
	}
}
