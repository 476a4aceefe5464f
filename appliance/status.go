package appliance

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"mailchute/appliance/api"
	"mailchute/appliance/config"
	"mailchute/appliance/delivery"
	"mailchute/appliance/spool"
)

// Status tells how the box is, at this moment.
func (b *box) Status() api.Status {
	b.mu.Lock()
	settings, applied := b.settings, b.applied
	b.mu.Unlock()
	s := api.Status{Version: b.options.Version, Started: b.started, Applied: applied, Strangers: len(b.trace.Strangers())}
	counted, counts := b.delivery.Counted(), b.spool.Counts()
	s.Counted = api.Counted(counted)
	s.Queue = api.QueueStatus{
		Messages: counts.Messages, Bytes: counts.Bytes, Waiting: counts.Waiting, Held: counts.Held, Failed: counts.Failed,
		Running: b.delivery.Running(),
	}
	if oldest := b.spool.Oldest(); oldest != 0 {
		s.Queue.Oldest = oldest.Time()
	}
	s.Disk = b.disk()
	if settings == nil {
		s.Problems = append(s.Problems, api.Problem{
			What: "This box is not set up: it takes no mail.",
			Fix:  "Write " + b.settingsPath() + " (mailchute config example shows every key), then: mailchute config reload",
		})
		return s
	}
	s.Hostname = settings.Hostname
	s.MaxConnections = settings.SMTP.MaxConnections
	s.Listeners, s.Connections = b.listeners(), b.intake.Stats().Connections
	b.addConnectors(&s, settings)
	s.Certificates = b.certificates()
	b.findProblems(&s, settings)
	return s
}

func (b *box) disk() api.Disk {
	used, limit := b.spool.Usage()
	disk := api.Disk{Path: filepath.Join(b.options.State, "queue.db"), Used: used, Limit: limit}
	if free, total, err := spool.RealDisk(b.options.State).Space(); err == nil {
		disk.Free, disk.Size = free, total
	}
	return disk
}

// listeners are those that are open: a device that connects to one is served, at the latest in a moment.
func (b *box) listeners() (list []api.Listener) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.ports {
		list = append(list, api.Listener{Address: p.listener.Addr().String(), TLS: string(p.settings.TLS)})
	}
	slices.SortFunc(list, func(a, b api.Listener) int { return cmp.Compare(a.Address, b.Address) })
	return list
}

func (b *box) addConnectors(s *api.Status, settings *config.Config) {
	states := b.delivery.States()
	for _, c := range settings.Connectors {
		shown := api.Connector{
			Name: c.Name, Host: net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), State: api.ConnectorOK, Waiting: b.spool.Waiting(c.Name),
		}
		if at := slices.IndexFunc(states, func(state delivery.State) bool { return state.Connector == c.Name }); at >= 0 {
			state := states[at]
			shown.Connections, shown.LastSent = state.Connections, state.Sent
			if h := state.Hold; h != nil {
				shown.State, shown.Since, shown.Tried, shown.Probe = api.ConnectorHeld, h.Since, h.Tried, h.Probe
				shown.Reply, shown.Cause, shown.Fix = h.Reply, h.Verdict.Cause, h.Verdict.Fix
			}
			for sender, h := range state.Senders {
				s.HeldSenders = append(s.HeldSenders, api.HeldSender{
					Connector: c.Name, Sender: sender, Since: h.Since, Tried: h.Tried, Probe: h.Probe, Messages: b.spool.WaitingOf(c.Name, sender),
					Reply: h.Reply, Cause: h.Verdict.Cause, Fix: h.Verdict.Fix,
				})
			}
		}
		s.Connectors = append(s.Connectors, shown)
	}
	slices.SortFunc(s.HeldSenders, func(a, b api.HeldSender) int { return a.Since.Compare(b.Since) })
}

// certificates lists those that connectors show, and the one devices are shown.
func (b *box) certificates() []api.Certificate {
	b.mu.Lock()
	list := slices.Clone(b.shown)
	b.mu.Unlock()
	if own, err := b.certificate(); err == nil && own.Leaf != nil {
		list = append(list, certificate("listener", "devices", own.Leaf))
	}
	return list
}

func certificate(name, used string, leaf *x509.Certificate) api.Certificate {
	subject := leaf.Subject.CommonName
	if subject == "" && len(leaf.DNSNames) > 0 {
		subject = leaf.DNSNames[0]
	}
	return api.Certificate{Name: name, Used: used, Subject: subject, Expires: leaf.NotAfter}
}

// certificateWarning is the time before a certificate's end at which an administrator is told.
const certificateWarning = 30 * 24 * time.Hour

// findProblems collects what an administrator should act on, the worst first.
func (b *box) findProblems(s *api.Status, settings *config.Config) {
	add := func(fix, what string, args ...any) {
		s.Problems = append(s.Problems, api.Problem{What: fmt.Sprintf(what, args...), Fix: fix})
	}
	s.Flowing = len(s.Listeners) > 0 && len(settings.Devices) > 0 && len(settings.Connectors) > 0
	if err := b.spool.Room(0); err != nil {
		s.Flowing = false
		add("Make room: look at the messages that wait and why (mailchute queue), raise queue.max_size, or use a larger disk.",
			"The box takes no more mail: %v.", err)
	}
	if len(settings.Devices) == 0 {
		add("Add a [[device]] with the addresses of your scanners to config.toml.", "No device may hand in mail.")
	}
	if len(settings.Connectors) == 0 {
		add("Add a [[connector]] to config.toml.", "There is no connector: mail has no way out, and is refused.")
	}
	for _, c := range s.Connectors {
		if c.State == api.ConnectorHeld {
			s.Flowing = false
			add(c.Fix, "Connector %s is on hold, its mail is kept: %s (%s)", c.Name, c.Cause, c.Reply)
		}
	}
	for _, h := range s.HeldSenders {
		s.Flowing = false
		add(h.Fix, "Mail from <%s> by connector %s is on hold: %s (%s)", h.Sender, h.Connector, h.Cause, h.Reply)
	}
	if n := b.spool.Waiting(""); n > 0 {
		s.Flowing = false
		add(`Add a connector whose domains cover them, or delete the messages (mailchute queue list).`,
			"%d messages wait for a connector that takes their recipients; there is none.", n)
	}
	for _, c := range s.Certificates {
		if left := time.Until(c.Expires); left < certificateWarning {
			add("Replace it.", "The certificate %s (%s) ends on %s.", c.Name, c.Used, c.Expires.Format(time.DateOnly))
		}
	}
	if s.Queue.Failed > 0 {
		add("See why (mailchute queue list --state failed), then retry or delete them.",
			"%d messages have a recipient that was refused for good.", s.Queue.Failed)
	}
}
