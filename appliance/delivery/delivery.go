// Package delivery decides when a queued message is tried, by which connector, with how many others at once, and what
// follows from the answers: retry, hold, expiry. Nothing is dropped here: a message leaves the queue taken by the
// endpoint for every recipient, or deleted by an administrator.
package delivery

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"mailchute/appliance/address"
	"mailchute/appliance/reply"
	"mailchute/appliance/smtpclient"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// Conn is an open connection to an endpoint, see smtpclient.Conn.
type Conn interface {
	Run(ctx context.Context, next func(context.Context) *smtpclient.Transaction,
		done func(*smtpclient.Transaction, smtpclient.Outcome)) error
	Verify(ctx context.Context, sender, recipient string) reply.Answer
	Peer() smtpclient.Peer
	Close() error
}

// Endpoint is a connector as delivery sees it.
type Endpoint struct {
	Name        string
	Connections int // at once, at most
	// Connect dials; the error is a *smtpclient.Error where the way or the endpoint is at fault.
	Connect func(context.Context) (Conn, error)
}

// Settings are what an administrator can change while mail flows.
type Settings struct {
	Endpoints []Endpoint
	// Route names the connector a recipient goes through; false: none takes it.
	Route func(sender, recipient address.Address) (connector string, ok bool)
	// Routes names what Route decides by: queued mail is routed anew when it is not what it was, a start between included.
	// Empty: always.
	Routes string
	Retry  Retry
}

// Options are the parts delivery is built on.
type Options struct {
	Spool *spool.Spool
	Log   *slog.Logger
	Now   func() time.Time
	// Jitter spreads a delay so that messages do not come back all at once; nil: a tenth to either side.
	Jitter func(time.Duration) time.Duration
}

// Delivery is the queue manager. It is the intake's queue too: see Accept.
type Delivery struct {
	spool  *spool.Spool
	log    *slog.Logger
	now    func() time.Time
	jitter func(time.Duration) time.Duration

	ctx    context.Context // of every connection; ends when stopping takes too long
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	rerouting sync.Mutex // one at a time

	mu         sync.Mutex
	settings   Settings
	transports map[string]*transport
	running    map[attempt]bool // attempts on record and not yet answered
	astray     bool             // mail for a connector that is gone is about to be routed anew
	stopping   bool

	counted struct{ accepted, sent, deferred, failed atomic.Uint64 }
}

// Counted is what happened since the start: messages accepted; recipients taken, put off and refused or given up.
type Counted struct{ Accepted, Sent, Deferred, Failed uint64 }

// Counted tells what happened since the start.
func (d *Delivery) Counted() Counted {
	c := &d.counted
	return Counted{c.accepted.Load(), c.sent.Load(), c.deferred.Load(), c.failed.Load()}
}

// Running tells how many attempts are on record and not yet answered.
func (d *Delivery) Running() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.running)
}

// attempt names a message on its way by one connector; it is never made twice at a time.
type attempt struct {
	id        trace.ID
	connector string
}

// New makes a delivery that moves nothing yet; Set gives it connectors.
func New(options Options) *Delivery {
	d := &Delivery{
		spool: options.Spool, log: options.Log, now: options.Now, jitter: options.Jitter,
		transports: make(map[string]*transport), running: make(map[attempt]bool),
		settings: Settings{Route: func(_, _ address.Address) (string, bool) { return "", false }},
	}
	if d.jitter == nil {
		d.jitter = func(delay time.Duration) time.Duration {
			return delay - delay/10 + rand.N(delay/5+1)
		}
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Set applies settings: connectors that stay keep their state and are tried anew at once, for their password or
// certificate may have changed; mail of those that are gone is routed again. It is called by one at a time.
func (d *Delivery) Set(settings Settings) {
	fresh := make(map[string]*transport) // made before the lock is taken: readers of the queue file ask for it
	for _, endpoint := range settings.Endpoints {
		if d.transport(endpoint.Name) == nil {
			fresh[endpoint.Name] = newTransport(d, endpoint.Name, settings.Retry)
		}
	}
	d.mu.Lock()
	if d.stopping {
		d.mu.Unlock()
		return
	}
	d.settings = settings
	gone := d.transports
	d.transports = make(map[string]*transport, len(settings.Endpoints))
	for _, endpoint := range settings.Endpoints {
		t := gone[endpoint.Name]
		if t == nil {
			t = fresh[endpoint.Name]
			t.set(endpoint, settings.Retry)
			d.tasks.Go(t.dispatch)
		} else {
			t.set(endpoint, settings.Retry)
			t.probeNow()
		}
		delete(gone, endpoint.Name)
		d.transports[endpoint.Name] = t
	}
	d.tasks.Go(func() { d.reroute(true) }) // of 100,000 messages it takes a second or two
	d.mu.Unlock()
	for _, t := range gone {
		t.stop()
	}
}

// transport gives a connector's transport; nil where there is none of that name.
func (d *Delivery) transport(name string) *transport {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.transports[name]
}

// all gives every transport.
func (d *Delivery) all() (list []*transport) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, endpoint := range d.settings.Endpoints {
		list = append(list, d.transports[endpoint.Name])
	}
	return list
}

func (d *Delivery) current() Settings {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.settings
}

// begin claims an attempt; false: it is being made.
func (d *Delivery) begin(a attempt) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running[a] {
		return false
	}
	d.running[a] = true
	return true
}

func (d *Delivery) end(a attempt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.running, a)
}

func (d *Delivery) isRunning(a attempt) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.running[a]
}

func (d *Delivery) isStopping() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stopping
}

func (d *Delivery) anyRunning(e *spool.Envelope) bool {
	for _, leg := range e.Legs {
		if d.isRunning(attempt{e.ID, leg.Connector}) {
			return true
		}
	}
	return false
}

// Stop starts no more attempts, lets those in the air finish until ctx ends, and cuts the rest off: they are tried
// again at the next start. Acceptances go on working, for the intake stops by itself.
func (d *Delivery) Stop(ctx context.Context) {
	d.mu.Lock()
	d.stopping = true
	d.mu.Unlock()
	for _, t := range d.all() {
		t.stop()
	}
	finished := make(chan struct{})
	go func() { d.tasks.Wait(); close(finished) }()
	select {
	case <-finished:
	case <-ctx.Done():
		d.cancel()
		<-finished
	}
	d.cancel()
}
