// Package wire owns the socket below the SMTP library: TLS, deadlines, line ends, the replies' way out and the
// body's way in. The library above sees one clean command line a read and never a body of DATA; what it does
// not do itself (the answer to EHLO, STARTTLS, limits) is done here.
package wire

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// How long a device may keep the box waiting. There is no cap on the whole: a slow scan that moves is fine.
const (
	commandTimeout   = 5 * time.Minute // for a command line, whole (RFC 5321 4.5.3.2.7)
	bodyTimeout      = 3 * time.Minute // without a byte of a body (4.5.3.2.5)
	handshakeTimeout = time.Minute     // for all of a TLS handshake
	replyTimeout     = time.Minute     // for replies the device does not take
)

const (
	maxLine    = 4096      // bytes of a command line with its end; RFC 5321 4.5.3.1.4 and all extensions need less
	maxReplies = 64 << 10  // bytes of replies kept back while commands wait
	maxErrors  = 100       // 5xx replies since the last message taken
	bodyBuffer = 128 << 10 // bytes read at once of a body
)

// Greeting is what the box says of itself.
type Greeting struct {
	Hostname string
	MaxSize  int64 // of a message in bytes, announced as SIZE
}

// Settings of one connection.
type Settings struct {
	Greeting func() Greeting // asked when it is about to be said
	TLS      *tls.Config     // nil: no TLS
	Implicit bool            // TLS from the first byte (RFC 8314 3.3); else STARTTLS is offered
	Closed   func()          // called once, before the device sees the end: it may come again at once; may be nil
}

var (
	// ErrTimeout: the device fell silent.
	ErrTimeout = errors.New("no data in time")
	// ErrStopping: the box is stopping, the connection was idle.
	ErrStopping = errors.New("the box is stopping")
	// ErrProtocol: the device said what leaves no way to go on.
	ErrProtocol = errors.New("protocol error")
)

// BrokenError: the connection ended, or was given up, within a body. What had come of it is no message.
type BrokenError struct{ Err error }

func (e *BrokenError) Error() string {
	return "the connection ended within the message: " + e.Err.Error()
}
func (e *BrokenError) Unwrap() error { return e.Err }

// Conn is one connection of a device: a net.Conn towards the SMTP library, which alone reads and writes, and
// calls the session, in one goroutine. Stop and Abort may be called from any.
type Conn struct {
	settings Settings
	socket   *socket
	stream   net.Conn // socket, or TLS over it
	tls      *tls.Conn
	secure   bool // its handshake is done
	closing  sync.Once

	in    []byte // small or *large: read from stream, in[r:w] is still to be looked at
	r, w  int
	small []byte
	large *[]byte // while a body is read and what came after it in the same read is not worked off

	up    []byte // lines for the library
	later []byte // a line that goes up after the reply to the one in up
	state state
	chunk int64 // bytes of a BDAT chunk still to go up

	out     []byte  // replies not yet sent
	replies replies // what passes through Write

	err error // set: nothing more is read or answered

	mu       sync.Mutex
	busy     bool // a transaction is open
	stopping bool
}

// state of what the library reads next.
type state int

const (
	commands state = iota
	body           // 354 has been said: ReadBody takes the body past the library
	bodyEnd        // it has been read: the library is shown an end of data
)

// New takes over a connection. Nothing is read or written before the library does.
func New(raw net.Conn, settings Settings) *Conn {
	small := make([]byte, maxLine)
	c := &Conn{settings: settings, socket: &socket{Conn: raw}, small: small, in: small}
	c.stream = c.socket
	if settings.Implicit {
		c.tls = tls.Server(c.socket, settings.TLS)
		c.stream = c.tls
	}
	return c
}

// socket renews its read deadline with every read while renew is set. It lies below TLS, where progress shows:
// a TLS record may take longer than the timeout.
type socket struct {
	net.Conn
	renew time.Duration
}

func (s *socket) Read(p []byte) (int, error) {
	if s.renew > 0 {
		if err := s.SetReadDeadline(time.Now().Add(s.renew)); err != nil {
			return 0, err
		}
	}
	return s.Conn.Read(p)
}

// The deadlines are kept here; the library sets none (its ReadTimeout would cover a whole body).
func (c *Conn) SetDeadline(time.Time) error      { return nil }
func (c *Conn) SetReadDeadline(time.Time) error  { return nil }
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

func (c *Conn) LocalAddr() net.Addr  { return c.socket.LocalAddr() }
func (c *Conn) RemoteAddr() net.Addr { return c.socket.RemoteAddr() }

// Extended tells whether the device said EHLO last, not HELO.
func (c *Conn) Extended() bool { return c.replies.extended }

// Err is why the connection ended: nil while it goes on and after QUIT, io.EOF when the device hung up.
func (c *Conn) Err() error { return c.err }

// SetBusy tells that a transaction is open, which Stop waits for.
func (c *Conn) SetBusy(busy bool) {
	c.mu.Lock()
	c.busy = busy
	c.mu.Unlock()
}

// Stop ends the connection with 421 as soon as no transaction is open: at once when it is idle.
func (c *Conn) Stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
	if !c.busy {
		c.socket.SetReadDeadline(past)
	}
}

// past is a deadline that ends a read that waits.
var past = time.Unix(1, 0)

// Abort ends the connection at once, whatever is in the air.
func (c *Conn) Abort() { c.socket.Close() }

// Close sends what is left to say and closes the socket.
func (c *Conn) Close() (err error) {
	c.closing.Do(func() {
		c.flush()
		c.releaseLarge()
		if c.settings.Closed != nil {
			c.settings.Closed()
		}
		err = c.stream.Close()
	})
	return err
}

// fail gives the connection up: last (if any) is the last reply, nothing is read any more.
func (c *Conn) fail(reason error, last string) error {
	if c.err == nil {
		c.err = reason
		c.out = append(c.out, last...)
	}
	return c.err
}

// failWrite gives the connection up for a write error.
func (c *Conn) failWrite(err error) error {
	return c.fail(fmt.Errorf("send replies: %w", err), "")
}

// failRead gives the connection up for a read error.
func (c *Conn) failRead(err error) error {
	c.mu.Lock()
	stopping := c.stopping && !c.busy
	c.mu.Unlock()
	hostname := func() string { return c.settings.Greeting().Hostname }
	switch {
	case stopping:
		return c.fail(ErrStopping, "421 4.3.2 "+hostname()+" is stopping, try again later\r\n")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return c.fail(ErrTimeout, fmt.Sprintf("421 4.4.2 %s closes the connection: nothing came for %v\r\n",
			hostname(), c.patience()))
	}
	if errors.Is(err, net.ErrClosed) {
		err = io.EOF
	}
	return c.fail(err, "")
}

// patience is the timeout that applies.
func (c *Conn) patience() time.Duration {
	if c.socket.renew > 0 {
		return c.socket.renew
	}
	return commandTimeout
}
