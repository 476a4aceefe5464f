package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"mailchute/appliance/api"
)

func TestExitStatus(t *testing.T) {
	for _, test := range []struct {
		err    error
		status int
		stderr string
	}{
		{nil, 0, ""},
		{errors.New("no disk"), 1, "mailchute: no disk\n"},
		{errShown, 1, ""},
		{&statusError{status: exitUsage}, 2, ""},
		{usageError("no such thing as %q", "x"), 2, "mailchute: no such thing as \"x\"\n"},
		{&api.Error{Status: 404, Detail: "no such message"}, 1, "mailchute: no such message\n"},
		{&api.Error{Status: 422, Detail: "wrong", Details: []api.Detail{{Location: "a:1:2", Message: "b"}, {Message: "\x1b[1m"}, {Location: "c", Message: "wrong"}}}, 2,
			"a:1:2: b\n\uFFFD[1m\nmailchute: wrong\n"},
		{fmt.Errorf("reload: %w", &api.Error{Status: 503, Detail: "stopping"}), 1, "mailchute: reload: stopping\n"},
	} {
		var stderr bytes.Buffer
		if status := report(&terminal{err: &stderr}, test.err); status != test.status || stderr.String() != test.stderr {
			t.Errorf("%v: status %d, %q", test.err, status, stderr.String())
		}
	}
}

// TestUsageStatus: what is typed wrong ends with 2, help with 0.
func TestUsageStatus(t *testing.T) {
	for args, want := range map[string]int{
		"":                              0,
		"--help":                        0,
		"version":                       0,
		"config example":                0,
		"sing":                          2,
		"queue --limit many":            2,
		"trace --is sleeping":           2,
		"queue delete":                  2,
		"config check /nowhere.toml":    2,
		"status --state /nowhere":       1,
		"queue show x --state /nowhere": 2,
	} {
		var stdout, stderr bytes.Buffer
		if status := run(context.Background(), &terminal{out: &stdout, err: &stderr}, strings.Fields(args)); status != want {
			t.Errorf("mailchute %s: exit status %d, want %d\n%s%s", args, status, want, stdout.String(), stderr.String())
		}
	}
}
