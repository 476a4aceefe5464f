package sink

import (
	"bufio"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestDelayIsALineNotATurnstile sends three batches 10 ms apart: each is answered 50 ms after it was sent, so the
// answers are 10 ms apart as well, and the replies of one batch come together.
func TestDelayIsALineNotATurnstile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		go (&Sink{Name: "sink.test", MaxSize: 100, Delay: 50 * time.Millisecond}).ServeConn(server)
		start := time.Now()
		type answer struct {
			After time.Duration
			Line  string
		}
		var got []answer
		read := make(chan struct{})
		go func() {
			defer close(read)
			for lines := bufio.NewScanner(client); lines.Scan(); {
				got = append(got, answer{time.Since(start), lines.Text()})
			}
		}()
		for _, batch := range []string{"NOOP\r\nRSET\r\n", "HELO x\r\n", "VRFY\r\nQUIT\r\n"} {
			io.WriteString(client, batch)
			<-time.After(10 * time.Millisecond)
		}
		<-read
		want := []answer{
			{50 * time.Millisecond, "220 sink.test ESMTP"},
			{50 * time.Millisecond, "250 2.0.0 OK"},
			{50 * time.Millisecond, "250 2.0.0 OK"},
			{60 * time.Millisecond, "250 2.0.0 OK"},
			{70 * time.Millisecond, "500 5.5.2 Command not recognised"},
			{70 * time.Millisecond, "221 2.0.0 Bye"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
	})
}

// TestDelayDoesNotMoveTheArrival: the message counts when it is complete, not when the 250 is on its way.
func TestDelayDoesNotMoveTheArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Sink{Name: "sink.test", MaxSize: 100, Delay: 50 * time.Millisecond}
		arrived := s.Expect(1, Checksum(nil))
		client, server := net.Pipe()
		served := make(chan struct{})
		go func() { s.ServeConn(server); close(served) }()
		sent := time.Now()
		io.WriteString(client, "MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 8 LAST\r\nA: b\r\n\r\n")
		<-arrived
		if after := s.Tally().Last.Sub(sent); after != 0 {
			t.Errorf("arrived %v after it was sent, want at once", after)
		}
		client.Close()
		<-served
	})
}

// TestDelayEndsWithTheConnection: a client that goes away with replies outstanding leaves nothing waiting
// behind it, which the end of the bubble would notice.
func TestDelayEndsWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		served := make(chan struct{})
		go func() {
			(&Sink{Name: "sink.test", MaxSize: 100, Delay: 50 * time.Millisecond}).ServeConn(server)
			close(served)
		}()
		for range 10 {
			io.WriteString(client, "NOOP\r\n")
		}
		client.Close()
		<-served
	})
}

// TestServeEndsItsSessions closes the listener while a client is connected.
func TestServeEndsItsSessions(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- (&Sink{Name: "sink.test"}).Serve(listener) }()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the session is still open")
	}
}
