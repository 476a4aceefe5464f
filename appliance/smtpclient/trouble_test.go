package smtpclient

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mailchute/appliance/reply"
)

// TestTrouble are servers that misbehave while three messages are in the air.
func TestTrouble(t *testing.T) {
	batch := ehlo
	for n := range 3 {
		if n > 0 {
			batch += "\n< RSET\n"
		}
		batch += `
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
`
	}
	const taken = "\n> 250 ok\n> 250 ok\n> 250 queued\n"
	for _, test := range []struct {
		name   string
		script string
		want   []string // of the three
		stage  reply.Stage
		broken bool
	}{
		{"the oldest unanswered takes the error, younger ones were not tried", batch + taken + "close",
			[]string{"final 250 queued", "reset the server closed the connection: EOF", "untried"}, reply.Reset, true},
		{"after MAIL was answered", batch + taken + "> 250 ok\n> 250 ok\nclose",
			[]string{"final 250 queued", "rcpt the server closed the connection: EOF", "untried"}, reply.Rcpt, true},
		{"the first takes the error", batch + "close",
			[]string{"mail the server closed the connection: EOF", "untried", "untried"}, reply.Mail, true},
		{"421 to RSET is about the connection", batch + taken + "> 421 4.3.2 enough for today\nclose",
			[]string{"final 250 queued", "untried", "untried"}, reply.Reset, false},
		{"421 to MAIL is about the message", batch + taken + "> 250 ok\n> 421 4.4.2 Message submission rate exceeded\nclose",
			[]string{"final 250 queued", "mail 421 4.4.2 Message submission rate exceeded", "untried"}, reply.Mail, true},
		{"421 after the body", batch + "> 250 ok\n> 250 ok\n> 421 4.3.0 disk trouble\nclose",
			[]string{"final 421 4.3.0 disk trouble", "untried", "untried"}, reply.Final, true},
		{"half a reply", batch + "> 250 ok\n> 250 ok\n> 451-4.3.0 disk\nclose",
			[]string{"final 451 4.3.0 disk (the server closed the connection: unexpected EOF)", "untried", "untried"}, reply.Final, true},
		{"silence", batch + taken + "> 250 ok\n> 250 ok\n> 250 ok\nsleep 20m\neof",
			[]string{"final 250 queued", "final read pipe: i/o timeout", "untried"}, reply.Final, true},
		{"garbage", batch + taken + "> <html>\neof",
			[]string{"final 250 queued", `reset the server sent "<html>\r\n", which is no SMTP reply: a reply begins with three digits, the first of them 2 to 5`, "untried"}, reply.Reset, true},
		{"a reply that cannot be", batch + "> 250 ok\n> 354 go on\neof",
			[]string{"rcpt 354 go on (the server's replies do not match the commands: 354 came at rcpt)", "untried", "untried"}, reply.Rcpt, true},
		{"RSET refused", batch + taken + "> 500 what?\neof",
			[]string{"final 250 queued", "reset 500 what?", "untried"}, reply.Reset, true},
		{"503 to pipelined commands", batch + taken + "> 250 ok\n> 503 5.5.1 out of sequence\neof",
			[]string{"final 250 queued", "mail 503 5.5.1 out of sequence", "untried"}, reply.Mail, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			one := message("a@contoso.com", "hi\r\n", "b@contoso.com")
			two, three := *one, *one
			got := run(t, plain(), test.script, one, &two, &three)
			if diff := cmp.Diff(test.want, got.outcomes); diff != "" {
				t.Error("-want +got", diff)
			}
			var failed *Error
			if !errors.As(got.err, &failed) || failed.Answer.Stage != test.stage {
				t.Errorf("an *Error at %s was expected: %v", test.stage, got.err)
			}
			if got.summary.Broken != test.broken {
				t.Errorf("broken: %v, want %v", got.summary.Broken, test.broken)
			}
			if got.summary.OutOfStep != (test.name == "503 to pipelined commands") {
				t.Error("out of step:", got.summary.OutOfStep)
			}
			if strings.HasPrefix(test.want[0], "final 250") != (got.summary.Sent == 1) {
				t.Error("sent:", got.summary.Sent)
			}
		})
	}
}

