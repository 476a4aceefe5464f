// Package trace keeps what happened to each message: one record a message, found by id, address,
// device and time, for 30 days or 200 MB. Strangers who were refused are counted beside it.
package trace

import (
	"fmt"
	"strings"
	"time"
)

// ID names a message for as long as the box lives: microseconds since 1970 when it was handed in, made
// unique by counting on. Ids sort by time. As text it is 11 digits of Crockford's base 32, which sort too.
type ID uint64

const digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

const idLength = 11

// String gives the 11 digits; ids beyond 2^55 (the year 3111) are not made.
func (id ID) String() string {
	var text [idLength]byte
	for i := idLength - 1; i >= 0; i-- {
		text[i] = digits[id&31]
		id >>= 5
	}
	return string(text[:])
}

// ParseID reads what String wrote, in either case.
func ParseID(text string) (ID, error) {
	if len(text) != idLength {
		return 0, fmt.Errorf("message id %q: %d characters, a message id has %d", text, len(text), idLength)
	}
	var id ID
	for i := range idLength {
		digit := text[i]
		if 'a' <= digit && digit <= 'z' {
			digit -= 'a' - 'A'
		}
		value := strings.IndexByte(digits, digit)
		if value < 0 {
			return 0, fmt.Errorf("message id %q: %q is not a digit of a message id (0-9, A-Z without I, L, O, U)", text, text[i:i+1])
		}
		id = id<<5 | ID(value)
	}
	return id, nil
}

// Time tells when the message with this id began to be handed in, to the microsecond.
func (id ID) Time() time.Time { return time.UnixMicro(int64(id)) }

// IDAt is the lowest id a message handed in at t can have.
func IDAt(t time.Time) ID { return ID(max(t.UnixMicro(), 0)) }

func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// State is what became of a message for one recipient.
type State string

const (
	Waiting State = "waiting" // still to be delivered
	Sent    State = "sent"    // the cloud endpoint has taken it
	Failed  State = "failed"  // refused for good or expired; kept until an administrator acts
	Deleted State = "deleted" // deleted by a named administrator
)

// Recipient is one address of the envelope and what became of it.
type Recipient struct {
	Address   string `json:"address"`
	State     State  `json:"state"`
	Connector string `json:"connector,omitempty"` // the one it goes or went through; empty: none takes it
	Reply     string `json:"reply,omitempty"`     // the last answer about it, in full
	Cause     string `json:"cause,omitempty"`     // what that answer means
	Fix       string `json:"fix,omitempty"`       // what to do about it
}

// Kind says what an event is.
type Kind string

const (
	Accepted  Kind = "accepted"  // the box answered 250 to the device
	Attempted Kind = "attempted" // an attempt is on record; the connection is dialled after this
	Delivered Kind = "delivered" // taken by the endpoint for the recipients named
	Deferred  Kind = "deferred"  // refused for now, or the attempt failed
	Refused   Kind = "refused"   // refused for good
	Expired   Kind = "expired"   // given up
	Held      Kind = "held"      // put on hold by an administrator, or with its sender
	Released  Kind = "released"  // taken off hold, or asked to be tried now
	Removed   Kind = "removed"   // deleted by an administrator
	Salvaged  Kind = "salvaged"  // read out of a damaged queue file
	Lost      Kind = "lost"      // could not be read out of it whole
)

// Event is one step of a message.
type Event struct {
	Time       time.Time `json:"time"`
	Kind       Kind      `json:"kind"`
	Connector  string    `json:"connector,omitempty"`
	Peer       string    `json:"peer,omitempty"`       // host, address and TLS of the endpoint that answered
	Recipients []string  `json:"recipients,omitempty"` // whom it concerns; empty: all
	Reply      string    `json:"reply,omitempty"`      // the answer in full, or the error
	Class      string    `json:"class,omitempty"`      // class of the reply
	Text       string    `json:"text,omitempty"`       // anything else a person should know: who did it, why
	Next       time.Time `json:"next,omitzero"`        // next attempt, where there is one
}

// Record is the story of one message. While the message is in the queue it is part of its envelope;
// when the last recipient is done it moves to the trace.
type Record struct {
	ID         ID          `json:"id"`
	Accepted   time.Time   `json:"accepted"`
	Device     string      `json:"device"`         // name of the device entry that covers the client
	Client     string      `json:"client"`         // its address, without port
	Listener   string      `json:"listener"`       // address of the listener it came in by
	Helo       string      `json:"helo,omitempty"` // as the device said it
	TLS        string      `json:"tls,omitempty"`  // version and cipher suite; empty: plain
	Sender     string      `json:"sender"`         // of the envelope; empty: the null sender
	Recipients []Recipient `json:"recipients"`
	MessageID  string      `json:"message_id,omitempty"`
	Subject    string      `json:"subject,omitempty"` // the first 200 bytes, decoded
	Size       int64       `json:"size"`              // bytes, as stored, line ends CRLF
	Events     []Event     `json:"events"`
	Skipped    int         `json:"skipped,omitempty"` // events left out of the middle, see Add
	Done       time.Time   `json:"done,omitzero"`     // when it left the queue
}

// A message keeps its first events and its last; what lies between is counted.
const (
	FirstEvents = 10
	LastEvents  = 40
)

// Add appends an event, and drops the oldest one of the middle when there are more than 50.
func (r *Record) Add(event Event) {
	r.Events = append(r.Events, event)
	if len(r.Events) > FirstEvents+LastEvents {
		r.Events = append(r.Events[:FirstEvents], r.Events[FirstEvents+1:]...)
		r.Skipped++
	}
}
