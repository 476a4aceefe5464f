package api_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailchute/appliance/api"
)

func TestListen(t *testing.T) {
	state := shortFolder(t)
	path := filepath.Join(state, api.SocketName)
	listener, err := api.Listen(state)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
	if _, err := api.Listen(state); err == nil || !strings.Contains(err.Error(), "another mailchute answers at "+path) {
		t.Errorf("a second box: %v", err)
	}
	if err := listener.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(state); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// TestListenAfterKill: a socket that nobody answers any more is replaced.
func TestListenAfterKill(t *testing.T) {
	state := shortFolder(t)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(state, api.SocketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if err := os.WriteFile(filepath.Join(state, api.SocketName+".new"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	listener, err := api.Listen(state)
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Error(err)
	}
}

func TestListenErrors(t *testing.T) {
	if _, err := api.Listen(filepath.Join(shortFolder(t), "nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
	if _, err := api.Listen("/" + strings.Repeat("x", 100)); err == nil || !strings.Contains(err.Error(), "choose a state folder with a shorter name") {
		t.Errorf("a long path: %v", err)
	}
}

func TestNotRunning(t *testing.T) {
	state := shortFolder(t)
	_, err := api.NewClient(state).Status(t.Context())
	want := "no box is running in " + state + ": nothing answers at " + state + "/control.sock (connect: no such file or directory); " +
		`start one with "mailchute serve --state ` + state + `", or name the state folder of one that runs by --state`
	if !errors.Is(err, api.ErrNotRunning) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
