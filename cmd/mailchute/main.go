// Mailchute takes mail from scanners and applications that speak old or sloppy SMTP, keeps it safe, and relays
// it to the cloud endpoint the organisation uses. This is its one binary: "serve" is the box, the other commands ask
// the one that runs.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"mailchute/appliance/api"
)

// version is set by the linker: -X main.version=…
var version string

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // bad settings or usage
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt ends a stop that takes too long
	terminal := &terminal{out: os.Stdout, err: os.Stderr, now: time.Now}
	os.Exit(run(ctx, terminal, os.Args[1:]))
}

// commands is what can be typed.
type commands struct {
	State string `help:"State folder of the box." default:"/var/lib/mailchute" placeholder:"DIR"`
	JSON  bool   `name:"json" help:"Print JSON for programs."`

	Serve   serveCommand   `cmd:"" help:"Run the box."`
	Status  statusCommand  `cmd:"" help:"Show how the box is."`
	Queue   queueCommands  `cmd:"" help:"List and change the messages in the queue."`
	Trace   traceCommand   `cmd:"" help:"Show what happened to messages."`
	Send    sendCommand    `cmd:"" help:"Send a test message and see what becomes of it."`
	Config  configCommands `cmd:"" help:"Check and apply the settings."`
	Version versionCommand `cmd:"" help:"Show the version."`
}

// terminal is where a command writes, and the clock by which it tells durations.
type terminal struct {
	out, err io.Writer
	now      func() time.Time
	json     bool
}

// printJSON prints one value, indented.
func (t *terminal) printJSON(value any) error {
	encoder := json.NewEncoder(t.out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// statusError is an error with an exit status other than 1, or without a text where the output says it all.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// errShown ends a command whose output has already said what failed.
var errShown = &statusError{status: exitFailed}

func usageError(format string, values ...any) error {
	return &statusError{exitUsage, fmt.Errorf(format, values...)}
}

// run does what args say and gives the exit status.
func run(ctx context.Context, terminal *terminal, args []string) int {
	var typed commands
	var ended bool
	parser, err := kong.New(&typed,
		kong.Name("mailchute"),
		kong.Description("An SMTP relay for scanners and applications. Every command but serve asks the box that runs with the state folder DIR."),
		kong.Writers(terminal.out, terminal.err),
		kong.Exit(func(int) { ended = true }), // after --help
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		return report(terminal, err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err := parser.Parse(args)
	if ended {
		return exitOK
	}
	if err != nil {
		return report(terminal, usageError("%w; mailchute --help tells what there is", err))
	}
	terminal.json = typed.JSON
	return report(terminal, command.Run(terminal, &typed, api.NewClient(typed.State)))
}

// report prints an error, with each of its details on a line, and gives its exit status.
func report(terminal *terminal, err error) int {
	if err == nil {
		return exitOK
	}
	status := exitFailed
	var withStatus *statusError
	if errors.As(err, &withStatus) {
		status = withStatus.status
	}
	var answered *api.Error
	if errors.As(err, &answered) {
		if answered.Status == 422 {
			status = exitUsage
		}
		for _, detail := range answered.Details {
			if detail.Message != answered.Detail {
				fmt.Fprintln(terminal.err, clean(strings.TrimPrefix(detail.Location+": "+detail.Message, ": ")))
			}
		}
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(terminal.err, clean("mailchute: "+text))
	}
	return status
}

type versionCommand struct{}

func (versionCommand) Run(terminal *terminal) error {
	if terminal.json {
		return terminal.printJSON(map[string]string{"version": buildVersion(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
	}
	_, err := fmt.Fprintf(terminal.out, "mailchute %s (%s/%s, %s)\n", buildVersion(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	return err
}

// buildVersion is what the linker was told, or else what the go command knows of the source.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	revision, modified := "", ""
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			revision = setting.Value
		case setting.Key == "vcs.modified" && setting.Value == "true":
			modified = "+changes"
		}
	}
	if revision == "" {
		return "development"
	}
	return "development-" + revision[:min(len(revision), 12)] + modified
}
