package smtpclient

import (
	"errors"
	"fmt"
	"io"

	"mailchute/appliance/reply"
)

// flight is a transaction on its way: what was sent of it, and what the server said so far. Replies come in the
// order of the commands: RSET, MAIL, one RCPT a recipient, then either BDAT's, or DATA's and the final one.
type flight struct {
	t         *Transaction
	body      io.ReadCloser
	reset     bool // RSET goes before MAIL
	fresh     bool // nothing else was unanswered when it was taken, and the connection was not new
	pipelined bool // its commands do not wait for one another
	chunked   bool // BDAT, not DATA
	utf8      bool
	paths     []string // the recipients that are sent to the server
	launched  bool     // it was given to the wire, in part at least

	answers []reply.Answer // one a recipient; a zero one is open: neither refused nor final
	stage   reply.Stage    // what the next reply is about
	rcpt    int            // the recipient it is about, at stage Rcpt
	sent    int            // commands given to the buffer, a body with its command or dot
	said    int            // replies read
	ahead   bool           // 354 has come
	settled bool           // nothing more is to be heard about it
	failure error          // the body could not be sent
}

// How a connection ends from what the server says about a flight.
var (
	errClosing  = errors.New("the server is closing the connection")
	errEarly    = errors.New("the server refused the message before its end")
	errPipeline = fmt.Errorf("%w: it offers PIPELINING and answers 503 to pipelined commands", reply.ErrOutOfStep)
)

// start makes the flight ready for its first reply. Recipients that cannot be written to the wire are refused here.
func (f *flight) start() {
	f.answers = make([]reply.Answer, len(f.t.Recipients))
	f.paths = f.t.Recipients
	for at, recipient := range f.t.Recipients {
		if refusal, ok := admitRecipient(recipient); !ok {
			f.answers[at] = refusal
			f.paths = nil
		}
	}
	if f.paths == nil {
		for at, recipient := range f.t.Recipients {
			if isOpen(&f.answers[at]) {
				f.paths = append(f.paths, recipient)
			}
		}
	}
	f.stage = reply.Mail
	if f.reset {
		f.stage = reply.Reset
	}
}

// envelope counts the commands before the body.
func (f *flight) envelope() int {
	count := 1 + len(f.paths)
	if f.reset {
		count++
	}
	if !f.chunked {
		count++
	}
	return count
}

// open tells whether there is a recipient whose outcome is not known yet.
func (f *flight) open() bool {
	for at := range f.answers {
		if isOpen(&f.answers[at]) {
			return true
		}
	}
	return false
}

func isOpen(answer *reply.Answer) bool { return answer.Reply.Code == 0 && answer.Err == nil }

// settle gives all open recipients the same answer.
func (f *flight) settle(answer reply.Answer) {
	for at := range f.answers {
		if isOpen(&f.answers[at]) {
			f.answers[at] = answer
		}
	}
}

// taken tells whether the server took the message for anybody.
func (f *flight) taken() bool {
	for at := range f.answers {
		if f.answers[at].Stage == reply.Final && f.answers[at].Err == nil && f.answers[at].Reply.Positive() {
			return true
		}
	}
	return false
}

// onWire is the index of the first recipient from at on whose RCPT is sent; len(answers): none. The refusals of
// start are told apart by their stage: nobody else has one of Rcpt before its reply.
func (f *flight) onWire(at int) int {
	for at < len(f.answers) && f.answers[at].Stage == reply.Rcpt {
		at++
	}
	return at
}

// now is the stage for an answer that comes at this moment: a body on its way is not final.
func (f *flight) now() reply.Stage {
	if f.stage == reply.Final && f.said >= f.sent {
		return reply.Data
	}
	return f.stage
}

// hear takes the next reply. The error tells that the connection must end, and why; the flight then has the answers
// that are due to it, and those still open share the fate of the connection.
func (f *flight) hear(r reply.Reply) error {
	stage, early := f.now(), f.said >= f.sent
	f.said++
	switch {
	case r.Code == 421 && stage == reply.Reset:
		return errClosing // it says nothing about this message
	case r.Code == 421:
		f.settle(reply.Answer{Stage: stage, Reply: r})
		return errClosing
	case early && r.Refused():
		f.settle(reply.Answer{Stage: stage, Reply: r})
		return errEarly
	case early:
		return f.outOfStep(stage, r)
	case r.Code == 503 && f.pipelined && f.said > 1 && f.open():
		f.settle(reply.Answer{Stage: stage, Reply: r})
		return errPipeline
	case !r.Refused() && !r.Positive() && !(r.Code == 354 && stage == reply.Data),
		r.Positive() && stage == reply.Data:
		return f.outOfStep(stage, r)
	}
	switch answer := (reply.Answer{Stage: stage, Reply: r}); stage {
	case reply.Reset:
		if r.Refused() { // what follows could mix with the transaction before
			f.settle(answer)
			return fmt.Errorf("%w: RSET was refused", reply.ErrOutOfStep)
		}
		f.stage = reply.Mail
	case reply.Mail:
		f.stage, f.rcpt = reply.Rcpt, f.onWire(0)
		if r.Refused() {
			f.settle(answer)
			f.settled = !f.pipelined
		}
	case reply.Rcpt:
		if r.Refused() && isOpen(&f.answers[f.rcpt]) {
			f.answers[f.rcpt] = answer
		}
		if f.rcpt = f.onWire(f.rcpt + 1); f.rcpt == len(f.answers) {
			f.stage = reply.Data
			if f.chunked {
				f.stage = reply.Final
			}
			f.settled = !f.pipelined && !f.open()
		}
	case reply.Data:
		if r.Refused() {
			f.settle(answer)
			f.settled = true
		}
		f.ahead = !f.settled
		f.stage = reply.Final
	case reply.Final:
		f.settle(answer)
		f.settled = true
	}
	return nil
}

// outOfStep ends the connection: no reply after this one can be trusted to be about what it seems to be.
func (f *flight) outOfStep(stage reply.Stage, r reply.Reply) error {
	err := fmt.Errorf("%w: %d came at %s", reply.ErrOutOfStep, r.Code, stage)
	f.settle(reply.Answer{Stage: stage, Reply: r, Err: err})
	return err
}
