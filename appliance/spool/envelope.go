// Package spool is the durable queue: bodies, envelopes and what became of them, in one bbolt file. What
// Accept has returned nil for survives a power cut.
package spool

import (
	"errors"
	"time"

	"mailchute/appliance/trace"
)

// Envelope is all the box knows of a queued message but its body. It is stored as JSON, whole, in one
// record; writing it is what accepts the message.
type Envelope struct {
	trace.Record
	EightBit bool          `json:"eight_bit,omitempty"` // the body has bytes above 127
	UTF8     bool          `json:"utf8,omitempty"`      // an address or a header field is not ASCII: needs SMTPUTF8
	Via      string        `json:"via,omitempty"`       // the connector a test message is for, whatever the routes say
	Legs     []Leg         `json:"legs,omitempty"`      // one a connector that still has a recipient waiting
	Hold     *Hold         `json:"hold,omitempty"`      // set: not delivered until released
	Held     time.Duration `json:"held,omitempty"`      // time spent on earlier holds, which does not count towards giving up
	Since    time.Time     `json:"since,omitzero"`      // set: an administrator had it tried anew then; giving up counts from here
}

// Leg is a message's way by one connector.
type Leg struct {
	Connector string    `json:"connector"` // empty: no connector takes these recipients
	Attempts  int       `json:"attempts"`  // on record, the running one included
	Next      time.Time `json:"next"`      // next attempt, not before
}

// Hold says who put a message on hold, when, and why.
type Hold struct {
	By    string    `json:"by"`
	Since time.Time `json:"since"`
	Why   string    `json:"why,omitempty"`
}

var (
	// ErrFull: the queue has reached its ceiling or the disk is full. Mail is refused with 452 4.3.1; what is
	// queued goes on being delivered.
	ErrFull = errors.New("the queue is full")
	// ErrNotFound: no message with this id is in the queue.
	ErrNotFound = errors.New("no such message in the queue")
	// ErrBusy: the message is being delivered at this moment and cannot be changed.
	ErrBusy = errors.New("the message is being delivered at this moment")
	// ErrDamaged: a chunk of the body is missing or its checksum is wrong.
	ErrDamaged = errors.New("the stored body is damaged")
	// ErrClosed: the box is stopping.
	ErrClosed = errors.New("the queue is closed")
)
