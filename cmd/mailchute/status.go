package main

import (
	"context"
	"fmt"

	"mailchute/appliance/api"
)

type statusCommand struct{}

func (statusCommand) Run(ctx context.Context, terminal *terminal, box *api.Client) error {
	status, err := box.Status(ctx)
	if err != nil {
		return err
	}
	if terminal.json {
		return terminal.printJSON(status)
	}
	var p page
	host := ""
	if status.Hostname != "" {
		host = " on " + status.Hostname
	}
	p.line("Mailchute %s%s, running for %s", status.Version, host, terminal.since(status.Started))
	if status.Flowing {
		p.line("Mail can flow.")
	} else {
		p.line("MAIL DOES NOT FLOW AS IT SHOULD.")
	}
	for _, problem := range status.Problems {
		p.line("")
		p.text("  ", "Problem: ", problem.What)
		p.text("  ", "Fix:     ", problem.Fix)
	}
	p.line("")
	p.table("", [][]string{
		{"Queue", queueSummary(terminal, status.Queue)},
		{"Disk", fmt.Sprintf("%s free of %s; the queue holds %s and may hold %s", size(status.Disk.Free), size(status.Disk.Size), size(status.Disk.Used), size(status.Disk.Limit))},
		{"Devices", fmt.Sprintf("%d of at most %s", status.Connections, plural(status.MaxConnections, "connection"))},
		{"Strangers", refused(status.Strangers)},
		{"Since start", fmt.Sprintf("%s accepted; recipients: %d sent, %d deferred, %d failed", plural(int(status.Counted.Accepted), "message"),
			status.Counted.Sent, status.Counted.Deferred, status.Counted.Failed)},
		{"Settings", "applied " + terminal.moment(status.Applied)},
	}, nil)
	p.listeners(status.Listeners)
	p.connectors(terminal, status.Connectors)
	p.heldSenders(terminal, status.HeldSenders)
	p.certificates(terminal, status.Certificates)
	return p.print(terminal.out)
}

func queueSummary(terminal *terminal, queue api.QueueStatus) string {
	if queue.Messages == 0 {
		return "empty"
	}
	return fmt.Sprintf("%s, %s: %d waiting, %d held, %d failed; %d on the way; the oldest for %s", plural(queue.Messages, "message"), size(queue.Bytes),
		queue.Waiting, queue.Held, queue.Failed, queue.Running, terminal.since(queue.Oldest))
}

func refused(strangers int) string {
	switch strangers {
	case 0:
		return "none were refused"
	case 1:
		return "1 address was refused; mailchute trace --strangers names it"
	}
	return fmt.Sprintf("%d addresses were refused; mailchute trace --strangers names them", strangers)
}

func (p *page) listeners(listeners []api.Listener) {
	rows := [][]string{{"LISTENER", "TLS", ""}}
	for _, listener := range listeners {
		state := "listens"
		if listener.Error != "" {
			state = "DOES NOT LISTEN: " + listener.Error
		}
		rows = append(rows, []string{listener.Address, listener.TLS, state})
	}
	p.section(rows, nil)
}

func (p *page) connectors(terminal *terminal, connectors []api.Connector) {
	rows, notes := [][]string{{"CONNECTOR", "HOST", "STATE", "WAITING", "CONNECTIONS", "LAST SENT"}}, map[int]string{}
	for _, connector := range connectors {
		state := connector.State
		if connector.State == api.ConnectorHeld {
			state = onHold(terminal, connector.Since, connector.Probe)
			notes[len(rows)] = verdict("  ", connector.Reply, connector.Cause, connector.Fix)
		}
		rows = append(rows, []string{connector.Name, connector.Host, state, fmt.Sprint(connector.Waiting), fmt.Sprint(connector.Connections), terminal.moment(connector.LastSent)})
	}
	p.section(rows, notes)
}

func (p *page) heldSenders(terminal *terminal, senders []api.HeldSender) {
	rows, notes := [][]string{{"SENDER ON HOLD", "CONNECTOR", "STATE", "MESSAGES"}}, map[int]string{}
	for _, held := range senders {
		notes[len(rows)] = verdict("  ", held.Reply, held.Cause, held.Fix)
		rows = append(rows, []string{held.Sender, held.Connector, onHold(terminal, held.Since, held.Probe), fmt.Sprint(held.Messages)})
	}
	p.section(rows, notes)
}

func (p *page) certificates(terminal *terminal, certificates []api.Certificate) {
	rows := [][]string{{"CERTIFICATE", "SHOWN TO", "NAME", "EXPIRES"}}
	for _, certificate := range certificates {
		expires := certificate.Expires.Local().Format("2006-01-02")
		if left := certificate.Expires.Sub(terminal.now()); left > 0 {
			expires += ", in " + words(left)
		} else {
			expires = "EXPIRED on " + expires
		}
		rows = append(rows, []string{certificate.Name, certificate.Used, certificate.Subject, expires})
	}
	p.section(rows, nil)
}

// section is a table with a header, and an empty line before it; nothing where there is no row.
func (p *page) section(rows [][]string, notes map[int]string) {
	if len(rows) > 1 {
		p.line("")
		p.table("", rows, notes)
	}
}
