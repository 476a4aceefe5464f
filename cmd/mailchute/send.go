package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mailchute/appliance/api"
	"mailchute/appliance/trace"
)

type sendCommand struct {
	To        string        `arg:"" help:"Recipient of the test message."`
	From      string        `help:"Sender; without it, postmaster at the first accepted domain." placeholder:"ADDRESS"`
	Connector string        `help:"Connector to go by, instead of the one the settings choose." placeholder:"NAME"`
	Timeout   time.Duration `help:"How long to wait for the outcome." default:"1m"`
}

// pollInterval is how often the box is asked what has become of the message.
const pollInterval = 200 * time.Millisecond

func (c *sendCommand) Run(ctx context.Context, terminal *terminal, box *api.Client) error {
	handed, err := box.Send(ctx, api.TestMessage{From: c.From, To: c.To, Connector: c.Connector})
	if err != nil {
		return err
	}
	follow := follower{terminal: terminal, box: box, id: handed.ID}
	if err := follow.printf("Message %s is handed in.\n", handed.ID); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		// Asked with the command's own context, so that a look is never cut short by the timeout.
		ended, err := follow.look(ctx)
		if ended || err != nil {
			return err
		}
		select {
		case <-waiting.Done():
			return follow.timeout(ctx, c.Timeout)
		case <-ticker.C:
		}
	}
}

// follower shows the steps of a message as they are made.
type follower struct {
	terminal *terminal
	box      *api.Client
	id       trace.ID
	shown    int // steps shown, those skipped included
}

func (f *follower) printf(format string, values ...any) error {
	if f.terminal.json {
		return nil
	}
	_, err := fmt.Fprint(f.terminal.out, clean(fmt.Sprintf(format, values...)))
	return err
}

// look shows what is new. It has ended where nothing more is to come without an administrator; the error then
// is not nil unless all is sent.
func (f *follower) look(ctx context.Context) (ended bool, err error) {
	record, err := f.box.Record(ctx, f.id)
	if err != nil {
		return true, err
	}
	if err := f.show(&record); err != nil {
		return true, err
	}
	if slices.ContainsFunc(record.Recipients, func(r trace.Recipient) bool { return r.State == trace.Waiting }) {
		return f.held(ctx, &record, record.Accepted)
	}
	if f.terminal.json {
		err = f.terminal.printJSON(record)
	}
	if err == nil && slices.ContainsFunc(record.Recipients, func(r trace.Recipient) bool { return r.State != trace.Sent }) {
		err = f.failed(failures(&record))
	}
	if err == nil {
		err = f.printf("Sent.\n")
	}
	return true, err
}

func (f *follower) show(record *trace.Record) error {
	var p page
	total := record.Skipped + len(record.Events)
	for i := max(f.shown-record.Skipped, 0); i < len(record.Events); i++ {
		p.event(f.terminal, &record.Events[i])
	}
	f.shown = total
	return f.printf("%s", p.String())
}

// held ends the wait for a message that is on hold, itself or by its connector or sender, and says why. A hold that no
// attempt since has confirmed does not count: what it says may have been mended.
func (f *follower) held(ctx context.Context, record *trace.Record, since time.Time) (ended bool, err error) {
	status, err := f.box.Status(ctx)
	if err != nil {
		return true, err
	}
	status.Connectors = slices.DeleteFunc(status.Connectors, func(c api.Connector) bool { return c.Tried.Before(since) })
	status.HeldSenders = slices.DeleteFunc(status.HeldSenders, func(s api.HeldSender) bool { return s.Tried.Before(since) })
	message, err := f.box.Message(ctx, f.id)
	if answered := (*api.Error)(nil); errors.As(err, &answered) && answered.Status == 404 {
		return false, nil // it has just left the queue: the next look tells
	}
	if err != nil {
		return true, err
	}
	why := ""
	if held := heldBy(record, &status); held != "" {
		why = "It stays in the queue: " + held + ".\n" + f.reason(record, &status)
	} else if message.Hold != nil {
		var p page
		p.line("It is held by %s.", message.Hold.By)
		p.text("  ", "Why: ", message.Hold.Why)
		why = p.String()
	}
	if why == "" {
		return false, nil
	}
	if f.terminal.json {
		if err := f.terminal.printJSON(record); err != nil {
			return true, err
		}
	}
	return true, f.failed(why)
}

// reason is the reply, cause and fix of the connector or sender that is on hold.
func (f *follower) reason(record *trace.Record, status *api.Status) string {
	for _, connector := range status.Connectors {
		for _, recipient := range record.Recipients {
			if connector.Name == recipient.Connector && connector.State == api.ConnectorHeld {
				return verdict("  ", connector.Reply, connector.Cause, connector.Fix)
			}
		}
	}
	for _, held := range status.HeldSenders {
		if held.Sender == record.Sender {
			return verdict("  ", held.Reply, held.Cause, held.Fix)
		}
	}
	return ""
}

func (f *follower) failed(text string) error {
	if err := f.printf("Not sent.\n%s", text); err != nil {
		return err
	}
	return errShown
}

// timeout says that the time is over, and what is known.
func (f *follower) timeout(ctx context.Context, timeout time.Duration) error {
	if ctx.Err() != nil { // interrupted
		return fmt.Errorf("message %s is in the queue; mailchute trace %s tells what has become of it", f.id, f.id)
	}
	record, err := f.box.Record(ctx, f.id)
	if err != nil {
		return err
	}
	if ended, err := f.held(ctx, &record, time.Time{}); ended {
		return err
	}
	if f.terminal.json {
		if err := f.terminal.printJSON(record); err != nil {
			return err
		}
	}
	return fmt.Errorf("message %s is not delivered after %s; it stays in the queue and is tried again; mailchute trace %s tells what has become of it", f.id, timeout, f.id)
}
