package sink

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"time"
)

// bufferSize holds a whole pipelined batch of small mails, and makes few reads of a large one.
const bufferSize = 128 << 10

var (
	okReply       = []byte("250 2.0.0 OK\r\n")
	senderReply   = []byte("250 2.1.0 OK\r\n")
	rcptReply     = []byte("250 2.1.5 OK\r\n")
	dataReply     = []byte("354 End data with <CR><LF>.<CR><LF>\r\n")
	acceptedReply = []byte("250 2.6.0 Queued\r\n")
	byeReply      = []byte("221 2.0.0 Bye\r\n")
	sizeReply     = []byte("552 5.3.4 Message too big\r\n")
	sequenceReply = []byte("503 5.5.1 Bad sequence of commands\r\n")
	syntaxReply   = []byte("501 5.5.4 Syntax error in parameters\r\n")
	unknownReply  = []byte("500 5.5.2 Command not recognised\r\n")
	longReply     = []byte("500 5.5.6 Line too long\r\n")
)

var errLineTooLong = errors.New("command line longer than the buffer")

// session is one connection. It is reused for the next one, with its buffer.
type session struct {
	sink       *Sink
	conn       net.Conn
	buffer     []byte
	start, end int    // buffer[start:end] is unread
	replies    []byte // to what was read last, not yet written
	read       time.Time
	held       chan heldReplies // only with a Delay
	written    chan struct{}    // closed when the last held reply is out

	sender     bool
	recipients int
	chunking   bool // a BDAT was seen in this transaction: DATA may not follow (RFC 3030, 3)
	content    content
}

type heldReplies struct {
	due     time.Time
	replies []byte
}

func newSession(sink *Sink) *session {
	return &session{sink: sink, buffer: make([]byte, bufferSize), replies: make([]byte, 0, 4096)}
}

func (s *session) serve(conn net.Conn) {
	defer conn.Close()
	s.conn, s.start, s.end = conn, 0, 0
	s.replies = append(s.replies[:0], s.sink.greeting...)
	s.reset()
	if s.sink.Delay > 0 {
		s.read = time.Now()
		s.held, s.written = make(chan heldReplies, 1024), make(chan struct{})
		go writeHeld(conn, s.held, s.written)
	}
	for {
		line, err := s.line()
		if err == errLineTooLong {
			s.replies = append(s.replies, longReply...)
		}
		if err != nil || !s.command(line) {
			break
		}
	}
	s.flush()
	if s.held != nil {
		close(s.held)
		<-s.written
		s.held = nil
	}
}

func (s *session) reset() {
	s.sender, s.recipients, s.chunking = false, 0, false
	s.content = content{}
}

// command answers one command line and says whether the session goes on.
func (s *session) command(line []byte) bool {
	verb, parameters := line, []byte(nil)
	if i := bytes.IndexByte(line, ' '); i >= 0 {
		verb, parameters = line[:i], line[i+1:]
	}
	reply := unknownReply
	switch {
	case is(verb, "MAIL"):
		switch {
		case s.sender:
			reply = sequenceReply
		case declaredSize(parameters) > s.sink.MaxSize:
			reply = sizeReply
		default:
			s.sender, reply = true, senderReply
		}
	case is(verb, "RCPT"):
		if reply = sequenceReply; s.sender {
			s.recipients++
			reply = rcptReply
		}
	case is(verb, "DATA"):
		if reply = sequenceReply; s.recipients > 0 && !s.chunking {
			s.replies = append(s.replies, dataReply...)
			if s.data() != nil {
				return false
			}
			reply = s.accept()
		}
	case is(verb, "BDAT"):
		size, last, ok := chunk(parameters)
		if !ok {
			// Without the length, what follows cannot be told from commands.
			s.replies = append(s.replies, syntaxReply...)
			return false
		}
		if s.chunk(size) != nil {
			return false
		}
		switch {
		case s.recipients == 0:
			reply = sequenceReply
		case last:
			reply = s.accept()
		default:
			s.chunking, reply = true, okReply
		}
	case is(verb, "RSET"):
		s.reset()
		reply = okReply
	case is(verb, "NOOP"):
		reply = okReply
	case is(verb, "EHLO"):
		s.reset()
		reply = s.sink.capabilities
	case is(verb, "HELO"):
		s.reset()
		reply = okReply
	case is(verb, "QUIT"):
		s.replies = append(s.replies, byeReply...)
		return false
	}
	s.replies = append(s.replies, reply...)
	return true
}

// accept ends a transaction whose content is complete.
func (s *session) accept() []byte {
	reply := acceptedReply
	if s.content.size > s.sink.MaxSize {
		reply = sizeReply
	} else {
		s.sink.arrived(&s.content)
	}
	s.reset()
	return reply
}

