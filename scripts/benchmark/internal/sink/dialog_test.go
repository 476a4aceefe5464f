package sink

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// answers is everything the sink writes to a client that sends all its lines in one go.
func answers(t *testing.T, s *Sink, lines string) string {
	t.Helper()
	client, server := net.Pipe()
	go func() {
		// The sink may close before it has read all: that is an answer too.
		io.WriteString(client, strings.ReplaceAll(lines, "\n", "\r\n"))
	}()
	go s.ServeConn(server)
	reply, err := io.ReadAll(client)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(reply), "\r\n", "\n")
}

func TestDialogs(t *testing.T) {
	const greeting = "220 sink.test ESMTP\n"
	const capabilities = "250-sink.test\n250-PIPELINING\n250-8BITMIME\n250-ENHANCEDSTATUSCODES\n250-CHUNKING\n250 SIZE 100\n"
	const envelope = "MAIL FROM:<a@b.test> SIZE=20\nRCPT TO:<c@d.test>\n"
	const envelopeOK = "250 2.1.0 OK\n250 2.1.5 OK\n"
	const bye = "221 2.0.0 Bye\n"
	tests := []struct {
		name, client, replies string
		messages              int64
	}{
		{"EHLO lists what is offered", "EHLO x\nQUIT\n", capabilities + bye, 0},
		{"verbs in any case", "ehlo x\nnoop\nquit\n", capabilities + "250 2.0.0 OK\n" + bye, 0},
		{
			"DATA, pipelined with the next transaction",
			envelope + "DATA\nSubject: x\n\nbody\n.\n" + envelope + "DATA\nA: b\n\n.\nQUIT\n",
			envelopeOK + "354 End data with <CR><LF>.<CR><LF>\n250 2.6.0 Queued\n" +
				envelopeOK + "354 End data with <CR><LF>.<CR><LF>\n250 2.6.0 Queued\n" + bye,
			2,
		},
		{
			"BDAT in two chunks", envelope + "BDAT 6\nA: b\nBDAT 5 LAST\n\nb\nQUIT\n",
			envelopeOK + "250 2.0.0 OK\n250 2.6.0 Queued\n" + bye, 1,
		},
		{
			"an empty last chunk", envelope + "BDAT 11\nA: b\n\nb\nBDAT 0 last\nQUIT\n",
			envelopeOK + "250 2.0.0 OK\n250 2.6.0 Queued\n" + bye, 1,
		},
		{
			"DATA after BDAT", envelope + "BDAT 6\nA: b\nDATA\nQUIT\n",
			envelopeOK + "250 2.0.0 OK\n503 5.5.1 Bad sequence of commands\n" + bye, 0,
		},
		{
			"a chunk without recipient is read and refused", "BDAT 6 LAST\nQUIT\nNOOP\nQUIT\n",
			"503 5.5.1 Bad sequence of commands\n250 2.0.0 OK\n" + bye, 0,
		},
		{"a chunk without a size ends the session", "BDAT LAST\nNOOP\n", "501 5.5.4 Syntax error in parameters\n", 0},
		{"a chunk with a false word ends the session", "BDAT 1 FIRST\nNOOP\n", "501 5.5.4 Syntax error in parameters\n", 0},
		{
			"RSET ends a transaction", "MAIL FROM:<>\nRSET\nRCPT TO:<c@d.test>\nQUIT\n",
			"250 2.1.0 OK\n250 2.0.0 OK\n503 5.5.1 Bad sequence of commands\n" + bye, 0,
		},
		{
			"one MAIL a transaction", "MAIL FROM:<>\nMAIL FROM:<>\nQUIT\n",
			"250 2.1.0 OK\n503 5.5.1 Bad sequence of commands\n" + bye, 0,
		},
		{"DATA needs a recipient", "MAIL FROM:<>\nDATA\nQUIT\n", "250 2.1.0 OK\n503 5.5.1 Bad sequence of commands\n" + bye, 0},
		{"a declared size over the limit", "MAIL FROM:<> size=101\nQUIT\n", "552 5.3.4 Message too big\n" + bye, 0},
		{
			"a real size over the limit", envelope + "DATA\n\n" + strings.Repeat("x", 100) + "\n.\nQUIT\n",
			envelopeOK + "354 End data with <CR><LF>.<CR><LF>\n552 5.3.4 Message too big\n" + bye, 0,
		},
		{"an unknown verb", "VRFY x\nQUIT\n", "500 5.5.2 Command not recognised\n" + bye, 0},
		{"a line longer than the buffer", strings.Repeat("x", bufferSize+1), "500 5.5.6 Line too long\n", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &Sink{Name: "sink.test", MaxSize: 100}
			s.Expect(-1, 0)
			if diff := cmp.Diff(greeting+test.replies, answers(t, s, test.client)); diff != "" {
				t.Errorf("replies (-want +got):\n%s", diff)
			}
			if got := s.Tally().Messages; got != test.messages {
				t.Errorf("%d messages arrived, want %d", got, test.messages)
			}
		})
	}
}

// TestSessionsAreIndependent sees that a session broken off in the middle leaves nothing to the next, which gets
// its buffer.
func TestSessionsAreIndependent(t *testing.T) {
	s := &Sink{Name: "sink.test", MaxSize: 100}
	done := s.Expect(1, Checksum([]byte("body\r\n")))
	client, server := net.Pipe()
	go func() {
		io.ReadAtLeast(client, make([]byte, 100), 1)
		io.WriteString(client, "MAIL FROM:<>\r\n")
		io.ReadAtLeast(client, make([]byte, 100), 1)
		client.Close()
	}()
	s.ServeConn(server)
	answers(t, s, "MAIL FROM:<>\nRCPT TO:<a@b>\nDATA\nA: b\n\nbody\n.\nQUIT\n")
	select {
	case <-done:
	default:
		t.Fatal("the message did not arrive")
	}
	if got := s.Tally(); got.Messages != 1 || got.Damaged != 0 {
		t.Errorf("tally %+v, want 1 message, whole", got)
	}
}
