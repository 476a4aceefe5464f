package sim

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options say what becomes of messages.
type Options struct {
	Folder    string                 // bodies and their descriptions go there; it must exist; empty: memory
	Discard   bool                   // without a folder: keep no bodies, only size and SHA-256
	OnMessage func(Message)          // called for each message before it is answered, from several goroutines
	OnFault   func(Fault)            // called when a fault happens
	OnEnd     func(peer, why string) // called when a connection ended without QUIT or fault, with its error
}

// Server is the endpoint. Its methods may be called by several goroutines.
type Server struct {
	tenant  Tenant
	options Options
	tls     *tls.Config // nil: none

	faults faults

	mutex     sync.Mutex
	closed    bool
	listeners []net.Listener
	conns     map[net.Conn]struct{}
	messages  []Message
	number    int
	changed   chan struct{} // closed at the next message; nil: nobody waits
	sessions  sync.WaitGroup
	done      chan struct{}
}

// New makes a server for tenant. It fails where the folder cannot be read.
func New(tenant Tenant, options Options) (*Server, error) {
	s := &Server{tenant: tenant.withDefaults(), options: options, conns: map[net.Conn]struct{}{}, done: make(chan struct{})}
	if options.Folder != "" {
		last, err := lastNumber(options.Folder)
		if err != nil {
			return nil, fmt.Errorf("folder for messages: %w", err)
		}
		s.number = last
	}
	if tenant.ImplicitTLS && tenant.Certificate == nil {
		return nil, errors.New("a tenant with ImplicitTLS needs a Certificate")
	}
	if tenant.Certificate != nil {
		s.tls = &tls.Config{
			Certificates: []tls.Certificate{*tenant.Certificate},
			ClientAuth:   tls.RequestClientCert, // verified by attribution, never demanded
			MinVersion:   tls.VersionTLS12,
		}
	}
	return s, nil
}

// Start listens on a free port of 127.0.0.1 and serves there until Close.
func Start(tenant Tenant, options Options) (server *Server, address string, err error) {
	server, err = New(tenant, options)
	if err != nil {
		return nil, "", err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	go server.Serve(listener)
	return server, listener.Addr().String(), nil
}

// Serve takes connections from listener until Close (then it returns nil) or until accepting fails.
func (s *Server) Serve(listener net.Listener) error {
	s.mutex.Lock()
	if s.closed {
		s.mutex.Unlock()
		return listener.Close()
	}
	s.listeners = append(s.listeners, listener)
	s.mutex.Unlock()
	for {
		conn, err := listener.Accept()
		if err != nil {
			select {
			case <-s.done:
				return nil
			default:
				return err
			}
		}
		go s.ServeConn(conn)
	}
}

// ServeConn holds one conversation and returns when it is over.
func (s *Server) ServeConn(conn net.Conn) {
	s.mutex.Lock()
	if s.closed {
		s.mutex.Unlock()
		conn.Close()
		return
	}
	s.conns[conn] = struct{}{}
	s.sessions.Add(1)
	s.mutex.Unlock()
	defer s.sessions.Done()

	err := newSession(s, conn).run()
	conn.Close()
	s.mutex.Lock()
	delete(s.conns, conn)
	closed := s.closed
	s.mutex.Unlock()
	if err != nil && !errors.Is(err, errEnd) && !closed && s.options.OnEnd != nil {
		s.options.OnEnd(conn.RemoteAddr().String(), err.Error())
	}
}

// Close stops listening, cuts every connection and waits for the conversations to end.
func (s *Server) Close() error {
	s.mutex.Lock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	for _, listener := range s.listeners {
		listener.Close()
	}
	for conn := range s.conns {
		conn.Close()
	}
	s.mutex.Unlock()
	s.sessions.Wait()
	return nil
}

// Cut closes every connection and goes on listening.
func (s *Server) Cut() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for conn := range s.conns {
		conn.Close()
	}
}

// Fail sets the faults, written as ParseFault reads them, in place of earlier ones; none clears them.
func (s *Server) Fail(faults ...string) error {
	parsed := make([]Fault, len(faults))
	for i, text := range faults {
		fault, err := ParseFault(text)
		if err != nil {
			return err
		}
		parsed[i] = fault
	}
	s.SetFaults(parsed)
	return nil
}

// SetFaults sets the faults in place of earlier ones. The first that fits a stage happens.
func (s *Server) SetFaults(list []Fault) { s.faults.set(list) }

// Count tells how often a stage was reached, by all connections so far.
func (s *Server) Count(stage Stage) int { return s.faults.count(stage) }

// Messages are those taken so far, in the order they were taken.
func (s *Server) Messages() []Message {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return slices.Clone(s.messages)
}

// Wait returns the messages as soon as there are n, or what there is with the context's error.
func (s *Server) Wait(ctx context.Context, n int) ([]Message, error) {
	for {
		s.mutex.Lock()
		if len(s.messages) >= n {
			defer s.mutex.Unlock()
			return slices.Clone(s.messages), nil
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mutex.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			messages := s.Messages()
			return messages, fmt.Errorf("%d messages of %d have arrived: %w", len(messages), n, ctx.Err())
		}
	}
}

// take gives a message its number and stores it.
func (s *Server) take(message Message, b *body) (Message, error) {
	s.mutex.Lock()
	s.number++
	message.Number = s.number
	s.mutex.Unlock()
	message.Received = time.Now()
	if err := b.keep(s.options.Folder, &message); err != nil {
		return message, err
	}
	if s.options.OnMessage != nil {
		s.options.OnMessage(message)
	}
	s.mutex.Lock()
	s.messages = append(s.messages, message)
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
	s.mutex.Unlock()
	return message, nil
}

// faults are what is to go wrong, and the count of what was reached.
type faults struct {
	mutex   sync.Mutex
	armed   []Fault
	reached map[Stage]int
}

func (f *faults) set(list []Fault) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.armed = slices.Clone(list)
}

func (f *faults) count(stage Stage) int {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.reached[stage]
}

// reach counts a stage and returns the fault that is to happen there, if any. One whose count is used up goes.
func (f *faults) reach(stage Stage, subjects []string) (Fault, bool) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.reached == nil {
		f.reached = map[Stage]int{}
	}
	f.reached[stage]++
	for i, fault := range f.armed {
		if fault.Stage != stage || !slices.ContainsFunc(subjects, func(subject string) bool {
			return strings.Contains(subject, fault.Match)
		}) {
			continue
		}
		if fault.Count == 1 {
			f.armed = slices.Delete(f.armed, i, i+1)
		} else if fault.Count > 1 {
			f.armed[i].Count--
		}
		return fault, true
	}
	return Fault{}, false
}
