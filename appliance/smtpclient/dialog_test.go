package smtpclient

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// play is a server that follows a script, one step a line:
//
//	> 250 text     sends the line
//	< MAIL ...     expects exactly that line
//	= "a\r\nb"     expects these bytes (quoted as in Go)
//	eof            expects the client to close
//	atmost 1000    expects the client to close after no more than so many bytes
//	sleep 6m       lets (simulated) time pass
//	early          from now on ignores what the client sends
//	stall          neither reads nor writes for an hour, then closes
//	close          closes
//	half           closes after all that the client still sends was read
//
// It returns what did not go by the script.
func play(conn net.Conn, script string) error {
	defer conn.Close()
	return playOn(conn, script)
}

// playOn leaves the connection open at the end of the script.
func playOn(conn net.Conn, script string) error {
	r := bufio.NewReader(conn)
	for number, step := range strings.Split(strings.TrimSpace(script), "\n") {
		verb, text, _ := strings.Cut(strings.TrimSpace(step), " ")
		wrong := func(format string, values ...any) error {
			return fmt.Errorf("step %d %q: %s", number+1, step, fmt.Sprintf(format, values...))
		}
		switch verb {
		case "":
		case ">":
			if _, err := io.WriteString(conn, text+"\r\n"); err != nil {
				return wrong("%v", err)
			}
		case "<":
			line, err := r.ReadString('\n')
			if line != text+"\r\n" {
				return wrong("the client sent %q (%v)", line, err)
			}
		case "=":
			want, err := strconv.Unquote(text)
			if err != nil {
				return wrong("%v", err)
			}
			got := make([]byte, len(want))
			if n, err := io.ReadFull(r, got); string(got) != want {
				return wrong("the client sent %q (%v)", got[:n], err)
			}
		case "eof":
			if rest, err := io.ReadAll(r); len(rest) > 0 {
				return wrong("the client sent %q (%v)", rest, err)
			}
		case "sleep":
			wait, err := time.ParseDuration(text)
			if err != nil {
				return wrong("%v", err)
			}
			time.Sleep(wait) // inside the bubble: no time passes outside
		case "stall":
			time.Sleep(time.Hour)
			return nil
		case "atmost":
			limit, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return wrong("%v", err)
			}
			if n, _ := io.Copy(io.Discard, r); n > limit {
				return wrong("the client sent %d bytes", n)
			}
		case "close":
			return conn.Close()
		case "early":
			// A pipe has no buffer: who writes before the client does must let it write.
			go io.Copy(io.Discard, r)
		case "half":
			go io.Copy(io.Discard, r)
			time.Sleep(time.Second)
			return nil
		default:
			return wrong("no such step")
		}
	}
	return nil
}

// hello is how a script begins that is not about the beginning.
const hello = `
> 220 mx.contoso.com ready
< EHLO relay.contoso.com
`

const ehlo = hello + `
> 250-mx.contoso.com Hello
> 250-SIZE 157286400
> 250-PIPELINING
> 250-ENHANCEDSTATUSCODES
> 250-8BITMIME
> 250-CHUNKING
> 250 SMTPUTF8
`

// plainHello offers PIPELINING but not CHUNKING.
const plainHello = hello + `
> 250-mx.contoso.com Hello
> 250 PIPELINING
`

// bareHello offers nothing.
const bareHello = hello + `
> 250 mx.contoso.com Hello
`

// result is what Run told about one transaction, as text.
type result struct {
	outcomes []string
	err      error
	summary  Summary
}

// text of an outcome: "untried", or one answer a recipient: "final 250 2.0.0 ok".
func (o Outcome) text() string {
	if o.Untried {
		return "untried"
	}
	var answers []string
	for _, answer := range o.Answers {
		answers = append(answers, string(answer.Stage)+" "+answer.String())
	}
	return strings.Join(answers, " | ")
}

func message(sender, body string, recipients ...string) *Transaction {
	return &Transaction{Sender: sender, Recipients: recipients, Size: int64(len(body)),
		Body: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }}
}

func plain() Options {
	return Options{Hello: "relay.contoso.com", TLS: None, Pipelining: true}
}

// run lets a client send the transactions to a scripted server, in a bubble where time is simulated.
func run(t *testing.T, options Options, script string, transactions ...*Transaction) (got result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		got = runInBubble(t, options, script, transactions...)
	})
	return got
}

// runIdle gives the client a transaction only when the connection is over.
func runIdle(t *testing.T, script string) (got result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		played := make(chan error, 1)
		go func() { played <- play(far, script) }()
		options := plain()
		options.Ended = func(summary Summary) { got.summary = summary }
		c, err := Open(t.Context(), near, options)
		if err != nil {
			t.Fatal(err)
		}
		got.err = c.Run(t.Context(), func(ctx context.Context) *Transaction {
			<-ctx.Done()
			return message("a@contoso.com", "hi\r\n", "b@contoso.com")
		}, func(_ *Transaction, outcome Outcome) { got.outcomes = append(got.outcomes, outcome.text()) })
		if err := <-played; err != nil {
			t.Error(err)
		}
	})
	return got
}

func runInBubble(t *testing.T, options Options, script string, transactions ...*Transaction) (got result) {
	t.Helper()
	near, far := net.Pipe()
	played := make(chan error, 1)
	go func() { played <- play(far, script) }()
	options.Ended = func(summary Summary) { got.summary = summary }
	c, err := Open(t.Context(), near, options)
	if err != nil {
		got.err = err
	} else {
		next := 0
		index := 0
		got.err = c.Run(t.Context(), func(ctx context.Context) *Transaction {
			if next == len(transactions) || ctx.Err() != nil && ctx != asked {
				return nil
			}
			next++
			return transactions[next-1]
		}, func(done *Transaction, outcome Outcome) {
			if done != transactions[index] {
				t.Errorf("outcome %d is for transaction %q", index, done.Sender)
			}
			index++
			got.outcomes = append(got.outcomes, outcome.text())
		})
		if index != next {
			t.Errorf("%d transactions taken, %d outcomes", next, index)
		}
	}
	if err := <-played; err != nil {
		t.Errorf("the script: %v", err)
	}
	return got
}
