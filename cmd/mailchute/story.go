package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"mailchute/appliance/trace"
)

// story tells all about one message.
func (p *page) story(terminal *terminal, record *trace.Record) {
	p.line("Message %s", record.ID)
	from := "by " + record.Device
	if record.Client != "" { // not a test message of the box itself
		from += " (" + record.Client + ") at " + record.Listener + ", " + cmp.Or(record.TLS, "no TLS")
	}
	for _, fact := range []struct{ label, text string }{
		{"Handed in", terminal.moment(record.Accepted) + " " + from},
		{"Helo", record.Helo},
		{"From", sender(record.Sender)},
		{"Subject", record.Subject},
		{"Message-ID", record.MessageID},
		{"Size", size(record.Size)},
	} {
		if fact.text != "" {
			p.line("  %-11s %s", fact.label, oneLine(fact.text))
		}
	}
	p.line("")
	for i := range record.Recipients {
		p.recipient(&record.Recipients[i])
	}
	p.line("")
	for i := range record.Events {
		if i == trace.FirstEvents && record.Skipped > 0 {
			p.line("  (%s left out here)", plural(record.Skipped, "step"))
		}
		p.event(terminal, &record.Events[i])
	}
	if !record.Done.IsZero() {
		p.line("  %s  done", terminal.moment(record.Done))
	}
}

func (p *page) recipient(recipient *trace.Recipient) {
	way := ""
	if recipient.Connector != "" {
		way = " by " + recipient.Connector
	} else if recipient.State == trace.Waiting {
		way = ", which no connector takes"
	}
	p.line("  To %s%s: %s", oneLine(recipient.Address), way, recipient.State)
	if recipient.State != trace.Sent {
		p.WriteString(verdict("     ", recipient.Reply, recipient.Cause, recipient.Fix))
	}
}

func (p *page) event(terminal *terminal, event *trace.Event) {
	parts := []string{string(event.Kind)}
	if event.Connector != "" {
		parts = append(parts, "by "+event.Connector)
	}
	if event.Peer != "" {
		parts = append(parts, "at "+event.Peer)
	}
	if len(event.Recipients) > 0 {
		parts = append(parts, "for "+first(event.Recipients))
	}
	line := strings.Join(parts, " ")
	if event.Text != "" {
		line += ": " + event.Text
	}
	if !event.Next.IsZero() && event.Kind != trace.Attempted {
		line += "; next attempt " + terminal.moment(event.Next)
	}
	p.line("  %s  %s", terminal.moment(event.Time), oneLine(line))
	indent := strings.Repeat(" ", 4+len(terminal.moment(event.Time)))
	p.text(indent, "", event.Reply)
}

// verdict is a reply, what it means and what to do, on lines of their own.
func verdict(indent, reply, cause, fix string) string {
	var p page
	p.text(indent, "Reply: ", reply)
	p.text(indent, "Cause: ", cause)
	p.text(indent, "Fix:   ", fix)
	return p.String()
}

func onHold(terminal *terminal, since, probe time.Time) string {
	state := "on hold for " + terminal.since(since)
	if !probe.IsZero() {
		state += ", probed " + terminal.until(probe)
	}
	return state
}

// first names the first of a list and counts the others.
func first(list []string) string {
	switch len(list) {
	case 0:
		return ""
	case 1:
		return list[0]
	}
	return fmt.Sprintf("%s and %d more", list[0], len(list)-1)
}

func sender(address string) string {
	if address == "" {
		return "<> (the null sender)"
	}
	return address
}
