package wire

import (
	"bytes"
	"errors"
	"strconv"
	"time"
)

// replies follows what the library answers, reply by reply.
type replies struct {
	verb     string // of the command being answered, upper case; empty: none yet, the next reply is the greeting
	extended bool   // EHLO has been answered last, not HELO
	insert   bool   // the next reply is to a command the device has not sent
	errors   int    // 5xx since the last message taken

	dropping bool // the reply in hand is not passed on
	within   bool // the reply in hand has more lines
	midLine  bool // its line in hand has come in part
	last     bool // it closes the connection
}

// ErrAnswered: the connection was closed by a 421 of the layer above.
var ErrAnswered = errors.New("closed with 421")

func (r *replies) expect(verb string) { r.verb = verb }

func (r *replies) dropNext() { r.insert = true }

// Write takes the library's replies. They go out when the device's next line is waited for.
func (c *Conn) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := bytes.IndexByte(rest, '\n') + 1
		if n == 0 {
			n = len(rest)
		}
		c.takeReply(rest[:n])
		rest = rest[n:]
	}
	if len(c.out) > maxReplies {
		if err := c.flush(); err != nil {
			return 0, c.failWrite(err)
		}
	}
	return len(p), nil
}

// takeReply takes a line of a reply, or a part of one.
func (c *Conn) takeReply(part []byte) {
	r := &c.replies
	if !r.midLine {
		if !r.within {
			r.dropping = c.beginReply(string(part[:min(3, len(part))]))
		}
		r.within = len(part) > 3 && part[3] == '-'
	}
	r.midLine = part[len(part)-1] != '\n'
	if !r.dropping && c.err == nil {
		c.out = append(c.out, part...)
	}
	if !r.midLine && !r.within {
		c.endReply()
	}
}

// beginReply tells whether the reply that begins is to be dropped, for it has been given otherwise or goes
// nowhere.
func (c *Conn) beginReply(code string) (drop bool) {
	r := &c.replies
	if c.err != nil {
		return true
	}
	if r.insert {
		r.insert = false
		return true
	}
	switch {
	case r.verb == "" && code == "220":
		c.sayGreeting()
		return true
	case (r.verb == "EHLO" || r.verb == "HELO") && code == "250":
		c.sayHello(r.verb == "EHLO")
		return true
	case r.verb == "DATA" && code == "354":
		c.state = body
	case (r.verb == "DATA" || r.verb == "BDAT") && code == "250":
		r.errors = 0
	case code == "421":
		r.last = true
	case code[0] == '5':
		r.errors++
	}
	return false
}

func (c *Conn) endReply() {
	switch {
	case c.err != nil:
	case c.replies.last:
		c.fail(ErrAnswered, "")
	case c.replies.errors > maxErrors:
		c.fail(ErrProtocol, "421 4.7.0 "+c.settings.Greeting().Hostname+" closes the connection: too many errors\r\n")
	}
}

// say answers a command the library does not see.
func (c *Conn) say(reply string) error {
	c.takeReply([]byte(reply))
	return c.err
}

func (c *Conn) sayGreeting() {
	c.out = append(c.out, "220 "...)
	c.out = append(c.out, c.settings.Greeting().Hostname...)
	c.out = append(c.out, " ESMTP Mailchute\r\n"...)
}

// sayHello answers EHLO with the box's name and extensions (RFC 5321 4.1.1.1), or HELO with the name.
func (c *Conn) sayHello(extended bool) {
	c.replies.extended = extended
	greeting := c.settings.Greeting()
	if !extended {
		c.out = append(c.out, "250 "+greeting.Hostname+"\r\n"...)
		return
	}
	c.out = append(c.out, "250-"+greeting.Hostname+"\r\n250-PIPELINING\r\n250-SIZE "...)
	c.out = strconv.AppendInt(c.out, greeting.MaxSize, 10)
	c.out = append(c.out, "\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n"...)
	if c.settings.TLS != nil && c.tls == nil {
		c.out = append(c.out, "250-STARTTLS\r\n"...)
	}
	c.out = append(c.out, "250 SMTPUTF8\r\n"...)
}

// flush sends what is kept back.
func (c *Conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	if c.tls != nil && !c.secure {
		if err := c.shakeHands(); err != nil {
			return err
		}
	}
	if err := c.socket.SetWriteDeadline(time.Now().Add(replyTimeout)); err != nil {
		return err
	}
	_, err := c.stream.Write(c.out)
	if c.out = c.out[:0]; cap(c.out) > maxLine {
		c.out = nil // of a large batch; a connection at rest holds little
	}
	return err
}
