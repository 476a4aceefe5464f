package delivery

import (
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"time"

	"mailchute/appliance/reply"
	"mailchute/appliance/spool"
)

// Hold is mail kept back because every attempt would fail alike: all that goes by a connector, or that of one sender.
type Hold struct {
	Since   time.Time     `json:"since"`
	Stage   reply.Stage   `json:"stage"` // of the conversation at which it failed
	Reply   string        `json:"reply"` // the answer in full, or the error
	Verdict reply.Verdict `json:"verdict"`
	Tries   int           `json:"tries"` // that failed, since an administrator last did something about it
	Tried   time.Time     `json:"tried"` // when the last of them failed
	Probe   time.Time     `json:"probe"` // one message is tried then
}

// holds are the holds of one connector, kept in the queue file. The transport guards them.
type holds struct {
	Connector *Hold             `json:"connector,omitempty"`
	Senders   map[string]*Hold  `json:"senders"`
	Pauses    pauses            `json:"pauses"` // of the connector, for as long as queued mail may have lived through
	Paused    map[string]pauses `json:"paused"` // of senders
	Good      *pair             `json:"good"`   // the last pair that was taken
	doubt     string            // a sender was refused: is it the sender, or everybody? Good tells
}

// pair is a sender and a recipient.
type pair struct {
	Sender    string `json:"sender"`
	Recipient string `json:"recipient"`
}

func stateName(connector string) string { return "holds of " + connector }

// loadHolds reads the holds of a connector. A probe that is further off than any probe is set was set while the clock
// was ahead: it is made now.
func loadHolds(s *spool.Spool, log *slog.Logger, connector string, now time.Time, longest time.Duration) (h holds) {
	text, err := s.State(stateName(connector))
	if err == nil && text != nil {
		err = json.Unmarshal(text, &h)
	}
	if err != nil {
		log.Error("read the holds of a connector; it is tried anew", "connector", connector, "error", err)
	}
	if h.Senders == nil {
		h.Senders = make(map[string]*Hold)
	}
	if h.Paused == nil {
		h.Paused = make(map[string]pauses)
	}
	for _, hold := range append(slices.Collect(maps.Values(h.Senders)), h.Connector) {
		if hold != nil && hold.Probe.Sub(now) > longest {
			hold.Probe = now
		}
	}
	return h
}

// keepHolds writes the holds into the queue file. Pauses that no message can have lived through are forgotten.
func (t *transport) keepHolds() {
	over := func(p pauses) bool {
		last := p[len(p)-1].Until
		return !last.IsZero() && t.d.now().Sub(last) > 2*t.retry.GiveUp
	}
	if len(t.holds.Pauses) > 0 && over(t.holds.Pauses) {
		t.holds.Pauses = nil
	}
	maps.DeleteFunc(t.holds.Paused, func(_ string, p pauses) bool { return over(p) })
	text, err := json.Marshal(&t.holds)
	if err != nil {
		t.d.log.Error("keep the holds of a connector", "connector", t.name, "error", err)
		return
	}
	t.d.spool.SetState(stateName(t.name), text)
}

// pausesOf are the times on hold that concern a sender's mail.
func (t *transport) pausesOf(sender string) (connector, own pauses) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append(pauses(nil), t.holds.Pauses...), append(pauses(nil), t.holds.Paused[sender]...)
}

// failure is an answer that holds mail.
type failure struct {
	answer  reply.Answer
	verdict reply.Verdict
}

// probeDelay is the time until a hold is probed for the next time.
func (t *transport) probeDelay(h *Hold) time.Duration {
	delay := signInPause
	switch {
	case h.Verdict.SignIn:
	case h.Tries <= 1:
		delay = t.retry.soon()
	default:
		delay = t.retry.delay(h.Tries - 1)
	}
	return t.d.jitter(delay)
}

// again begins a hold, or notes that a probe of it has failed.
func (t *transport) again(h *Hold, f failure) *Hold {
	now := t.d.now()
	if h == nil {
		h = &Hold{Since: now}
	}
	h.Stage, h.Reply, h.Verdict = f.answer.Stage, f.answer.String(), f.verdict
	h.Tries++
	h.Tried = now
	h.Probe = now.Add(t.probeDelay(h))
	return h
}

// holdConnector keeps back everything; what waits in memory goes back to the queue.
func (t *transport) holdConnector(f failure) {
	t.mu.Lock()
	begun := t.holds.Connector == nil
	t.holds.Connector = t.again(t.holds.Connector, f)
	t.holds.Pauses.begin(t.holds.Connector.Since)
	t.holds.doubt = ""
	returned := t.ready.take(func(*job) bool { return true })
	probe := t.holds.Connector.Probe
	t.keepHolds()
	t.mu.Unlock()
	if begun {
		t.d.log.Error("the connector is on hold, its mail is kept", "connector", t.name, "reply", f.answer.String(),
			"cause", f.verdict.Cause, "fix", f.verdict.Fix, "next_probe", probe)
	}
	t.giveBack(returned)
	t.kick()
}

