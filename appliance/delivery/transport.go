package delivery

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"mailchute/appliance/reply"
	"mailchute/appliance/smtpclient"
	"mailchute/appliance/spool"
)

const (
	maxReady  = 512              // jobs of a connector that wait in memory for a connection
	keepAlive = 30 * time.Second // that a connection with nothing to do is kept
	maxBroken = 3                // connections in a row that break before a message is taken, until the connector is held
)

// transport moves the mail of one connector. Jobs come into ready, from acceptances or from the due index by
// dispatch; workers, one a connection, take them out.
type transport struct {
	d    *Delivery
	name string

	wake chan struct{} // something for dispatch to look at
	work chan struct{} // a job for a waiting worker

	mu       sync.Mutex
	endpoint Endpoint
	retry    Retry
	current  context.Context    // ends when endpoint is replaced, or with the delivery
	replace  context.CancelFunc // ends it
	ready    ready
	admitted int                              // acceptances that have a place in ready but are not on disk yet
	sending  map[*smtpclient.Transaction]*job // taken by a worker
	workers  int
	waiting  int  // workers that have nothing to do
	behind   bool // mail is due that is not in ready
	turns    spool.Turns
	broken   int       // connections in a row that broke before a message was taken
	sent     time.Time // the last time a message was taken
	stopping bool
	stopped  chan struct{}
	holds    holds
}

func newTransport(d *Delivery, name string, retry Retry) *transport {
	t := &transport{
		d: d, name: name, wake: make(chan struct{}, 1), work: make(chan struct{}, 1),
		sending: make(map[*smtpclient.Transaction]*job), stopped: make(chan struct{}), behind: true,
	}
	t.current, t.replace = context.WithCancel(d.ctx)
	t.holds = loadHolds(d.spool, d.log, name, d.now(), 2*max(signInPause, retry.Ceiling))
	return t
}

// set applies settings. Connections that are open take no more messages, and those being opened are given up: they may
// lead elsewhere, or show an identity that is no longer the right one.
func (t *transport) set(endpoint Endpoint, retry Retry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endpoint, t.retry = endpoint, retry
	t.replace()
	t.current, t.replace = context.WithCancel(t.d.ctx)
}

// kick makes dispatch look at the queue.
func (t *transport) kick() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// stop ends dispatch and lets the workers finish what they have taken.
func (t *transport) stop() {
	t.mu.Lock()
	if !t.stopping {
		t.stopping = true
		close(t.stopped)
	}
	returned := t.ready.take(func(*job) bool { return true })
	t.mu.Unlock()
	t.giveBack(returned)
}

// admit gives a message that is being accepted a place in ready, if there is one and it is its turn.
func (t *transport) admit(sender string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.behind || t.ready.count+t.admitted >= maxReady || !t.flows(sender) {
		return false
	}
	t.admitted++
	return true
}

// flows: mail of this sender may go.
func (t *transport) flows(sender string) bool {
	return !t.stopping && t.holds.Connector == nil && t.holds.Senders[sender] == nil
}

// dismiss takes back a place: the message was not accepted.
func (t *transport) dismiss() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.admitted--
	if t.behind {
		t.kick()
	}
}

// start brings in a job that was admitted and is on disk.
func (t *transport) start(j *job) {
	t.mu.Lock()
	t.admitted--
	flows := t.flows(j.Sender)
	if flows {
		t.push(j)
	}
	t.mu.Unlock()
	if !flows {
		t.giveBack([]*job{j})
	}
}

// left: a message waits in the due index.
func (t *transport) left() {
	t.mu.Lock()
	t.behind = true
	t.mu.Unlock()
	t.kick()
}

// push puts a job into ready and sees to it that a worker takes it.
func (t *transport) push(j *job) {
	t.ready.push(j)
	if t.waiting == 0 {
		t.staff()
	}
	t.signal()
}

// staff starts a worker where one more may be open. While it is not known whether the way works, there is one.
func (t *transport) staff() {
	limit := t.endpoint.Connections
	if t.broken > 0 || t.holds.Connector != nil {
		limit = 1
	}
	if t.workers < limit && !t.stopping {
		t.workers++
		t.d.tasks.Go(t.worker)
	}
}

func (t *transport) signal() {
	select {
	case t.work <- struct{}{}:
	default:
	}
}