// TestEarlyRefusal: a server that refuses a body on its way is heard, and no more of it is sent.
func TestEarlyRefusal(t *testing.T) {
	long := strings.Repeat("0123456789abcde\n", 1<<17) // 2 MiB
	for _, test := range []struct{ name, script, want string }{
		{"BDAT", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=2097152
< RCPT TO:<b@contoso.com>
< BDAT 2097152 LAST
> 250 ok
> 250 ok
> 552 5.3.4 too large
sleep 1s
half`, "data 552 5.3.4 too large"},
		{"DATA", plainHello + `
< MAIL FROM:<a@contoso.com>
< RCPT TO:<b@contoso.com>
< DATA
> 250 ok
> 250 ok
> 354 go on
= "0123"
> 552 5.3.4 too large
sleep 1s
half`, "data 552 5.3.4 too large"},
		{"and hangs up", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=2097152
< RCPT TO:<b@contoso.com>
< BDAT 2097152 LAST
= "0123"
> 250 ok
> 250 ok
> 552 5.3.4 too large
sleep 1s
close`, "data 552 5.3.4 too large"},
		{"a refused sender, the server reads on", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=2097152
< RCPT TO:<b@contoso.com>
< BDAT 2097152 LAST
> 550 5.1.8 no
sleep 1s
atmost 200000`, "mail 550 5.1.8 no"},
		{"421 in the middle", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=2097152
< RCPT TO:<b@contoso.com>
< BDAT 2097152 LAST
> 250 ok
> 250 ok
> 421 4.3.2 going down
sleep 1s
close`, "data 421 4.3.2 going down"},
		{"taken before its end: out of step", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=2097152
< RCPT TO:<b@contoso.com>
< BDAT 2097152 LAST
> 250 ok
> 250 ok
> 250 queued
sleep 1s
half`, "data 250 queued (the server's replies do not match the commands: 250 came at data)"},
		{"the server stops reading", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=2097152
< RCPT TO:<b@contoso.com>
< BDAT 2097152 LAST
> 250 ok
> 250 ok
stall`, "data write pipe: i/o timeout"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := run(t, plain(), test.script, message("a@contoso.com", long, "b@contoso.com"))
			if diff := cmp.Diff([]string{test.want}, got.outcomes); diff != "" {
				t.Error("-want +got", diff)
			}
		})
	}
}

// TestIdle: a server that goes away while nothing is unanswered harms no transaction, and does not count as broken.
func TestIdle(t *testing.T) {
	untried := []string{"untried"} // the one taken too late
	for _, test := range []struct{ name, script string }{
		{"closes", ehlo + "close"},
		{"says 421", ehlo + "> 421 4.4.2 timeout\nclose"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := runIdle(t, test.script)
			if got.err != nil || !slices.Equal(got.outcomes, untried) || got.summary.Broken {
				t.Errorf("%+v", got)
			}
		})
	}
	t.Run("speaks unasked", func(t *testing.T) {
		got := runIdle(t, ehlo+"> 250 hello?\neof")
		if !errors.Is(got.err, reply.ErrOutOfStep) || !slices.Equal(got.outcomes, untried) {
			t.Error(got.err, got.outcomes)
		}
	})
}

// TestReusedConnectionThatWasClosed: the server closes the moment the next message is sent.
func TestReusedConnectionThatWasClosed(t *testing.T) {
	one, two := message("a@contoso.com", "hi\r\n", "b@contoso.com"), message("a@contoso.com", "hi\r\n", "b@contoso.com")
	options := plain()
	options.Window = 1
	got := run(t, options, ehlo+`
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
> 250 ok
> 250 ok
> 250 queued
< RSET
close`, one, two)
	if diff := cmp.Diff([]string{"final 250 queued", "untried"}, got.outcomes); diff != "" || got.summary.Broken {
		t.Error("-want +got", diff, got.summary)
	}
}

// TestWrongBodies: a body that is not what its envelope says is never taken for whole, and the message before it
// still gets its answer.
func TestWrongBodies(t *testing.T) {
	damaged := errors.New("chunk 7: checksum wrong")
	for _, test := range []struct {
		name, body string
		err        error
		want       string
	}{
		{"short", "hi", nil, "data the stored body ends after 2 bytes, its envelope says 4"},
		{"long", "hi\r\nmore", nil, "data the stored body has more than the 4 bytes its envelope says"},
		{"unreadable", "hi", damaged, "data the stored body of 4 bytes could not be read beyond byte 2: chunk 7: checksum wrong"},
		{"unreadable at its end", "hi\r\n", damaged, "data the stored body of 4 bytes could not be read beyond byte 4: chunk 7: checksum wrong"},
	} {
		bad := message("c@contoso.com", "hi\r\n", "d@contoso.com")
		bad.Body = func() (io.ReadCloser, error) {
			body := io.Reader(strings.NewReader(test.body))
			if test.err != nil {
				body = io.MultiReader(body, failing{test.err})
			}
			return io.NopCloser(body), nil
		}
		for _, transfer := range []struct{ name, script string }{
			{"BDAT", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
< RSET
< MAIL FROM:<c@contoso.com> SIZE=4
< RCPT TO:<d@contoso.com>
< BDAT 4 LAST
> 250 ok
> 250 ok
> 250 queued as 1
` + map[string]string{"short": `= "hi"` + "\n", "unreadable": `= "hi"` + "\n"}[test.name] + `eof`},
			{"DATA", plainHello + `
< MAIL FROM:<a@contoso.com>
< RCPT TO:<b@contoso.com>
< DATA
> 250 ok
> 250 ok
> 354 go on
= "hi\r\n.\r\n"
< RSET
< MAIL FROM:<c@contoso.com>
< RCPT TO:<d@contoso.com>
< DATA
> 250 queued as 1
> 250 ok
> 250 ok
> 250 ok
> 354 go on
eof`},
		} {
			t.Run(test.name+" "+transfer.name, func(t *testing.T) {
				got := run(t, plain(), transfer.script, message("a@contoso.com", "hi\r\n", "b@contoso.com"), bad)
				if diff := cmp.Diff([]string{"final 250 queued as 1", test.want}, got.outcomes); diff != "" {
					t.Error("-want +got", diff)
				}
				if got.err != nil || got.summary.Broken {
					t.Error("the server did nothing wrong:", got.err, got.summary)
				}
			})
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
