package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"mailchute/appliance/api"
	"mailchute/appliance/api/apitest"
	"mailchute/appliance/trace"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"mailchute": func() {
			terminal := &terminal{out: os.Stdout, err: os.Stderr, now: func() time.Time { return noon }}
			os.Exit(run(context.Background(), terminal, os.Args[1:]))
		},
	})
}

// TestScripts runs the commands against a box that is made for it, over a real control socket in the folder
// "state".
//
//	box NAME        a box begins to run: one of boxes
//	$WAITING, …     ids of messages of the box "office"
//	calls FILE      writes what has been changed in it; ADMIN stands for the user's name
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			env.Setenv("COLUMNS", "100")
			for name, id := range map[string]trace.ID{
				"WAITING": trace.IDAt(at("10:00:00")), "HELD": trace.IDAt(at("10:30:00")), "FAILED": trace.IDAt(at("11:00:00")),
				"SENT": trace.IDAt(at("09:00:00").AddDate(0, 0, -1)), "SECOND": trace.IDAt(at("10:01:00")),
			} {
				env.Setenv(name, id.String())
			}
			return os.Mkdir(filepath.Join(env.WorkDir, "state"), 0o700)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"box":   startBox,
			"calls": writeCalls,
		},
	})
}

// running is the box of each script, by its state folder.
type running struct{ box *apitest.Box }

var started = make(chan map[string]running, 1)

func init() { started <- map[string]running{} }

func startBox(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 || boxes[args[0]] == nil {
		ts.Fatalf("usage: box NAME, one of those in boxes_test.go")
	}
	box, state := boxes[args[0]](), ts.MkAbs("state")
	listener, err := api.Listen(state)
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- api.Serve(ctx, listener, box, slog.New(slog.NewTextHandler(io.Discard, nil))) }()
	all := <-started
	all[state] = running{box}
	started <- all
	ts.Defer(func() {
		cancel()
		ts.Check(<-served)
	})
}

func writeCalls(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: calls FILE")
	}
	all := <-started
	box := all[ts.MkAbs("state")].box
	started <- all
	me, err := user.Current()
	ts.Check(err)
	var text strings.Builder
	for _, call := range box.Called() {
		text.WriteString(strings.ReplaceAll(call, "by "+me.Username, "by ADMIN") + "\n")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text.String()), 0o600))
}
