// Package appliance builds the box from a state folder: opens what it keeps, wires intake to queue to delivery to
// connectors, applies settings and changes of them, and stops it all in order.
package appliance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"mailchute/appliance/api"
	"mailchute/appliance/cert"
	"mailchute/appliance/config"
	"mailchute/appliance/delivery"
	"mailchute/appliance/intake"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// Options of a box.
type Options struct {
	State   string // the state folder; made where there is none
	Version string
	Log     *slog.Logger
	Hangup  <-chan os.Signal // SIGHUP: apply a changed config.toml
}

// stopPatience is how long a stop waits for what is in the air.
const stopPatience = 20 * time.Second

// box is the running whole.
type box struct {
	options  Options
	log      *slog.Logger
	started  time.Time
	spool    *spool.Spool
	trace    *trace.Store
	delivery *delivery.Delivery
	intake   *intake.Server
	tasks    sync.WaitGroup
	failed   chan error // what stops the box

	applying sync.Mutex // one change of settings at a time
	mu       sync.Mutex
	settings *config.Config // in use; nil: the box is not set up yet
	applied  time.Time
	ports    map[string]*port  // by address
	identity *cert.Listener    // what devices are shown
	shown    []api.Certificate // by connectors
}

// Run runs the box until ctx ends, which is an orderly stop (nil), or until it fails. Wrong settings are
// config.Problems.
func Run(ctx context.Context, options Options) error {
	b := &box{options: options, log: options.Log, started: time.Now(), ports: make(map[string]*port), failed: make(chan error, 1)}
	if err := os.MkdirAll(options.State, 0o700); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	control, err := api.Listen(options.State) // first: it tells whether another box runs here
	if err != nil {
		return err
	}
	defer control.Close()
	settings, err := b.readSettings()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := b.open(); err != nil {
		return err
	}
	defer b.close()
	if settings != nil {
		if err := b.apply(settings); err != nil {
			b.stop()
			return err
		}
	} else {
		b.log.Warn("this box is not set up: it takes no mail", "missing", filepath.Join(options.State, config.FileName),
			"fix", "write it (mailchute config example shows every key), then: mailchute config reload")
	}
	serving, stopServing := context.WithCancel(context.Background())
	defer stopServing()
	b.tasks.Go(func() {
		if err := api.Serve(serving, control, b, b.log); err != nil {
			b.fail(err)
		}
	})
	keeping, stopKeeping := context.WithCancel(context.Background())
	defer stopKeeping()
	b.tasks.Go(func() { b.keepHistory(keeping) })
	b.tasks.Go(func() { b.tellSystemd(keeping) })

	err = b.wait(ctx)
	b.stop()
	stopServing()
	stopKeeping()
	b.tasks.Wait()
	return err
}

// open opens queue and trace and makes what stands on them.
func (b *box) open() error {
	queue, salvage, err := spool.Open(filepath.Join(b.options.State, "queue.db"), spool.Options{Log: b.log})
	if err != nil {
		return err
	}
	if salvage != nil {
		b.tellSalvage(salvage)
	}
	b.spool = queue
	history, err := trace.Open(filepath.Join(b.options.State, "trace.db"))
	if err != nil {
		return errors.Join(err, queue.Close())
	}
	if aside := history.SetAside(); aside != "" {
		b.log.Error("the trace was damaged: it was set aside and a new one begun; no mail is concerned", "file", aside)
	}
	b.trace = history
	b.delivery = delivery.New(delivery.Options{Spool: queue, Log: b.log, Now: time.Now})
	b.intake = intake.New(intake.Options{
		Queue: incoming{b}, Refusals: history, Certificate: b.certificate, Log: b.log,
	})
	return nil
}

func (b *box) tellSalvage(salvage *spool.Salvage) {
	b.log.Error("the queue file was damaged: it was set aside, and what is readable was saved into a new one",
		"file", salvage.Aside, "damage", salvage.Damage, "saved", salvage.Saved, "held", salvage.Held, "lost", len(salvage.Missing))
	for _, lost := range salvage.Missing {
		b.log.Error("a message was lost with the damaged queue file", "message", lost.ID, "sender", lost.Sender,
			"recipients", lost.Recipients, "why", lost.Why)
	}
}

// wait returns when the box is to stop; an error where it has failed.
func (b *box) wait(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-b.failed:
			return err
		case <-b.spool.Failed():
			return b.spool.Err()
		case <-b.options.Hangup:
			if err := b.Reload(ctx, "SIGHUP"); err != nil {
				b.log.Error("config.toml is not applied; the settings in use stay", "error", err)
			}
		}
	}
}

// fail stops the box.
func (b *box) fail(err error) {
	select {
	case b.failed <- err:
	default:
	}
}

// stop ends taking mail and delivering it: what is in the air gets its time.
func (b *box) stop() {
	notify("STOPPING=1\nSTATUS=stopping: what is in the air is finished")
	b.mu.Lock()
	ports := b.ports
	b.ports = nil // the status shows none any more
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() {
		if err := b.intake.Shutdown(ctx); err != nil {
			b.log.Warn("devices that were sending were cut off; they were not told that their mail was taken", "error", err)
		}
	})
	both.Go(func() { b.delivery.Stop(ctx) })
	both.Wait()
	for _, p := range ports {
		p.close()
	}
}

func (b *box) close() {
	if err := errors.Join(b.spool.Close(), b.trace.Close()); err != nil {
		b.log.Error("close queue and trace", "error", err)
	}
}

// certificate is the one devices are shown.
func (b *box) certificate() (*tls.Certificate, error) {
	b.mu.Lock()
	identity := b.identity
	b.mu.Unlock()
	if identity == nil {
		return nil, errors.New("the box is not set up")
	}
	return identity.Certificate()
}

// incoming is the queue as the intake sees it.
type incoming struct{ b *box }

func (q incoming) Room(size int64) error  { return q.b.spool.Room(size) }
func (q incoming) Create() intake.Message { return q.b.delivery.Create() }

// port is a listener and how it is.
type port struct {
	settings config.Listener
	listener net.Listener
}

func (p *port) close() { p.listener.Close() }
