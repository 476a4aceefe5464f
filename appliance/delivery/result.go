package delivery

import (
	"errors"
	"fmt"
	"time"

	"mailchute/appliance/reply"
	"mailchute/appliance/smtpclient"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// finished takes the outcome of a message from a connection.
func (t *transport) finished(peer string, tx *smtpclient.Transaction, outcome smtpclient.Outcome) {
	t.mu.Lock()
	j := t.sending[tx]
	delete(t.sending, tx)
	t.mu.Unlock()
	if outcome.Untried {
		t.giveBack([]*job{j})
		return
	}
	verdicts := make([]reply.Verdict, len(outcome.Answers))
	for i, answer := range outcome.Answers {
		verdicts[i] = reply.Judge(answer)
		if errors.Is(answer.Err, spool.ErrDamaged) {
			verdicts[i].Class = reply.Permanent // trying again does not mend a stored body
		}
	}
	t.conclude(j, peer, outcome.Answers, verdicts)
}

// conclude draws the consequences of the answers about a message: for its recipients, its sender, the connector.
func (t *transport) conclude(j *job, peer string, answers []reply.Answer, verdicts []reply.Verdict) {
	var worst *failure
	for i, answer := range answers {
		switch class := verdicts[i].Class; class {
		case reply.Sent:
			t.d.counted.sent.Add(1)
			t.lift(j.Sender, j.Recipients[i], true)
		case reply.Permanent:
			t.d.counted.failed.Add(1)
			t.lift(j.Sender, j.Recipients[i], false) // the endpoint looked at the recipient: the way works
		case reply.Temporary:
			t.d.counted.deferred.Add(1)
			t.passed(answer)
		default:
			t.d.counted.deferred.Add(1)
			if class == reply.Sender {
				t.passed(answer)
			}
			if worst == nil || class == reply.Connector {
				worst = &failure{answer, verdicts[i]}
			}
		}
	}
	t.log(j, peer, answers, verdicts)
	t.d.spool.ChangeLater(j.id, func(e *spool.Envelope) error {
		t.apply(e, j, peer, answers, verdicts)
		return nil
	}, func(err error) {
		if err != nil {
			t.d.log.Error("record the result of an attempt", "message", j.id, "connector", t.name, "error", err)
		}
		t.ended(j, worst != nil)
	})
	switch {
	case worst == nil:
	case worst.verdict.Class == reply.Connector:
		t.holdConnector(*worst)
	default:
		t.holdSender(j.Sender, *worst)
	}
}

// ended: an attempt is over and its result is on disk. again: the message is due at once.
func (t *transport) ended(j *job, again bool) {
	t.d.end(j.attempt(t.name))
	t.mu.Lock()
	gone := t.stopping
	t.mu.Unlock()
	if again || gone {
		t.d.left(t.name)
	} else {
		t.kick() // it may have become due meanwhile, or be the probe that others wait for
	}
}

// passed: a message was put off at a stage beyond the one a hold began at, so that the hold's reason is gone.
func (t *transport) passed(answer reply.Answer) {
	t.mu.Lock()
	hold := t.holds.Connector
	t.mu.Unlock()
	if hold != nil && answer.Err == nil && hold.Stage.BeforeMail() {
		t.lift("", "", false)
	}
}

// apply writes the answers into the envelope. Other recipients may have begun to wait since the attempt began.
func (t *transport) apply(e *spool.Envelope, j *job, peer string, answers []reply.Answer, verdicts []reply.Verdict) {
	now := t.d.now()
	leg := legOf(e.Legs, t.name)
	tried := j.Recipients
	counted := false // as an attempt
	held, waiting := false, false
	for n := range e.Recipients {
		r := &e.Recipients[n]
		if len(tried) > 0 && r.Address == tried[0] {
			at := len(j.Recipients) - len(tried)
			tried = tried[1:]
			answer, verdict := answers[at], verdicts[at]
			r.Reply, r.Cause, r.Fix = answer.String(), verdict.Cause, verdict.Fix
			switch verdict.Class {
			case reply.Sent:
				r.State, r.Cause, r.Fix = trace.Sent, "", ""
			case reply.Permanent:
				r.State = trace.Failed
			case reply.Temporary:
				counted = true
			default:
				held = true
			}
		}
		waiting = waiting || r.State == trace.Waiting && r.Connector == t.name
	}
	var next time.Time
	switch {
	case leg == nil:
	case !waiting:
		e.Legs = removeLeg(e.Legs, t.name)
	case held && !counted: // the schedule goes on where it was when the hold is over
		leg.Attempts--
		leg.Next = now
	default:
		next = leg.Next
	}
	t.addEvents(e, now, peer, j, answers, verdicts, next)
	if leg := legOf(e.Legs, t.name); leg != nil && counted && t.expired(e, leg) {
		t.giveUp(e, leg)
	}
}

// addEvents tells the story: one event for the recipients with the same answer.
func (t *transport) addEvents(e *spool.Envelope, now time.Time, peer string, j *job, answers []reply.Answer, verdicts []reply.Verdict, next time.Time) {
	type line struct {
		text  string
		class reply.Class
	}
	at := make(map[line]int)
	var events []trace.Event
	for i, answer := range answers {
		l := line{answer.String(), verdicts[i].Class}
		n, ok := at[l]
		if !ok {
			n = len(events)
			at[l] = n
			event := trace.Event{Time: now, Connector: t.name, Peer: peer, Reply: l.text, Class: string(l.class)}
			switch l.class {
			case reply.Sent:
				event.Kind = trace.Delivered
			case reply.Permanent:
				event.Kind, event.Text = trace.Refused, verdicts[i].Cause
			default:
				event.Kind, event.Text, event.Next = trace.Deferred, verdicts[i].Cause, next
			}
			events = append(events, event)
		}
		events[n].Recipients = append(events[n].Recipients, j.Recipients[i])
	}
	for _, event := range events {
		if len(events) == 1 && len(e.Recipients) == len(event.Recipients) {
			event.Recipients = nil // all
		}
		e.Add(event)
	}
}

// expired: the time to give up has come, time on hold not counted. A clock that jumps, or a box that was switched off, does
// not bring it about: the schedule has to have been gone through for a while.
func (t *transport) expired(e *spool.Envelope, leg *spool.Leg) bool {
	since, now := e.Accepted, t.d.now()
	if e.Since.After(since) {
		since = e.Since
	}
	retry := t.d.current().Retry
	giveUp := retry.GiveUp
	if now.Sub(since) < giveUp || retry.waited(leg.Attempts) < min(giveUp, 2*retry.Ceiling) {
		return false
	}
	connector, own := t.pausesOf(e.Sender)
	return now.Sub(since)-during(since, now, connector, own)-e.Held >= giveUp
}

// giveUp marks what still waits at a leg as failed. It stays in the queue until an administrator acts.
func (t *transport) giveUp(e *spool.Envelope, leg *spool.Leg) {
	var who []string
	last := ""
	for i := range e.Recipients {
		if r := &e.Recipients[i]; r.State == trace.Waiting && r.Connector == leg.Connector {
			r.State = trace.Failed
			if last = r.Reply; last == "" {
				last = "no answer"
			}
			r.Cause = fmt.Sprintf("given up after %d attempts; the last answer: %s. %s", leg.Attempts, last, r.Cause)
			who = append(who, r.Address)
			t.d.counted.failed.Add(1)
		}
	}
	e.Add(trace.Event{Time: t.d.now(), Kind: trace.Expired, Connector: leg.Connector, Recipients: who,
		Text: fmt.Sprintf("given up after %d attempts", leg.Attempts)})
	e.Legs = removeLeg(e.Legs, leg.Connector)
	t.d.log.Error("given up", "message", e.ID, "device", e.Device, "connector", t.name, "recipients", who, "reply", last)
}

func removeLeg(legs []spool.Leg, connector string) (rest []spool.Leg) {
	for _, leg := range legs {
		if leg.Connector != connector {
			rest = append(rest, leg)
		}
	}
	return rest
}

// giveBack makes messages due again whose attempt was recorded but not made.
func (t *transport) giveBack(jobs []*job) {
	for _, j := range jobs {
		t.d.spool.ChangeLater(j.id, func(e *spool.Envelope) error {
			if leg := legOf(e.Legs, t.name); leg != nil {
				leg.Attempts = max(0, leg.Attempts-1)
				leg.Next = t.d.now()
			}
			if n := len(e.Events) - 1; n >= 0 && e.Events[n].Kind == trace.Attempted && e.Events[n].Connector == t.name {
				e.Events = e.Events[:n]
			}
			return nil
		}, func(err error) {
			if err != nil && !errors.Is(err, spool.ErrClosed) {
				t.d.log.Error("make a message due again", "message", j.id, "connector", t.name, "error", err)
			}
			t.ended(j, true)
		})
	}
}

// outcomeWords are the log's words for a class.
var outcomeWords = map[reply.Class]string{
	reply.Sent: "sent", reply.Temporary: "deferred", reply.Permanent: "refused for good",
	reply.Sender: "deferred: the endpoint refuses this sender", reply.Connector: "deferred: the endpoint takes nothing by this connector",
}

func (t *transport) log(j *job, peer string, answers []reply.Answer, verdicts []reply.Verdict) {
	for i, answer := range answers {
		if i > 0 && answer.String() == answers[i-1].String() {
			continue // one line for all who got the same answer
		}
		log := t.d.log.Info
		if verdicts[i].Class == reply.Permanent {
			log = t.d.log.Error
		}
		log(outcomeWords[verdicts[i].Class], "message", j.id, "device", j.device, "connector", t.name, "recipient", j.Recipients[i],
			"recipients", len(j.Recipients), "attempt", j.attempts, "peer", peer, "reply", answer.String())
	}
}
