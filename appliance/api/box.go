// Package api is the box's HTTP interface under /api/v1 (JSON; errors as RFC 9457 problems), served on
// control.sock in the state folder, and the client that the commands use.
package api

import (
	"context"
	"errors"
	"io"
	"time"

	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// Box is what the API asks of the running box. "by" names the administrator: the user at the other end of the
// socket.
//
// Errors that wrap spool.ErrNotFound, spool.ErrBusy, spool.ErrFull, spool.ErrClosed or ErrInvalid become the
// status that fits; any other is a fault of the box (500). Their text is shown to the administrator.
type Box interface {
	// Status tells how the box is, at this moment, from memory.
	Status() Status
	// Queue lists messages of the queue, the oldest first, at most query.Limit (always set, 1 to MaxLimit).
	Queue(ctx context.Context, query QueueQuery) ([]spool.Envelope, error)
	// Message gives the envelope of a queued message.
	Message(id trace.ID) (spool.Envelope, error)
	// Body opens a queued message as it would be sent (RFC 5322, line ends CRLF). The caller closes it.
	Body(id trace.ID) (io.ReadCloser, error)

	// Retry makes the selected messages due now; a held connector they go by is probed at once.
	Retry(ctx context.Context, selected Selection, by string) (changed int, err error)
	// Hold keeps the selected messages from being delivered until they are released. Why may be empty.
	Hold(ctx context.Context, selected Selection, by, why string) (changed int, err error)
	// Release takes the selected messages off hold, whether held by hand or with their sender, and makes them
	// due now.
	Release(ctx context.Context, selected Selection, by string) (changed int, err error)
	// Delete ends the selected messages; the trace shows who did it. Of a selection by ids that are not all
	// there, or busy, the others are still changed, counted, and the error names what was left out.
	Delete(ctx context.Context, selected Selection, by string) (changed int, err error)

	// Trace finds records in queue and trace, the newest first, at most query.Limit (always set).
	Trace(ctx context.Context, query trace.Query) ([]trace.Record, error)
	// Record tells the story of one message, whether it is still in the queue or not.
	Record(id trace.ID) (trace.Record, error)
	// Strangers lists who was refused, the last seen first.
	Strangers() []trace.Stranger

	// Send hands in a test message through the real way, and gives its id once it is in the queue.
	Send(ctx context.Context, message TestMessage, by string) (trace.ID, error)

	// Settings gives the text of config.toml as it is on disk.
	Settings() (string, error)
	// CheckSettings finds what is wrong with a text that is to become config.toml. An error with Problems
	// lists it.
	CheckSettings(text string) error
	// Reload applies config.toml. Where it is invalid, the error lists the problems and the settings in use stay.
	Reload(ctx context.Context, by string) error
}

// ErrInvalid: what was asked for cannot be, as the text says: an address that is none, a connector that is not set up.
var ErrInvalid = errors.New("not possible")

// Status is how the box is.
type Status struct {
	Version  string    `json:"version"`
	Hostname string    `json:"hostname"`
	Started  time.Time `json:"started"`
	Applied  time.Time `json:"applied"` // when the settings in use were applied
	// Flowing: devices can hand in mail, and no connector or sender is on hold.
	Flowing bool `json:"flowing"`
	// Problems an administrator should act on, the worst first.
	Problems []Problem `json:"problems"`

	Listeners      []Listener    `json:"listeners"`
	Connections    int           `json:"connections"` // devices connected at this moment
	MaxConnections int           `json:"max_connections"`
	Queue          QueueStatus   `json:"queue"`
	Disk           Disk          `json:"disk"`
	Connectors     []Connector   `json:"connectors"`
	HeldSenders    []HeldSender  `json:"held_senders"`
	Strangers      int           `json:"strangers"` // addresses on the list of refused strangers
	Certificates   []Certificate `json:"certificates"`
	Counted        Counted       `json:"counted"`
}

// Problem is something wrong, and what to do about it.
type Problem struct {
	What string `json:"what"`
	Fix  string `json:"fix,omitempty"`
}

// Listener is one address devices can connect to.
type Listener struct {
	Address string `json:"address"`
	TLS     string `json:"tls"`             // none | starttls | implicit
	Error   string `json:"error,omitempty"` // why it does not listen; empty: it does
}

// QueueStatus counts the messages in the queue. One with a recipient that failed and one that waits counts
// in both.
type QueueStatus struct {
	Messages int       `json:"messages"`
	Bytes    int64     `json:"bytes"`
	Waiting  int       `json:"waiting"`
	Held     int       `json:"held"`   // by an administrator
	Failed   int       `json:"failed"` // with a recipient refused for good
	Running  int       `json:"running"`
	Oldest   time.Time `json:"oldest,omitzero"` // when the oldest message was accepted
}

// Disk is the room the queue has.
type Disk struct {
	Path  string `json:"path"`
	Size  int64  `json:"size"`  // bytes of the file system
	Free  int64  `json:"free"`  // bytes of it that mailchute may still use
	Used  int64  `json:"used"`  // bytes of mail in the queue
	Limit int64  `json:"limit"` // bytes of mail the queue may hold
}

// Connector states.
const (
	ConnectorOK   = "ok"
	ConnectorHeld = "held"
)

// Connector is one way to a cloud endpoint, and how it is.
type Connector struct {
	Name        string    `json:"name"`
	Host        string    `json:"host"` // with its port
	State       string    `json:"state"`
	Since       time.Time `json:"since,omitzero"`  // held: since when
	Tried       time.Time `json:"tried,omitzero"`  // held: when the last attempt failed
	Reply       string    `json:"reply,omitempty"` // held: the answer that did it, in full, or the error
	Cause       string    `json:"cause,omitempty"` // what it means
	Fix         string    `json:"fix,omitempty"`   // what to do about it
	Probe       time.Time `json:"probe,omitzero"`  // held: the next probe
	Waiting     int       `json:"waiting"`         // messages that wait for it
	Connections int       `json:"connections"`     // open at this moment
	LastSent    time.Time `json:"last_sent,omitzero"`
}

// HeldSender is a sender whose mail a connector's endpoint refused as a whole.
type HeldSender struct {
	Connector string    `json:"connector"`
	Sender    string    `json:"sender"`
	Since     time.Time `json:"since"`
	Tried     time.Time `json:"tried,omitzero"` // when the last attempt failed
	Messages  int       `json:"messages"`
	Reply     string    `json:"reply,omitempty"`
	Cause     string    `json:"cause,omitempty"`
	Fix       string    `json:"fix,omitempty"`
	Probe     time.Time `json:"probe,omitzero"`
}

// Certificate is one the box shows: to devices, or to a cloud endpoint.
type Certificate struct {
	Name    string    `json:"name"`    // of the files in certs/
	Used    string    `json:"used"`    // "devices", or "connector NAME"
	Subject string    `json:"subject"` // common name, or the first name it is for
	Expires time.Time `json:"expires"`
}

// Counted is what happened since the box was started.
type Counted struct {
	Accepted uint64 `json:"accepted"` // messages
	Sent     uint64 `json:"sent"`     // recipients taken by an endpoint
	Deferred uint64 `json:"deferred"` // attempts, by recipient
	Failed   uint64 `json:"failed"`   // recipients refused for good or given up
}

// QueueState is how a queued message is.
type QueueState string

const (
	QueueWaiting QueueState = "waiting" // not held, with a recipient still to be delivered
	QueueHeld    QueueState = "held"    // by an administrator
	QueueFailed  QueueState = "failed"  // with a recipient refused for good or given up
)

// How many messages one answer holds.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// QueueQuery says which messages of the queue are wanted. An empty field asks nothing; all that are set must
// hold. Addresses are "anna@contoso.com", or "@contoso.com" for a whole domain.
type QueueQuery struct {
	State     QueueState `json:"state,omitempty" enum:"waiting,held,failed"`
	Connector string     `json:"connector,omitempty" maxLength:"200"`
	Device    string     `json:"device,omitempty" maxLength:"200"`
	Sender    string     `json:"sender,omitempty" maxLength:"320"`
	Recipient string     `json:"recipient,omitempty" maxLength:"320"`
	After     trace.ID   `json:"-"` // only newer ones: the last id of the page before
	Limit     int        `json:"-"`
}

// Selection says which messages an action is for: those with the ids, or, without ids, all that match the
// filter; an empty filter is every message. After and Limit of the filter are not asked.
type Selection struct {
	IDs    []trace.ID
	Filter QueueQuery
}

// TestMessage is a message the box makes itself, to see whether mail flows.
type TestMessage struct {
	From      string `json:"from,omitempty" maxLength:"320" doc:"sender; empty: postmaster at the first accepted domain"`
	To        string `json:"to" minLength:"3" maxLength:"320" doc:"recipient"`
	Connector string `json:"connector,omitempty" maxLength:"200" doc:"the connector to go by; empty: as routed"`
}
