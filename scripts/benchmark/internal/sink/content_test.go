package sink

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// scriptedConn hands out the given pieces, one a read, then the end; what is written to it is dropped.
type scriptedConn struct {
	net.Conn // for the methods a session does not call
	pieces   [][]byte
}

func (c *scriptedConn) Read(p []byte) (int, error) {
	if len(c.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.pieces[0])
	if c.pieces[0] = c.pieces[0][n:]; len(c.pieces[0]) == 0 {
		c.pieces = c.pieces[1:]
	}
	return n, nil
}

func (c *scriptedConn) Write(p []byte) (int, error) { return len(p), nil }
func (c *scriptedConn) Close() error                { return nil }

// TestEveryBodyArrivesWhole sends random content, full of dots and line ends, in random reads, by DATA and by BDAT.
func TestEveryBodyArrivesWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.SampledFrom([]string{".", "..", "x", "\r\n", "\r\n.", "\r", "\n", "\r\n\r\n", ".\r", "\x00"})
		body := strings.Join(rapid.SliceOf(piece).Draw(t, "body"), "") + "\r\n"
		message := "A: b\r\n\r\n" + body
		stuffed := strings.ReplaceAll("\r\n"+message, "\r\n.", "\r\n..")[2:]
		wire := "MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n"
		if rapid.Bool().Draw(t, "by BDAT") {
			cut := rapid.IntRange(0, len(message)).Draw(t, "chunk")
			wire += fmt.Sprintf("BDAT %d\r\n%sBDAT %d LAST\r\n%s", cut, message[:cut], len(message)-cut, message[cut:])
		} else {
			wire += "DATA\r\n" + stuffed + ".\r\n"
		}
		var pieces [][]byte
		for rest := []byte(wire + "QUIT\r\n"); len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "read")
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}

		s := &Sink{Name: "sink.test", MaxSize: 1 << 20}
		s.Expect(1, Checksum([]byte(body)))
		s.ServeConn(&scriptedConn{pieces: pieces})

		tally := s.Tally()
		if tally.Messages != 1 || tally.Damaged != 0 || tally.Bytes != int64(len(message)) {
			t.Fatalf("tally %+v, want 1 message of %d bytes, whole", tally, len(message))
		}
	})
}

// TestDamageIsSeen changes one byte of the body, and adds a header, which is not damage.
func TestDamageIsSeen(t *testing.T) {
	for _, test := range []struct {
		name, message string
		damaged       int64
	}{
		{"as sent", "A: b\r\n\r\nbody\r\n", 0},
		{"with a header more", "Received: x\r\nA: b\r\n\r\nbody\r\n", 0},
		{"a byte changed", "A: b\r\n\r\nbodY\r\n", 1},
		{"a line lost", "A: b\r\n\r\n", 1},
		{"without the empty line", "A: b\r\nbody\r\n", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &Sink{Name: "sink.test", MaxSize: 100}
			s.Expect(1, Checksum([]byte("body\r\n")))
			wire := "MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n" + test.message + ".\r\n"
			s.ServeConn(&scriptedConn{pieces: [][]byte{[]byte(wire)}})
			if got := s.Tally(); got.Messages != 1 || got.Damaged != test.damaged {
				t.Errorf("tally %+v, want 1 message, %d damaged", got, test.damaged)
			}
		})
	}
}

// FuzzSession sees that no client can stop the sink, make it count what it did not get, or read without end.
func FuzzSession(f *testing.F) {
	f.Add([]byte("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nA: b\r\n\r\n.x\r\n.\r\nQUIT\r\n"))
	f.Add([]byte("MAIL FROM:<> SIZE=99999999999999999999\r\nRCPT TO:<a@b>\r\nBDAT 3\r\nabcBDAT 0 LAST\r\n"))
	f.Add([]byte("BDAT 999999999999999999 LAST\r\n"))
	f.Add([]byte("DATA\n.\n\n\r\r\n"))
	f.Fuzz(func(t *testing.T, input []byte) {
		s := &Sink{Name: "sink.test", MaxSize: 1 << 20}
		s.Expect(-1, 0)
		s.ServeConn(&scriptedConn{pieces: [][]byte{bytes.Clone(input)}})
		tally := s.Tally()
		if tally.Bytes > int64(len(input)) {
			t.Errorf("counted %d bytes of %d", tally.Bytes, len(input))
		}
		if most := int64(bytes.Count(bytes.ToUpper(input), []byte("MAIL"))); tally.Messages > most {
			t.Errorf("counted %d messages with %d MAIL", tally.Messages, most)
		}
	})
}
