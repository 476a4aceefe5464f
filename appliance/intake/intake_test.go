package intake

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mailchute/appliance/config"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// serve has the box listen on a loopback socket, until the test ends.
func (b *box) serve(t testing.TB, mode config.ListenTLS) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.Serve(l, config.Listener{Address: l.Addr().String(), TLS: mode}) }()
	t.Cleanup(func() {
		if err := b.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error("Serve:", err)
		}
	})
	return l.Addr().String()
}

// talk sends all of it over a real socket, shuts its side, and returns what came back.
func talk(t *testing.T, address, said string) string {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, said); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	replies, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return codes(string(replies))
}

// codes are those of the last line of each reply.
func codes(replies string) string {
	var found []string
	for line := range strings.Lines(replies) {
		if len(line) > 3 && line[3] == ' ' {
			found = append(found, line[:3])
		}
	}
	return strings.Join(found, " ")
}

const opening = "EHLO mfp-2\r\nMAIL FROM:<mfp@contoso.com>\r\nRCPT TO:<anna@contoso.com>\r\n"

// A device that shuts its sending side has said all it wants, and is told all it asked for.
func TestHalfClose(t *testing.T) {
	for _, test := range []struct{ name, said, codes, body string }{
		{"after QUIT", opening + "DATA\r\nA: b\r\n.\r\nQUIT\r\n", "220 250 250 250 354 250 221", "A: b\r\n"},
		{"after the final dot", opening + "DATA\r\nA: b\r\n.\r\n", "220 250 250 250 354 250", "A: b\r\n"},
		{"after the last chunk", opening + "BDAT 6 LAST\r\nA: b\r\n", "220 250 250 250 250", "A: b\r\n"},
		{"within the body", opening + "DATA\r\nA: b\r\n.", "220 250 250 250 354", ""},
		{"within a chunk", opening + "BDAT 7 LAST\r\nA: b\r\n", "220 250 250 250", ""},
		{"within a command", opening + "DAT", "220 250 250 250", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBox(t)
			address := b.serve(t, config.ListenStartTLS)
			if got := talk(t, address, test.said); got != test.codes {
				t.Errorf("replies %s, want %s", got, test.codes)
			}
			m := b.queue.next()
			if m == nil {
				if test.body != "" {
					t.Error("no message in the queue")
				}
				return
			}
			if _, body := m.split(); body != test.body {
				t.Errorf("the body is %q, want %q", body, test.body)
			}
		})
	}
}

// The whole envelope, as delivery and trace get it, over a real socket with TLS 1.2 and 1.3.
func TestEnvelope(t *testing.T) {
	for _, test := range []struct {
		version uint16
		tls     string
	}{{tls.VersionTLS12, "TLS1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}, {tls.VersionTLS13, "TLS1.3 TLS_AES_128_GCM_SHA256"}} {
		b := newBox(t)
		at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
		b.now = func() time.Time { return at }
		address := b.serve(t, config.ListenImplicit)
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, MaxVersion: test.version,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}})
		if err != nil {
			t.Fatal(err)
		}
		body := "Subject: =?utf-8?Q?Sc=C3=A4n?=\r\nMessage-ID: <7@mfp-2>\r\n\r\n\xff\r\n"
		fmt.Fprintf(conn, "%sDATA\r\n%s.\r\nQUIT\r\n", opening, body)
		replies, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		if got, want := codes(string(replies)), "220 250 250 250 354 250 221"; got != want {
			t.Fatalf("replies %s, want %s", got, want)
		}
		m := b.queue.next()
		field := "Received: from mfp-2 ([127.0.0.1])\r\n\tby relay.contoso.com with ESMTPS (" + test.tls +
			") id 00000000001;\r\n\tWed, 04 Mar 2026 05:06:07 +0000\r\n"
		if diff := cmp.Diff(field+body, m.body.String()); diff != "" {
			t.Error(diff)
		}
		want := &spool.Envelope{EightBit: true, Record: trace.Record{
			ID: 1, Accepted: at, Device: "Floor 2", Client: "127.0.0.1", Listener: address, Helo: "mfp-2", TLS: test.tls,
			Sender:     "mfp@contoso.com",
			Recipients: []trace.Recipient{{Address: "anna@contoso.com", State: trace.Waiting}},
			MessageID:  "<7@mfp-2>", Subject: "Scän", Size: int64(m.body.Len()),
			Events: []trace.Event{{Time: at, Kind: trace.Accepted}},
		}}
		if diff := cmp.Diff(want, m.envelope); diff != "" {
			t.Error(diff)
		}
	}
}

