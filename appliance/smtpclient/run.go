package smtpclient

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"mailchute/appliance/reply"
)

// Run sends transactions until next returns nil; then it waits for the last answers, says QUIT and returns nil. It
// returns nil too, with no transaction harmed, when the server closes or says 421 while nothing is unanswered; and
// when it cuts the connection itself because of one message, which was refused before its end or could not be read.
// Else the connection has failed, and the error is an *Error. The connection is closed in any case.
//
// next is called whenever the window has room, and may block until there is work. Its context ends when the
// connection is over or Run's ctx ends; then it returns nil. While something written is waiting for company, next
// is first called with a context that has already ended: then it returns what is at hand, or nil without waiting, and
// is asked again once the buffer is on the wire. So a burst goes out in few writes, and a lone message at once.
//
// done is called exactly once for each transaction that next gave, in their order, never by two goroutines at once,
// but while next may be running. The end of ctx does not cut what is in the air; Close does.
func (c *Conn) Run(ctx context.Context, next func(context.Context) *Transaction, done func(*Transaction, Outcome)) error {
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &session{c: c, done: done, cancel: cancel, since: time.Now(), pipelined: c.peer.Pipelined, chunked: c.peer.Chunked}
	s.changed.L = &s.mu
	s.w = writers.Get().(*bufio.Writer)
	s.w.Reset(c.conn)

	finished := make(chan struct{})
	go func() {
		defer close(finished)
		s.read()
	}()
	s.write(working, next)
	<-finished
	s.w.Reset(nil)
	writers.Put(s.w)
	err := s.finish()
	if c.options.Ended != nil {
		c.options.Ended(s.summary)
	}
	return err
}

// A body streams through one such buffer, and a burst of small messages shares it.
const bufferSize = 64 * 1024

var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, bufferSize) }}

// session is what the writing and the reading goroutine of one Run share.
type session struct {
	c         *Conn
	w         *bufio.Writer // the writer's
	done      func(*Transaction, Outcome)
	cancel    context.CancelFunc
	pipelined bool
	chunked   bool
	used      bool // a MAIL has been sent: RSET comes before the next

	mu       sync.Mutex
	changed  sync.Cond // something below has changed that the writer may wait for
	flights  []*flight // unanswered, the oldest first
	bytes    int64     // their bodies
	since    time.Time // the last reply, or when there was first something to wait for
	writeErr error     // nothing more can be written
	quitting bool      // QUIT is sent
	over     bool      // the reader is done
	ending   *Error    // why, if it was not orderly
	silent   bool      // the connection ended without a word: EOF, reset
	summary  Summary
}

// read hears the replies until the connection is over.
func (s *session) read() {
	for s.listen() {
	}
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.c.wire.Conn.Close()
	s.cancel()
	s.changed.Broadcast()
}

