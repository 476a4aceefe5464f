package intake

import (
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/emersion/go-smtp"

	"mailchute/appliance/address"
	"mailchute/appliance/config"
	"mailchute/appliance/intake/wire"
	"mailchute/appliance/message"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// Limits no setting changes.
const (
	maxRecipients = 1000    // of a message; RFC 5321 4.5.3.1.8 demands 100
	maxHeader     = 1 << 20 // bytes
	maxHops       = 30      // Received fields
)

// session is one device's, from its HELO on. The library calls it from the connection's goroutine, but for Data
// of BDAT, which has one of its own and may end after a Reset.
type session struct {
	server  *Server
	conn    *connection
	library *smtp.Conn

	mu   sync.Mutex
	open *transaction // nil: none
}

// transaction is one message, from MAIL on.
type transaction struct {
	rules      *Rules
	device     *config.Device
	helo       string
	extended   bool
	tls        string
	sender     address.Address
	recipients []trace.Recipient
	utf8       bool // SMTPUTF8 was asked for
	utf8Needed bool // by an address
}

// Mail begins a transaction; an open one has been reset.
func (s *session) Mail(from string, options *smtp.MailOptions) error {
	rules := s.server.rules.Load()
	if s.server.stopping.Load() {
		return replyStopping(rules.Hostname)
	}
	sender, fault := parsePath(from)
	device, known := rules.find(s.conn.client)
	if !known {
		return s.refuseStranger(rules, from)
	}
	if fault != nil {
		return replySenderSyntax(fault)
	}
	if options.Size > rules.MaxMessageSize {
		return replyTooLarge(rules.MaxMessageSize)
	}
	if err := s.server.queue.Room(options.Size); err != nil {
		return s.replyQueue(err, rules, device)
	}
	s.begin(&transaction{rules: rules, device: device, helo: s.library.Hostname(), extended: s.conn.Extended(),
		tls: s.conn.TLS(), sender: sender, utf8: options.UTF8, utf8Needed: sender.NeedsUTF8()})
	return nil
}

// Rcpt adds a recipient. One that is named twice gets the message once.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	t := s.transaction()
	if t == nil {
		return errSequence
	}
	recipient, fault := parsePath(to)
	if fault == nil && recipient.IsNull() {
		fault = errors.New("a recipient has an address")
	}
	if fault != nil {
		return replyRecipientSyntax(fault)
	}
	if len(t.recipients) >= maxRecipients {
		return replyTooManyRecipients
	}
	if t.rules.Routes == nil || !t.rules.Routes(t.sender, recipient) {
		reply := replyNoRoute(t.sender, recipient)
		s.server.refusals.Refused(s.conn.client, t.sender.String(), recipient.String(), reply.Message)
		s.server.log.Warn("recipient refused: no connector takes it", "device", t.device.Name,
			"client", s.conn.client.String(), "sender", t.sender.String(), "recipient", recipient.String())
		return reply
	}
	text := recipient.String()
	if slices.ContainsFunc(t.recipients, func(other trace.Recipient) bool { return other.Address == text }) {
		return nil
	}
	t.recipients = append(t.recipients, trace.Recipient{Address: text, State: trace.Waiting})
	t.utf8Needed = t.utf8Needed || recipient.NeedsUTF8()
	return nil
}

// Data takes the message. The library's reader is the body of BDAT; that of DATA is read past it, see wire.
func (s *session) Data(r io.Reader) error {
	t := s.transaction()
	if t == nil {
		return errSequence
	}
	queued := s.server.queue.Create()
	defer queued.Abort()

	received := message.Received{Helo: t.helo, Client: s.conn.client, Hostname: t.rules.Hostname, ID: queued.ID().String(),
		Extended: t.extended, UTF8: t.utf8, TLS: t.tls, Time: s.server.now()}
	limits := message.Limits{Size: t.rules.MaxMessageSize, Header: maxHeader, Hops: maxHops}
	body := message.NewWriter(queued, received.Append(nil), limits)
	if err := s.readBody(r, body); err != nil {
		return s.replyBody(err, t)
	}
	if err := body.Close(); err != nil {
		return s.replyBody(err, t)
	}
	id, summary := queued.ID(), body.Summary()
	if err := queued.Accept(s.envelope(t, id, summary)); err != nil { // the envelope is the queue's from here on
		return s.replyQueue(err, t.rules, t.device)
	}
	s.server.log.Info("accepted", "message", id, "device", t.device.Name, "client", s.conn.client.String(),
		"sender", t.sender.String(), "recipients", len(t.recipients), "size", summary.Size)
	return replyQueued(id)
}