// Whatever a body holds, it arrives whole as one message and nothing of it is run: the real library above.
func checkOneMessage(t interface{ Fatalf(string, ...any) }, b *box, body string, chunked bool) {
	said := opening
	if chunked {
		half := len(body) / 2
		said += fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%s", half, body[:half], len(body)-half, body[half:])
	} else {
		if !strings.HasSuffix(body, "\r\n") && body != "" {
			body += "\r\n"
		}
		said += "DATA\r\n" + strings.TrimPrefix(strings.ReplaceAll("\r\n"+body, "\r\n.", "\r\n.."), "\r\n") + ".\r\n"
	}
	device := newTape(said + "QUIT\r\n")
	l := newPipeListener("192.168.1.5:25")
	served := make(chan error, 1)
	go func() { served <- b.Serve(l, config.Listener{Address: ":25", TLS: config.ListenStartTLS}) }()
	l.connections <- device
	<-device.closed
	l.Close()
	if err := <-served; err != nil {
		t.Fatalf("Serve: %v", err)
	}
	want := "220 250 250 250 354 250 221"
	if chunked {
		want = "220 250 250 250 250 250 221"
	}
	if got := codes(device.said.String()); got != want {
		t.Fatalf("%q: replies %s, want %s", body, got, want)
	}
	m := b.queue.next()
	if m == nil || b.queue.next() != nil {
		t.Fatalf("%q is not one message", body)
	}
	normal := strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(body, "\r\n", "\n"), "\r", "\n"), "\n", "\r\n")
	if normal != "" && !strings.HasSuffix(normal, "\r\n") {
		normal += "\r\n"
	}
	if _, got := m.split(); got != normal && got != "\r\n"+normal { // the second: a body without a header
		t.Fatalf("%q became %q", body, got)
	}
	if m.envelope.Sender != "mfp@contoso.com" || len(m.envelope.Recipients) != 1 {
		t.Fatalf("%q: %+v", body, m.envelope)
	}
}

func TestBodyIsOneMessage(t *testing.T) {
	b := newBox(t)
	b.rules.MaxMessageSize = 1 << 30
	b.SetRules(b.rules)
	parts := []string{"\r", "\n", "\r\n", ".", "\r\n.\n", "\n.\r\n", "\r\n.\r", "MAIL FROM:<x@y.example>", "RSET", "QUIT", "BDAT 3 LAST", "DATA",
		"Subject: a", " ", "\x00", "\xff", strings.Repeat("z", 3000)}
	rapid.Check(t, func(t *rapid.T) {
		body := strings.Join(rapid.SliceOf(rapid.SampledFrom(parts)).Draw(t, "parts"), "")
		checkOneMessage(t, b, body, rapid.Bool().Draw(t, "chunked"))
	})
}

func FuzzBodyIsOneMessage(f *testing.F) {
	f.Add("A: b\r\n\r\none\r\n.\nMAIL FROM:<x@y.example>\r\n", false)
	f.Add("A: b\n\none\n.\r\nRSET\r\n.\r", false)
	f.Add("\r\n.\r\nQUIT\r\n.\r\n", true)
	f.Add("no end\r", true)
	b := newBox(f)
	b.log.discard = true
	f.Fuzz(func(t *testing.T, body string, chunked bool) { checkOneMessage(t, b, body, chunked) })
}

