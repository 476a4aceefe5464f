package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailchute/appliance/api"
)

// manager is what systemd is for a service: it is told how the service is (sd_notify(3)).
type manager struct {
	t      *testing.T
	socket *net.UnixConn
}

func newManager(t *testing.T, folder string) manager {
	path := filepath.Join(folder, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return manager{t, socket}
}

// await reads on until it is told so.
func (m manager) await(state string) {
	m.t.Helper()
	if err := m.socket.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		m.t.Fatal(err)
	}
	message := make([]byte, 4096)
	for {
		n, err := m.socket.Read(message)
		if err != nil {
			m.t.Fatalf("waiting for %s: %v", state, err)
		}
		for line := range strings.Lines(string(message[:n])) {
			if strings.TrimSpace(line) == state {
				return
			}
		}
	}
}

const settings = `version = 1
hostname = "relay.contoso.com"
accepted_domains = ["contoso.com"]
[[smtp.listener]]
address = "127.0.0.1:0"
`

// TestServe is the life of a box: new, set up, its settings changed by command and by signal, wrong ones refused, and
// stopped.
func TestServe(t *testing.T) {
	folder, err := os.MkdirTemp("", "serve") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	systemd, state := newManager(t, folder), filepath.Join(folder, "state")
	var log bytes.Buffer
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, &terminal{out: &log, err: &log, now: time.Now}, []string{"serve", "--state", state})
	}()
	systemd.await("READY=1")

	command := func(want int, args ...string) string {
		t.Helper()
		var output bytes.Buffer
		status := run(t.Context(), &terminal{out: &output, err: &output, now: time.Now}, append(args, "--state", state))
		if status != want {
			t.Errorf("mailchute %s: exit status %d, want %d\n%s", strings.Join(args, " "), status, want, &output)
		}
		return output.String()
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(state, "config.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	if output := command(0, "status"); !strings.Contains(output, "This box is not set up: it takes no mail.") {
		t.Errorf("a new box: %s", output)
	}
	command(2, "send", "anna@contoso.com")
	write(settings)
	command(0, "config", "reload")
	if output := command(0, "status"); !strings.Contains(output, "on relay.contoso.com, running for") || !strings.Contains(output, "127.0.0.1:") {
		t.Errorf("once set up: %s", output)
	}

	write(settings + "colour = 1\n")
	if output := command(2, "config", "reload"); !strings.Contains(output, "config.toml:6:1: smtp.listener[1].colour: ") {
		t.Errorf("wrong settings: %s", output)
	}
	if output := command(0, "status"); !strings.Contains(output, "on relay.contoso.com,") {
		t.Errorf("after wrong settings: %s", output)
	}

	write(strings.ReplaceAll(settings, "relay.", "mail."))
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	systemd.await("READY=1") // of the reload by command
	systemd.await("READY=1") // of the one that was refused
	systemd.await("READY=1") // of the signal
	if output := command(0, "status"); !strings.Contains(output, "on mail.contoso.com,") {
		t.Errorf("after SIGHUP: %s", output)
	}

	if output := command(1, "serve"); !strings.Contains(output, "another mailchute answers at") {
		t.Errorf("a second box: %s", output)
	}
	stop()
	systemd.await("STOPPING=1")
	if status := <-ended; status != exitOK {
		t.Errorf("stopped with status %d: %s", status, &log)
	}
	if _, err := os.Lstat(filepath.Join(state, api.SocketName)); !os.IsNotExist(err) {
		t.Errorf("the control socket is left: %v", err)
	}
}

// TestServeWrongSettings: a box with wrong settings does not start, and says what is wrong.
func TestServeWrongSettings(t *testing.T) {
	state := t.TempDir()
	if err := os.WriteFile(filepath.Join(state, "config.toml"), []byte("version = 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	status := run(t.Context(), &terminal{out: &output, err: &output, now: time.Now}, []string{"serve", "--state", state})
	if status != exitUsage || !strings.Contains(output.String(), "config.toml:1:11: version: ") {
		t.Errorf("exit status %d: %s", status, &output)
	}
}
