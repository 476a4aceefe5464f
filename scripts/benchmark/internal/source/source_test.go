package source

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"mailchute/scripts/benchmark/internal/sink"
)

func TestMailIsExactlyAsLargeAsAsked(t *testing.T) {
	for _, size := range []int{700, 701, 702, 777, 778, 779, 4096, 1 << 20} {
		mail, err := NewMail(size)
		if err != nil {
			t.Fatal(err)
		}
		header, _ := mail.header()
		content := append(header, bytes.TrimSuffix(mail.payload, []byte(terminator))...)
		if len(content) != size || mail.Size != size {
			t.Errorf("asked for %d bytes, got %d (Size %d)", size, len(content), mail.Size)
		}
		for line := range strings.Lines(string(content)) {
			if len(line) > 80+len("\r\n") && !strings.HasPrefix(line, "Content-") || !strings.HasSuffix(line, "\r\n") || line[0] == '.' {
				t.Fatalf("size %d: line %q: too long, not ended by CRLF, or begins with a dot", size, line)
			}
		}
	}
}

func TestMailTooSmallForItsHeader(t *testing.T) {
	if mail, err := NewMail(100); err == nil {
		t.Errorf("got a mail of %d bytes, want an error", mail.Size)
	}
}

func TestStamp(t *testing.T) {
	mail, err := NewMail(4096)
	if err != nil {
		t.Fatal(err)
	}
	header, digits := mail.header()
	stamp(digits, 1234)
	if want := "\r\nMessage-ID: <000000001234@scanner.bench.test>\r\n"; !bytes.Contains(header, []byte(want)) {
		t.Errorf("header has no %q:\n%s", want, header)
	}
	if other, _ := mail.header(); bytes.Contains(other, []byte("1234")) {
		t.Error("the number of one scanner shows in the header of another")
	}
}

// TestOffice hands in at a sink: every message arrives once and whole, and scanners connect as often as told.
func TestOffice(t *testing.T) {
	for _, test := range []struct {
		name                                      string
		scanners, messages, perConnection, expect int
	}{
		{"one scanner, one connection", 1, 10, 0, 1},
		{"a connection each", 1, 7, 1, 7},
		{"three a connection", 1, 10, 3, 4},
		{"exactly three a connection", 1, 9, 3, 3},
		{"nothing to send", 4, 0, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &sink.Sink{Name: "sink.test", MaxSize: 1 << 20}
			listener := counting(t, s)
			mail, err := NewMail(4096)
			if err != nil {
				t.Fatal(err)
			}
			arrived := s.Expect(int64(test.messages), mail.Checksum)
			office := Office{listener.Addr().String(), test.scanners, test.messages, mail, test.perConnection}
			submission, err := office.Submit(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			<-arrived
			tally := s.Tally()
			if tally.Messages != int64(test.messages) || tally.Damaged != 0 || tally.Bytes != int64(test.messages)*4096 {
				t.Errorf("tally %+v, want %d messages of 4096 bytes, whole", tally, test.messages)
			}
			if tally.Last.After(submission.Last) {
				t.Error("the last message arrived after its 250")
			}
			if got := listener.accepted.Load(); got != int64(test.expect) {
				t.Errorf("%d connections, want %d", got, test.expect)
			}
		})
	}
}

// TestManyScannersShareTheWork: together they send as many messages as asked, whoever sends how many.
func TestManyScannersShareTheWork(t *testing.T) {
	s := &sink.Sink{Name: "sink.test", MaxSize: 1 << 20}
	listener := counting(t, s)
	mail, err := NewMail(4096)
	if err != nil {
		t.Fatal(err)
	}
	<-s.Expect(0, mail.Checksum)
	if _, err := (Office{listener.Addr().String(), 20, 200, mail, 5}).Submit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := s.Tally(); got.Messages != 200 || got.Damaged != 0 {
		t.Errorf("tally %+v, want 200 messages, whole", got)
	}
}

// TestRefusalsAreErrors scripts a relay that refuses at one step; the error names step and reply.
func TestRefusalsAreErrors(t *testing.T) {
	for _, test := range []struct {
		name    string
		replies []string // to the connection and to each command
		want    string
	}{
		{"banner", []string{"554 no"}, `the connection is "554 no"`},
		{"EHLO", []string{"220 x", "421 4.3.2 later"}, `EHLO scanner.bench.test is "421 4.3.2 later"`},
		{"MAIL", []string{"220 x", "250-x\r\n250 SIZE", "452 4.3.1 full"}, `MAIL FROM:<scanner7@bench.test> is "452 4.3.1 full"`},
		{"DATA answered as if done", []string{"220 x", "250 x", "250 x", "250 x", "250 x"}, `DATA is "250 x", expected 3`},
		{"final dot", []string{"220 x", "250 x", "250 x", "250 x", "354 x", "554-no\r\n554 really"}, `the final dot is "554 really"`},
		{"silence", []string{"220 x", "250 x", "250 x"}, "waiting for the reply to RCPT TO:<archive@bench.test>"},
		{"a reply without end", []string{"220-" + strings.Repeat("x", 5000)}, "longer than 4096 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go refuse(listener, test.replies)
			mail, err := NewMail(4096)
			if err != nil {
				t.Fatal(err)
			}
			scanner := NewScanner(7, listener.Addr().String(), mail)
			defer scanner.Close()
			if err = scanner.Connect(t.Context()); err == nil {
				_, err = scanner.Send(1)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

// TestTheContextEndsAStall: a relay that never answers holds nobody longer than the context.
func TestTheContextEndsAStall(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	mail, err := NewMail(4096)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		cancel(io.ErrClosedPipe)
		conn.Read(make([]byte, 1))
	}()
	if _, err := (Office{listener.Addr().String(), 1, 1, mail, 0}).Submit(ctx); err != io.ErrClosedPipe {
		t.Errorf("error %v, want the context's cause", err)
	}
}

type countingListener struct {
	net.Listener
	accepted atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return conn, err
}

// counting serves the sink until the end of the test.
func counting(t *testing.T, s *sink.Sink) *countingListener {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &countingListener{Listener: listener}
	served := make(chan error)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		listener.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l
}

// refuse plays its replies, one a command and one for the whole content, then closes.
func refuse(listener net.Listener, replies []string) {
	conn, err := listener.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	for i, reply := range replies {
		if i > 0 {
			if line, err := lines.ReadString('\n'); err != nil || i == 5 && !endOfData(lines, line) {
				return
			}
		}
		io.WriteString(conn, reply+"\r\n")
	}
	// What the client still sends is taken, or its sending would fail with a reset before it reads.
	conn.(*net.TCPConn).CloseWrite()
	io.Copy(io.Discard, lines)
}

func endOfData(lines *bufio.Reader, line string) bool {
	for line != ".\r\n" {
		var err error
		if line, err = lines.ReadString('\n'); err != nil {
			return false
		}
	}
	return true
}
