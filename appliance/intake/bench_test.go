package intake

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"mailchute/appliance/config"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// noQueue takes everything and keeps nothing.
type noQueue struct{}

func (noQueue) Room(int64) error             { return nil }
func (noQueue) Create() Message              { return noQueue{} }
func (noQueue) Write(p []byte) (int, error)  { return len(p), nil }
func (noQueue) ID() trace.ID                 { return 1 }
func (noQueue) Accept(*spool.Envelope) error { return nil }
func (noQueue) Abort()                       {}

// BenchmarkSession hands in messages over loopback sockets, by one device and by several at once, each waiting for
// each reply as scanners do, or, pipelined, for those of a batch.
func BenchmarkSession(b *testing.B) {
	line := strings.Repeat("QUJD", 19) + "\r\n"
	for _, size := range []struct {
		name  string
		bytes int
	}{{"4KB", 4 << 10}, {"1MB", 1 << 20}, {"50MB", 50 << 20}} {
		body := "Subject: a scan\r\nFrom: mfp@contoso.com\r\n\r\n" + strings.Repeat(line, size.bytes/len(line)) + ".\r\n"
		for _, way := range []struct {
			name    string
			batches []string
		}{
			{"lock-step", []string{"MAIL FROM:<mfp@contoso.com>\r\n", "RCPT TO:<anna@contoso.com>\r\n", "DATA\r\n", body}},
			{"pipelined", []string{"MAIL FROM:<mfp@contoso.com>\r\nRCPT TO:<anna@contoso.com>\r\nDATA\r\n", body}},
		} {
			b.Run(size.name+"/"+way.name, func(b *testing.B) {
				s := New(Options{Queue: noQueue{}, Refusals: &testRefusals{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
				s.SetRules(testRules())
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					b.Fatal(err)
				}
				go s.Serve(l, config.Listener{Address: ":25", TLS: config.ListenPlain})
				defer s.Shutdown(b.Context())
				var batches [][]byte
				for _, batch := range way.batches {
					batches = append(batches, []byte(batch))
				}
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					conn, err := net.Dial("tcp", l.Addr().String())
					if err != nil {
						b.Error(err)
						return
					}
					defer conn.Close()
					device := &benchDevice{conn: conn, in: bufio.NewReader(conn)}
					if err := device.expect("220", "EHLO x\r\n", "250"); err != nil {
						b.Error(err)
						return
					}
					for pb.Next() {
						for _, batch := range batches {
							if err := device.send(batch); err != nil {
								b.Error(err)
								return
							}
						}
					}
				})
			})
		}
	}
}

type benchDevice struct {
	conn net.Conn
	in   *bufio.Reader
}

func (d *benchDevice) expect(before, command, after string) error {
	if err := d.reply(before); err != nil {
		return err
	}
	io.WriteString(d.conn, command)
	return d.reply(after)
}

// send sends a batch, and reads a reply for each command in it; a body is one.
func (d *benchDevice) send(batch []byte) error {
	if _, err := d.conn.Write(batch); err != nil {
		return err
	}
	replies := 1
	if len(batch) < 200 {
		replies = bytes.Count(batch, []byte("\n"))
	}
	for range replies {
		if err := d.reply(""); err != nil {
			return err
		}
	}
	return nil
}

func (d *benchDevice) reply(code string) error {
	for {
		line, err := d.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if line[0] > '3' || !strings.HasPrefix(string(line[:3]), code) {
			return fmt.Errorf("the server says %q", line)
		}
		if line[3] == ' ' {
			return nil
		}
	}
}
