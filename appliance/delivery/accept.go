package delivery

import (
	"slices"
	"time"

	"mailchute/appliance/address"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// Incoming is a message being handed in.
type Incoming struct {
	*spool.Writer
	d *Delivery
}

// Create begins a message.
func (d *Delivery) Create() *Incoming { return &Incoming{d.spool.Create(), d} }

// Accept routes the message and stores its envelope; when it returns nil the message is on disk. Where a
// connector has room, the first attempt is recorded with it and follows at once.
func (m *Incoming) Accept(e *spool.Envelope) error {
	d := m.d
	e.ID = m.ID()
	d.route(e, "")
	begun := make([]*transport, len(e.Legs)) // one a leg; nil where the message waits for its turn
	for i := range e.Legs {
		leg := &e.Legs[i]
		if t := d.transport(leg.Connector); t != nil && t.admit(e.Sender) {
			d.begin(attempt{e.ID, leg.Connector})
			d.record(e, leg)
			begun[i] = t
		}
	}
	legs := slices.Clone(e.Legs)
	jobs := make([]*job, len(legs)) // made now: once accepted, the envelope is the spool's
	for i, t := range begun {
		if t != nil {
			jobs[i] = newJob(d.spool, e, &legs[i])
		}
	}
	err := m.Writer.Accept(e)
	if err == nil {
		d.counted.accepted.Add(1)
	}
	for i, t := range begun {
		switch {
		case t == nil && err == nil:
			d.left(legs[i].Connector)
		case t != nil && err != nil:
			d.end(jobs[i].attempt(t.name))
			t.dismiss()
		case t != nil:
			jobs[i].body, jobs[i].Size = m.Body(), m.Size()
			t.start(jobs[i])
		}
	}
	return err
}

// record puts the next attempt of a leg on record and the one after it out.
func (d *Delivery) record(e *spool.Envelope, leg *spool.Leg) {
	now := d.now()
	leg.Attempts++
	leg.Next = now.Add(d.jitter(d.current().Retry.delay(leg.Attempts)))
	e.Add(trace.Event{Time: now, Kind: trace.Attempted, Connector: leg.Connector, Next: leg.Next})
}

// route sets the connector of each recipient that waits, and the legs. Recipients whose attempt is being made stay
// with it, but for those of claimed, the connector the caller is about to try. It reports whether anything changed.
func (d *Delivery) route(e *spool.Envelope, claimed string) (changed bool) {
	route := d.current().Route
	now := d.now()
	sender, _ := address.ParseSender(e.Sender) // one that cannot be parsed matches what every sender matches
	legs := make([]spool.Leg, 0, 1)
	for i := range e.Recipients {
		r := &e.Recipients[i]
		if r.State != trace.Waiting {
			continue
		}
		connector := r.Connector
		if connector == "" || connector == claimed || !d.isRunning(attempt{e.ID, connector}) {
			if connector = e.Via; d.transport(connector) == nil {
				connector = ""
			}
			if recipient, err := address.Parse(r.Address); err == nil && connector == "" {
				connector, _ = route(sender, recipient)
			}
		}
		if connector != r.Connector {
			r.Connector, changed = connector, true
		}
		if legOf(legs, connector) == nil {
			leg := spool.Leg{Connector: connector, Next: now}
			if old := legOf(e.Legs, connector); old != nil {
				leg = *old
			} else {
				changed = true
			}
			legs = append(legs, leg)
		}
	}
	changed = changed || len(legs) != len(e.Legs)
	if changed {
		e.Legs = legs
	}
	return changed
}

func legOf(legs []spool.Leg, connector string) *spool.Leg {
	for i := range legs {
		if legs[i].Connector == connector {
			return &legs[i]
		}
	}
	return nil
}

// left: a message waits in the due index for a connector. Where that one is gone by now, it is routed anew.
func (d *Delivery) left(connector string) {
	if t := d.transport(connector); t != nil {
		t.left()
	} else {
		d.rerouteAstray()
	}
}

// rerouteAstray has the mail for connectors that are gone routed anew.
func (d *Delivery) rerouteAstray() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.astray && !d.stopping {
		d.astray = true
		d.tasks.Go(func() { d.reroute(false) })
	}
}

// routesState is where the queue file says by what its mail was routed.
const routesState = "routes"

// reroute routes queued mail anew after a change of settings: all, or that for connectors that are gone. Mail that is
// being delivered is left to its attempt, whose end brings it here.
func (d *Delivery) reroute(all bool) {
	d.rerouting.Lock()
	defer d.rerouting.Unlock()
	const stretch = 500
	d.mu.Lock()
	d.astray = false
	d.mu.Unlock()
	routes := d.current().Routes
	if before, err := d.spool.State(routesState); err == nil && routes != "" && string(before) == routes {
		all = false
	}
	lanes, err := d.spool.Lanes()
	for _, connector := range lanes {
		if !all && d.transport(connector) != nil {
			continue
		}
		var at []byte
		for more := true; more && err == nil && !d.isStopping(); more = at != nil {
			var ids []trace.ID
			if ids, at, err = d.spool.At(connector, at, stretch); err == nil {
				err = trouble(d.spool.ChangeAll(ids, func(e *spool.Envelope) error {
					if !d.route(e, "") {
						return errUnchanged
					}
					return nil
				}))
			}
		}
	}
	if err != nil {
		d.log.Error("route the queue anew; what is for a connector that is gone is tried again in a minute", "error", err)
		time.AfterFunc(time.Minute, d.rerouteAstray)
	} else if all && !d.isStopping() {
		d.spool.SetState(routesState, []byte(routes))
	}
	for _, t := range d.all() {
		t.left()
	}
}
