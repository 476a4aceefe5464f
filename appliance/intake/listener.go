package intake

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"mailchute/appliance/config"
	"mailchute/appliance/intake/wire"
)

// listener turns away what is too much before the library sees it.
type listener struct {
	net.Listener
	server   *Server
	settings config.Listener

	open              int // guarded by server.mu, as are the others
	accepted, refused uint64
}

// connection is one of a device, on the listener it came in by for as long as it lasts.
type connection struct {
	*wire.Conn
	server   *Server
	listener *listener
	client   netip.Addr
	reported bool // why it ended has been logged
}

// Accept waits for a connection that may come in.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c, excess := l.admit(raw)
		if excess == "" {
			return c, nil
		}
		l.turnAway(raw, c.client, excess)
	}
}

// admit counts a connection in, or says why not.
func (l *listener) admit(raw net.Conn) (c *connection, excess string) {
	s := l.server
	rules := s.rules.Load()
	c = &connection{server: s, listener: l, client: clientOf(raw)}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopping.Load():
		return c, "stopping"
	case len(s.connections) >= rules.MaxConnections:
		l.refused++
		return c, fmt.Sprintf("%d connections are open, allowed are %d", len(s.connections), rules.MaxConnections)
	case s.perAddress[c.client] >= rules.MaxConnectionsPerAddress:
		l.refused++
		return c, fmt.Sprintf("%d connections from %s are open, allowed are %d", s.perAddress[c.client], c.client,
			rules.MaxConnectionsPerAddress)
	}
	settings := wire.Settings{Greeting: s.greeting, Implicit: l.settings.TLS == config.ListenImplicit,
		Closed: func() { s.forget(c) }}
	if l.settings.TLS != config.ListenPlain {
		settings.TLS = s.tls
	}
	c.Conn = wire.New(raw, settings)
	s.connections[c] = struct{}{}
	s.perAddress[c.client]++
	l.open++
	l.accepted++
	return c, ""
}

// turnAway says 421 where the client would understand it, and hangs up.
func (l *listener) turnAway(raw net.Conn, client netip.Addr, why string) {
	defer raw.Close()
	l.server.log.Warn("connection turned away", "client", client.String(), "listener", l.settings.Address, "why", why)
	if l.settings.TLS == config.ListenImplicit {
		return
	}
	raw.SetWriteDeadline(time.Now().Add(time.Second)) // a fresh socket takes a line at once
	fmt.Fprintf(raw, "421 4.7.0 %s takes no more connections now (%s), try again later\r\n", l.server.rules.Load().Hostname, why)
}

// forget counts a connection out.
func (s *Server) forget(c *connection) {
	if err := c.Err(); !c.reported && err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, wire.ErrStopping) &&
		!errors.Is(err, wire.ErrAnswered) {
		s.log.Info("connection ended", "client", c.client.String(), "listener", c.listener.settings.Address, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.connections, c)
	if s.perAddress[c.client]--; s.perAddress[c.client] == 0 {
		delete(s.perAddress, c.client)
	}
	c.listener.open--
	if s.stopping.Load() && len(s.connections) == 0 {
		close(s.drained)
	}
}

func (s *Server) greeting() wire.Greeting {
	rules := s.rules.Load()
	return wire.Greeting{Hostname: rules.Hostname, MaxSize: rules.MaxMessageSize}
}

// addListener fails when the server is stopping.
func (s *Server) addListener(l *listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return false
	}
	s.listeners = append(s.listeners, l)
	return true
}

func (s *Server) removeListener(l *listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = slices.DeleteFunc(s.listeners, func(other *listener) bool { return other == l })
}

// clientOf is the address a connection comes from; the same device on another port, or by an IPv4 address written
// as IPv6, is the same client.
func clientOf(raw net.Conn) netip.Addr {
	var client netip.AddrPort
	if tcp, ok := raw.RemoteAddr().(*net.TCPAddr); ok {
		client = tcp.AddrPort()
	}
	return client.Addr().Unmap().WithZone("")
}