// worker serves jobs over one connection after the other, as long as there are any.
func (t *transport) worker() {
	for t.hasWork() {
		t.mu.Lock()
		connect, settings := t.endpoint.Connect, t.current
		t.mu.Unlock()
		conn, err := connect(settings)
		if err != nil {
			t.wayFailed(settings, err)
			continue
		}
		t.verify(conn)
		hardStop := context.AfterFunc(t.d.ctx, func() { conn.Close() })
		peer := conn.Peer().String()
		next := func(ctx context.Context) *smtpclient.Transaction { return t.next(ctx, settings) }
		heard, unheard := false, false
		err = conn.Run(t.d.ctx, next, func(tx *smtpclient.Transaction, outcome smtpclient.Outcome) {
			heard, unheard = heard || !outcome.Untried, unheard || outcome.Untried
			t.finished(peer, tx, outcome)
		})
		hardStop()
		conn.Close()
		if err == nil && settings.Err() == nil && !heard && (unheard || t.isReady()) {
			err = errUnheard
		}
		t.ranOut(err)
	}
}

// errUnheard: a connection that was closed in order, and there was mail for it.
var errUnheard = errors.New("the endpoint closes the connection before it says anything about a message")

// isReady: there is mail for a connection, and one may be open.
func (t *transport) isReady() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ready.count > 0 && !t.quits()
}

// hasWork keeps a worker; false ends it.
func (t *transport) hasWork() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if (t.ready.count > 0 || t.holds.doubt != "") && !t.quits() && t.d.ctx.Err() == nil {
		return true
	}
	t.workers--
	if t.ready.count > 0 {
		t.signal() // it may have been told of a job that another has to take now
	}
	return false
}

// quits: a worker has to close its connection.
func (t *transport) quits() bool { return t.stopping || t.workers > t.endpoint.Connections }

// next gives a connection its next message, waiting for one; nil closes the connection. settings are those it was opened
// with.
func (t *transport) next(ctx, settings context.Context) *smtpclient.Transaction {
	var idle <-chan time.Time
	for {
		t.mu.Lock()
		if t.quits() || settings.Err() != nil || t.holds.doubt != "" {
			t.mu.Unlock()
			return nil
		}
		if j := t.ready.pop(); j != nil {
			t.sending[&j.Transaction] = j
			if t.ready.count > 0 && t.waiting > 0 {
				t.signal()
			}
			if t.behind && t.ready.count < maxReady/2 {
				t.kick()
			}
			t.mu.Unlock()
			return &j.Transaction
		}
		if ctx.Err() != nil {
			t.mu.Unlock()
			return nil
		}
		t.waiting++
		t.mu.Unlock()
		if idle == nil {
			timer := time.NewTimer(keepAlive)
			defer timer.Stop()
			idle = timer.C
		}
		over := false
		select {
		case <-t.work:
		case <-idle:
			over = true
		case <-settings.Done():
			over = true
		case <-t.stopped:
			over = true
		case <-ctx.Done():
			over = true
		}
		t.mu.Lock()
		t.waiting--
		t.mu.Unlock()
		if over {
			return nil
		}
	}
}

// wayFailed: no connection came about. One message carries the error, the others are due again.
func (t *transport) wayFailed(settings context.Context, err error) {
	switch {
	case t.d.ctx.Err() != nil:
		t.stop()
		return
	case settings.Err() != nil: // it was given up for others
		return
	}
	answer := reply.Answer{Stage: reply.Connect, Err: err}
	var spoken *smtpclient.Error
	if errors.As(err, &spoken) {
		answer = spoken.Answer
	}
	verdict := reply.Judge(answer)
	verdict.Class = reply.Connector
	t.mu.Lock()
	j := t.ready.pop()
	t.mu.Unlock()
	if j == nil {
		t.holdConnector(failure{answer, verdict})
		return
	}
	n := len(j.Recipients)
	t.conclude(j, "", slices.Repeat([]reply.Answer{answer}, n), slices.Repeat([]reply.Verdict{verdict}, n))
}

// ranOut looks at how a connection ended. One that breaks again and again before a message is taken is no way.
func (t *transport) ranOut(err error) {
	if err == nil || t.d.ctx.Err() != nil {
		return
	}
	t.mu.Lock()
	t.broken++
	hopeless := t.broken >= maxBroken
	t.mu.Unlock()
	if hopeless {
		answer := reply.Answer{Stage: reply.Connect, Err: err}
		verdict := reply.Judge(answer)
		verdict.Class = reply.Connector
		t.holdConnector(failure{answer, verdict})
	}
}