// Whatever a device says, the server comes to an end with it, and what it began it ended.
func FuzzSession(f *testing.F) {
	f.Add(opening + "DATA\r\nA: b\r\n.\r\nQUIT\r\n")
	f.Add(opening + "BDAT 3\r\nabcRSET\r\nBDAT 0\r\nMAIL FROM:<>\r\nQUIT\r\n")
	f.Add("EHLO x\r\nSTARTTLS\r\n\x16\x03\x01\x00\x05hello")
	f.Add("HELO\r\nMAIL FROM:<\"a\\\"@b>\r\nRCPT TO:<@a,@b:c@d>\r\nAUTH LOGIN\r\n*\r\n")
	f.Fuzz(func(t *testing.T, said string) {
		b := newBox(t)
		device := newTape(said)
		l := newPipeListener("192.168.1.5:25")
		go b.Serve(l, config.Listener{Address: ":25", TLS: config.ListenStartTLS})
		l.connections <- device
		<-device.closed
		if err := b.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
		for m := b.queue.next(); m != nil; m = b.queue.next() {
			if len(m.envelope.Recipients) == 0 || m.envelope.Size != int64(m.body.Len()) {
				t.Fatalf("%+v", m.envelope)
			}
			if strings.ContainsAny(m.envelope.Sender+m.envelope.Recipients[0].Address+m.envelope.Helo, "\r\n\x00") {
				t.Fatalf("control characters in %+v", m.envelope)
			}
		}
	})
}

// tape is a connection whose device has said everything already and listens to the end.
type tape struct {
	net.Conn // nil: nothing else is called
	in       *strings.Reader
	said     strings.Builder
	closed   chan struct{}
}

func newTape(said string) *tape {
	return &tape{in: strings.NewReader(said), closed: make(chan struct{})}
}

func (d *tape) Read(p []byte) (int, error)       { return d.in.Read(p) }
func (d *tape) Write(p []byte) (int, error)      { return d.said.Write(p) }
func (d *tape) RemoteAddr() net.Addr             { return tcpAddr("192.168.1.40:49152") }
func (d *tape) LocalAddr() net.Addr              { return tcpAddr("192.168.1.5:25") }
func (d *tape) SetDeadline(time.Time) error      { return nil }
func (d *tape) SetReadDeadline(time.Time) error  { return nil }
func (d *tape) SetWriteDeadline(time.Time) error { return nil }

func (d *tape) Close() error {
	select {
	case <-d.closed:
	default:
		close(d.closed)
	}
	return nil
}

// A stop under load: every message that was acknowledged is in the queue, and every other was not taken.
func TestShutdownUnderLoad(t *testing.T) {
	b := newBox(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- b.Serve(l, config.Listener{Address: ":25", TLS: config.ListenPlain}) }()
	const devices = 8
	acknowledged, enough := make(chan int, devices), make(chan struct{}, devices)
	for range devices {
		go func() {
			count := 0
			defer func() { acknowledged <- count }()
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			io.WriteString(conn, "HELO mfp-2\r\n")
			for {
				io.WriteString(conn, "MAIL FROM:<mfp@contoso.com>\r\nRCPT TO:<anna@contoso.com>\r\nDATA\r\nA: b\r\n.\r\n")
				for line := ""; !strings.Contains(line, "Queued as"); {
					if line, err = in.ReadString('\n'); err != nil {
						return
					}
				}
				if count++; count == 20 {
					enough <- struct{}{}
				}
			}
		}()
	}
	for range devices {
		<-enough
	}
	if err := b.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error("Serve:", err)
	}
	sum := 0
	for range devices {
		sum += <-acknowledged
	}
	if sum != b.queue.accepted {
		t.Errorf("%d acknowledged, %d accepted", sum, b.queue.accepted)
	}
}

// A stop does not wait beyond its context: what is in the air then is cut off, and was never acknowledged.
func TestShutdownCutsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		l := newPipeListener("192.168.1.5:25")
		go b.Serve(l, config.Listener{Address: ":25", TLS: config.ListenPlain})
		conn := l.dial("192.168.1.40")
		go io.WriteString(conn, opening+"DATA\r\nA: b\r\n")
		in := bufio.NewReader(conn)
		for line := ""; !strings.HasPrefix(line, "354"); {
			var err error
			if line, err = in.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		began := time.Now()
		if err := b.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("it took %v", took)
		}
		if line, err := in.ReadString('\n'); err != io.EOF {
			t.Errorf("the device is told %q, %v", line, err)
		}
		synctest.Wait()
		if stats := b.Stats(); stats.Connections != 0 || b.queue.aborted != 1 || b.queue.accepted != 0 {
			t.Errorf("%+v, %d aborted, %d accepted", stats, b.queue.aborted, b.queue.accepted)
		}
		if err := b.Serve(newPipeListener("192.168.1.5:26"), config.Listener{TLS: config.ListenPlain}); err != nil {
			t.Errorf("Serve after Shutdown: %v", err)
		}
	})
}

