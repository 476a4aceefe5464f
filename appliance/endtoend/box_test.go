// Package endtoend proves the whole of Mailchute: the binary as a process of its own between devices and clouds that
// are as real as a test can have them.
package endtoend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "mailchute/appliance" // see mailchute
	"mailchute/appliance/api"
	"mailchute/appliance/trace"
)

// patience is how long a test waits for what must happen. Nothing is expected to need it.
const patience = 2 * time.Minute

// programs is where the binaries under test are built.
var programs string

func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "endtoend")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	programs = folder
	os.Setenv("GORACE", "atexit_sleep_ms=0") // the detector's threads need no second to end at every exit
	status := m.Run()
	os.RemoveAll(folder)
	os.Exit(status)
}

// mailchute is the binary under test, with the race detector where the test has it. It is no part of the test binary: that
// a result of go test's cache is out of date shows by the import of appliance, and by the folder read here.
var mailchute = sync.OnceValues(func() (string, error) {
	if _, err := os.ReadDir("../../cmd/mailchute"); err != nil {
		return "", err
	}
	binary := filepath.Join(programs, "mailchute")
	arguments := []string{"build", "-o", binary}
	if withRaceDetector() {
		arguments = append(arguments, "-race")
	}
	said, err := exec.Command("go", append(arguments, "mailchute/cmd/mailchute")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building mailchute: %w\n%s", err, said)
	}
	return binary, nil
})

// withRaceDetector tells whether this test has it.
func withRaceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// office is a box's settings but for its connectors: every address of this machine is a device, and what is put off is
// tried again at once.
const office = `version = 1
hostname = "relay.contoso.com"
accepted_domains = ["contoso.com"]

[[smtp.listener]]
address = "127.0.0.1:0"
tls = "none"

[[device]]
name = "Floor 2"
addresses = ["127.0.0.0/8"]

[retry]
first = "20ms"
ceiling = "200ms"
`

// box is a state folder, and the process that runs with it.
type box struct {
	*api.Client
	t      *testing.T
	binary string
	state  string
	process
}

// process is one run of "mailchute serve".
type process struct {
	command *exec.Cmd
	ready   chan struct{} // one for each READY=1: at the start, after each reload
	ended   chan struct{} // closed when it is over
	err     error         // how it ended; valid then
}

