package smtpclient

import (
	"context"

	"mailchute/appliance/reply"
)

// Verify asks whether the server takes mail from sender to recipient, without sending any: MAIL, RCPT, RSET. The
// answer is the first refusal or error, or else the one to RCPT. It may be called between Open and Run, not during
// Run; when ctx ends, or after an error, the connection is closed.
func (c *Conn) Verify(ctx context.Context, sender, recipient string) reply.Answer {
	probe := &Transaction{Sender: sender, Recipients: []string{recipient}}
	if refusal, ok := c.peer.admit(probe); !ok {
		return refusal
	}
	if refusal, ok := admitRecipient(recipient); !ok {
		return refusal
	}
	answer := reply.Answer{Stage: reply.Mail}
	step := func(stage reply.Stage, command string) error {
		r, err := c.ask(stage, command)
		if err == nil {
			answer = reply.Answer{Stage: stage, Reply: r}
		}
		return err
	}
	err := c.during(ctx, func() error {
		parameters := ""
		if needsUTF8(probe) {
			parameters = " SMTPUTF8"
		}
		if err := step(reply.Mail, "MAIL FROM:<"+sender+">"+parameters); err != nil {
			return err
		}
		if answer.Reply.Positive() {
			if err := step(reply.Rcpt, "RCPT TO:<"+recipient+">"); err != nil {
				return err
			}
		}
		if answer.Reply.Code == 421 {
			return &Error{answer}
		}
		if !answer.Reply.Positive() && !answer.Reply.Refused() {
			answer.Err = reply.ErrOutOfStep
			return &Error{answer}
		}
		if r, err := c.ask(reply.Reset, "RSET"); err != nil {
			return err
		} else if !r.Positive() {
			return c.refused(reply.Reset, r)
		}
		return nil
	})
	if err != nil {
		c.Close()
		if failed, ok := err.(*Error); ok && answer.Stage != reply.Rcpt && !answer.Reply.Refused() {
			return failed.Answer
		}
	}
	return answer
}
