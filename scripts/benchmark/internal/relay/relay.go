// Package relay runs what is compared: each takes mail on one loopback address and relays it to another.
package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"mailchute/scripts/benchmark/internal/process"
	"mailchute/scripts/benchmark/internal/source"
)

// Relay is a mail relay that can be started, in a folder of its own, and stopped.
type Relay interface {
	// Start returns once the relay answers MAIL with 250. The folder keeps what is queued; after Stop the same
	// folder can be started again.
	Start(ctx context.Context) error
	// Address is host:port to hand mail in at.
	Address() string
	// PIDs are the relay's living processes, the main one first.
	PIDs() []int
	// Stop ends it in order. It may be called again.
	Stop() error
}

// Setup is what a relay is told.
type Setup struct {
	Folder      string         // empty, existing, on the disk that is measured
	Sink        int            // port on 127.0.0.1 to relay to
	Connections int            // to the sink; 0: the relay's default
	Limit       *process.Limit // of memory; nil: none
}

// freePort is a port that nothing listens on at this moment.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// awaitMail returns when the address answers MAIL with 250, or why it will not: the process ended, or ctx did.
func awaitMail(ctx context.Context, address string, running *process.Process, log string) error {
	mail, err := source.NewMail(4096)
	if err != nil {
		return err
	}
	var last error
	for {
		probe := source.NewScanner(250, address, mail)
		last = probe.Greet(ctx)
		probe.Close()
		if last == nil {
			return nil
		}
		select {
		case <-running.Ended():
			return fmt.Errorf("it ended: %v\n%s", running.Err(), tail(log))
		case <-ctx.Done():
			return fmt.Errorf("no 250 to MAIL at %s: %w\n%s", address, errors.Join(context.Cause(ctx), last), tail(log))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// tail is the end of a log, for an error text.
func tail(path string) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error())
	}
	return text[max(0, len(text)-2000):]
}