// newBox makes a state folder with these settings. The box is killed with the test, and its log shown where it failed.
func newBox(t *testing.T, settings ...string) *box {
	binary, err := mailchute()
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "box") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, binary: binary, state: filepath.Join(folder, "state")}
	b.Client = api.NewClient(b.state)
	t.Cleanup(func() {
		if b.alive() {
			b.kill()
		}
		if t.Failed() {
			log := b.log()
			t.Logf("the end of the box's log:\n%s", log[max(0, len(log)-20000):])
		}
		os.RemoveAll(folder)
	})
	if err := os.MkdirAll(filepath.Join(b.state, "certs"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.configure(settings...)
	return b
}

// in is the same box within a part of the test.
func (b *box) in(t *testing.T) *box {
	part := *b
	part.t = t
	return &part
}

// configure writes config.toml.
func (b *box) configure(settings ...string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.state, "config.toml"), []byte(strings.Join(settings, "\n")), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// launch starts the process and does not wait for it.
func (b *box) launch() {
	b.t.Helper()
	folder := filepath.Dir(b.state)
	log, err := os.OpenFile(filepath.Join(folder, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	notify := filepath.Join(folder, "notify")
	os.Remove(notify) // of the process before
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		b.t.Fatal(err)
	}
	command := exec.Command(b.binary, "serve", "--json", "--state", b.state)
	command.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		b.t.Fatal(err)
	}
	ready, ended := make(chan struct{}, 100), make(chan struct{})
	b.process = process{command: command, ready: ready, ended: ended}
	go func() {
		b.err = command.Wait()
		socket.Close()
		close(ended)
	}()
	go func() { // is what systemd is for a service (sd_notify(3))
		message := make([]byte, 4096)
		for {
			n, err := socket.Read(message)
			if err != nil {
				return
			}
			if slices.Contains(strings.Split(string(message[:n]), "\n"), "READY=1") {
				ready <- struct{}{}
			}
		}
	}()
}

// start starts the process and returns when it takes mail.
func (b *box) start() {
	b.t.Helper()
	b.launch()
	b.awaitReady()
}

func (b *box) awaitReady() {
	b.t.Helper()
	select {
	case <-b.ready:
	case <-b.ended:
		b.t.Fatalf("the box ended: %v", b.err)
	case <-time.After(patience):
		b.t.Fatal("the box does not become ready")
	}
}

func (b *box) alive() bool {
	if b.command == nil {
		return false
	}
	select {
	case <-b.ended:
		return false
	default:
		return true
	}
}

func (b *box) signal(signal os.Signal) {
	b.t.Helper()
	if err := b.command.Process.Signal(signal); err != nil {
		b.t.Fatal(err)
	}
}

// kill is kill -9. It returns when the process is gone.
func (b *box) kill() {
	b.command.Process.Kill()
	<-b.ended
}

// stop is systemctl stop: an orderly end, which takes at most the 20 s for what is in the air.
func (b *box) stop() {
	b.t.Helper()
	begun := time.Now()
	b.signal(syscall.SIGTERM)
	select {
	case <-b.ended:
	case <-time.After(patience):
		b.t.Fatal("the box does not stop")
	}
	if b.err != nil {
		b.t.Errorf("the box stopped with: %v", b.err)
	}
	if took := time.Since(begun); took > 25*time.Second {
		b.t.Errorf("the box took %v to stop", took)
	}
}

// log is all that the box has logged, in all its lives, a JSON object a line.
func (b *box) log() string {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(b.state), "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// run is a command that an administrator types. It gives the exit status and what was printed.
func (b *box) run(arguments ...string) (status int, said string) {
	b.t.Helper()
	output, err := exec.Command(b.binary, append(arguments, "--state", b.state)...).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), string(output)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return 0, string(output)
}

// address is where the listener with this TLS mode takes mail.
func (b *box) address(tls string) string {
	b.t.Helper()
	status := b.status()
	for _, listener := range status.Listeners {
		if listener.TLS == tls {
			return listener.Address
		}
	}
	b.t.Fatalf("no listener with tls = %q in %+v", tls, status.Listeners)
	return ""
}

func (b *box) status() api.Status {
	b.t.Helper()
	status, err := b.Client.Status(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return status
}

// record is the story of a message.
func (b *box) record(id trace.ID) trace.Record {
	b.t.Helper()
	record, err := b.Client.Record(b.t.Context(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return record
}

// awaitState waits until the message's one recipient is in the state.
func (b *box) awaitState(id trace.ID, state trace.State) (record trace.Record) {
	b.t.Helper()
	eventually(b.t, func() error {
		if record = b.record(id); len(record.Recipients) != 1 || record.Recipients[0].State != state {
			return fmt.Errorf("message %s is not %s: %+v", id, state, record)
		}
		return nil
	})
	return record
}

// awaitEmpty waits until nothing is in the queue.
func (b *box) awaitEmpty() {
	b.t.Helper()
	eventually(b.t, func() error {
		if queue := b.status().Queue; queue.Messages > 0 || queue.Running > 0 {
			return fmt.Errorf("the queue is not empty: %+v", queue)
		}
		return nil
	})
}

// awaitConnector waits until the one connector is in the state.
func (b *box) awaitConnector(state string) (connector api.Connector) {
	b.t.Helper()
	eventually(b.t, func() error {
		if connector = b.status().Connectors[0]; connector.State != state {
			return fmt.Errorf("the connector is not %s: %+v", state, connector)
		}
		return nil
	})
	return connector
}

// change does what an administrator can ("retry", "hold", "release", "delete") to a message.
func (b *box) change(action string, id trace.ID) {
	b.t.Helper()
	if _, err := b.Client.Change(b.t.Context(), action, api.Action{IDs: []string{id.String()}}); err != nil {
		b.t.Fatalf("%s %s: %v", action, id, err)
	}
}

// eventually asks until there is no error any more.
func eventually(t *testing.T, ask func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}
