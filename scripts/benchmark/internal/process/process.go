// Package process starts what is measured, reads from /proc what it uses, and stops it whatever happens.
package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Process is a running program, leader of its own session and process group.
type Process struct {
	PID int

	command *exec.Cmd
	log     *os.File
	ended   chan struct{} // closed when the program was waited for
	err     error
}

// Options are what Start does beside starting.
type Options struct {
	// Log takes the program's output; it is appended to.
	Log string
	// Limit is the memory limit to start it under; nil for none.
	Limit *Limit
}

// Start runs the program. If the benchmark is killed it is asked to end, unless it changes its user as Postfix's
// master does, which makes Linux forget that wish.
func Start(options Options, program string, arguments ...string) (*Process, error) {
	log, err := os.OpenFile(options.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	if options.Limit != nil {
		program, arguments = options.Limit.wrap(program, arguments)
	}
	command := exec.Command(program, arguments...)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	if err := command.Start(); err != nil {
		log.Close()
		return nil, err
	}
	p := &Process{PID: command.Process.Pid, command: command, log: log, ended: make(chan struct{})}
	go func() {
		p.err = command.Wait()
		log.Close()
		close(p.ended)
	}()
	return p, nil
}

// Ended is closed when the program has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Err says how the program ended; valid after Ended.
func (p *Process) Err() error { return p.err }

// Stop asks the program to end, and kills its whole process group when it has not within the grace.
func (p *Process) Stop(grace time.Duration) error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s had ended by itself: %v", p.command.Path, p.err)
	default:
	}
	if err := p.command.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(grace):
	}
	syscall.Kill(-p.PID, syscall.SIGKILL)
	<-p.ended
	return fmt.Errorf("%s did not stop within %v and was killed", p.command.Path, grace)
}
