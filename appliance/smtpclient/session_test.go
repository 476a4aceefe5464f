package smtpclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mailchute/appliance/reply"
)

// counting counts writes and the bytes of the largest one.
type counting struct {
	net.Conn
	writes, largest int
}

func (c *counting) Write(p []byte) (int, error) {
	c.writes++
	c.largest = max(c.largest, len(p))
	return c.Conn.Write(p)
}

// TestBurstIsCoalesced: eight small messages at hand go out in one write, a lone one is not held back.
func TestBurstIsCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go sink(far, "PIPELINING", "CHUNKING")
		wire := &counting{Conn: near}
		c, err := Open(t.Context(), wire, plain())
		if err != nil {
			t.Fatal(err)
		}
		opening := wire.writes
		body := strings.Repeat("x", 4096)
		left, done := 8, 0
		asks := 0
		err = c.Run(t.Context(), func(ctx context.Context) *Transaction {
			if left == 0 && ctx == asked {
				return nil
			}
			if left == 0 {
				if asks++; asks > 1 {
					return nil
				}
				// A lone message, an hour after the burst.
				synctest.Wait()
				if done != 8 {
					t.Errorf("%d of 8 messages are answered while next waits", done)
				}
				if writes := wire.writes - opening; writes != 1 {
					t.Errorf("8 messages took %d writes", writes)
				}
				time.Sleep(time.Hour)
				return message("a@contoso.com", body, "b@contoso.com")
			}
			left--
			return message("a@contoso.com", body, "b@contoso.com")
		}, func(_ *Transaction, outcome Outcome) {
			done++
			if got := outcome.text(); got != "final 250 2.0.0 queued" {
				t.Error(got)
			}
		})
		if err != nil || done != 9 {
			t.Error(done, err)
		}
		if writes := wire.writes - opening; writes != 3 { // the burst, the lone one, QUIT
			t.Errorf("%d writes in all, want 3", writes)
		}
	})
}

// endless is a body that nobody holds in memory.
type endless struct{ left int64 }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), e.left)
	for i := range p[:n] {
		p[i] = 'x'
	}
	e.left -= n
	return int(n), nil
}

// TestMemoryIsBounded: a body of 64 MiB costs no more memory than a small one, and goes out in blocks of 64 KiB.
func TestMemoryIsBounded(t *testing.T) {
	near, far := net.Pipe()
	go sink(far, "PIPELINING", "CHUNKING")
	wire := &counting{Conn: near}
	c, err := Open(t.Context(), wire, plain())
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	tx := &Transaction{Sender: "a@contoso.com", Recipients: []string{"b@contoso.com"}, Size: size,
		Body: func() (io.ReadCloser, error) { return io.NopCloser(&endless{size}), nil }}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	taken := false
	err = c.Run(t.Context(), func(context.Context) *Transaction {
		if taken {
			return nil
		}
		taken = true
		return tx
	}, func(_ *Transaction, outcome Outcome) {
		if got := outcome.text(); got != "final 250 2.0.0 queued" {
			t.Error(got)
		}
	})
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	// Every byte allocated counts, freed or not.
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 4<<20 {
		t.Errorf("%d bytes were allocated for a body of %d", allocated, size)
	}
	if wire.largest > bufferSize {
		t.Errorf("a write of %d bytes", wire.largest)
	}
}

// slow lets a block a minute through, over any length of time.
type slow struct{ net.Conn }

func (s slow) Write(p []byte) (int, error) {
	if len(p) > 4000 {
		time.Sleep(time.Minute)
	}
	return s.Conn.Write(p)
}

// TestSlowButSteady: a body that takes an hour is no timeout, in plain or under TLS, as long as it moves.
func TestSlowButSteady(t *testing.T) {
	root := newAuthority(t, "Root", nil)
	config := &tls.Config{Certificates: []tls.Certificate{*root.leaf(t, "mx.contoso.com", century)}}
	for _, policy := range []Policy{None, Verified} {
		t.Run(string(policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				if policy == None {
					go sink(far, "PIPELINING", "CHUNKING")
				} else {
					go sink(tls.Server(far, config), "PIPELINING", "CHUNKING")
				}
				options := plain()
				options.TLS, options.VerifyName, options.Roots, options.Implicit = policy, "mx.contoso.com", root.pool(), true
				c, err := Open(t.Context(), slow{near}, options)
				if err != nil {
					t.Fatal(err)
				}
				start, size := time.Now(), int64(4<<20)
				got := sendOne(t, c, &Transaction{Sender: "a@contoso.com", Recipients: []string{"b@contoso.com"}, Size: size,
					Body: func() (io.ReadCloser, error) { return io.NopCloser(&endless{size}), nil }})
				if got != "final 250 2.0.0 queued" {
					t.Error(got)
				}
				if took := time.Since(start); took < time.Hour {
					t.Errorf("it took only %v: the test does not test", took)
				}
			})
		})
	}
}

