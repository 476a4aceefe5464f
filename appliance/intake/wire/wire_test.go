package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// script is a connection whose device says what is written down, in pieces, and hangs up. It notes each write.
type script struct {
	net.Conn // nil: nothing else is called
	pieces   [][]byte
	end      error
	writes   []string
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.pieces) == 0 {
		return 0, s.end
	}
	n := copy(p, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	s.writes = append(s.writes, string(p))
	return len(p), nil
}

func (s *script) Close() error                     { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// cut cuts what a device says into pieces of the given lengths, over and over.
func cut(said string, lengths ...int) *script {
	s := &script{end: io.EOF}
	for i := 0; len(said) > 0; i++ {
		n := len(said)
		if len(lengths) > 0 {
			n = min(n, lengths[i%len(lengths)])
		}
		s.pieces = append(s.pieces, []byte(said[:n]))
		said = said[n:]
	}
	return s
}

func newConn(device net.Conn) *Conn {
	return New(device, Settings{Greeting: func() Greeting { return Greeting{Hostname: "relay", MaxSize: 1000} }})
}

// library stands for the SMTP library: it accepts everything, and notes what it was given: "> " and a command, or
// a body, or a chunk.
func library(c *Conn) (seen []string) {
	in := bufio.NewReader(c)
	io.WriteString(c, "220 library\r\n")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			c.Close()
			return seen
		}
		line = strings.TrimRight(line, "\r\n")
		seen = append(seen, "> "+line)
		switch fields := strings.Fields(line); {
		case strings.EqualFold(line, "DATA"):
			io.WriteString(c, "354 go on\r\n")
			var body bytes.Buffer
			if c.ReadBody(&body) == nil {
				seen = append(seen, body.String())
				if end, _ := in.ReadString('\n'); end != ".\r\n" {
					seen = append(seen, "no end of data")
				}
			}
		case len(fields) > 1 && strings.HasPrefix(line, "BDAT "):
			size, _ := strconv.Atoi(fields[1])
			if chunk, err := io.ReadAll(io.LimitReader(in, int64(size))); err == nil {
				seen = append(seen, string(chunk))
			}
		}
		io.WriteString(c, "250 2.0.0 fine\r\n")
	}
}

// readPlainly is what the library has to see of what a device says, read byte for byte by the rules.
func readPlainly(said string) (seen []string) {
	for {
		line, rest, found := strings.Cut(said, "\n")
		if !found || len(line)+1 > maxLine {
			return seen
		}
		said = rest
		line = strings.TrimRight(line, "\r\n")
		fields := strings.Fields(line)
		switch {
		case strings.EqualFold(line, "DATA"):
			seen = append(seen, "> "+line)
			body, after, found := strings.Cut("\r\n"+said, "\r\n.\r\n")
			if !found {
				return seen
			}
			body = strings.ReplaceAll(body+"\r\n", "\r\n.", "\r\n")
			seen = append(seen, body[2:])
			said = after
		case len(line) >= 4 && strings.EqualFold(line[:4], "BDAT"):
			if len(line) < 5 || line[4] != ' ' || len(fields) < 2 || len(fields) > 3 ||
				len(fields) == 3 && !strings.EqualFold(fields[2], "LAST") {
				return seen
			}
			size, err := strconv.ParseUint(fields[1], 10, 32)
			if err != nil {
				return seen
			}
			canonical := "> BDAT " + strconv.FormatUint(size, 10)
			if len(fields) == 3 {
				canonical += " LAST"
			} else if size == 0 {
				seen = append(seen, "> NOOP")
				continue
			}
			seen = append(seen, canonical)
			if uint64(len(said)) < size {
				return seen
			}
			seen = append(seen, said[:size])
			said = said[size:]
		default:
			seen = append(seen, "> "+line)
		}
	}
}

func checkReading(t interface{ Fatalf(string, ...any) }, said string, lengths []int) {
	seen := library(newConn(cut(said, lengths...)))
	if diff := cmp.Diff(readPlainly(said), seen); diff != "" {
		t.Fatalf("%q in pieces of %v:\n%s", said, lengths, diff)
	}
}

