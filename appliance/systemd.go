package appliance

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// notify tells systemd how the box is (sd_notify(3)). Without systemd it does nothing.
func notify(state string) { daemon.SdNotify(false, state) }

// notifyReloading begins a reload; READY=1 ends it (systemd.service(5), Type=notify-reload).
func notifyReloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
		notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
	}
}

// tellSystemd says that the box is ready, and keeps the line that systemctl status shows.
func (b *box) tellSystemd(ctx context.Context) {
	line := b.statusLine()
	notify("READY=1\nSTATUS=" + line)
	every := time.NewTicker(10 * time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			if now := b.statusLine(); now != line {
				line = now
				notify("STATUS=" + line)
			}
		}
	}
}

func (b *box) statusLine() string {
	b.mu.Lock()
	setUp := b.settings != nil
	b.mu.Unlock()
	if !setUp {
		return "not set up: takes no mail"
	}
	counts := b.spool.Counts()
	line := fmt.Sprintf("%d messages in the queue, %d failed", counts.Messages, counts.Failed)
	for _, c := range b.delivery.States() {
		if c.Hold != nil {
			line += fmt.Sprintf("; %s on hold: %s", c.Connector, c.Hold.Verdict.Cause)
		}
	}
	return line
}