func sendOne(t *testing.T, c *Conn, tx *Transaction) (got string) {
	t.Helper()
	err := c.Run(t.Context(), func(context.Context) *Transaction {
		next := tx
		tx = nil
		return next
	}, func(_ *Transaction, outcome Outcome) { got = outcome.text() })
	if err != nil {
		t.Error(err)
	}
	return got
}

// TestPatience: what RFC 5321 section 4.5.3.2 grants each step is waited for, and not more.
func TestPatience(t *testing.T) {
	const bdat = ehlo + "< MAIL FROM:<a@contoso.com> SIZE=4\n< RCPT TO:<b@contoso.com>\n< BDAT 4 LAST\n= \"hi\\r\\n\"\n"
	const data = plainHello + "< MAIL FROM:<a@contoso.com>\n< RCPT TO:<b@contoso.com>\n< DATA\n"
	for _, test := range []struct {
		script string
		wait   time.Duration
	}{
		{bdat + "stall", 5 * time.Minute},                                                                          // MAIL
		{bdat + "> 250 ok\nstall", 5 * time.Minute},                                                                // RCPT
		{data + "> 250 ok\n> 250 ok\nstall", 2 * time.Minute},                                                      // DATA
		{bdat + "> 250 ok\n> 250 ok\nstall", 10 * time.Minute},                                                     // final
		{bdat + "> 250 ok\nsleep 4m\n> 250 ok\nsleep 9m\n> 250 ok\n< QUIT\nstall", 13*time.Minute + 5*time.Second}, // each step has its own
	} {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			go play(far, test.script)
			c, err := Open(t.Context(), near, plain())
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			tx := message("a@contoso.com", "hi\r\n", "b@contoso.com")
			err = c.Run(t.Context(), func(context.Context) *Transaction {
				next := tx
				tx = nil
				return next
			}, func(*Transaction, Outcome) {})
			if took := time.Since(start); took != test.wait {
				t.Errorf("%s\nended after %v with %v, want %v", test.script, took, err, test.wait)
			}
			time.Sleep(2 * time.Hour) // the script's end
		})
	}
}

// TestStopping: when the context ends, what is in the air is finished and nothing more is taken.
func TestStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go play(far, ehlo+`
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
sleep 30s
> 250 ok
> 250 ok
> 250 queued`+bye)
		c, err := Open(t.Context(), near, plain())
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		calls, got := 0, ""
		err = c.Run(ctx, func(ctx context.Context) *Transaction {
			if ctx == asked {
				return nil
			}
			if calls++; calls == 1 {
				return message("a@contoso.com", "hi\r\n", "b@contoso.com")
			}
			<-ctx.Done()
			return nil
		}, func(_ *Transaction, outcome Outcome) { got = outcome.text() })
		if err != nil || got != "final 250 queued" {
			t.Error(got, err)
		}
	})
}

// TestClose cuts what is in the air: the oldest takes net.ErrClosed, which is the box's doing.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go play(far, ehlo+"early\nstall")
		c, err := Open(t.Context(), near, plain())
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { c.Close() })
		left := 2
		var outcomes []Outcome
		var summary Summary
		c.options.Ended = func(s Summary) { summary = s }
		err = c.Run(t.Context(), func(ctx context.Context) *Transaction {
			if left == 0 {
				if ctx != asked {
					<-ctx.Done()
				}
				return nil
			}
			left--
			return message("a@contoso.com", "hi\r\n", "b@contoso.com")
		}, func(_ *Transaction, outcome Outcome) { outcomes = append(outcomes, outcome) })
		if !errors.Is(err, net.ErrClosed) || len(outcomes) != 2 || !errors.Is(outcomes[0].Answers[0].Err, net.ErrClosed) || !outcomes[1].Untried {
			t.Errorf("%v, %+v", err, outcomes)
		}
		if verdict := reply.Judge(outcomes[0].Answers[0]); verdict.Class != reply.Temporary || verdict.Fault != reply.Box {
			t.Errorf("%+v", verdict)
		}
		if summary.Broken {
			t.Error("the server did not break the connection")
		}
		time.Sleep(2 * time.Hour)
	})
}

// TestCareful: after a broken connection one message goes first, the others when it has been taken.
func TestCareful(t *testing.T) {
	options := plain()
	options.Careful = true
	one := message("a@contoso.com", "hi\r\n", "b@contoso.com")
	two, three := *one, *one
	const envelope = `
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
`
	const taken = `
> 250 ok
> 250 ok
> 250 queued
`
	got := run(t, options, ehlo+envelope+`
sleep 1m
`+taken+"< RSET"+envelope+"< RSET"+envelope+"> 250 ok"+taken+"> 250 ok"+taken+bye, one, &two, &three)
	if got.err != nil || got.summary.Sent != 3 {
		t.Errorf("%+v", got)
	}
}

