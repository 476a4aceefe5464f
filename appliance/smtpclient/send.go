package smtpclient

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"sync"
)

// send writes one transaction, and reports whether the connection still stands. Pipelined, it does not wait for any
// answer but DATA's; else each command waits for its own.
func (s *session) send(f *flight) bool {
	defer f.body.Close()
	if f.reset {
		_, _ = s.w.WriteString("RSET\r\n")
		if !s.step(f) {
			return s.stands()
		}
	}
	s.writeMail(f)
	if !s.step(f) {
		return s.stands()
	}
	for _, path := range f.paths {
		_, _ = s.w.WriteString("RCPT TO:<")
		_, _ = s.w.WriteString(path)
		_, _ = s.w.WriteString(">\r\n")
		if !s.step(f) {
			return s.stands()
		}
	}
	if f.chunked {
		return s.sendChunk(f)
	}
	return s.sendData(f)
}

// writeMail gives SIZE, so that a server need not take a body to find it too large.
func (s *session) writeMail(f *flight) {
	_, _ = s.w.WriteString("MAIL FROM:<")
	_, _ = s.w.WriteString(f.t.Sender)
	_ = s.w.WriteByte('>')
	if s.c.peer.offers("SIZE") {
		_, _ = s.w.WriteString(" SIZE=")
		s.writeNumber(f.t.Size)
	}
	if f.t.EightBit {
		_, _ = s.w.WriteString(" BODY=8BITMIME")
	}
	if f.utf8 {
		_, _ = s.w.WriteString(" SMTPUTF8")
	}
	_, _ = s.w.WriteString("\r\n")
}

func (s *session) writeNumber(n int64) {
	var digits [20]byte
	_, _ = s.w.Write(strconv.AppendInt(digits[:0], n, 10))
}

// step ends a command. Where commands wait for one another it waits for the answer, and reports whether there is
// a reason to go on with the transaction.
func (s *session) step(f *flight) bool {
	if f.pipelined {
		return true
	}
	s.mark(f)
	return s.wait(func() bool { return f.said >= f.sent || f.settled }) && !s.isSettled(f)
}

// mark counts one more command as sent. It comes before the last byte, so that no answer can overtake it.
func (s *session) mark(f *flight) {
	s.mu.Lock()
	f.sent++
	s.mu.Unlock()
}

func (s *session) isSettled(f *flight) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f.settled
}

func (s *session) stands() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.over && s.writeErr == nil
}

// sendChunk sends the body as one BDAT chunk (RFC 3030 section 2).
func (s *session) sendChunk(f *flight) bool {
	_, _ = s.w.WriteString("BDAT ")
	s.writeNumber(f.t.Size)
	_, _ = s.w.WriteString(" LAST\r\n")
	return s.sendBody(f, s.w.Write) && s.settle(f)
}

// sendData sends the body after the answer to DATA (RFC 5321 section 4.1.1.4).
func (s *session) sendData(f *flight) bool {
	_, _ = s.w.WriteString("DATA\r\n")
	if !f.pipelined {
		s.mark(f)
	}
	if !s.wait(func() bool { return f.ahead || f.settled }) {
		return false
	}
	s.mu.Lock()
	settled, open := f.settled, f.open()
	s.mu.Unlock()
	switch {
	case settled:
		return true
	case open:
		stuffer := stuffer{w: s.w, lineStart: true}
		if !s.sendBody(f, stuffer.Write) {
			return false
		}
		if !stuffer.lineStart {
			_, _ = s.w.WriteString("\r\n")
		}
	default:
		// 354 although every recipient was refused: an empty message gets out of it (RFC 2920 section 3.1).
		s.mark(f)
	}
	_, err := s.w.WriteString(".\r\n")
	return s.written(err) && s.settle(f)
}

// settle waits for the final answer where commands wait for one another.
func (s *session) settle(f *flight) bool {
	return f.pipelined || s.wait(func() bool { return f.settled })
}

// errStopped: the connection is over, the reader knows why.
var errStopped = errors.New("the connection is over")

