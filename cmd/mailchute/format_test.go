package main

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// noon is when the commands of these tests are typed.
var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func TestWords(t *testing.T) {
	for duration, want := range map[time.Duration]string{
		-time.Second: "0 seconds", 0: "0 seconds", time.Second: "1 second", 119 * time.Second: "119 seconds", 2 * time.Minute: "2 minutes",
		119 * time.Minute: "119 minutes", 2 * time.Hour: "2 hours", 47 * time.Hour: "47 hours", 48 * time.Hour: "2 days", 8765 * time.Hour: "365 days",
	} {
		if got := words(duration); got != want {
			t.Errorf("%s: %q, want %q", duration, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 KB", 9949: "9.9 KB", 9950: "10 KB", 999_499: "999 KB", 999_500: "1.0 MB", 157286400: "157 MB",
		2_500_000_000: "2.5 GB", 7_200_000_000_000_000: "7200 TB",
	} {
		if got := size(bytes); got != want {
			t.Errorf("%d: %q, want %q", bytes, got, want)
		}
	}
}

// TestClean: no text, whatever is in it, controls a terminal.
func TestClean(t *testing.T) {
	if got := clean("Grüße \x1b[2J\x07\u202e\xff\n"); got != "Grüße �[2J���\n" {
		t.Errorf("%q", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		for _, r := range clean(string(rapid.SliceOf(rapid.Byte()).Draw(t, "text"))) {
			if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 {
				t.Fatalf("%q is left", r)
			}
		}
	})
}

func TestPage(t *testing.T) {
	var p page
	p.table("  ", [][]string{{"A", "LONG", "C"}, {"x\ty", "1", "forged\nline"}, {"z", "22222", ""}}, map[int]string{1: "    note\n"})
	p.text("  ", "Label: ", "one\r\ntwo\n")
	p.text("  ", "Empty: ", " \n")
	want := "  A    LONG   C\n  x y  1      forged line\n    note\n  z    22222\n  Label: one\n         two\n"
	if diff := cmp.Diff(want, p.String()); diff != "" {
		t.Error(diff)
	}
}

func TestParseTime(t *testing.T) {
	local := time.Local
	t.Cleanup(func() { time.Local = local })
	time.Local = time.FixedZone("office", 3600)
	terminal := &terminal{now: func() time.Time { return noon }}
	for text, want := range map[string]string{
		"":                     "0001-01-01T00:00:00Z",
		"2026-03-01":           "2026-03-01T00:00:00+01:00",
		"2026-03-01 09:30":     "2026-03-01T09:30:00+01:00",
		"2026-03-01 09:30:15":  "2026-03-01T09:30:15+01:00",
		"2026-03-01T09:30":     "2026-03-01T09:30:00+01:00",
		"2026-03-01T09:30:15Z": "2026-03-01T09:30:15Z",
		"09:30":                "2026-03-02T09:30:00+01:00",
		"09:30:15":             "2026-03-02T09:30:15+01:00",
		"90m":                  "2026-03-02T11:30:00+01:00",
		"3d":                   "2026-02-27T13:00:00+01:00",
	} {
		got, err := terminal.parseTime(text)
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%q: %s %v, want %s", text, got.Format(time.RFC3339), err, want)
		}
	}
	for _, text := range []string{"soon", "2026-13-01", "25:00", "-1h", "0s"} {
		var wrong *statusError
		if _, err := terminal.parseTime(text); !errors.As(err, &wrong) || wrong.status != exitUsage {
			t.Errorf("%q: %v", text, err)
		}
	}
}
