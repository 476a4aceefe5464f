package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"
)

type entry struct {
	Message  string
	Priority journal.Priority
	Fields   map[string]string
}

func TestJournal(t *testing.T) {
	var entries []entry
	log := slog.New(&journalHandler{fallback: slog.DiscardHandler, send: func(message string, priority journal.Priority, fields map[string]string) error {
		entries = append(entries, entry{message, priority, fields})
		return nil
	}})
	log.Debug("not said")
	log.Info("accepted", "message", "1JC0YK5YA00", "device", "Floor 2", "size", 4096)
	log.With("connector", "m365").WithGroup("").WithGroup("tls").Warn("on hold", "name", `a"b`, slog.Group("peer", "port", 25), slog.Group("", "plain", true), slog.Attr{})
	log.Error("failed", "error", errors.New("no\nroute"), "since", time.Duration(0), "empty", "")
	want := []entry{
		{`accepted message=1JC0YK5YA00 device="Floor 2" size=4096`, journal.PriInfo, map[string]string{
			"SYSLOG_IDENTIFIER": "mailchute", "MAILCHUTE_MESSAGE": "1JC0YK5YA00", "MAILCHUTE_DEVICE": "Floor 2", "MAILCHUTE_SIZE": "4096"}},
		{`on hold connector=m365 tls.name="a\"b" tls.peer.port=25 tls.plain=true`, journal.PriWarning, map[string]string{
			"SYSLOG_IDENTIFIER": "mailchute", "MAILCHUTE_CONNECTOR": "m365", "MAILCHUTE_TLS_NAME": `a"b`, "MAILCHUTE_TLS_PEER_PORT": "25", "MAILCHUTE_TLS_PLAIN": "true"}},
		{`failed error="no\nroute" since=0s empty=""`, journal.PriErr, map[string]string{
			"SYSLOG_IDENTIFIER": "mailchute", "MAILCHUTE_ERROR": "no\nroute", "MAILCHUTE_SINCE": "0s", "MAILCHUTE_EMPTY": ""}},
	}
	if diff := cmp.Diff(want, entries); diff != "" {
		t.Error(diff)
	}
}

// TestJournalAway: what the journal does not take is on standard error.
func TestJournalAway(t *testing.T) {
	var text bytes.Buffer
	log := slog.New(&journalHandler{fallback: slog.NewTextHandler(&text, nil), send: func(string, journal.Priority, map[string]string) error {
		return errors.New("no journal")
	}})
	log.With("device", "Floor 2").WithGroup("tls").Info("accepted", "version", "1.3")
	if got := text.String(); !strings.HasSuffix(got, ` level=INFO msg=accepted device="Floor 2" tls.version=1.3`+"\n") {
		t.Errorf("%q", got)
	}
}

func TestLogToStandardError(t *testing.T) {
	t.Setenv("JOURNAL_STREAM", "1:1") // of another process
	for asJSON, want := range map[bool]string{false: " msg=hello", true: `"msg":"hello"`} {
		var text bytes.Buffer
		newLog(&text, asJSON).Info("hello")
		if !strings.Contains(text.String(), want) {
			t.Errorf("JSON %t: %q", asJSON, text.String())
		}
	}
}