// sendBody writes the body. One that is not what the envelope says ends the connection, before its last bytes are
// sent, so that the server cannot take a part for the whole; older transactions get their answers first.
func (s *session) sendBody(f *flight, write func([]byte) (int, error)) bool {
	err := s.stream(f, write)
	var wrong *BodyError
	switch {
	case err == nil:
		return true
	case errors.As(err, &wrong):
		s.mu.Lock()
		f.failure = wrong
		s.mu.Unlock()
		if s.wait(func() bool { return len(s.flights) == 0 || s.flights[0] == f }) {
			s.cut(wrong)
		}
	case err == errEarly:
		s.cut(errEarly)
	case err != errStopped:
		s.written(err)
	}
	return false
}

// stream reads the body block by block, each straight into the write buffer where that is possible, and counts.
func (s *session) stream(f *flight, write func([]byte) (int, error)) error {
	var scratch []byte
	if !f.chunked {
		pooled := scratches.Get().(*[]byte)
		defer scratches.Put(pooled)
		scratch = *pooled
	}
	size := f.t.Size
	var sent int64
	for empty := 0; ; {
		if err := s.worthwhile(f, size-sent); err != nil {
			return err
		}
		block := scratch
		if f.chunked {
			if sent < size && s.w.Available() == 0 {
				if err := s.w.Flush(); err != nil {
					return err
				}
			}
			block = s.w.AvailableBuffer()
			block = block[:cap(block)]
		}
		block = block[:min(int64(len(block)), size-sent)]
		n, err := 0, error(nil)
		if len(block) > 0 {
			n, err = f.body.Read(block)
		}
		sent += int64(n)
		if sent == size && (err == nil || err == io.EOF) {
			if err := atEnd(f.body, size); err != nil {
				return err
			}
			s.mark(f)
			_, err := write(block[:n])
			return err
		}
		switch {
		case err == io.EOF:
			return &BodyError{Size: size, Sent: sent}
		case err != nil:
			return &BodyError{Size: size, Sent: sent, Err: err}
		case n > 0:
			empty = 0
		default:
			if empty++; empty == 100 {
				return &BodyError{Size: size, Sent: sent, Err: io.ErrNoProgress}
			}
		}
		if _, err := write(block[:n]); err != nil {
			return err
		}
	}
}

// atEnd tells whether a body that has given all its bytes ends there.
func atEnd(body io.ReadCloser, size int64) error {
	var more [1]byte
	switch n, err := io.ReadFull(body, more[:]); {
	case n > 0:
		return &BodyError{Size: size, Sent: size + 1}
	case err != io.EOF:
		return &BodyError{Size: size, Sent: size, Err: err}
	}
	return nil
}

// worthwhile tells whether the rest of a body should still be sent. When everybody has been refused, a long rest
// costs more than a new connection.
func (s *session) worthwhile(f *flight, rest int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over || s.writeErr != nil:
		return errStopped
	case rest > s.c.options.WindowBytes && !f.open():
		return errEarly
	}
	return nil
}

var scratches = sync.Pool{New: func() any { scratch := make([]byte, bufferSize/2); return &scratch }}

// stuffer doubles the dot at the beginning of a line (RFC 5321 section 4.5.2).
type stuffer struct {
	w         io.Writer
	lineStart bool
}

func (d *stuffer) Write(block []byte) (int, error) {
	if len(block) == 0 {
		return 0, nil
	}
	rest := block
	if d.lineStart && rest[0] == '.' {
		if _, err := d.w.Write(dot); err != nil {
			return 0, err
		}
	}
	for {
		at := bytes.Index(rest, lineDot)
		if at < 0 {
			break
		}
		if _, err := d.w.Write(rest[:at+2]); err != nil {
			return 0, err
		}
		if _, err := d.w.Write(dot); err != nil {
			return 0, err
		}
		rest = rest[at+2:]
	}
	d.lineStart = block[len(block)-1] == '\n'
	_, err := d.w.Write(rest)
	return len(block), err
}

var (
	dot     = []byte(".")
	lineDot = []byte("\n.")
)
