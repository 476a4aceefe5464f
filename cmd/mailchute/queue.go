package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"mailchute/appliance/api"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

type queueCommands struct {
	List    queueList    `cmd:"" default:"withargs" help:"List messages, the oldest first; queue alone does it too."`
	Show    queueShow    `cmd:"" help:"Tell all about one message."`
	Retry   queueRetry   `cmd:"" help:"Try messages now; a connector on hold is probed."`
	Hold    queueHold    `cmd:"" help:"Keep messages from being delivered."`
	Release queueRelease `cmd:"" help:"Take messages off hold."`
	Delete  queueDelete  `cmd:"" help:"Delete messages for good; the trace keeps who did it."`
	Export  queueExport  `cmd:"" help:"Write a message as an .eml file."`
}

// filter is the options that narrow down the queue.
type filter struct {
	Is        string `help:"Only messages that are waiting, held or failed." placeholder:"STATE" enum:"waiting,held,failed," default:""`
	Connector string `help:"Only messages that go by this connector." placeholder:"NAME"`
	Device    string `help:"Only messages from this device." placeholder:"NAME"`
	Sender    string `help:"Only messages from this address, or @domain." placeholder:"ADDRESS"`
	Recipient string `help:"Only messages to this address, or @domain." placeholder:"ADDRESS"`
}

func (f *filter) query() api.QueueQuery {
	return api.QueueQuery{State: api.QueueState(f.Is), Connector: f.Connector, Device: f.Device, Sender: f.Sender, Recipient: f.Recipient}
}

type queueList struct {
	filter
	After string `help:"Only messages newer than this one: the next page." placeholder:"ID"`
	Limit int    `help:"Messages at most, up to 1000." default:"100"`
}

func (l *queueList) Run(ctx context.Context, terminal *terminal, box *api.Client) error {
	query := l.query()
	query.Limit = l.Limit
	var err error
	if l.After != "" {
		if query.After, err = trace.ParseID(l.After); err != nil {
			return usageError("%w", err)
		}
	}
	list, err := box.Queue(ctx, query)
	if err != nil {
		return err
	}
	if terminal.json {
		return terminal.printJSON(list)
	}
	if len(list.Messages) == 0 {
		_, err := fmt.Fprintln(terminal.out, "No messages.")
		return err
	}
	status, err := box.Status(ctx)
	if err != nil {
		return err
	}
	var p page
	rows, notes := [][]string{{"MESSAGE", "HANDED IN", "DEVICE", "FROM", "TO", "SIZE", "STATE"}}, map[int]string{}
	for i := range list.Messages {
		message := &list.Messages[i]
		notes[len(rows)] = failures(&message.Record)
		rows = append(rows, []string{message.ID.String(), terminal.moment(message.Accepted), message.Device, sender(message.Sender),
			first(addresses(&message.Record)), size(message.Size), queueState(terminal, message, &status)})
	}
	p.table("", rows, notes)
	if list.Next != 0 {
		p.line("\nThere are more: --after %s", list.Next)
	}
	return p.print(terminal.out)
}

// queueState says in a line how a message is, and what it waits for.
func queueState(terminal *terminal, message *spool.Envelope, status *api.Status) string {
	var says []string
	for _, state := range api.States(message) {
		switch state {
		case api.QueueHeld:
			says = append(says, "held by "+message.Hold.By)
		case api.QueueFailed:
			says = append(says, "failed")
		case api.QueueWaiting:
			if held := heldBy(&message.Record, status); held != "" {
				says = append(says, "waiting: "+held)
			} else if len(message.Legs) > 0 {
				next := message.Legs[0].Next
				for _, leg := range message.Legs {
					if leg.Next.Before(next) {
						next = leg.Next
					}
				}
				says = append(says, "waiting, next attempt "+terminal.until(next))
			} else {
				says = append(says, "waiting")
			}
		}
	}
	return strings.Join(says, ", ")
}

// heldBy says what keeps a message from being delivered beside itself: its connector, or its sender; empty: nothing.
func heldBy(record *trace.Record, status *api.Status) string {
	for _, recipient := range record.Recipients {
		if recipient.State != trace.Waiting {
			continue
		}
		for _, connector := range status.Connectors {
			if connector.Name == recipient.Connector && connector.State == api.ConnectorHeld {
				return "connector " + connector.Name + " is on hold"
			}
		}
		for _, held := range status.HeldSenders {
			if held.Connector == recipient.Connector && strings.EqualFold(held.Sender, record.Sender) {
				return "sender " + sender(held.Sender) + " is on hold"
			}
		}
	}
	return ""
}

// failures tells why recipients failed: the same for many is said once.
func failures(record *trace.Record) string {
	var p page
	said := map[string]bool{}
	for i := range record.Recipients {
		recipient := &record.Recipients[i]
		if recipient.State != trace.Failed {
			continue
		}
		why := verdict("    ", recipient.Reply, recipient.Cause, recipient.Fix)
		if !said[why] {
			said[why] = true
			p.line("  %s failed", oneLine(recipient.Address))
			p.WriteString(why)
		}
	}
	return p.String()
}

