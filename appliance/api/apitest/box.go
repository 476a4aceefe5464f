// Package apitest has a box for the tests of the API and of the commands: a queue and a trace in memory, and
// no mail.
package apitest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"mailchute/appliance/api"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// Box answers from its fields. A call is noted in Calls if it changes something.
type Box struct {
	mutex sync.Mutex

	State     api.Status
	Envelopes []spool.Envelope // ascending by id
	Bodies    map[trace.ID]string
	Records   []trace.Record // of messages that have left the queue
	Refused   []trace.Stranger
	Document  string
	Handed    func(*Box, trace.ID) // called when a test message has been handed in
	Asked     func(*Box)           // called when a record is asked for
	Err       error                // what every call that can fail fails with; nil: none
	Faults    error                // what is wrong with any settings
	Calls     []string
}

var _ api.Box = (*Box)(nil)

func (b *Box) note(format string, values ...any) {
	b.Calls = append(b.Calls, fmt.Sprintf(format, values...))
}

// Called gives the calls so far.
func (b *Box) Called() []string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return slices.Clone(b.Calls)
}

func (b *Box) Status() api.Status {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.State
}

func (b *Box) Queue(_ context.Context, query api.QueueQuery) ([]spool.Envelope, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	var found []spool.Envelope
	for _, envelope := range b.Envelopes {
		if query.Match(&envelope) && len(found) < query.Limit {
			found = append(found, envelope)
		}
	}
	return found, b.Err
}

func (b *Box) Message(id trace.ID) (spool.Envelope, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.Err != nil {
		return spool.Envelope{}, b.Err
	}
	for _, envelope := range b.Envelopes {
		if envelope.ID == id {
			return envelope, nil
		}
	}
	return spool.Envelope{}, fmt.Errorf("message %s: %w", id, spool.ErrNotFound)
}

func (b *Box) Body(id trace.ID) (io.ReadCloser, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return &body{rest: b.Bodies[id]}, nil
}

// body ends in damage at a NUL.
type body struct{ rest string }

func (b *body) Read(p []byte) (int, error) {
	if strings.HasPrefix(b.rest, "\x00") {
		return 0, spool.ErrDamaged
	}
	if b.rest == "" {
		return 0, io.EOF
	}
	sound, _, _ := strings.Cut(b.rest, "\x00")
	n := copy(p, sound)
	b.rest = b.rest[n:]
	return n, nil
}

func (b *body) Close() error { return nil }

// change applies act to the selected messages; act tells whether the message stays.
func (b *Box) change(selected api.Selection, act func(*spool.Envelope) bool) (int, error) {
	if b.Err != nil {
		return 0, b.Err
	}
	changed := 0
	wanted := slices.Clone(selected.IDs)
	b.Envelopes = slices.DeleteFunc(b.Envelopes, func(envelope spool.Envelope) bool {
		if len(selected.IDs) == 0 && !selected.Filter.Match(&envelope) || len(selected.IDs) > 0 && !slices.Contains(wanted, envelope.ID) {
			return false
		}
		wanted = slices.DeleteFunc(wanted, func(id trace.ID) bool { return id == envelope.ID })
		changed++
		return !act(&envelope)
	})
	var errs []error
	for _, id := range wanted {
		errs = append(errs, fmt.Errorf("message %s: %w", id, spool.ErrNotFound))
	}
	return changed, errors.Join(errs...)
}

func (b *Box) Retry(_ context.Context, selected api.Selection, by string) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.note("retry %v by %s", selected, by)
	return b.change(selected, func(*spool.Envelope) bool { return true })
}

func (b *Box) Hold(_ context.Context, selected api.Selection, by, why string) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.note("hold %v by %s: %s", selected, by, why)
	return b.change(selected, func(*spool.Envelope) bool { return true })
}

func (b *Box) Release(_ context.Context, selected api.Selection, by string) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.note("release %v by %s", selected, by)
	return b.change(selected, func(*spool.Envelope) bool { return true })
}

func (b *Box) Delete(_ context.Context, selected api.Selection, by string) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.note("delete %v by %s", selected, by)
	return b.change(selected, func(*spool.Envelope) bool { return false })
}

func (b *Box) Trace(_ context.Context, query trace.Query) ([]trace.Record, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	var found []trace.Record
	for _, record := range b.all() {
		if query.Match(&record) && len(found) < query.Limit {
			found = append(found, record)
		}
	}
	return found, b.Err
}

func (b *Box) Record(id trace.ID) (trace.Record, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	if b.Err != nil {
		return trace.Record{}, b.Err
	}
	if b.Asked != nil {
		b.Asked(b)
	}
	for _, record := range b.all() {
		if record.ID == id {
			return record, nil
		}
	}
	return trace.Record{}, fmt.Errorf("message %s: %w", id, trace.ErrNotFound)
}

// all gives the records of queue and trace, the newest first.
func (b *Box) all() []trace.Record {
	records := slices.Clone(b.Records)
	for _, envelope := range b.Envelopes {
		records = append(records, envelope.Record)
	}
	slices.SortFunc(records, func(a, b trace.Record) int { return int(int64(b.ID) - int64(a.ID)) })
	return records
}

func (b *Box) Strangers() []trace.Stranger { return b.Refused }

func (b *Box) Send(_ context.Context, message api.TestMessage, by string) (trace.ID, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.note("send %+v by %s", message, by)
	if b.Err != nil {
		return 0, b.Err
	}
	accepted := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	id := trace.IDAt(accepted)
	b.Envelopes = append(b.Envelopes, spool.Envelope{Record: trace.Record{
		ID: id, Accepted: accepted, Device: "mailchute", Client: "127.0.0.1", Sender: message.From, Subject: "Test", Size: 400,
		Recipients: []trace.Recipient{{Address: message.To, State: trace.Waiting, Connector: "m365"}},
		Events:     []trace.Event{{Time: accepted, Kind: trace.Accepted}},
	}})
	if b.Handed != nil {
		b.Handed(b, id)
	}
	return id, nil
}

func (b *Box) Settings() (string, error) { return b.Document, b.Err }

func (b *Box) CheckSettings(string) error { return b.Faults }

func (b *Box) Reload(_ context.Context, by string) error {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.note("reload by %s", by)
	return b.Faults
}