// Whatever a device says, and however the network cuts it: a line of a body is never a command, and the library
// sees the commands the device sent and no others.
func TestOnlyCommandsAreCommands(t *testing.T) {
	words := []string{"DATA\r\n", "data\n", "\r\n.\r\n", ".", "\r", "\n", "\r\n", "\n.\n", "\r.\r", "..", "RSET\r\n", "MAIL FROM:<a@b>\r\n",
		"BDAT 5\r\n", "BDAT 7 LAST\r\n", "bdat 0\r\n", "BDAT x\r\n", "x", "QUIT\r\n", " ", strings.Repeat("y", 5000)}
	rapid.Check(t, func(t *rapid.T) {
		said := strings.Join(rapid.SliceOf(rapid.SampledFrom(words)).Draw(t, "words"), "")
		lengths := rapid.SliceOfN(rapid.IntRange(1, 9), 1, 4).Draw(t, "lengths")
		checkReading(t, said, lengths)
	})
}

func FuzzReading(f *testing.F) {
	f.Add("EHLO x\r\nMAIL FROM:<a@b>\r\nDATA\r\nA: b\r\n\r\n..x\r\n.\r\nQUIT\r\n", []byte{3})
	f.Add("DATA\r\n.\r\nDATA\r\n\n.\n\r\n.\nRSET\r\n.\r\n.\r\nNOOP\n", []byte{1, 2})
	f.Add("BDAT 6\r\nNOOP\r\nbdat 3 last\r\n.\r\nBDAT 9999\r\nRSET\r\n", []byte{200})
	f.Add("DATA\r\n"+strings.Repeat("x", 9000)+"\r\n.\r\n"+strings.Repeat("y", 9000), []byte{255, 1})
	f.Add("BDAT 1 \u017fast\nBDAT\t5\nDATA \nDATA", []byte{7})
	f.Fuzz(func(t *testing.T, said string, cuts []byte) {
		lengths := []int{1 << 20}
		for _, c := range cuts {
			lengths = append(lengths, 1+int(c)*int(c)/8)
		}
		if len(cuts) > 0 {
			lengths = lengths[1:]
		}
		checkReading(t, said, lengths)
	})
}

// Replies go out when the device has to say something, not before: a batch costs one write (RFC 2920).
func TestRepliesAreSentTogether(t *testing.T) {
	device := &script{end: io.EOF, pieces: [][]byte{
		[]byte("EHLO a\r\nMAIL\r\nRCPT\r\nDATA\r\n"),
		[]byte("body\r\n"), []byte(".\r\nNO"), []byte("OP\r\nBDAT 3\r\nabcNOOP\r\n"), []byte("NOOP\r\n"),
	}}
	library(newConn(device))
	want := []string{
		"220 relay ESMTP Mailchute\r\n",
		"250-relay\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250 SMTPUTF8\r\n" +
			"250 2.0.0 fine\r\n250 2.0.0 fine\r\n354 go on\r\n",
		"250 2.0.0 fine\r\n",
		"250 2.0.0 fine\r\n250 2.0.0 fine\r\n250 2.0.0 fine\r\n",
		"250 2.0.0 fine\r\n",
	}
	if diff := cmp.Diff(want, device.writes); diff != "" {
		t.Error(diff)
	}
}

// A device that takes no replies is not waited for with all of them in memory.
func TestRepliesKeptBackAreBounded(t *testing.T) {
	device := cut("NOOP\r\n") // one command, answered at great length
	c := newConn(device)
	io.WriteString(c, "220 library\r\n")
	in := bufio.NewReader(c)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for range 3 * maxReplies / 1000 {
		io.WriteString(c, "250-"+strings.Repeat("x", 994)+"\r\n")
		if len(c.out) > maxReplies+1000 {
			t.Fatalf("%d bytes kept back", len(c.out))
		}
	}
}