func (s *session) readBody(r io.Reader, body io.Writer) error {
	if _, chunked := r.(*io.PipeReader); chunked {
		_, err := io.Copy(body, r)
		return err
	}
	return s.conn.ReadBody(body)
}

func (s *session) envelope(t *transaction, id trace.ID, summary message.Summary) *spool.Envelope {
	now := s.server.now()
	return &spool.Envelope{
		Record: trace.Record{
			ID: id, Accepted: now, Device: t.device.Name, Client: s.conn.client.String(),
			Listener: s.conn.listener.settings.Address, Helo: clean(t.helo), TLS: t.tls,
			Sender: t.sender.String(), Recipients: t.recipients,
			MessageID: summary.MessageID, Subject: summary.Subject, Size: summary.Size,
			Events: []trace.Event{{Time: now, Kind: trace.Accepted}},
		},
		EightBit: summary.EightBit,
		UTF8:     t.utf8Needed || t.utf8 && summary.EightBitHeader,
	}
}

// Reset ends the transaction.
func (s *session) Reset() { s.begin(nil) }

// Logout ends the session.
func (s *session) Logout() error {
	s.begin(nil)
	return nil
}

func (s *session) begin(t *transaction) {
	s.mu.Lock()
	s.open = t
	s.mu.Unlock()
	s.conn.SetBusy(t != nil)
}

func (s *session) transaction() *transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

func (s *session) refuseStranger(rules *Rules, from string) error {
	reply := replyStranger(s.conn.client, rules.Hostname)
	s.server.refusals.Refused(s.conn.client, clean(from), "", reply.Message)
	s.server.log.Warn("refused: no device entry covers the client", "client", s.conn.client.String(),
		"listener", s.conn.listener.settings.Address, "sender", clean(from))
	return reply
}

// replyBody is the answer to a message that could not be taken in.
func (s *session) replyBody(err error, t *transaction) error {
	broken := &wire.BrokenError{}
	switch {
	case errors.Is(err, message.ErrTooLarge):
		return s.refuseMessage(replyTooLarge(t.rules.MaxMessageSize), err, t)
	case errors.Is(err, message.ErrHeaderTooLarge):
		return s.refuseMessage(replyHeaderTooLarge, err, t)
	case errors.Is(err, message.ErrLoop):
		return s.refuseMessage(replyLoop, err, t)
	case errors.As(err, &broken):
		s.conn.reported = true
		fallthrough
	case errors.Is(err, smtp.ErrDataReset):
		s.logMessage("message not finished by the device", err, t)
		return errUnfinished
	}
	return s.replyQueue(err, t.rules, t.device)
}

func (s *session) refuseMessage(reply *smtp.SMTPError, err error, t *transaction) error {
	s.logMessage("message refused", err, t)
	return reply
}

func (s *session) logMessage(what string, err error, t *transaction) {
	s.server.log.Warn(what, "device", t.device.Name, "client", s.conn.client.String(), "sender", t.sender.String(),
		"recipients", len(t.recipients), "error", err)
}

// replyQueue is the answer when the queue fails.
func (s *session) replyQueue(err error, rules *Rules, device *config.Device) error {
	switch {
	case errors.Is(err, spool.ErrClosed):
		return replyStopping(rules.Hostname)
	case errors.Is(err, spool.ErrFull):
		s.server.log.Warn("message refused for now", "device", device.Name, "client", s.conn.client.String(), "error", err)
		return replyFull
	}
	s.server.log.Error("message not stored", "device", device.Name, "client", s.conn.client.String(), "error", err)
	return replyQueueFailed
}
