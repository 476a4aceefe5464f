package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"mailchute/appliance/api"
	"mailchute/appliance/trace"
)

type traceCommand struct {
	What      string `arg:"" optional:"" help:"A message id, to tell all about it; or an address or @domain, of sender or recipient."`
	Device    string `help:"Only messages from this device." placeholder:"NAME"`
	Client    string `help:"Only messages handed in from this IP address." placeholder:"ADDRESS"`
	From      string `help:"Only messages handed in at this time or later: 2026-03-02, 09:30 (today), 2h (ago)." placeholder:"TIME"`
	Until     string `help:"Only messages handed in before this time." placeholder:"TIME"`
	Is        string `help:"Only messages that are waiting, sent, failed or deleted for a recipient." placeholder:"STATE" enum:"waiting,sent,failed,deleted," default:""`
	Before    string `help:"Only messages older than this one: the next page." placeholder:"ID"`
	Limit     int    `help:"Messages at most, up to 1000." default:"100"`
	Strangers bool   `help:"Instead, list the addresses that were refused because they may not send."`
}

func (c *traceCommand) Run(ctx context.Context, terminal *terminal, box *api.Client) error {
	if c.Strangers {
		return strangers(ctx, terminal, box)
	}
	if c.What != "" && !strings.Contains(c.What, "@") {
		id, err := trace.ParseID(c.What)
		if err != nil {
			return usageError("%q is neither a message id (11 characters) nor an address nor @domain", c.What)
		}
		return tell(ctx, terminal, box, id)
	}
	query, err := c.query(terminal)
	if err != nil {
		return err
	}
	list, err := box.Trace(ctx, query)
	if err != nil {
		return err
	}
	if terminal.json {
		return terminal.printJSON(list)
	}
	var p page
	if len(list.Records) == 0 {
		p.line("No messages.")
		return p.print(terminal.out)
	}
	rows, notes := [][]string{{"MESSAGE", "HANDED IN", "DEVICE", "FROM", "TO", "SIZE", "STATE"}}, map[int]string{}
	for i := range list.Records {
		record := &list.Records[i]
		notes[len(rows)] = failures(record)
		rows = append(rows, []string{record.ID.String(), terminal.moment(record.Accepted), record.Device, sender(record.Sender),
			first(addresses(record)), size(record.Size), states(record)})
	}
	p.table("", rows, notes)
	if list.Next != 0 {
		p.line("\nThere may be more: --before %s", list.Next)
	}
	return p.print(terminal.out)
}

func (c *traceCommand) query(terminal *terminal) (trace.Query, error) {
	query := trace.Query{Address: c.What, Device: c.Device, State: trace.State(c.Is), Limit: c.Limit}
	var err error
	if c.Client != "" {
		if query.Client, err = netip.ParseAddr(c.Client); err != nil {
			return query, usageError("--client: %q is not an IP address, such as 192.168.1.40 or fd00::7", c.Client)
		}
	}
	if c.Before != "" {
		if query.Before, err = trace.ParseID(c.Before); err != nil {
			return query, usageError("--before: %w", err)
		}
	}
	if query.From, err = terminal.parseTime(c.From); err != nil {
		return query, err
	}
	query.Until, err = terminal.parseTime(c.Until)
	return query, err
}

// states says how the recipients of a message are, by their number where they differ.
func states(record *trace.Record) string {
	counts := map[trace.State]int{}
	for _, recipient := range record.Recipients {
		counts[recipient.State]++
	}
	var says []string
	for _, state := range []trace.State{trace.Sent, trace.Waiting, trace.Failed, trace.Deleted} {
		switch count := counts[state]; {
		case count == len(record.Recipients) && count > 0:
			return string(state)
		case count > 0:
			says = append(says, fmt.Sprintf("%d %s", count, state))
		}
	}
	return strings.Join(says, ", ")
}

func tell(ctx context.Context, terminal *terminal, box *api.Client, id trace.ID) error {
	record, err := box.Record(ctx, id)
	if err != nil {
		return err
	}
	if terminal.json {
		return terminal.printJSON(record)
	}
	var p page
	p.story(terminal, &record)
	return p.print(terminal.out)
}

func strangers(ctx context.Context, terminal *terminal, box *api.Client) error {
	list, err := box.Strangers(ctx)
	if err != nil {
		return err
	}
	if terminal.json {
		return terminal.printJSON(list)
	}
	var p page
	if len(list.Strangers) == 0 {
		p.line("Nobody was refused.")
		return p.print(terminal.out)
	}
	rows := [][]string{{"ADDRESS", "REFUSED", "FIRST", "LAST", "LAST FROM", "LAST TO", "REASON"}}
	for _, stranger := range list.Strangers {
		rows = append(rows, []string{stranger.Address.String(), plural(stranger.Count, "time"), terminal.moment(stranger.First), terminal.moment(stranger.Last),
			sender(stranger.Sender), stranger.Recipient, stranger.Reason})
	}
	p.table("", rows, nil)
	p.line("\nTo let one of them send, add its address to a [[device]] in config.toml; then: mailchute config reload")
	return p.print(terminal.out)
}
