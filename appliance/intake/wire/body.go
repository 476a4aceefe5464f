package wire

import (
	"bytes"
	"io"
	"sync"
)

// bodyBuffers are lent to connections that take in a body; a connection at rest has a small buffer only.
var bodyBuffers = sync.Pool{New: func() any {
	buffer := make([]byte, bodyBuffer)
	return &buffer
}}

// dotLine begins wherever a line does that is more than the end of data or needs its dot undone.
var dotLine = []byte("\r\n.")

// ReadBody takes the body of DATA past the library (RFC 5321 4.1.1.4): dots undone, line ends as the device
// wrote them, the CRLF before the final dot included. It ends at CRLF.CRLF, or a dot and CRLF as the very first
// line; a bare LF or CR is never part of the end, or mail could be smuggled in within mail.
//
// It returns nil, the first error of to (the body has been read to its end nevertheless, so that the session can
// go on), or a *BrokenError.
func (c *Conn) ReadBody(to io.Writer) error {
	c.takeLarge()
	c.socket.renew = bodyTimeout
	defer func() { c.socket.renew = 0 }()
	var refused error
	pass := func(p []byte) {
		if refused == nil && len(p) > 0 {
			_, refused = to.Write(p)
		}
	}
	for lineStart := true; ; {
		pending := c.in[c.r:c.w]
		if lineStart && len(pending) > 0 {
			switch dot := readDot(pending); dot {
			case dotEnds:
				c.r += len(endOfData)
				c.state = bodyEnd
				return refused
			case dotUndone:
				c.r++
				fallthrough
			case dotNone:
				lineStart = false
				continue
			}
		} else if i := bytes.Index(pending, dotLine); i >= 0 {
			pass(pending[:i+2])
			c.r += i + 2
			lineStart = true
			continue
		} else if n := len(pending); n > 0 {
			lineStart = bytes.HasSuffix(pending, dotLine[:2])
			if pending[n-1] == '\r' { // its LF may come with the next read
				n--
			}
			pass(pending[:n])
			c.r += n
		}
		if err := c.fill(); err != nil {
			return &BrokenError{err}
		}
	}
}

// dot is what the start of a line is to DATA.
type dot int

const (
	dotNone   dot = iota // no dot
	dotUndone            // a dot the device put there for transparency (RFC 5321 4.5.2)
	dotEnds              // the end of data
	dotOpen              // cannot be told yet
)

func readDot(line []byte) dot {
	switch {
	case line[0] != '.':
		return dotNone
	case bytes.HasPrefix(line, endOfData):
		return dotEnds
	case bytes.HasPrefix(endOfData, line):
		return dotOpen
	}
	return dotUndone
}

// takeLarge moves what is pending into a large buffer.
func (c *Conn) takeLarge() {
	if c.large != nil {
		return
	}
	c.large = bodyBuffers.Get().(*[]byte)
	c.r, c.w = 0, copy(*c.large, c.in[c.r:c.w])
	c.in = *c.large
}

func (c *Conn) releaseLarge() {
	if c.large != nil {
		bodyBuffers.Put(c.large)
		c.large = nil
	}
}