func addresses(record *trace.Record) []string {
	list := make([]string, len(record.Recipients))
	for i := range record.Recipients {
		list[i] = record.Recipients[i].Address
	}
	return list
}

type queueShow struct {
	ID string `arg:"" help:"Message id."`
}

func (s *queueShow) Run(ctx context.Context, terminal *terminal, box *api.Client) error {
	id, err := trace.ParseID(s.ID)
	if err != nil {
		return usageError("%w", err)
	}
	message, err := box.Message(ctx, id)
	if err != nil {
		return err
	}
	if terminal.json {
		return terminal.printJSON(message)
	}
	status, err := box.Status(ctx)
	if err != nil {
		return err
	}
	var p page
	p.story(terminal, &message.Record)
	p.line("")
	held := heldBy(&message.Record, &status)
	if message.Hold != nil {
		p.line("  Held by %s for %s", message.Hold.By, terminal.since(message.Hold.Since))
		p.text("  ", "Why: ", message.Hold.Why)
	} else if held != "" {
		p.line("  It waits: %s; mailchute status says why", held)
	}
	for _, leg := range message.Legs {
		name := leg.Connector
		if name == "" {
			name = "no connector"
		}
		attempts := plural(leg.Attempts, "attempt") + " so far"
		if message.Hold == nil && held == "" {
			attempts += ", the next one " + terminal.until(leg.Next)
		}
		p.line("  By %s: %s", name, attempts)
	}
	return p.print(terminal.out)
}

// selection is what an action is for.
type selection struct {
	IDs []string `arg:"" optional:"" name:"id" help:"Message ids."`
	All bool     `help:"All messages in the queue."`
	filter
}

func (s *selection) action() (api.Action, error) {
	query := s.query()
	filtered := query != api.QueueQuery{}
	switch {
	case len(s.IDs) > 0 && !s.All && !filtered:
		for _, text := range s.IDs {
			if _, err := trace.ParseID(text); err != nil {
				return api.Action{}, usageError("%w", err)
			}
		}
		return api.Action{IDs: s.IDs}, nil
	case len(s.IDs) == 0 && s.All && !filtered:
		return api.Action{All: true}, nil
	case len(s.IDs) == 0 && !s.All && filtered:
		return api.Action{Filter: &query}, nil
	}
	return api.Action{}, usageError("which messages? Give their ids, or --all, or one or more of --is, --connector, --device, --sender and --recipient")
}

// change does an action and tells what has been done, by a sentence that counts messages.
func change(ctx context.Context, terminal *terminal, box *api.Client, name string, action api.Action, done string) error {
	changed, err := box.Change(ctx, name, action)
	if err != nil {
		return err
	}
	if terminal.json {
		return terminal.printJSON(changed)
	}
	_, err = fmt.Fprintf(terminal.out, "%s %s.\n", plural(changed.Changed, "message"), done)
	return err
}

type queueRetry struct{ selection }

func (r *queueRetry) Run(ctx context.Context, terminal *terminal, box *api.Client) error {
	action, err := r.action()
	if err != nil {
		return err
	}
	return change(ctx, terminal, box, "retry", action, "to be tried now")
}

type queueHold struct {
	selection
	Why string `help:"Reason, shown with the message." placeholder:"TEXT"`
}

func (h *queueHold) Run(ctx context.Context, terminal *terminal, box *api.Client) error {
	action, err := h.action()
	if err != nil {
		return err
	}
	action.Why = h.Why
	return change(ctx, terminal, box, "hold", action, "on hold")
}

type queueRelease struct{ selection }

func (r *queueRelease) Run(ctx context.Context, terminal *terminal, box *api.Client) error {
	action, err := r.action()
	if err != nil {
		return err
	}
	return change(ctx, terminal, box, "release", action, "released")
}

type queueDelete struct{ selection }

func (d *queueDelete) Run(ctx context.Context, terminal *terminal, box *api.Client) error {
	action, err := d.action()
	if err != nil {
		return err
	}
	return change(ctx, terminal, box, "delete", action, "deleted")
}

type queueExport struct {
	ID   string `arg:"" help:"Message id."`
	File string `arg:"" optional:"" help:"File to write, which must not be there yet; without it, standard output."`
}

func (e *queueExport) Run(ctx context.Context, terminal *terminal, box *api.Client) error {
	id, err := trace.ParseID(e.ID)
	if err != nil {
		return usageError("%w", err)
	}
	if e.File == "" {
		if terminal.json {
			return usageError("with --json, name a file for the message")
		}
		return box.Export(ctx, id, terminal.out)
	}
	written, err := exportFile(ctx, box, id, e.File)
	if err != nil {
		return err
	}
	if terminal.json {
		return terminal.printJSON(map[string]any{"file": e.File, "bytes": written})
	}
	_, err = fmt.Fprintf(terminal.out, "%s: %s\n", e.File, size(written))
	return err
}

// exportFile writes a message to a new file, which is not left there where it would not be whole.
func exportFile(ctx context.Context, box *api.Client, id trace.ID, path string) (written int64, err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	err = box.Export(ctx, id, file)
	if err == nil {
		written, err = file.Seek(0, io.SeekCurrent)
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		os.Remove(path)
	}
	return written, err
}
