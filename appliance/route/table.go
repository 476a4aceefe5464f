// Package route knows which connector a recipient goes through.
package route

import (
	"cmp"
	"fmt"
	"slices"

	"mailchute/appliance/address"
	"mailchute/appliance/config"
)

// Table is the routing of one settings document. It does not change; new settings make a new one.
type Table struct {
	accepted map[string]bool
	ways     map[address.Pattern][]way // of each pattern, the one tried first at the front
}

// way is a connector that a pattern leads to.
type way struct {
	connector string
	senders   map[address.Scope]bool // empty: all
	priority  int
	why       string
}

// NewTable makes the table of a checked document.
func NewTable(settings *config.Config) *Table {
	t := &Table{accepted: map[string]bool{}, ways: map[address.Pattern][]way{}}
	for _, domain := range settings.AcceptedDomains {
		t.accepted[domain] = true
	}
	for _, connector := range settings.Connectors {
		senders := make(map[address.Scope]bool, len(connector.Senders))
		for _, scope := range connector.Senders {
			senders[scope] = true
		}
		for _, pattern := range connector.Domains {
			t.ways[pattern] = append(t.ways[pattern], way{connector.Name, senders, connector.Priority,
				fmt.Sprintf("recipient domain %s, priority %d", pattern, connector.Priority)})
		}
	}
	for _, ways := range t.ways {
		slices.SortStableFunc(ways, func(a, b way) int { return cmp.Compare(a.priority, b.priority) })
	}
	return t
}

// Route chooses the connector for a recipient: one whose senders name this sender's address, before one whose
// senders name its domain, before one for all senders; among these by the most specific recipient domain
// (itself, the longest wildcard, "accepted", "*"), then by the lowest priority, then the first in the
// document. Microsoft 365 goes by the most specific domain too (the worked example of its text on connectors).
// The null sender goes by connectors for all senders only. Why tells what decided or, where no connector is
// found, what is missing.
func (t *Table) Route(sender, recipient address.Address) (connector, why string, ok bool) {
	var best *way
	bestScope := noScope
	for pattern := range address.Covering(recipient.Domain, t.accepted[recipient.Domain]) {
		ways := t.ways[pattern]
		for i := range ways {
			if scope := ways[i].covers(sender); scope > bestScope {
				best, bestScope = &ways[i], scope
			}
		}
	}
	switch bestScope {
	case mailbox:
		return best.connector, "sender " + address.MailboxScope(sender).String() + ", " + best.why, true
	case domain:
		return best.connector, "sender domain " + sender.Domain + ", " + best.why, true
	case everyone:
		return best.connector, best.why, true
	}
	name := sender.String()
	if sender.IsNull() {
		name = "the null sender"
	}
	return "", fmt.Sprintf("no connector takes mail from %s to the domain %s: add it to domains of a connector whose senders are empty or cover that sender",
		name, recipient.Domain), false
}

// scope is how closely a connector's senders fit a sender, the closest last.
type scope int

const (
	noScope scope = iota // not at all
	everyone
	domain
	mailbox
)

func (w *way) covers(sender address.Address) scope {
	switch {
	case len(w.senders) == 0:
		return everyone
	case sender.IsNull():
		return noScope
	case w.senders[address.MailboxScope(sender)]:
		return mailbox
	case w.senders[address.DomainScope(sender)]:
		return domain
	}
	return noScope
}
