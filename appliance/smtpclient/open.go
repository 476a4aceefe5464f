package smtpclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"mailchute/appliance/reply"
)

// Conn is one connection, ready to carry mail. Verify may be called on it, then Run once.
type Conn struct {
	options Options
	wire    *wire
	conn    net.Conn // wire, or TLS above it
	r       *bufio.Reader
	peer    Peer
	closed  atomic.Bool
}

// Open makes an established connection ready for mail: banner, EHLO with the configured name (HELO where EHLO is
// refused), STARTTLS and EHLO again, AUTH. The error is an *Error; then, and when ctx ends before Open returns,
// conn is closed. Afterwards ctx has no hold on the connection.
func Open(ctx context.Context, conn net.Conn, options Options) (*Conn, error) {
	options.Timeouts = options.Timeouts.withDefaults()
	if options.TLS == "" {
		options.TLS = Verified
	}
	if options.Window <= 0 {
		options.Window = defaultWindow
	}
	if options.WindowBytes <= 0 {
		options.WindowBytes = defaultWindowBytes
	}
	c := &Conn{options: options, wire: &wire{Conn: conn, block: options.Timeouts.Block}}
	c.conn = c.wire
	c.r = bufio.NewReader(c.conn)
	c.peer = Peer{Host: options.Host}
	if address := conn.RemoteAddr(); address != nil {
		c.peer.Address = address.String()
	}
	if err := c.during(ctx, func() error { return c.greet(ctx) }); err != nil {
		c.Close()
		return nil, err
	}
	c.peer.Pipelined = options.Pipelining && c.peer.offers("PIPELINING")
	c.peer.Chunked = c.peer.offers("CHUNKING")
	return c, nil
}

// Peer tells who is at the other end and what it offers.
func (c *Conn) Peer() Peer { return c.peer }

// Close cuts the connection at once, without QUIT. A running Run ends, the oldest unanswered transaction with
// net.ErrClosed.
func (c *Conn) Close() error {
	c.closed.Store(true)
	return c.wire.Conn.Close()
}

// during runs one conversation that ends with ctx.
func (c *Conn) during(ctx context.Context, conversation func() error) error {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	err := conversation()
	if !stop() {
		failed, ok := err.(*Error)
		if !ok {
			failed = &Error{Answer: reply.Answer{Stage: reply.Hello}}
		}
		failed.Answer.Err = context.Cause(ctx)
		return failed
	}
	_ = c.wire.SetReadDeadline(time.Time{})
	return err
}

// greet leads from the first byte to the point where mail can be sent.
func (c *Conn) greet(ctx context.Context) error {
	if c.options.Implicit && c.options.TLS != None {
		if err := c.handshake(ctx); err != nil {
			return err
		}
	}
	banner, err := c.answer(reply.Banner)
	if err != nil {
		return err
	}
	c.peer.Banner = banner.String()
	if banner.Code != 220 {
		return c.refused(reply.Banner, banner)
	}
	if err := c.hello(); err != nil {
		return err
	}
	if c.peer.TLS == "" && c.options.TLS != None {
		if err := c.startTLS(ctx); err != nil {
			return err
		}
	}
	if c.options.Username != "" {
		return c.signIn()
	}
	return nil
}

// hello greets by EHLO, and by HELO where that is refused (RFC 5321 section 3.2).
func (c *Conn) hello() error {
	c.peer.Lines, c.peer.Extensions, c.peer.MaxSize = nil, nil, 0
	r, err := c.ask(reply.Hello, "EHLO "+c.options.Hello)
	if err != nil {
		return err
	}
	if r.Positive() {
		c.peer.Lines = r.Lines
		c.peer.Extensions = extensions(r.Lines)
		if size, err := strconv.ParseInt(c.peer.Extensions["SIZE"], 10, 64); err == nil && size > 0 {
			c.peer.MaxSize = size
		}
		return nil
	}
	if r.Code/100 == 5 {
		refusal := r
		if r, err = c.ask(reply.Hello, "HELO "+c.options.Hello); err != nil {
			var failed *Error
			if errors.As(err, &failed) && failed.Answer.Reply.Code == 0 {
				failed.Answer.Reply = refusal // it said why it closes
			}
			return err
		}
		if r.Positive() {
			return nil
		}
	}
	return c.refused(reply.Hello, r)
}

// extensions reads what EHLO's answer offers, the line of greeting left out (RFC 5321 section 4.1.1.1). The old form
// "AUTH=LOGIN" counts as AUTH.
func extensions(lines []string) map[string]string {
	offered := make(map[string]string, len(lines))
	for _, line := range lines[1:] {
		keyword, parameters, _ := strings.Cut(line, " ")
		keyword = strings.ToUpper(keyword)
		if mechanism, old := strings.CutPrefix(keyword, "AUTH="); old {
			keyword, parameters = "AUTH", mechanism+" "+parameters
		}
		if keyword == "AUTH" {
			parameters = strings.Join(strings.Fields(offered["AUTH"]+" "+parameters), " ")
		}
		offered[keyword] = parameters
	}
	return offered
}

