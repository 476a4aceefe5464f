package relay

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mailchute/scripts/benchmark/internal/process"
)

//go:embed main.cf
var mainTemplate string

//go:embed master.cf
var masterTemplate string

// Postfix is the peer: durable as it comes, see main.cf for the few settings it is given.
type Postfix struct {
	setup   Setup
	port    int
	running *process.Process
}

// NewPostfix writes the configuration of an instance apart from the system's own. It must run as root, as Postfix
// does.
func NewPostfix(setup Setup) (*Postfix, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p := &Postfix{setup: setup, port: port}
	main := strings.NewReplacer("FOLDER", setup.Folder, "SINK", strconv.Itoa(setup.Sink)).Replace(mainTemplate)
	if setup.Connections > 0 {
		main += fmt.Sprintf("\n# As many connections to the sink as this row allows.\ndefault_destination_concurrency_limit = %d\n", setup.Connections)
	}
	master := strings.Replace(masterTemplate, "LISTEN", loopback(port), 1)
	for name, text := range map[string]string{"etc/main.cf": main, "etc/master.cf": master} {
		path := filepath.Join(setup.Folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(filepath.Join(setup.Folder, "queue"), 0o755); err != nil {
		return nil, err
	}
	return p, nil
}

// console takes what Postfix says before its own log is open.
func (p *Postfix) console() string { return filepath.Join(p.setup.Folder, "console") }

func (p *Postfix) Start(ctx context.Context) error {
	etc := filepath.Join(p.setup.Folder, "etc")
	// It makes the folders of the queue, as postfix start would. That again runs master below a shell, which would
	// keep the signal to end from it.
	if text, err := exec.CommandContext(ctx, "postfix", "-c", etc, "check").CombinedOutput(); err != nil {
		return fmt.Errorf("starting Postfix: postfix check: %w\n%s", err, text)
	}
	daemons, err := exec.CommandContext(ctx, "postconf", "-c", etc, "-h", "daemon_directory").Output()
	if err != nil {
		return fmt.Errorf("starting Postfix: postconf: %w", err)
	}
	master := filepath.Join(strings.TrimSpace(string(daemons)), "master")
	running, err := process.Start(process.Options{Log: p.console(), Limit: p.setup.Limit}, master, "-c", etc, "-s")
	if err != nil {
		return fmt.Errorf("starting Postfix: %w", err)
	}
	p.running = running
	if err := awaitMail(ctx, p.Address(), running, p.console()); err != nil {
		return fmt.Errorf("starting Postfix: %w\n%s", err, tail(filepath.Join(p.setup.Folder, "maillog")))
	}
	return nil
}

func (p *Postfix) Address() string { return loopback(p.port) }

// PIDs are master and its children: every other process of Postfix is one of those.
func (p *Postfix) PIDs() []int {
	return append([]int{p.running.PID}, process.Children(p.running.PID)...)
}

// Stop ends master, which ends its children.
func (p *Postfix) Stop() error {
	if p.running == nil {
		return nil
	}
	running := p.running
	p.running = nil
	if err := running.Stop(10 * time.Second); err != nil {
		return fmt.Errorf("stopping Postfix: %w\n%s", err, tail(p.console()))
	}
	return nil
}