// holdSender keeps back one sender's mail. Where another sender is known to be good, it is asked whether that one
// is still taken.
func (t *transport) holdSender(sender string, f failure) {
	t.mu.Lock()
	begun := t.holds.Senders[sender] == nil
	h := t.again(t.holds.Senders[sender], f)
	t.holds.Senders[sender] = h
	p := t.holds.Paused[sender]
	p.begin(h.Since)
	t.holds.Paused[sender] = p
	if begun && t.holds.Good != nil && t.holds.Good.Sender != sender {
		t.holds.doubt = sender
		t.staff()
		t.signal()
	}
	returned := t.ready.take(func(j *job) bool { return j.Sender == sender })
	t.keepHolds()
	t.mu.Unlock()
	if begun {
		t.d.log.Error("mail of a sender is on hold", "connector", t.name, "sender", sender, "reply", f.answer.String(),
			"cause", f.verdict.Cause, "fix", f.verdict.Fix, "next_probe", h.Probe)
	}
	t.giveBack(returned)
	t.kick()
}

// release ends the hold of a sender that has no mail here any more.
func (t *transport) release(sender string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.holds.Senders[sender] != nil {
		delete(t.holds.Senders, sender)
		t.holds.Paused[sender].end(t.d.now())
		t.keepHolds()
		t.d.log.Info("no mail of a sender on hold is left", "connector", t.name, "sender", sender)
	}
}

// lift ends the holds that a message of sender shows to be over; taken: it was taken, for recipient.
func (t *transport) lift(sender, recipient string, taken bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, h := t.d.now(), &t.holds
	changed := false
	if h.Connector != nil {
		h.Connector, changed = nil, true
		h.Pauses.end(now)
		t.d.log.Info("the connector works again", "connector", t.name)
	}
	if h.Senders[sender] != nil && taken {
		delete(h.Senders, sender)
		h.Paused[sender].end(now)
		changed = true
		t.d.log.Info("the sender is taken again", "connector", t.name, "sender", sender)
	}
	if taken {
		t.sent = now
		t.broken = 0
		if h.doubt != "" && h.doubt != sender {
			h.doubt = "" // another sender is taken: it was that sender
		}
		if h.Good == nil || h.Good.Sender != sender {
			h.Good = &pair{sender, recipient}
		}
	}
	if changed {
		t.keepHolds()
		t.behind = true
		t.kick()
	}
}

// verify asks whether a sender known to be good is still taken, after another was refused. If not, it is not the
// sender: the connector is held.
func (t *transport) verify(conn Conn) {
	t.mu.Lock()
	suspect, good := t.holds.doubt, t.holds.Good
	t.holds.doubt = ""
	t.mu.Unlock()
	if suspect == "" || good == nil {
		return
	}
	answer := conn.Verify(t.d.ctx, good.Sender, good.Recipient)
	verdict := reply.Judge(answer)
	if verdict.Class != reply.Sender && verdict.Class != reply.Connector {
		return
	}
	verdict.Class = reply.Connector
	t.mu.Lock()
	delete(t.holds.Senders, suspect)
	t.holds.Paused[suspect].end(t.d.now())
	t.mu.Unlock()
	t.holdConnector(failure{answer, verdict})
}

// probeNow has every hold probed as soon as there is mail for it: settings have changed, or an administrator
// asked for it. The schedule of further probes begins anew, for somebody is at work on the fault.
func (t *transport) probeNow() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.holds.Connector; h != nil {
		h.Probe, h.Tries = t.d.now(), 0
	}
	for _, h := range t.holds.Senders {
		h.Probe, h.Tries = t.d.now(), 0
	}
	t.kick()
}

// State is what an administrator sees of a connector.
type State struct {
	Connector   string           `json:"connector"`
	Hold        *Hold            `json:"hold,omitempty"`
	Senders     map[string]*Hold `json:"senders,omitempty"` // held senders
	Connections int              `json:"connections"`       // open or being opened
	Ready       int              `json:"ready"`             // attempts recorded that wait for a connection
	Sending     int              `json:"sending"`           // messages on a connection
	Sent        time.Time        `json:"sent,omitzero"`     // the last time a message was taken
}

// States tells how each connector is.
func (d *Delivery) States() (states []State) {
	for _, t := range d.all() {
		t.mu.Lock()
		s := State{Connector: t.name, Connections: t.workers, Ready: t.ready.count, Sending: len(t.sending), Sent: t.sent}
		if t.holds.Connector != nil {
			h := *t.holds.Connector
			s.Hold = &h
		}
		for sender, h := range t.holds.Senders {
			if s.Senders == nil {
				s.Senders = make(map[string]*Hold)
			}
			copied := *h
			s.Senders[sender] = &copied
		}
		t.mu.Unlock()
		states = append(states, s)
	}
	return states
}
