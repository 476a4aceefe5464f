package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// document is a right one that can be told from others by its number.
func document(number int) []byte {
	return []byte(minimal + "priority = " + strconv.Itoa(number) + "\n")
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func revisions(t *testing.T, state string) []string {
	t.Helper()
	names, err := revisionNames(filepath.Join(state, revisionFolder))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // for its clock, which stands at 2000-01-01
		state := t.TempDir()
		path := filepath.Join(state, FileName)
		for number := range 3 {
			if err := Write(state, document(number)); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Hour)
		}
		if got := content(t, path); got != string(document(2)) {
			t.Errorf("settings are\n%s", got)
		}
		names := revisions(t, state)
		if strings.Join(names, " ") != "20000101T010000.000000Z.toml 20000101T020000.000000Z.toml" {
			t.Fatalf("revisions are %q", names)
		}
		for number, name := range names {
			if got := content(t, filepath.Join(state, revisionFolder, name)); got != string(document(number)) {
				t.Errorf("revision %s is\n%s", name, got)
			}
		}
		if err := Write(state, document(2)); err != nil {
			t.Fatal(err)
		}
		if names := revisions(t, state); len(names) != 2 {
			t.Errorf("writing the same again made a revision: %q", names)
		}
	})
}

// A document that is not right changes nothing, and nothing is left lying about.
func TestWriteRefuses(t *testing.T) {
	state := t.TempDir()
	if err := Write(state, document(1)); err != nil {
		t.Fatal(err)
	}
	var problems Problems
	if err := Write(state, []byte("version = 5")); !errors.As(err, &problems) {
		t.Errorf("error is %v", err)
	}
	if got := content(t, filepath.Join(state, FileName)); got != string(document(1)) {
		t.Errorf("settings are\n%s", got)
	}
	entries, err := os.ReadDir(state)
	if err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
	if err := Write(filepath.Join(state, "none"), document(1)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a folder the error is %v", err)
	}
}

// Where the earlier revision cannot be kept, the settings stay.
func TestWriteNeedsItsRevision(t *testing.T) {
	state := t.TempDir()
	if err := Write(state, document(1)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, revisionFolder), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(state, document(2)); err == nil {
		t.Error("no error")
	}
	if got := content(t, filepath.Join(state, FileName)); got != string(document(1)) {
		t.Errorf("settings are\n%s", got)
	}
}

// Of many revisions the latest 100 stay, in order even when the clock goes backwards; other files there are
// left alone.
func TestRevisionsAreBounded(t *testing.T) {
	state := t.TempDir()
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	for number := range 105 {
		if err := keepRevision(state, document(number), now.Add(-time.Duration(number)*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if number == 0 {
			if err := os.WriteFile(filepath.Join(state, revisionFolder, "0-mine.toml"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	names := revisions(t, state)
	if len(names) != maxRevisions {
		t.Fatalf("%d revisions", len(names))
	}
	for i, name := range names {
		if got := content(t, filepath.Join(state, revisionFolder, name)); got != string(document(i+5)) {
			t.Fatalf("revision %d, %s, is\n%s", i, name, got)
		}
	}
	content(t, filepath.Join(state, revisionFolder, "0-mine.toml"))
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), FileName)
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file the error is %v", err)
	}
	if err := os.WriteFile(path, []byte(minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	if settings, err := Load(path); err != nil || settings.Hostname != "relay.contoso.com" {
		t.Errorf("settings are %+v, %v", settings, err)
	}
	if err := os.WriteFile(path, make([]byte, maxDocument+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "more than 1 MiB") {
		t.Errorf("with a file too large the error is %v", err)
	}
}