// line returns the next command line without its end; it is valid until the next read.
func (s *session) line() ([]byte, error) {
	searched := 0
	for {
		unread := s.buffer[s.start:s.end]
		if i := bytes.IndexByte(unread[searched:], '\n'); i >= 0 {
			line := unread[:searched+i]
			s.start += len(line) + 1
			return bytes.TrimSuffix(line, []byte{'\r'}), nil
		}
		searched = len(unread)
		if err := s.fill(); err != nil {
			return nil, err
		}
	}
}

// data takes content up to the line with a single dot (RFC 5321, 4.5.2).
func (s *session) data() error {
	atLineStart := true
	for {
		unread := s.buffer[s.start:s.end]
		if atLineStart {
			if len(unread) == 0 || unread[0] == '.' && len(unread) < 3 {
				if err := s.fill(); err != nil {
					return err
				}
				continue
			}
			atLineStart = false
			if unread[0] == '.' {
				if unread[1] == '\r' && unread[2] == '\n' {
					s.start += 3
					return nil
				}
				s.start++
				continue
			}
		}
		if i := bytes.Index(unread, []byte("\r\n.")); i >= 0 {
			s.content.write(unread[:i+2])
			s.start += i + 2
			atLineStart = true
			continue
		}
		// A line end at the end of what was read may be followed by a dot.
		keep := 0
		if bytes.HasSuffix(unread, []byte("\r\n")) {
			keep = 2
		} else if bytes.HasSuffix(unread, []byte("\r")) {
			keep = 1
		}
		s.content.write(unread[:len(unread)-keep])
		s.start = s.end - keep
		if err := s.fill(); err != nil {
			return err
		}
	}
}

// chunk takes the octets of one BDAT (RFC 3030), wanted or not.
func (s *session) chunk(size int64) error {
	for size > 0 {
		if s.start == s.end {
			if err := s.fill(); err != nil {
				return err
			}
		}
		part := s.buffer[s.start:min(int64(s.end), int64(s.start)+size)]
		if s.recipients > 0 {
			s.content.write(part)
		}
		s.start += len(part)
		size -= int64(len(part))
	}
	return nil
}

// fill reads once, after the replies to all that was read before are on their way.
func (s *session) fill() error {
	if err := s.flush(); err != nil {
		return err
	}
	if s.start == s.end {
		s.start, s.end = 0, 0
	} else if s.end == len(s.buffer) {
		if s.start == 0 {
			return errLineTooLong
		}
		s.end = copy(s.buffer, s.buffer[s.start:])
		s.start = 0
	}
	n, err := s.conn.Read(s.buffer[s.end:])
	if n > 0 {
		s.end += n
		if s.held != nil {
			s.read = time.Now()
		}
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

func (s *session) flush() error {
	if len(s.replies) == 0 {
		return nil
	}
	if s.held != nil {
		s.held <- heldReplies{s.read.Add(s.sink.Delay), bytes.Clone(s.replies)}
		s.replies = s.replies[:0]
		return nil
	}
	_, err := s.conn.Write(s.replies)
	s.replies = s.replies[:0]
	return err
}

// writeHeld writes each batch when it is due. After an error it goes on taking batches, so that the reader ends
// on its own error and not in a full channel.
func writeHeld(conn net.Conn, held <-chan heldReplies, written chan<- struct{}) {
	defer close(written)
	var failed error
	for batch := range held {
		if failed != nil {
			continue
		}
		time.Sleep(time.Until(batch.due))
		if _, failed = conn.Write(batch.replies); failed != nil {
			conn.Close()
		}
	}
}

// is compares a verb without regard to case.
func is(verb []byte, name string) bool {
	if len(verb) != len(name) {
		return false
	}
	for i := range verb {
		if verb[i]&^0x20 != name[i] {
			return false
		}
	}
	return true
}

// declaredSize is the SIZE parameter of MAIL (RFC 1870), 0 without one.
func declaredSize(parameters []byte) int64 {
	for field := range bytes.FieldsSeq(parameters) {
		if len(field) > 5 && is(field[:4], "SIZE") && field[4] == '=' {
			if size, ok := number(field[5:]); ok {
				return size
			}
		}
	}
	return 0
}

// chunk reads the parameters of BDAT: a size, and LAST with the last one.
func chunk(parameters []byte) (size int64, last, ok bool) {
	digits, rest, found := bytes.Cut(parameters, []byte(" "))
	if found {
		if rest = bytes.TrimSpace(rest); len(rest) > 0 {
			if !is(rest, "LAST") {
				return 0, false, false
			}
			last = true
		}
	}
	size, ok = number(digits)
	return size, last, ok
}

// number reads up to 18 decimal digits, without the garbage strconv would make of a byte slice.
func number(digits []byte) (int64, bool) {
	if len(digits) == 0 || len(digits) > 18 {
		return 0, false
	}
	var n int64
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + int64(d-'0')
	}
	return n, true
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
