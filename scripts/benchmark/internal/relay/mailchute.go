package relay

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"mailchute/scripts/benchmark/internal/process"
)

// Mailchute is the binary under test, with its defaults except for what Setup says.
type Mailchute struct {
	binary  string
	setup   Setup
	port    int
	running *process.Process
}

// NewMailchute writes the state folder of a box that relays to the sink.
func NewMailchute(binary string, setup Setup) (*Mailchute, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	m := &Mailchute{binary: binary, setup: setup, port: port}
	if err := os.Mkdir(m.state(), 0o700); err != nil {
		return nil, err
	}
	return m, os.WriteFile(filepath.Join(m.state(), "config.toml"), []byte(m.config()), 0o600)
}

func (m *Mailchute) state() string { return filepath.Join(m.setup.Folder, "state") }

// Log is where the box's own log goes.
func (m *Mailchute) log() string { return filepath.Join(m.setup.Folder, "mailchute.log") }

func (m *Mailchute) config() string {
	connections := ""
	if m.setup.Connections > 0 {
		connections = fmt.Sprintf("connections = %d\n", m.setup.Connections)
	}
	return fmt.Sprintf(`version = 1
hostname = "relay.bench.test"
accepted_domains = ["bench.test"]

[[smtp.listener]]
address = "%s"
tls = "none"

[[device]]
name = "Scanners"
addresses = ["127.0.0.0/8"]

[[connector]]
name = "sink"
kind = "smarthost"
host = "localhost"
port = %d
tls = "none"
ip = "4"
certificate = ""
domains = ["*"]
%s`, loopback(m.port), m.setup.Sink, connections)
}

func (m *Mailchute) Start(ctx context.Context) error {
	running, err := process.Start(process.Options{Log: m.log(), Limit: m.setup.Limit}, m.binary, "serve", "--state", m.state())
	if err != nil {
		return fmt.Errorf("starting Mailchute: %w", err)
	}
	m.running = running
	if err := awaitMail(ctx, m.Address(), running, m.log()); err != nil {
		return fmt.Errorf("starting Mailchute: %w", err)
	}
	return nil
}

func (m *Mailchute) Address() string { return loopback(m.port) }

func (m *Mailchute) PIDs() []int { return []int{m.running.PID} }

// Stop gives Mailchute the 20 s it may take to finish what is in the air.
func (m *Mailchute) Stop() error {
	if m.running == nil {
		return nil
	}
	running := m.running
	m.running = nil
	if err := running.Stop(25 * time.Second); err != nil {
		return fmt.Errorf("stopping Mailchute: %w\n%s", err, tail(m.log()))
	}
	return nil
}
