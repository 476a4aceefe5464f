// Package sink is the far end of a benchmark: an ESMTP server that takes every mail, counts it, checks that it
// came whole, and throws it away. It allocates nothing for a mail, because it shares the machine with the relay
// that is measured.
package sink

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Sink takes mail on any number of connections. Set the exported fields before the first connection.
type Sink struct {
	// Name is the host name in banner and EHLO.
	Name string
	// MaxSize is announced as SIZE (RFC 1870), in bytes.
	MaxSize int64
	// Delay holds back the replies to whatever arrived in one read, the banner included, as a line of that
	// round-trip time would. Batches do not wait for each other: each is written Delay after it was read.
	Delay time.Duration

	greeting, capabilities []byte
	tally                  atomic.Pointer[tally]
	prepare                sync.Once
	sessions               sync.Pool
}

// Tally is what has arrived since the last Expect.
type Tally struct {
	Messages int64
	Bytes    int64     // of content, headers included, dot-stuffing undone
	Damaged  int64     // messages whose body had not the expected checksum
	Last     time.Time // when the last message was complete; zero before the first
}

type tally struct {
	want     int64
	checksum uint32
	start    time.Time
	messages atomic.Int64
	bytes    atomic.Int64
	damaged  atomic.Int64
	last     atomic.Int64 // nanoseconds after start
	done     chan struct{}
}

// Expect starts a new tally and returns a channel that closes when the given number of messages has arrived.
// The checksum is Checksum of what every body (after the header's empty line) should be.
func (s *Sink) Expect(messages int64, checksum uint32) <-chan struct{} {
	t := &tally{want: messages, checksum: checksum, start: time.Now(), done: make(chan struct{})}
	if messages == 0 {
		close(t.done)
	}
	s.tally.Store(t)
	return t.done
}

// Tally is the state of the tally that the last Expect started; zero before the first.
func (s *Sink) Tally() Tally {
	t := s.tally.Load()
	if t == nil {
		return Tally{}
	}
	result := Tally{Messages: t.messages.Load(), Bytes: t.bytes.Load(), Damaged: t.damaged.Load()}
	if result.Messages > 0 {
		result.Last = t.start.Add(time.Duration(t.last.Load()))
	}
	return result
}

func (s *Sink) arrived(c *content) {
	t := s.tally.Load()
	if t == nil {
		return
	}
	if c.checksum != t.checksum {
		t.damaged.Add(1)
	}
	t.bytes.Add(c.size)
	t.last.Store(int64(time.Since(t.start)))
	if t.messages.Add(1) == t.want {
		close(t.done)
	}
}

// Serve takes connections until the listener is closed, then closes those that are open and waits for them.
func (s *Sink) Serve(listener net.Listener) error {
	var (
		mutex sync.Mutex
		open  = map[net.Conn]bool{}
		group sync.WaitGroup
	)
	for {
		conn, err := listener.Accept()
		if err != nil {
			mutex.Lock()
			for conn := range open {
				conn.Close()
			}
			mutex.Unlock()
			group.Wait()
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		mutex.Lock()
		open[conn] = true
		mutex.Unlock()
		group.Go(func() {
			s.ServeConn(conn)
			mutex.Lock()
			delete(open, conn)
			mutex.Unlock()
		})
	}
}

// ServeConn holds one SMTP session on conn and closes it.
func (s *Sink) ServeConn(conn net.Conn) {
	s.prepare.Do(s.compose)
	session, ok := s.sessions.Get().(*session)
	if !ok {
		session = newSession(s)
	}
	session.serve(conn)
	s.sessions.Put(session)
}

// compose writes the replies that name the sink once, not per connection.
func (s *Sink) compose() {
	s.greeting = []byte("220 " + s.Name + " ESMTP\r\n")
	var b bytes.Buffer
	for _, line := range []string{s.Name, "PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING"} {
		b.WriteString("250-" + line + "\r\n")
	}
	b.WriteString("250 SIZE " + decimal(s.MaxSize) + "\r\n")
	s.capabilities = b.Bytes()
}
