package wire

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Read gives the library its next line: a command the device sent, or one put in between; within a BDAT chunk,
// the chunk's bytes; after a body that has been read, its end.
func (c *Conn) Read(p []byte) (int, error) {
	for len(c.up) == 0 {
		if c.chunk > 0 {
			return c.readChunk(p)
		}
		if err := c.nextLine(); err != nil {
			return 0, io.EOF // what there is to say about it has been said
		}
	}
	n := copy(p, c.up)
	c.up = c.up[n:]
	return n, nil
}

var (
	endOfData = []byte(".\r\n")
	reset     = []byte("RSET\r\n")
)

func (c *Conn) nextLine() error {
	switch {
	case c.err != nil:
		return c.err
	case c.state == body: // nobody took the body: it must not be read as commands
		if err := c.ReadBody(io.Discard); err != nil {
			return err
		}
		fallthrough
	case c.state == bodyEnd:
		c.state = commands
		c.up = endOfData
		return nil
	case c.later != nil:
		c.up, c.later = c.later, nil
		return nil
	}
	line, err := c.readLine()
	if err != nil {
		return err
	}
	return c.command(normalise(line))
}

// normalise is the one place where a command line is made what the library understands.
func normalise(line []byte) string {
	return string(bytes.TrimRight(line, "\r\n"))
}

// command decides what becomes of a line; what goes up is in c.up then.
func (c *Conn) command(line string) error {
	verb, argument, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	c.replies.expect(verb)
	switch {
	case verb == "STARTTLS" && c.settings.TLS != nil:
		return c.startTLS(argument)
	case len(line) >= 4 && strings.EqualFold(line[:4], "BDAT"):
		var err error
		if line, err = c.beginChunk(line[4:]); err != nil {
			return err
		}
	case verb == "MAIL":
		line = limitSize(line)
		if c.isBusy() { // a second MAIL must not inherit the recipients of the first, which the library keeps
			c.insertReset()
			c.later = append([]byte(line), "\r\n"...)
			return nil
		}
	}
	c.up = append([]byte(line), "\r\n"...)
	return nil
}

// insertReset has the library forget the transaction; the device does not see the reply.
func (c *Conn) insertReset() {
	c.up = reset
	c.replies.dropNext()
}

func (c *Conn) isBusy() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.busy
}

// beginChunk checks BDAT (RFC 3030 section 2). It goes up in a form in which the library is sure to read the
// chunk that follows, even where it refuses the command; of a malformed one nobody knows how much follows.
func (c *Conn) beginChunk(argument string) (string, error) {
	fields := strings.Fields(argument)
	last := len(fields) == 2 && strings.EqualFold(fields[1], "LAST")
	var size uint64
	var err error
	if len(fields) > 0 {
		size, err = strconv.ParseUint(fields[0], 10, 32)
	}
	if argument == "" || argument[0] != ' ' || len(fields) == 0 || len(fields) == 2 && !last || len(fields) > 2 || err != nil {
		return "", c.fail(ErrProtocol, "501 5.5.4 BDAT is followed by the size of the chunk in bytes, below 4 GB, "+
			"and LAST with the last one; closing the connection\r\n")
	}
	line := "BDAT " + strconv.FormatUint(size, 10)
	switch {
	case last:
		line += " LAST"
	case size == 0: // nothing to the message, but the library would read it in a goroutine it never waits for
		return "NOOP", nil
	}
	c.chunk = int64(size)
	return line, nil
}

// maxDeclared is the largest SIZE the library can read.
const maxDeclared uint64 = 1<<32 - 1

// limitSize writes a declared SIZE (RFC 1870) beyond 4 GB as the largest the library can read: it is larger than
// allowed in either case, or its true size is counted later.
func limitSize(line string) string {
	fields := strings.Fields(line)
	for i, field := range fields {
		name, digits, found := strings.Cut(field, "=")
		if !found || !strings.EqualFold(name, "SIZE") || len(digits) < 10 || strings.Trim(digits, "0123456789") != "" {
			continue
		}
		if size, err := strconv.ParseUint(digits, 10, 64); err != nil || size > maxDeclared {
			fields[i] = name + "=" + strconv.FormatUint(maxDeclared, 10)
			return strings.Join(fields, " ")
		}
	}
	return line
}

// readLine gives the next line with its end, valid until the next read. The deadline is for the line, not for a
// read: one byte in a while is no progress.
func (c *Conn) readLine() ([]byte, error) {
	waiting := false
	for {
		pending := c.in[c.r:c.w]
		if end := bytes.IndexByte(pending, '\n'); end >= 0 && end < maxLine {
			c.r += end + 1
			return pending[:end+1], nil
		}
		if len(pending) >= maxLine {
			return nil, c.fail(ErrProtocol, fmt.Sprintf("500 5.5.2 A command line has at most %d bytes; closing the connection\r\n", maxLine))
		}
		if !waiting {
			waiting = true
			if err := c.awaitCommand(); err != nil {
				return nil, err
			}
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// awaitCommand sets the deadline for a command line, unless the box is stopping.
func (c *Conn) awaitCommand() error {
	if err := c.shakeHands(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	deadline := time.Now().Add(commandTimeout)
	if c.stopping && !c.busy {
		deadline = past
	}
	return c.socket.SetReadDeadline(deadline)
}

// fill waits for more of the device.
func (c *Conn) fill() error {
	c.makeRoom()
	n, err := c.receive(c.in[c.w:])
	c.w += n
	return err
}

// receive waits for bytes of the device. What it is owed is sent first: replies are kept back as long as there
// are commands to answer, so that a pipelined batch (RFC 2920) costs one write.
func (c *Conn) receive(p []byte) (int, error) {
	if err := c.flush(); err != nil {
		return 0, c.failWrite(err)
	}
	n, err := c.stream.Read(p)
	if n == 0 && err != nil {
		return 0, c.failRead(err)
	}
	return n, nil
}

// makeRoom moves what is pending to the front, and out of the large buffer when the body is over.
func (c *Conn) makeRoom() {
	pending := c.in[c.r:c.w]
	if c.state == commands && len(pending) < maxLine {
		c.r, c.w = 0, copy(c.small, pending)
		c.in = c.small
		c.releaseLarge()
		return
	}
	c.r, c.w = 0, copy(c.in, pending)
}

// readChunk gives bytes of a BDAT chunk. An end within is never io.EOF, which the library would take for the end
// of the chunk, and so for a whole message.
func (c *Conn) readChunk(p []byte) (int, error) {
	if c.err != nil {
		return 0, io.ErrUnexpectedEOF
	}
	p = p[:min(int64(len(p)), c.chunk)]
	n := copy(p, c.in[c.r:c.w])
	c.r += n
	if n == 0 {
		c.socket.renew = bodyTimeout
		defer func() { c.socket.renew = 0 }()
		var err error
		if n, err = c.receive(p); err != nil {
			return 0, io.ErrUnexpectedEOF
		}
	}
	c.chunk -= int64(n)
	return n, nil
}
