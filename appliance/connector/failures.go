package connector

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"

	"mailchute/appliance/reply"
	"mailchute/appliance/smtpclient"
)

// failures are the addresses of a host that were tried in vain.
type failures struct {
	host  string
	tried []failure
	best  int // the one that got farthest
}

type failure struct {
	target netip.AddrPort
	answer reply.Answer
}

// order is how far a connection gets.
var order = []reply.Stage{reply.Connect, reply.Banner, reply.Hello, reply.StartTLS, reply.TLS, reply.Auth}

func (f *failures) add(target netip.AddrPort, answer reply.Answer) {
	f.tried = append(f.tried, failure{target, answer})
	last := len(f.tried) - 1
	if slices.Index(order, answer.Stage) > slices.Index(order, f.tried[f.best].answer.Stage) {
		f.best = last
	}
}

// error is the answer of the address that got farthest, with all that were tried as its Err.
func (f *failures) error() error {
	answer := f.tried[f.best].answer
	return &smtpclient.Error{Answer: reply.Answer{
		Stage: answer.Stage,
		Reply: answer.Reply,
		Err:   &UnreachableError{text: f.String(), err: answer.Err},
	}}
}

// UnreachableError names the addresses of a host that were tried, each with where and how it failed. It wraps the
// error of the one that got farthest; where that was a reply, it wraps none.
type UnreachableError struct {
	text string
	err  error
}

func (e *UnreachableError) Error() string { return e.text }
func (e *UnreachableError) Unwrap() error { return e.err }

// String lists them: "mx.contoso.com: 192.0.2.1:25 at connect: connection refused; 192.0.2.2:25 at banner: 554 No".
// The reply that is the answer itself is not repeated.
func (f *failures) String() string {
	var text strings.Builder
	text.WriteString(f.host)
	for at, failed := range f.tried {
		separator := "; "
		if at == 0 {
			separator = ": "
		}
		text.WriteString(separator + failed.target.String() + " at " + string(failed.answer.Stage))
		if at != f.best || failed.answer.Err != nil {
			text.WriteString(": " + brief(failed.answer))
		}
	}
	return text.String()
}

// brief leaves out the address that the net package repeats in its errors.
func brief(answer reply.Answer) string {
	var operation *net.OpError
	if answer.Reply.Code == 0 && errors.As(answer.Err, &operation) && operation.Op == "dial" && operation.Err != nil {
		return operation.Err.Error()
	}
	return answer.String()
}
