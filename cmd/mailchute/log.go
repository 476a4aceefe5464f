package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// newLog makes the log of serve: to the journal, with its priority and each attribute as a field, where systemd has
// connected standard error with it; else as text, or as JSON, on standard error.
func newLog(stderr io.Writer, asJSON bool) *slog.Logger {
	// An error means that JOURNAL_STREAM is not what systemd sets: then nobody has connected anything.
	if connected, err := journal.StderrIsJournalStream(); err == nil && connected && !asJSON {
		return slog.New(&journalHandler{send: journal.Send, fallback: slog.NewTextHandler(stderr, nil)})
	}
	if asJSON {
		return slog.New(slog.NewJSONHandler(stderr, nil))
	}
	return slog.New(slog.NewTextHandler(stderr, nil))
}

// journalHandler writes records to the journal (systemd.journal-fields(7)). An attribute "device" becomes the
// field MAILCHUTE_DEVICE, one in a group "smtp" MAILCHUTE_SMTP_DEVICE; the message has them as text too, since that is
// all journalctl shows.
type journalHandler struct {
	send     func(message string, priority journal.Priority, fields map[string]string) error
	fallback slog.Handler // where the journal does not take a record
	groups   []string
	attrs    []field
}

type field struct{ name, value string }

func (h *journalHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

func (h *journalHandler) Handle(ctx context.Context, record slog.Record) error {
	attrs := slices.Clone(h.attrs)
	record.Attrs(func(attr slog.Attr) bool {
		attrs = appendFields(attrs, h.groups, attr)
		return true
	})
	fields := map[string]string{"SYSLOG_IDENTIFIER": "mailchute"}
	text := bytes.NewBufferString(record.Message)
	for _, attr := range attrs {
		fields["MAILCHUTE_"+fieldName(attr.name)] = attr.value
		text.WriteByte(' ')
		text.WriteString(attr.name)
		text.WriteByte('=')
		text.WriteString(quoted(attr.value))
	}
	if h.send(text.String(), priority(record.Level), fields) == nil {
		return nil
	}
	return h.fallback.Handle(ctx, record)
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.attrs = slices.Clone(h.attrs)
	for _, attr := range attrs {
		with.attrs = appendFields(with.attrs, h.groups, attr)
	}
	with.fallback = h.fallback.WithAttrs(attrs)
	return &with
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.groups = append(slices.Clone(h.groups), name)
	with.fallback = h.fallback.WithGroup(name)
	return &with
}

// appendFields appends an attribute, those of a group one by one.
func appendFields(fields []field, groups []string, attr slog.Attr) []field {
	value := attr.Value.Resolve()
	if value.Kind() != slog.KindGroup {
		if attr.Key == "" {
			return fields
		}
		return append(fields, field{strings.Join(append(slices.Clone(groups), attr.Key), "."), value.String()})
	}
	if attr.Key != "" {
		groups = append(slices.Clone(groups), attr.Key)
	}
	for _, member := range value.Group() {
		fields = appendFields(fields, groups, member)
	}
	return fields
}

// fieldName makes a name the journal allows: capitals, digits and underscores.
func fieldName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, name)
}

// quoted is a value as text: in quotes where it would not be one word.
func quoted(value string) string {
	if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == '"' || r == '=' || r == 0x7f }) {
		return strconv.Quote(value)
	}
	return value
}

func priority(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
