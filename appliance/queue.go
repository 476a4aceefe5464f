package appliance

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"mailchute/appliance/address"
	"mailchute/appliance/api"
	"mailchute/appliance/config"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// What the API asks about the queue.

func (b *box) Queue(_ context.Context, query api.QueueQuery) ([]spool.Envelope, error) {
	from := query.After
	if from != 0 {
		from++
	}
	found, err := b.spool.List(from, query.Limit, query.Match)
	list := make([]spool.Envelope, len(found))
	for i, e := range found {
		list[i] = *e
	}
	return list, err
}

func (b *box) Message(id trace.ID) (spool.Envelope, error) {
	e, err := b.spool.Get(id)
	if err != nil {
		return spool.Envelope{}, err
	}
	return *e, nil
}

func (b *box) Body(id trace.ID) (io.ReadCloser, error) {
	e, err := b.spool.Get(id)
	if err != nil {
		return nil, err
	}
	return b.spool.Body(id, e.Size), nil
}

func (b *box) Retry(ctx context.Context, selected api.Selection, by string) (int, error) {
	return b.change(ctx, selected, func(ids []trace.ID) (int, error) { return b.delivery.Retry(ids, by) })
}

func (b *box) Hold(ctx context.Context, selected api.Selection, by, why string) (int, error) {
	return b.change(ctx, selected, func(ids []trace.ID) (int, error) { return b.delivery.Hold(ids, by, why) })
}

func (b *box) Release(ctx context.Context, selected api.Selection, by string) (int, error) {
	return b.change(ctx, selected, func(ids []trace.ID) (int, error) { return b.delivery.Release(ids, by) })
}

func (b *box) Delete(ctx context.Context, selected api.Selection, by string) (int, error) {
	return b.change(ctx, selected, func(ids []trace.ID) (int, error) {
		n, err := b.delivery.Delete(ids, by)
		b.log.Info("messages deleted", "by", by, "count", n)
		return n, err
	})
}

// change does something to the messages selected: those with the ids, or page by page those that match the filter.
func (b *box) change(ctx context.Context, selected api.Selection, do func([]trace.ID) (int, error)) (changed int, err error) {
	if len(selected.IDs) > 0 {
		return do(selected.IDs)
	}
	const page = 500
	last, err := b.spool.Newest(0, 1, func(*spool.Envelope) bool { return true })
	if err != nil || len(last) == 0 {
		return 0, err
	}
	newest := last[0].ID // what comes in meanwhile was not meant
	for from := trace.ID(0); ctx.Err() == nil; {
		list, failed := b.spool.List(from, page, func(e *spool.Envelope) bool { return e.ID <= newest && selected.Filter.Match(e) })
		if failed != nil || len(list) == 0 {
			return changed, errors.Join(err, failed)
		}
		ids := make([]trace.ID, len(list))
		for i, e := range list {
			ids[i] = e.ID
		}
		n, failed := do(ids)
		changed += n
		if failed != nil && err == nil { // the first page of complaints is enough
			err = failed
		}
		from = ids[len(ids)-1] + 1
	}
	return changed, errors.Join(err, ctx.Err())
}

// Send puts a test message into the queue, to go the way that mail of devices goes. A way on hold is probed at once: what
// is asked is whether it works now.
func (b *box) Send(_ context.Context, test api.TestMessage, by string) (trace.ID, error) {
	b.mu.Lock()
	settings := b.settings
	b.mu.Unlock()
	if settings == nil {
		return 0, fmt.Errorf("%w: the box is not set up", api.ErrInvalid)
	}
	if test.From == "" {
		test.From = "postmaster@" + settings.AcceptedDomains[0]
	}
	from, err := address.ParseSender(test.From)
	if err != nil {
		return 0, fmt.Errorf("%w: from: %w", api.ErrInvalid, err)
	}
	to, err := address.Parse(test.To)
	if err != nil {
		return 0, fmt.Errorf("%w: to: %w", api.ErrInvalid, err)
	}
	if err := known(settings.Connectors, test.Connector); err != nil {
		return 0, err
	}
	if err := b.spool.Room(0); err != nil {
		return 0, err
	}
	now := time.Now()
	m := b.delivery.Create()
	defer m.Abort()
	id := fmt.Sprintf("<%s.%s@%s>", m.ID(), rand.Text(), settings.Hostname)
	subject := "Mailchute test " + m.ID().String()
	_, err = fmt.Fprintf(m, "Date: %s\r\nFrom: %s\r\nTo: %s\r\nSubject: %s\r\nMessage-ID: %s\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: text/plain; charset=us-ascii\r\n\r\n"+
		"This is a test of the mail relay %s.\r\nIt was asked for by %s.\r\nIf you can read this, mail flows.\r\n",
		now.Format("Mon, 02 Jan 2006 15:04:05 -0700"), from, to, subject, id, settings.Hostname, by)
	if err != nil {
		return 0, err
	}
	e := &spool.Envelope{
		Record: trace.Record{
			Accepted: now, Device: "mailchute", Client: "", Listener: api.SocketName, Sender: from.String(),
			Recipients: []trace.Recipient{{Address: to.String(), State: trace.Waiting}}, MessageID: id, Subject: subject,
		},
		Via:  test.Connector,
		UTF8: from.NeedsUTF8() || to.NeedsUTF8(),
	}
	e.Add(trace.Event{Time: now, Kind: trace.Accepted, Text: "a test message, asked for by " + by})
	if err := m.Accept(e); err != nil {
		return 0, err
	}
	b.delivery.Probe()
	return m.ID(), nil
}

func known(connectors []config.Connector, name string) error {
	var names []string
	for _, c := range connectors {
		if c.Name == name {
			return nil
		}
		names = append(names, c.Name)
	}
	if name == "" {
		return nil
	}
	return fmt.Errorf("%w: connector %q is not set up; there are: %q", api.ErrInvalid, name, names)
}

// Settings gives config.toml as it is on disk.
func (b *box) Settings() (string, error) {
	data, err := config.Read(b.settingsPath())
	return string(data), err
}

// CheckSettings finds what is wrong with a text.
func (b *box) CheckSettings(text string) error {
	_, err := config.Check(b.settingsPath(), []byte(text), b.options.State)
	return err
}
