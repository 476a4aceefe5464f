package main

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// openStage opens a stage in a bench of its own.
func openStage(t *testing.T, c contender, with conditions) *stage {
	t.Helper()
	b, err := newBench(options{Folder: "/var/tmp", Quick: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	s, err := b.open(t.Context(), c, with)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

func TestToolsAlone(t *testing.T) {
	s := openStage(t, tools, conditions{})
	r, err := s.pass(t.Context(), 3, 30, 4*kilobyte)
	if err != nil {
		t.Fatal(err)
	}
	if r.accepted <= 0 || r.arrived < r.accepted {
		t.Errorf("rates %+v: at a sink, mail arrives before its 250", r)
	}
}

// TestPostfixRelays runs the peer as the benchmark does: what is handed in arrives, and it ends when told.
func TestPostfixRelays(t *testing.T) {
	if _, err := exec.LookPath("postfix"); err != nil || os.Getuid() != 0 {
		t.Skip("needs Postfix, and root to run it: scripts/bench installs it")
	}
	for _, test := range []struct {
		name string
		with conditions
	}{
		{"as it comes", conditions{}},
		{"by two connections to a distant sink", conditions{delay: time.Millisecond, connections: 2}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := openStage(t, postfix, test.with)
			if _, err := s.pass(t.Context(), 2, 4, 4*kilobyte); err != nil {
				t.Fatal(err)
			}
			if err := s.relay.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
