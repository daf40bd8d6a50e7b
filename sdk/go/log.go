package policy

import (
	"context"
	"log/slog"
	"strings"

	"tidegate/policy/internal/host"
)

// LogHandler writes records to the gateway's log, which adds the time, the request and the policy's digest by itself. It is the
// default; it is here for who needs it as a part of another.
type LogHandler struct {
	// What the attributes of the record are preceded by.
	attributes string
	group      string
}

// Enabled is true: the gateway's own level decides.
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

// WithGroup puts the name before those of the attributes to come.
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