// listen takes one reply, and reports whether there may be another.
func (s *session) listen() bool {
	r, err := reply.Reply{}, s.await()
	if err == nil {
		r, err = reply.Read(s.c.r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Now()
	if len(s.flights) == 0 {
		if err == nil && r.Code != 421 && !s.quitting {
			s.ending = &Error{reply.Answer{Stage: reply.Reset, Reply: r, Err: fmt.Errorf("%w: the server spoke unasked", reply.ErrOutOfStep)}}
		}
		return false
	}
	oldest := s.flights[0]
	if err != nil {
		var syntax *reply.SyntaxError
		s.silent = r.Code == 0 && !errors.As(err, &syntax) && !errors.Is(err, os.ErrDeadlineExceeded)
		if s.c.closed.Load() {
			err = fmt.Errorf("the box closed the connection: %w", net.ErrClosed)
		} else if s.writeErr != nil {
			err = telling(err, s.writeErr)
		}
		s.ending = &Error{reply.Answer{Stage: oldest.now(), Reply: r, Err: explain(err)}}
		return false
	}
	stage := oldest.now()
	if err := oldest.hear(r); err != nil {
		s.ending = &Error{reply.Answer{Stage: stage, Reply: r, Err: err}}
		s.summary.OutOfStep = err == errPipeline
		return false
	}
	for len(s.flights) > 0 && s.flights[0].settled {
		s.land(s.flights[0])
	}
	s.changed.Signal()
	return true
}

// land hands the outcome of the oldest flight over, and only then makes its room free, so that outcomes stay in order.
func (s *session) land(f *flight) {
	taken := f.taken() // what done gets is no longer ours
	s.mu.Unlock()
	s.done(f.t, Outcome{Answers: f.answers})
	s.mu.Lock()
	if taken {
		s.summary.Sent++
	}
	s.flights[0] = nil
	s.flights = s.flights[1:]
	s.bytes -= f.t.Size
}

// await returns when a reply begins to arrive. Its patience is measured from the last sign of life in either
// direction: a reply, or a block that the server had room for.
func (s *session) await() error {
	for {
		s.mu.Lock()
		_ = s.c.wire.SetReadDeadline(s.deadline()) // a closed connection shows at reading
		s.mu.Unlock()
		_, err := s.c.r.Peek(1)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		s.mu.Lock()
		expired := !time.Now().Before(s.deadline())
		s.mu.Unlock()
		if expired {
			return err
		}
	}
}

// deadline is when the reader gives up; zero while there is nothing to wait for.
func (s *session) deadline() time.Time {
	timeouts := &s.c.options.Timeouts
	switch {
	case s.writeErr != nil || s.quitting:
		return s.since.Add(timeouts.Quit)
	case len(s.flights) == 0:
		return time.Time{}
	}
	from := s.since
	if written := time.Unix(0, s.c.wire.progress.Load()); written.After(from) {
		from = written
	}
	return from.Add(timeouts.of(s.flights[0].stage))
}

// expect makes the reader's deadline count from now.
func (s *session) expect() {
	s.since = time.Now()
	// A connection that is closed already ends the reader by itself.
	_ = s.c.wire.SetReadDeadline(s.deadline())
}

// finish gives an outcome to whatever is left when both goroutines are done: the oldest unanswered transaction takes
// the error, unless the connection ended before it was noticed at all; the others were not tried.
func (s *session) finish() error {
	blame := s.ending != nil
	for _, f := range s.flights {
		outcome := Outcome{Answers: f.answers}
		switch open := f.open(); {
		case !open && f.launched:
			// It has had its answer, and with it whatever ended the connection.
			s.summary.Broken = s.summary.Broken || blame && !s.ownCut()
			blame = false
		case !open: // refused by the client itself
		case f.failure != nil:
			f.settle(reply.Answer{Stage: reply.Data, Err: f.failure})
			blame = false
		case blame && f.launched && !s.unnoticed(f):
			f.settle(s.ending.Answer)
			s.summary.Broken = !s.c.closed.Load()
			blame = false
		default:
			outcome = Outcome{Untried: true}
			blame = false
		}
		if f.taken() {
			s.summary.Sent++
		}
		s.done(f.t, outcome)
	}
	if s.ending == nil || s.ownCut() {
		return nil
	}
	return s.ending
}

// ownCut tells whether the connection was ended from this side because of one message.
func (s *session) ownCut() bool {
	var body *BodyError
	return errors.Is(s.ending, errEarly) || errors.As(s.ending, &body)
}

// unnoticed tells whether the connection ended without a word about the flight: by 421 to the RSET before it, or
// closed at the moment when it broke the silence.
func (s *session) unnoticed(f *flight) bool {
	return f.stage == reply.Reset && (errors.Is(s.ending, errClosing) || f.fresh && s.silent)
}

var asked = func() context.Context {
	ended, end := context.WithCancel(context.Background())
	end()
	return ended
}()

// write sends what next gives, then QUIT.
func (s *session) write(ctx context.Context, next func(context.Context) *Transaction) {
	for s.room(0) {
		t := s.take(ctx, next)
		if t == nil {
			break
		}
		if f := s.board(t); f != nil && !s.send(f) {
			return
		}
	}
	if !s.flush() || !s.wait(func() bool { return len(s.flights) == 0 }) {
		return
	}
	s.mu.Lock()
	s.quitting = true
	s.expect()
	s.mu.Unlock()
	_, _ = s.w.WriteString("QUIT\r\n")
	s.flush()
}

// take asks for the next transaction, first without waiting while the buffer holds something.
func (s *session) take(ctx context.Context, next func(context.Context) *Transaction) *Transaction {
	if s.w.Buffered() > 0 {
		if ctx.Err() == nil {
			if t := next(asked); t != nil {
				return t
			}
		}
		if !s.flush() {
			return nil
		}
	}
	return next(ctx)
}

// board makes a flight of a transaction once the window has room for its body. A transaction that never gets to the
// wire still lands in its turn: then there is no flight.
func (s *session) board(t *Transaction) *flight {
	f := &flight{t: t, reset: s.used, pipelined: s.pipelined, chunked: s.chunked, utf8: needsUTF8(t)}
	f.start()
	if refusal, ok := s.c.peer.admit(t); !ok {
		f.settle(refusal)
	}
	if f.open() {
		if !s.room(t.Size) {
			s.leave(f)
			return nil
		}
		var err error
		if f.body, err = t.Body(); err != nil {
			f.settle(reply.Answer{Stage: reply.Data, Err: &BodyError{Size: t.Size, Err: err}})
		}
	}
	f.settled = !f.open()
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.settled && len(s.flights) == 0 {
		// The reader calls done only while there is a flight.
		s.mu.Unlock()
		s.done(t, Outcome{Answers: f.answers})
		s.mu.Lock()
		return nil
	}
	s.flights = append(s.flights, f)
	s.bytes += t.Size
	if f.settled {
		return nil
	}
	f.launched = true
	f.fresh = f.reset && len(s.flights) == 1
	if f.pipelined {
		f.sent = f.envelope()
	}
	if len(s.flights) == 1 {
		s.expect()
	}
	s.used = true
	return f
}

// leave keeps a transaction for finish that was taken when the connection was already lost. Only when the reader is
// done may it join the others: nothing that still arrives is about it.
func (s *session) leave(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.over {
		s.changed.Wait()
	}
	s.flights = append(s.flights, f)
}

// room waits until the window has room for one more body of that size, and reports whether the connection still
// stands. A body larger than the whole window goes when nothing else is unanswered.
func (s *session) room(size int64) bool {
	return s.wait(func() bool {
		window := s.c.options.Window
		if s.c.options.Careful && s.summary.Sent == 0 {
			window = 1
		}
		return len(s.flights) == 0 || len(s.flights) < window && s.bytes+size <= s.c.options.WindowBytes
	})
}

// wait lets the writer sleep until the condition holds, and reports whether the connection still stands. What is
// in the buffer goes out first.
func (s *session) wait(condition func() bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.over && s.writeErr == nil && !condition() {
		if s.w.Buffered() > 0 {
			s.mu.Unlock()
			s.flush()
			s.mu.Lock()
			continue
		}
		s.changed.Wait()
	}
	return !s.over && s.writeErr == nil
}

// flush reports whether the buffer went out. After a failure the reader goes on for a moment: the server may have
// said why it closed.
func (s *session) flush() bool {
	return s.written(s.w.Flush())
}

func (s *session) written(err error) bool {
	if err == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over && s.writeErr == nil {
		s.writeErr = err
		s.expect()
	}
	return false
}

// cut ends the connection from this side.
func (s *session) cut(why error) {
	s.written(why)
	s.c.wire.Conn.Close()
}
