// Package intake is the SMTP server devices talk to. It asks three questions (may this address send, does a
// connector take this recipient, is there room) and answers 250 to a message when the queue has it on disk; it
// never waits for anything else, and never for the cloud.
package intake

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"

	"mailchute/appliance/address"
	"mailchute/appliance/config"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// Queue is where messages go.
type Queue interface {
	// Room tells whether a message of size bytes (0: not declared) can be taken: nil, spool.ErrFull,
	// spool.ErrClosed, or what is wrong with the queue.
	Room(size int64) error
	// Create begins a message.
	Create() Message
}

// Message is one on its way into the queue. It is used by one goroutine at a time.
type Message interface {
	// Write takes the body in order, line ends CRLF. It copies what it keeps, and may wait for the disk.
	Write(p []byte) (int, error)
	ID() trace.ID
	// Accept puts the message in the queue: when it returns nil, body and envelope are on disk.
	Accept(*spool.Envelope) error
	// Abort forgets the message. It is harmless after Accept.
	Abort()
}

// Devices finds the entry that covers an address.
type Devices interface {
	Find(netip.Addr) (*config.Device, bool)
}

// Refusals counts who was refused, and why. recipient is empty when it came to none. What a client said is cut
// and cleaned of control characters.
type Refusals interface {
	Refused(client netip.Addr, sender, recipient, reason string)
}

// Rules are the settings that a reload changes. A new connection has the new ones, an open one takes them at its
// next MAIL. The zero Rules take nobody in.
type Rules struct {
	Hostname                 string // of the box
	MaxMessageSize           int64  // bytes; a message of exactly that size passes
	MaxConnections           int    // in all
	MaxConnectionsPerAddress int
	Devices                  Devices
	Routes                   func(sender, recipient address.Address) bool // whether a connector takes it
}

// find is false where there are no devices yet.
func (r *Rules) find(client netip.Addr) (device *config.Device, known bool) {
	if r.Devices == nil {
		return nil, false
	}
	return r.Devices.Find(client)
}

// Options of a Server.
type Options struct {
	Queue       Queue
	Refusals    Refusals
	Certificate func() (*tls.Certificate, error) // asked at each handshake; needed where a listener has TLS
	Log         *slog.Logger                     // nil: slog.Default
	Now         func() time.Time                 // nil: time.Now
}

// Server takes mail on any number of listeners.
type Server struct {
	queue    Queue
	refusals Refusals
	log      *slog.Logger
	now      func() time.Time
	tls      *tls.Config // nil: no certificate
	library  *smtp.Server
	rules    atomic.Pointer[Rules]
	stopping atomic.Bool

	mu          sync.Mutex
	listeners   []*listener
	connections map[*connection]struct{}
	perAddress  map[netip.Addr]int
	drained     chan struct{} // closed when the last connection is gone after stopping
}

// New makes a server. It takes nobody in before SetRules.
func New(options Options) *Server {
	s := &Server{
		queue: options.Queue, refusals: options.Refusals, log: options.Log, now: options.Now,
		connections: make(map[*connection]struct{}), perAddress: make(map[netip.Addr]int),
		drained: make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.now == nil {
		s.now = time.Now
	}
	if certificate := options.Certificate; certificate != nil {
		s.tls = &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate() },
		}
	}
	s.rules.Store(&Rules{})
	// Limits, deadlines, TLS, the greeting and the answer to EHLO are wire's: the library's come too late or
	// cannot be changed while it runs.
	s.library = smtp.NewServer(smtp.BackendFunc(newSession))
	s.library.EnableSMTPUTF8 = true
	s.library.MaxLineLength = 0
	s.library.AllowInsecureAuth = true // it cannot see wire's TLS
	s.library.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelError)
	return s
}

// SetRules changes the rules, whole.
func (s *Server) SetRules(rules Rules) { s.rules.Store(&rules) }

// Serve takes connections of l until it is closed or Shutdown, when it returns nil. Any number of listeners may be
// served; closing one leaves its open connections alone.
func (s *Server) Serve(l net.Listener, settings config.Listener) error {
	if settings.TLS != config.ListenPlain && s.tls == nil {
		return fmt.Errorf("listener %s: tls = %q needs a certificate", settings.Address, settings.TLS)
	}
	own := &listener{Listener: l, server: s, settings: settings}
	if !s.addListener(own) {
		return l.Close()
	}
	defer s.removeListener(own)
	s.log.Info("taking mail", "listener", settings.Address, "address", l.Addr().String(), "tls", settings.TLS)
	if err := s.library.Serve(own); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("listener %s: %w", settings.Address, err)
	}
	return nil
}

// Shutdown closes the listeners and the idle connections, lets open transactions end, and returns when all is
// still: or, when ctx ends first, with its error, after the rest has been cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if s.stopping.CompareAndSwap(false, true) && len(s.connections) == 0 {
		close(s.drained)
	}
	for _, l := range s.listeners {
		l.Close()
	}
	for c := range s.connections {
		c.Stop()
	}
	s.mu.Unlock()
	select {
	case <-s.drained:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.connections {
		c.Abort()
	}
	return ctx.Err()
}

// Stats are counts of connections.
type Stats struct {
	Connections int // open now
	Listeners   []ListenerStats
}

// ListenerStats are those of one listener.
type ListenerStats struct {
	Listener    config.Listener
	Address     string // it listens on
	Connections int    // open now
	Accepted    uint64 // taken in since it was opened
	Refused     uint64 // turned away for too many connections
}

// Stats tells how busy the server is.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := Stats{Connections: len(s.connections)}
	for _, l := range s.listeners {
		stats.Listeners = append(stats.Listeners, ListenerStats{Listener: l.settings, Address: l.Addr().String(),
			Connections: l.open, Accepted: l.accepted, Refused: l.refused})
	}
	return stats
}

func newSession(c *smtp.Conn) (smtp.Session, error) {
	connection, ok := c.Conn().(*connection)
	if !ok {
		return nil, errors.New("not a connection of this server")
	}
	return &session{server: connection.server, conn: connection, library: c}, nil
}
