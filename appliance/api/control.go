package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// SocketName is the control socket's place in the state folder.
const SocketName = "control.sock"

// maxSocketPath is what Linux allows (sun_path, unix(7)), less the name the socket is made under.
const maxSocketPath = 107 - len(newSocket)

const newSocket = ".new"

// Listen makes the control socket in the state folder, mode 0600, in place of one that a box left there that was killed.
// Closing the listener removes it.
func Listen(state string) (net.Listener, error) {
	path := filepath.Join(state, SocketName)
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("control socket: the path %s has %d bytes, a socket's may have %d; choose a state folder with a shorter name",
			path, len(path), maxSocketPath)
	}
	if other, err := net.Dial("unix", path); err == nil {
		other.Close()
		return nil, fmt.Errorf("control socket: another mailchute answers at %s; stop that one first", path)
	}
	// Under its final name the socket has its final mode from the first moment.
	made := path + newSocket
	if err := os.Remove(made); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	listener.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(made, 0o600), os.Rename(made, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), listener.Close())
	}
	return &controlListener{listener, path}, nil
}

type controlListener struct {
	*net.UnixListener
	path string
}

func (c *controlListener) Close() error {
	err := c.UnixListener.Close()
	if err == nil { // not a second time: another box's may be there by then
		err = os.Remove(c.path)
	}
	return err
}

// Serve answers on the control socket until ctx ends; then it lets running requests end for five seconds.
func Serve(ctx context.Context, listener net.Listener, box Box, log *slog.Logger) error {
	server := http.Server{
		Handler:           Handler(box, log),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelError),
		ConnContext: func(ctx context.Context, connection net.Conn) context.Context {
			return WithAdministrator(ctx, peer(connection))
		},
	}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err := server.Shutdown(patience)
		if err != nil {
			err = server.Close()
		}
		stopped <- err
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	return <-stopped
}

// peer names the user at the other end of a Unix socket (SO_PEERCRED, unix(7)); empty where that cannot be told.
func peer(connection net.Conn) string {
	socket, ok := connection.(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return ""
	}
	var credentials *unix.Ucred
	var failure error
	err = raw.Control(func(fd uintptr) {
		credentials, failure = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || failure != nil {
		return ""
	}
	id := strconv.FormatUint(uint64(credentials.Uid), 10)
	if known, err := user.LookupId(id); err == nil {
		return known.Username
	}
	return "user " + id
}
