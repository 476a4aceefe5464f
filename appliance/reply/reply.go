// Package reply knows what an SMTP reply means: its class, whose fault it is and what to do about it.
package reply

import (
	"strconv"
	"strings"
)

// Reply is a server's answer to one command (RFC 5321 section 4.2, RFC 2034).
type Reply struct {
	Code     int      // three digits; 0: none
	Enhanced string   // "5.7.64"; empty where the server gave none
	Lines    []string // the text of each line, without code, enhanced code and line end
}

// String gives the reply in full on one line: "550 5.7.64 TenantAttribution; Relay Access Denied". The lines of
// a longer reply are joined by a space. It is empty where there is no reply.
func (r Reply) String() string {
	if r.Code == 0 {
		return ""
	}
	var text strings.Builder
	text.WriteString(strconv.Itoa(r.Code))
	if r.Enhanced != "" {
		text.WriteByte(' ')
		text.WriteString(r.Enhanced)
	}
	for _, line := range r.Lines {
		if line != "" {
			text.WriteByte(' ')
			text.WriteString(line)
		}
	}
	return text.String()
}

// Positive tells whether the command was done (2yz, RFC 5321 section 4.2.1).
func (r Reply) Positive() bool { return r.Code/100 == 2 }

// Refused tells whether the command was refused, for now (4yz) or for good (5yz).
func (r Reply) Refused() bool { return r.Code/100 == 4 || r.Code/100 == 5 }

// Stage is the step of a conversation an answer belongs to.
type Stage string

const (
	Resolve  Stage = "resolve"  // looking up the host's addresses
	Connect  Stage = "connect"  // TCP
	Banner   Stage = "banner"   // the server's 220
	Hello    Stage = "hello"    // EHLO or HELO
	StartTLS Stage = "starttls" // the STARTTLS command
	TLS      Stage = "tls"      // handshake and verification
	Auth     Stage = "auth"
	Mail     Stage = "mail"
	Rcpt     Stage = "rcpt"
	Data     Stage = "data"  // the answer to DATA, 354 or not, and the body on its way
	Final    Stage = "final" // the answer after the body
	Reset    Stage = "reset"
	Quit     Stage = "quit"
)

// BeforeMail tells whether the stage lies before the first MAIL: a failure there says nothing about any one
// message and hits them all.
func (s Stage) BeforeMail() bool {
	switch s {
	case Resolve, Connect, Banner, Hello, StartTLS, TLS, Auth:
		return true
	}
	return false
}

// Answer is how one step ended: with the server's reply, or with the error that came instead of one. Where a
// server speaks and then the connection breaks, both are set.
type Answer struct {
	Stage Stage
	Reply Reply
	Err   error // nil: the reply stands
}

// String gives the reply in full and the error, whichever there are: "550 5.1.1 No such user", "read: connection
// reset by peer", "421 4.3.2 Closing (read: connection reset by peer)".
func (a Answer) String() string {
	switch {
	case a.Err == nil:
		return a.Reply.String()
	case a.Reply.Code == 0:
		return a.Err.Error()
	default:
		return a.Reply.String() + " (" + a.Err.Error() + ")"
	}
}

// Class says what an answer is about.
type Class string

const (
	Sent      Class = "sent"      // taken
	Temporary Class = "temporary" // retry this message with back-off
	Permanent Class = "permanent" // this recipient is done: tell a person
	Sender    Class = "sender"    // hold this sender's mail
	Connector Class = "connector" // hold everything that goes this way
)

// Fault says who has to act.
type Fault string

const (
	Nobody        Fault = "nobody"        // it passes by itself
	Device        Fault = "device"        // what the device sent
	Recipient     Fault = "recipient"     // the address or its mailbox
	Box           Fault = "box"           // Mailchute's own doing
	Administrator Fault = "administrator" // settings of the box or of the organisation's cloud account
	Network       Fault = "network"       // the way to the endpoint
	Cloud         Fault = "cloud"         // the endpoint or its operator
)

// Verdict is what an answer means.
type Verdict struct {
	Class  Class  `json:"class"`
	Code   string `json:"code"` // what the verdict was found by: "550 5.7.64", or "tls" for an error without a reply
	Fault  Fault  `json:"fault"`
	Cause  string `json:"cause"`             // what happened, for an administrator
	Fix    string `json:"fix"`               // what to do next; empty where nothing need be done
	Source string `json:"source"`            // where the row comes from
	SignIn bool   `json:"sign_in,omitempty"` // a refused sign-in: probed hourly, so that no account is locked
}