// A device that takes no replies is given up after a minute.
func TestDeviceThatDoesNotListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		l := newPipeListener("192.168.1.5:25")
		go b.Serve(l, config.Listener{Address: ":25", TLS: config.ListenPlain})
		conn := l.dial("192.168.1.40")
		synctest.Wait()
		if n := b.Stats().Connections; n != 1 {
			t.Fatalf("%d connections", n)
		}
		<-time.After(61 * time.Second)
		synctest.Wait()
		if n := b.Stats().Connections; n != 0 {
			t.Errorf("%d connections after a minute", n)
		}
		if log := b.log.String(); !strings.Contains(log, "send replies: ") {
			t.Errorf("the log says %s", log)
		}
		conn.Close()
		b.Shutdown(t.Context())
	})
}

func TestStats(t *testing.T) {
	b := newBox(t)
	b.rules.MaxConnections = 2
	b.SetRules(b.rules)
	greet := func(address, code string) net.Conn {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.HasPrefix(line, code) {
			t.Fatalf("%q, %v; want %s", line, err, code)
		}
		return conn
	}
	address := b.serve(t, config.ListenPlain)
	greet(address, "220")
	other := b.serve(t, config.ListenStartTLS)
	conn := greet(other, "220")
	greet(other, "421")
	want := Stats{Connections: 2, Listeners: []ListenerStats{
		{Listener: config.Listener{Address: address, TLS: config.ListenPlain}, Address: address, Connections: 1, Accepted: 1},
		{Listener: config.Listener{Address: other, TLS: config.ListenStartTLS}, Address: other, Connections: 1, Accepted: 1, Refused: 1},
	}}
	if diff := cmp.Diff(want, b.Stats()); diff != "" {
		t.Error(diff)
	}
	io.WriteString(conn, "QUIT\r\n")
	io.Copy(io.Discard, conn) // when the device sees the end, there is room for the next
	greet(other, "220")
}

// A listener that is closed alone ends its Serve, and leaves what is open alone.
func TestListenerClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		l := newPipeListener("192.168.1.5:25")
		served := make(chan error, 1)
		go func() { served <- b.Serve(l, config.Listener{Address: ":25", TLS: config.ListenPlain}) }()
		conn := l.dial("192.168.1.40")
		in := bufio.NewReader(conn)
		in.ReadString('\n')
		l.Close()
		if err := <-served; err != nil {
			t.Error("Serve:", err)
		}
		io.WriteString(conn, "NOOP\r\n")
		if line, err := in.ReadString('\n'); !strings.HasPrefix(line, "250") {
			t.Errorf("%q, %v", line, err)
		}
		conn.Close()
		b.Shutdown(t.Context())
	})
}

// lateListener hands out one more connection after it was closed, as a real one may.
type lateListener struct{ *pipeListener }

func (lateListener) Close() error { return nil }

func TestConnectionAfterShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		l := lateListener{newPipeListener("192.168.1.5:25")}
		go b.Serve(l, config.Listener{Address: ":25", TLS: config.ListenPlain})
		synctest.Wait()
		b.Shutdown(t.Context())
		reply, err := io.ReadAll(l.dial("192.168.1.40"))
		if !strings.HasPrefix(string(reply), "421 4.7.0 ") || err != nil {
			t.Errorf("%q, %v", reply, err)
		}
		l.pipeListener.Close()
	})
}

// Rules nobody has set take nobody in.
func TestWithoutRules(t *testing.T) {
	b := newBox(t)
	b.SetRules(Rules{})
	if got := talk(t, b.serve(t, config.ListenPlain), ""); got != "421" {
		t.Errorf("replies %s", got)
	}
}

func TestTLSNeedsACertificate(t *testing.T) {
	s := New(Options{Queue: &testQueue{}, Refusals: &testRefusals{}})
	l := newPipeListener("192.168.1.5:25")
	if err := s.Serve(l, config.Listener{Address: ":465", TLS: config.ListenImplicit}); err == nil ||
		!strings.Contains(err.Error(), `listener :465: tls = "implicit" needs a certificate`) {
		t.Errorf("%v", err)
	}
}
