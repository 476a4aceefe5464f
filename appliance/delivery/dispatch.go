package delivery

import (
	"errors"
	"time"

	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// dispatch brings due mail into ready, and probes what is on hold. It is the transport's one goroutine of its own.
func (t *transport) dispatch() {
	for {
		at := t.fetch()
		var due <-chan time.Time
		timer := time.NewTimer(max(at.Sub(t.d.now()), 0))
		if !at.IsZero() {
			due = timer.C
		}
		select {
		case <-t.wake:
		case <-due:
		case <-t.stopped:
		}
		timer.Stop()
		select {
		case <-t.stopped:
			return
		default:
		}
	}
}

// fetch brings in what is due and has room. It returns when there may be more to do; zero: when something happens.
func (t *transport) fetch() time.Time {
	now := t.d.now()
	t.mu.Lock()
	room := maxReady - t.ready.count - t.admitted
	busy := len(t.sending) + t.ready.count
	hold := t.holds.Connector
	if hold != nil {
		probe := hold.Probe
		t.mu.Unlock()
		return t.probeConnector(now, probe, busy)
	}
	t.mu.Unlock()
	next := t.probeSenders(now)
	if room < maxReady/2 {
		return next // a worker kicks when there is room
	}
	t.mu.Lock()
	t.behind = false // set again by what comes in from here on
	t.mu.Unlock()
	const batch = 128
	found, soonest := t.fill(now, min(room, batch), t.heldSender)
	if found > 0 {
		t.left() // there may be more
	}
	return earlier(next, soonest)
}

// probeConnector tries one message, when it is time and none is being tried.
func (t *transport) probeConnector(now, probe time.Time, busy int) time.Time {
	if now.Before(probe) {
		return probe
	}
	if busy > 0 {
		return time.Time{}
	}
	found, soonest := t.fill(now, 1, t.heldSender)
	if found == 0 {
		found, soonest = t.fill(now, 1, func(string) bool { return false })
	}
	if found == 0 {
		return soonest
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.holds.Connector
	if h == nil {
		return time.Time{}
	}
	if h.Probe.Equal(probe) { // no result yet: this was the probe, whatever comes of it
		h.Probe = now.Add(t.probeDelay(h))
	}
	return h.Probe
}

// probeSenders tries one message of each held sender whose time has come. Where none is left, the hold is over.
func (t *transport) probeSenders(now time.Time) (next time.Time) {
	var due []string
	t.mu.Lock()
	for sender, h := range t.holds.Senders {
		if now.Before(h.Probe) {
			next = earlier(next, h.Probe)
			continue
		}
		due = append(due, sender)
		h.Probe = now.Add(t.probeDelay(h)) // pushed out before it is tried
		next = earlier(next, h.Probe)
	}
	t.mu.Unlock()
	for _, sender := range due {
		found, soonest := t.fill(now, 1, func(other string) bool { return other != sender })
		if found == 0 && soonest.IsZero() && t.d.spool.WaitingOf(t.name, sender) == 0 {
			t.release(sender)
		}
	}
	return next
}

func (t *transport) heldSender(sender string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.holds.Senders[sender] != nil
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// errUnchanged leaves an envelope as it is.
var errUnchanged = errors.New("nothing to change")

// trouble is the first error of many changes that is the queue's own.
func trouble(errs []error) error {
	for _, err := range errs {
		if err != nil && !errors.Is(err, errUnchanged) && !errors.Is(err, spool.ErrNotFound) {
			return err
		}
	}
	return nil
}

// fill claims up to limit messages that are due, puts their attempts on record and brings them into ready. It returns
// how many it claimed, and when the next is due where there was none.
func (t *transport) fill(now time.Time, limit int, passSender func(string) bool) (claimed int, soonest time.Time) {
	d := t.d
	beyond := now.Add(2 * d.current().Retry.Ceiling) // the schedule puts nothing off for so long
	found, soonest, err := d.spool.Due(t.name, &t.turns, now, limit, max(1, limit/8), spool.Pass{
		Sender:  passSender,
		Message: func(id trace.ID) bool { return d.isRunning(attempt{id, t.name}) },
		Beyond:  beyond,
	})
	if err != nil {
		d.log.Error("look for due mail", "connector", t.name, "error", err)
		return 0, now.Add(time.Minute)
	}
	var ids []trace.ID
	for _, due := range found {
		if d.begin(attempt{due.ID, t.name}) {
			ids = append(ids, due.ID)
		}
	}
	jobs := make(map[trace.ID]*job, len(ids))
	moved := false
	errs := d.spool.ChangeAll(ids, func(e *spool.Envelope) error {
		leg := legOf(e.Legs, t.name)
		switch {
		case leg == nil || e.Hold != nil || leg.Next.After(now) && !leg.Next.After(beyond):
			return errUnchanged
		case d.route(e, t.name):
			moved = true
		default:
			d.record(e, leg)
			jobs[e.ID] = newJob(d.spool, e, legOf(e.Legs, t.name))
		}
		return nil
	})
	var stopped []*job
	for i, id := range ids {
		j := jobs[id]
		if errs[i] != nil || j == nil {
			d.end(attempt{id, t.name})
			continue
		}
		t.mu.Lock()
		if t.stopping {
			stopped = append(stopped, j)
		} else {
			t.push(j)
		}
		t.mu.Unlock()
	}
	t.giveBack(stopped)
	if moved {
		for _, other := range d.all() {
			other.left()
		}
	}
	if err := trouble(errs); err != nil {
		d.log.Error("record attempts", "connector", t.name, "error", err)
		return 0, now.Add(time.Minute)
	}
	return len(ids), soonest
}
