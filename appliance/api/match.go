package api

import (
	"slices"
	"strings"

	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// Match tells whether a queued message is wanted; Limit is not asked.
func (q *QueueQuery) Match(e *spool.Envelope) bool {
	switch {
	case e.ID <= q.After && q.After != 0:
		return false
	case q.State != "" && !slices.Contains(States(e), q.State):
		return false
	case q.Device != "" && !strings.EqualFold(q.Device, e.Device):
		return false
	case q.Sender != "" && !trace.MatchAddress(q.Sender, e.Sender):
		return false
	case q.Connector != "" && !slices.ContainsFunc(e.Recipients, func(r trace.Recipient) bool { return strings.EqualFold(r.Connector, q.Connector) }):
		return false
	}
	return q.Recipient == "" ||
		slices.ContainsFunc(e.Recipients, func(r trace.Recipient) bool { return trace.MatchAddress(q.Recipient, r.Address) })
}

// States tells how a queued message is: waiting and failed can both be true, of different recipients.
func States(e *spool.Envelope) []QueueState {
	var states []QueueState
	has := func(state trace.State) bool {
		return slices.ContainsFunc(e.Recipients, func(r trace.Recipient) bool { return r.State == state })
	}
	switch {
	case e.Hold != nil:
		states = append(states, QueueHeld)
	case has(trace.Waiting):
		states = append(states, QueueWaiting)
	}
	if has(trace.Failed) {
		states = append(states, QueueFailed)
	}
	return states
}