// A reply line longer than the library's buffer comes in parts, the first with at least its code.
func TestReplyInParts(t *testing.T) {
	device := cut("EHLO a\r\nNOOP\r\n")
	c := newConn(device)
	in := bufio.NewReader(c)
	io.WriteString(c, "220 lib")
	io.WriteString(c, "rary\r\n")
	in.ReadString('\n')
	for _, part := range []string{"250-Hel", "lo\r", "\n250 SI", "ZE\r\n"} {
		io.WriteString(c, part)
	}
	in.ReadString('\n')
	io.WriteString(c, "250 a ")
	io.WriteString(c, "354 b\r\n")
	c.Close()
	got := strings.Join(device.writes, "")
	want := "220 relay ESMTP Mailchute\r\n250-relay\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n" +
		"250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250 SMTPUTF8\r\n250 a 354 b\r\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A session that does not take its body leaves none for the commands.
func TestBodyNobodyTakes(t *testing.T) {
	c := newConn(cut("DATA\r\nRSET\r\n..\r\n.\r\nNOOP\r\n"))
	in := bufio.NewReader(c)
	io.WriteString(c, "220 library\r\n")
	in.ReadString('\n')
	io.WriteString(c, "354 go on\r\n")
	var lines []string
	for range 2 {
		line, _ := in.ReadString('\n')
		lines = append(lines, line)
	}
	if want := []string{".\r\n", "NOOP\r\n"}; !slices.Equal(lines, want) {
		t.Errorf("the library reads %q, want %q", lines, want)
	}
}

func TestReadBodyErrors(t *testing.T) {
	full := errors.New("full")
	begin := func(device *script) *Conn {
		c := newConn(device)
		io.WriteString(c, "220 library\r\n")
		bufio.NewReader(c).ReadString('\n')
		io.WriteString(c, "354 go on\r\n")
		return c
	}
	t.Run("of the writer: the body is read to its end", func(t *testing.T) {
		device := cut("DATA\r\nabc\r\n.x\r\n.\r\nNOOP\r\n", 6, 3)
		c := begin(device)
		below := &failing{err: full}
		if err := c.ReadBody(below); !errors.Is(err, full) {
			t.Fatalf("%v, want %v", err, full)
		}
		if below.calls != 1 {
			t.Errorf("written to %d times", below.calls)
		}
		in := bufio.NewReader(c)
		end, _ := in.ReadString('\n')
		if line, _ := in.ReadString('\n'); end != ".\r\n" || line != "NOOP\r\n" {
			t.Errorf("then the library reads %q, %q", end, line)
		}
	})
	t.Run("of the connection: nothing more is read or said", func(t *testing.T) {
		reset := errors.New("connection reset")
		device := &script{pieces: [][]byte{[]byte("DATA\r\nabc\r\n.")}, end: reset}
		c := begin(device)
		broken := &BrokenError{}
		if err := c.ReadBody(io.Discard); !errors.As(err, &broken) || !errors.Is(err, reset) {
			t.Fatalf("%v, want a BrokenError of %v", err, reset)
		}
		device.pieces = [][]byte{[]byte("\r\nNOOP\r\n")}
		if n, err := c.Read(make([]byte, 10)); n != 0 || err != io.EOF {
			t.Errorf("Read: %d, %v", n, err)
		}
		said := len(device.writes)
		io.WriteString(c, "250 2.0.0 Queued\r\n")
		c.Close()
		if len(device.writes) != said {
			t.Errorf("the device was told %q", device.writes[said:])
		}
	})
}

type failing struct {
	err   error
	calls int
}

func (f *failing) Write([]byte) (int, error) {
	f.calls++
	return 0, f.err
}

// A connection at rest has a small buffer; the large one goes back when the body, and what came with it, is worked
// off.
func TestLargeBufferGoesBack(t *testing.T) {
	device := &script{end: io.EOF, pieces: [][]byte{
		[]byte("DATA\r\n"), []byte("abc\r\n.\r\n" + strings.Repeat("NOOP\r\n", 2000)), []byte("NOOP\r\n"), []byte("NOOP\r\n")}}
	c := newConn(device)
	seen := library(c)
	if want := 2 + 2000 + 2; len(seen) != want {
		t.Errorf("%d lines and bodies seen, want %d", len(seen), want)
	}
	if c.large != nil || len(c.in) != maxLine {
		t.Errorf("at rest the buffer has %d bytes", len(c.in))
	}
}

func BenchmarkReadBody(b *testing.B) {
	for _, lines := range []struct{ name, line string }{
		{"base64", strings.Repeat("QUJD", 19) + "\r\n"},
		{"dots", "." + strings.Repeat("QUJD", 19) + "\r\n"},
		{"binary", strings.Repeat("\x00\xff\x89.", 16<<10) + "\r\n"},
	} {
		b.Run(lines.name, func(b *testing.B) {
			body := []byte(strings.Repeat(lines.line, (16<<20)/len(lines.line)) + ".\r\n")
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				device := &script{pieces: [][]byte{body}}
				c := newConn(device)
				if err := c.ReadBody(io.Discard); err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		})
	}
}
