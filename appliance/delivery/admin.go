package delivery

import (
	"errors"
	"fmt"

	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// What an administrator does to queued messages. Each call changes those of the ids it can, in one flush, and
// tells how many; the error joins what was wrong with the others.

// Retry makes messages due now; what had failed is tried anew, as if it had just come in. Held connectors and senders
// they go by are probed at once.
func (d *Delivery) Retry(ids []trace.ID, by string) (changed int, err error) {
	changed, err = d.change(ids, func(e *spool.Envelope) error {
		if e.Hold != nil {
			return fmt.Errorf("message %s is on hold: release it instead", e.ID)
		}
		d.anew(e, by)
		return nil
	})
	d.Probe()
	return changed, err
}

// Probe has held connectors and senders probed at once, by mail that waits for them.
func (d *Delivery) Probe() {
	for _, t := range d.all() {
		t.probeNow()
		t.left()
	}
}

// anew makes every recipient that is not done wait for its next attempt, now.
func (d *Delivery) anew(e *spool.Envelope, by string) {
	now := d.now()
	for i := range e.Recipients {
		if r := &e.Recipients[i]; r.State == trace.Failed {
			r.State = trace.Waiting
			e.Since = now
		}
	}
	d.route(e, "")
	for i := range e.Legs {
		e.Legs[i].Next = now
	}
	e.Add(trace.Event{Time: now, Kind: trace.Released, Text: "to be tried now, by " + by})
}

// Hold keeps messages from being delivered. One that is being sent at this moment is held afterwards.
func (d *Delivery) Hold(ids []trace.ID, by, why string) (changed int, err error) {
	d.withdraw(ids)
	return d.change(ids, func(e *spool.Envelope) error {
		if e.Hold != nil {
			return errUnchanged
		}
		now := d.now()
		e.Hold = &spool.Hold{By: by, Since: now, Why: why}
		text := "by " + by
		if why != "" {
			text += ": " + why
		}
		e.Add(trace.Event{Time: now, Kind: trace.Held, Text: text})
		return nil
	})
}

// Release takes messages off hold, and makes them due now. Mail held with its sender is tried at once too.
func (d *Delivery) Release(ids []trace.ID, by string) (changed int, err error) {
	senders := make(map[string]bool)
	changed, err = d.change(ids, func(e *spool.Envelope) error {
		senders[e.Sender] = true
		if e.Hold == nil {
			return errUnchanged
		}
		e.Held += d.now().Sub(e.Hold.Since)
		e.Hold = nil
		d.anew(e, by)
		return nil
	})
	for _, t := range d.all() {
		changed += t.probeSendersNow(senders)
		t.left()
	}
	return changed, err
}

// probeSendersNow tells how many of the senders were on hold.
func (t *transport) probeSendersNow(senders map[string]bool) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for sender, h := range t.holds.Senders {
		if senders[sender] {
			h.Probe = t.d.now()
			n++
		}
	}
	return n
}

// Delete ends messages: recipients that are not done are marked as deleted by the administrator.
func (d *Delivery) Delete(ids []trace.ID, by string) (changed int, err error) {
	d.withdraw(ids)
	return d.change(ids, func(e *spool.Envelope) error {
		if d.anyRunning(e) {
			return fmt.Errorf("%w: %s", spool.ErrBusy, e.ID)
		}
		for i := range e.Recipients {
			if r := &e.Recipients[i]; r.State == trace.Waiting || r.State == trace.Failed {
				r.State = trace.Deleted
			}
		}
		e.Add(trace.Event{Time: d.now(), Kind: trace.Removed, Text: "deleted by " + by})
		return nil
	})
}

// withdraw takes messages that wait in memory for a connection back, so that they can be changed.
func (d *Delivery) withdraw(ids []trace.ID) {
	wanted := make(map[trace.ID]bool, len(ids))
	for _, id := range ids {
		wanted[id] = true
	}
	for _, t := range d.all() {
		t.mu.Lock()
		taken := t.ready.take(func(j *job) bool { return wanted[j.id] })
		t.mu.Unlock()
		for _, j := range taken {
			d.end(j.attempt(t.name))
		}
		if len(taken) > 0 {
			t.kick() // what cannot be changed is tried again when the schedule says
		}
	}
}

// change applies fn to messages in one flush.
func (d *Delivery) change(ids []trace.ID, fn func(*spool.Envelope) error) (changed int, err error) {
	var wrong []error
	for _, err := range d.spool.ChangeAll(ids, fn) {
		switch {
		case err == nil:
			changed++
		case !errors.Is(err, errUnchanged):
			wrong = append(wrong, err)
		}
	}
	return changed, errors.Join(wrong...)
}