// startTLS encrypts the connection and greets again, as far as the policy and the server want it (RFC 3207).
func (c *Conn) startTLS(ctx context.Context) error {
	if !c.peer.offers("STARTTLS") {
		if c.options.TLS == Opportunistic {
			return nil
		}
		return &Error{reply.Answer{Stage: reply.StartTLS, Err: reply.ErrNoStartTLS}}
	}
	r, err := c.ask(reply.StartTLS, "STARTTLS")
	if err != nil {
		return err
	}
	if r.Code != 220 {
		if c.options.TLS == Opportunistic && r.Refused() && r.Code != 421 {
			return nil
		}
		return c.refused(reply.StartTLS, r)
	}
	// What came in clear must not count as said under TLS (CVE-2011-0411).
	if c.r.Buffered() > 0 {
		return &Error{reply.Answer{Stage: reply.StartTLS, Err: reply.ErrInjected}}
	}
	if err := c.handshake(ctx); err != nil {
		return err
	}
	return c.hello()
}

func (c *Conn) handshake(ctx context.Context) error {
	_ = c.wire.SetReadDeadline(time.Now().Add(c.options.Timeouts.TLS))
	encrypted := tls.Client(c.wire, c.options.tlsConfig())
	if err := encrypted.HandshakeContext(ctx); err != nil {
		return c.failed(reply.TLS, reply.Reply{}, err)
	}
	c.conn = encrypted
	c.r.Reset(encrypted)
	c.peer.TLS = describeTLS(encrypted.ConnectionState())
	return nil
}

// A command line may have 512 octets (RFC 5321 section 4.5.3.1.4); a longer initial response waits for its 334.
const maxCommand = 512

// signIn gives user name and password (RFC 4954; LOGIN as Exchange does it). Neither appears in any error.
func (c *Conn) signIn() error {
	if c.peer.TLS == "" {
		return &Error{reply.Answer{Stage: reply.Auth, Err: reply.ErrAuthPlain}}
	}
	var plain, login bool
	for _, mechanism := range strings.Fields(c.peer.Extensions["AUTH"]) {
		plain = plain || strings.EqualFold(mechanism, "PLAIN")
		login = login || strings.EqualFold(mechanism, "LOGIN")
	}
	encode := base64.StdEncoding.EncodeToString
	var command string
	var responses []string
	switch {
	case plain:
		command = "AUTH PLAIN"
		secret := encode([]byte("\x00" + c.options.Username + "\x00" + c.options.Password))
		if len(command)+1+len(secret)+2 <= maxCommand {
			command += " " + secret
		} else {
			responses = []string{secret}
		}
	case login:
		command = "AUTH LOGIN"
		responses = []string{encode([]byte(c.options.Username)), encode([]byte(c.options.Password))}
	default:
		return &Error{reply.Answer{Stage: reply.Auth,
			Err: fmt.Errorf("%w (it offers %q)", reply.ErrNoAuth, c.peer.Extensions["AUTH"])}}
	}
	r, err := c.ask(reply.Auth, command)
	for _, response := range responses {
		if err != nil || r.Code != 334 {
			break
		}
		r, err = c.ask(reply.Auth, response)
	}
	if err != nil {
		return err
	}
	if !r.Positive() {
		return c.refused(reply.Auth, r)
	}
	return nil
}

// ask sends one command and reads its answer. The error is an *Error.
func (c *Conn) ask(stage reply.Stage, command string) (reply.Reply, error) {
	if _, err := c.conn.Write([]byte(command + "\r\n")); err != nil {
		// The server may have said why before it closed.
		_ = c.wire.SetReadDeadline(time.Now().Add(c.options.Timeouts.Quit))
		r, readErr := reply.Read(c.r)
		return r, c.failed(stage, r, telling(readErr, err))
	}
	return c.answer(stage)
}

// answer reads one reply. The error is an *Error.
func (c *Conn) answer(stage reply.Stage) (reply.Reply, error) {
	_ = c.wire.SetReadDeadline(time.Now().Add(c.options.Timeouts.of(stage))) // a closed connection shows at reading
	r, err := reply.Read(c.r)
	if err != nil {
		return r, c.failed(stage, r, err)
	}
	return r, nil
}

func (c *Conn) failed(stage reply.Stage, r reply.Reply, err error) error {
	return &Error{reply.Answer{Stage: stage, Reply: r, Err: explain(err)}}
}

// refused takes leave of a server that will not have the box.
func (c *Conn) refused(stage reply.Stage, r reply.Reply) error {
	c.wire.block = c.options.Timeouts.Quit
	// The server may be gone already; nothing is lost by that.
	_, _ = c.conn.Write([]byte("QUIT\r\n"))
	answer := reply.Answer{Stage: stage, Reply: r}
	if !r.Refused() {
		answer.Err = reply.ErrOutOfStep
	}
	return &Error{answer}
}
