package smtpclient

import (
	"bufio"
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
)

// BenchmarkSmall sends messages of 4 KB over loopback to a sink.
func BenchmarkSmall(b *testing.B) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	go func() {
		if conn, err := listener.Accept(); err == nil {
			sink(conn, "PIPELINING", "CHUNKING", "SIZE 157286400")
		}
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	var writes atomic.Int64
	c, err := Open(b.Context(), countedWrites{conn, &writes}, plain())
	if err != nil {
		b.Fatal(err)
	}
	body := strings.Repeat("x", 4094) + "\r\n"
	tx := message("scanner@contoso.com", body, "office@contoso.com")
	taken := 0
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	b.ResetTimer()
	err = c.Run(b.Context(), func(context.Context) *Transaction {
		if taken == b.N {
			return nil
		}
		taken++
		return tx
	}, func(_ *Transaction, outcome Outcome) {
		if outcome.Untried || !outcome.Answers[0].Reply.Positive() {
			b.Error(outcome.text())
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(writes.Load())/float64(b.N), "writes/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

type countedWrites struct {
	net.Conn
	writes *atomic.Int64
}

func (c countedWrites) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// sink takes everything. It is the simplest server that a benchmark or a count can be made with.
func sink(conn net.Conn, extensions ...string) (messages int) {
	defer conn.Close()
	r, w := bufio.NewReaderSize(conn, 256<<10), bufio.NewWriterSize(conn, 64<<10)
	say := func(line string) { w.WriteString(line); w.WriteString("\r\n") }
	say("220 sink")
	for {
		if r.Buffered() == 0 && w.Flush() != nil {
			return messages
		}
		line, err := r.ReadSlice('\n')
		if err != nil {
			return messages
		}
		switch string(line[:4]) {
		case "EHLO":
			say("250-sink")
			for _, extension := range extensions {
				say("250-" + extension)
			}
			say("250 ENHANCEDSTATUSCODES")
		case "BDAT":
			size := 0
			for _, c := range line[5:] {
				if c < '0' || c > '9' {
					break
				}
				size = size*10 + int(c-'0')
			}
			if _, err := r.Discard(size); err != nil {
				return messages
			}
			messages++
			say("250 2.0.0 queued")
		case "QUIT":
			say("221 bye")
			w.Flush()
			return messages
		default:
			say("250 2.0.0 ok")
		}
	}
}