func TestVerify(t *testing.T) {
	for _, test := range []struct {
		name, script, sender, recipient, want string
	}{
		{"taken", "< MAIL FROM:<a@contoso.com>\n> 250 ok\n< RCPT TO:<b@contoso.com>\n> 250 2.1.5 ok\n< RSET\n> 250 ok", "a@contoso.com", "b@contoso.com", "rcpt 250 2.1.5 ok"},
		{"the sender is refused", "< MAIL FROM:<a@contoso.com>\n> 550 5.1.8 no\n< RSET\n> 250 ok", "a@contoso.com", "b@contoso.com", "mail 550 5.1.8 no"},
		{"the recipient is refused", "< MAIL FROM:<>\n> 250 ok\n< RCPT TO:<b@contoso.com>\n> 550 5.7.64 no\n< RSET\n> 250 ok", "", "b@contoso.com", "rcpt 550 5.7.64 no"},
		{"the server hangs up", "< MAIL FROM:<a@contoso.com>\n> 250 ok\n< RCPT TO:<b@contoso.com>\nclose", "a@contoso.com", "b@contoso.com", "rcpt the server closed the connection: EOF"},
		{"the server goes down", "< MAIL FROM:<a@contoso.com>\n> 421 4.3.2 down\nclose", "a@contoso.com", "b@contoso.com", "mail 421 4.3.2 down"},
		{"not sent at all", "", "a b@contoso.com", "b@contoso.com", `mail 501 5.1.7 The sender "a b@contoso.com" was not sent to the server: ' ' may stand inside quotes only`},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				played := make(chan error, 1)
				gone := strings.HasSuffix(test.script, "close")
				script := ehlo + test.script
				if !gone { // mail can follow
					script += `
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
> 250 ok
> 250 ok
> 250 queued` + bye
				}
				go func() { played <- play(far, script) }()
				c, err := Open(t.Context(), near, plain())
				if err != nil {
					t.Fatal(err)
				}
				answer := c.Verify(t.Context(), test.sender, test.recipient)
				if got := string(answer.Stage) + " " + answer.String(); got != test.want {
					t.Errorf("got  %s\nwant %s", got, test.want)
				}
				if !gone {
					if got := sendOne(t, c, message("a@contoso.com", "hi\r\n", "b@contoso.com")); got != "final 250 queued" {
						t.Error(got)
					}
				}
				if err := <-played; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// FuzzServer lets a server say anything at all: nothing panics, hangs, or counts as taken that was not said to be.
func FuzzServer(f *testing.F) {
	for _, seed := range []string{
		"220 a\r\n250-b\r\n250-PIPELINING\r\n250 CHUNKING\r\n250 c\r\n250 d\r\n250 e\r\n250 f\r\n250 g\r\n250 h\r\n250 i\r\n221 j\r\n",
		"220 a\r\n250 b\r\n250 c\r\n550 d\r\n250 e\r\n", "220 a\r\n500 b\r\n250 c\r\n421 d\r\n", "\r\n", "220-a\r\n", "220 a\r\n250-SIZE 1\r\n250 b\r\n",
		"220 a\r\n250-x\r\n250 PIPELINING\r\n250 c\r\n250 d\r\n354 e\r\n250 f\r\n250 c\r\n250 d\r\n354 e\r\n250 f\r\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, said string) {
		synctest.Test(t, func(t *testing.T) {
			near, far := net.Pipe()
			go io.Copy(io.Discard, far)
			go func() {
				io.WriteString(far, said)
				time.Sleep(time.Hour)
				far.Close()
			}()
			defer time.Sleep(2 * time.Hour) // until the server is gone
			c, err := Open(t.Context(), near, plain())
			if err != nil {
				return
			}
			taken, done := 0, 0
			c.Run(t.Context(), func(ctx context.Context) *Transaction {
				if taken == 2 || ctx != asked && ctx.Err() != nil {
					return nil
				}
				taken++
				return message("a@contoso.com", "hi\r\n", "b@contoso.com", "c@contoso.com")
			}, func(_ *Transaction, outcome Outcome) {
				done++
				for _, answer := range outcome.Answers {
					verdict := reply.Judge(answer)
					if verdict.Class == "" || verdict.Cause == "" {
						t.Errorf("no verdict on %+v", answer)
					}
					if verdict.Class == reply.Sent && !strings.Contains(said, fmt.Sprint(answer.Reply.Code)) {
						t.Errorf("taken by %s, which the server never said", answer)
					}
				}
			})
			if taken != done {
				t.Errorf("%d transactions, %d outcomes", taken, done)
			}
		})
	})
}
