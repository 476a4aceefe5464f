package smtpclient

import (
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// bye is how an orderly conversation ends.
const bye = `
< QUIT
> 221 2.0.0 bye
eof
`

// TestDialogs are conversations as they should go, refusals included.
func TestDialogs(t *testing.T) {
	eightBit := message("a@contoso.com", "h\xef\r\n", "b@contoso.com")
	eightBit.EightBit = true
	international := message("jörg@contoso.com", "hi\r\n", "b@contoso.com")
	onlyHeader := message("a@contoso.com", "hi\r\n", "b@contoso.com")
	onlyHeader.UTF8 = true
	one := message("a@contoso.com", "hi\r\n", "b@contoso.com")
	huge := message("a@contoso.com", "hi\r\n", "b@contoso.com")
	huge.Size = 157286401
	empty := message("", "", "b@contoso.com")
	unopened := message("c@contoso.com", "hi\r\n", "d@contoso.com")
	unopened.Body = func() (io.ReadCloser, error) { return nil, errors.New("chunk 3 is missing") }

	for _, test := range []struct {
		name         string
		script       string
		transactions []*Transaction
		want         []string
		stepwise     bool
	}{
		{"MAIL, RCPT, BDAT and the body travel in one batch", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
> 250 2.1.0 ok
> 250 2.1.5 ok
> 250 2.0.0 queued as 1` + bye,
			[]*Transaction{one}, []string{"final 250 2.0.0 queued as 1"}, false},

		{"the next message waits for no reply, and RSET goes before it", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
< RSET
< MAIL FROM:<> SIZE=0
< RCPT TO:<b@contoso.com>
< BDAT 0 LAST
> 250 2.1.0 ok
> 250 2.1.5 ok
> 250 2.0.0 queued as 1
> 250 2.0.0 reset
> 250 2.1.0 ok
> 250 2.1.5 ok
> 250 2.0.0 queued as 2` + bye,
			[]*Transaction{one, empty}, []string{"final 250 2.0.0 queued as 1", "final 250 2.0.0 queued as 2"}, false},

		{"without CHUNKING the body waits for 354, and the next message travels with its dot", plainHello + `
< MAIL FROM:<a@contoso.com>
< RCPT TO:<b@contoso.com>
< DATA
> 250 ok
> 250 ok
> 354 go on
= "hi\r\n.\r\n"
< RSET
< MAIL FROM:<>
< RCPT TO:<b@contoso.com>
< DATA
> 250 queued as 1
> 250 ok
> 250 ok
> 250 ok
> 354 go on
= ".\r\n"
> 250 queued as 2` + bye,
			[]*Transaction{one, empty}, []string{"final 250 queued as 1", "final 250 queued as 2"}, false},

		{"without PIPELINING each command waits", bareHello + `
< MAIL FROM:<a@contoso.com>
> 250 ok
< RCPT TO:<b@contoso.com>
> 250 ok
< DATA
> 354 go on
= "hi\r\n.\r\n"
> 250 queued as 1
< RSET
> 250 ok
< MAIL FROM:<>
> 250 ok
< RCPT TO:<b@contoso.com>
> 250 ok
< DATA
> 354 go on
= ".\r\n"
> 250 queued as 2` + bye,
			[]*Transaction{one, empty}, []string{"final 250 queued as 1", "final 250 queued as 2"}, false},

		{"where pipelining is not allowed, BDAT waits too", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=4
> 250 ok
< RCPT TO:<b@contoso.com>
> 250 ok
< BDAT 4 LAST
= "hi\r\n"
> 250 queued as 1` + bye,
			[]*Transaction{one}, []string{"final 250 queued as 1"}, true},

		{"a refused sender ends the transaction where commands wait", bareHello + `
< MAIL FROM:<a@contoso.com>
> 550 5.1.8 no
< RSET
> 250 ok
< MAIL FROM:<>
> 250 ok
< RCPT TO:<b@contoso.com>
> 550 5.1.1 who?
< RSET
> 250 ok
< MAIL FROM:<a@contoso.com>
> 250 ok
< RCPT TO:<b@contoso.com>
> 250 ok
< DATA
> 451 4.3.0 later` + bye,
			[]*Transaction{one, empty, one}, []string{"mail 550 5.1.8 no", "rcpt 550 5.1.1 who?", "data 451 4.3.0 later"}, false},

		{"a refused sender's other answers are consumed, and blamed on nobody", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
< RSET
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
> 550 5.7.60 no such sender here
> 503 5.5.1 MAIL first
> 503 5.5.1 MAIL first
> 250 reset
> 250 ok
> 250 ok
> 250 queued as 2` + bye,
			[]*Transaction{one, one}, []string{"mail 550 5.7.60 no such sender here", "final 250 queued as 2"}, false},

		{"503 to the first command of all is no matter of pipelining", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
> 503 5.5.1 what a day
> 503 5.5.1 MAIL first
> 503 5.5.1 MAIL first` + bye,
			[]*Transaction{one}, []string{"mail 503 5.5.1 what a day"}, false},

		{"recipients have their own answers", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< RCPT TO:<c@contoso.com>
< RCPT TO:<d@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
> 250 ok
> 250 ok
> 550 5.1.1 who?
> 451 4.7.500 busy
> 250 queued as 1` + bye,
			[]*Transaction{message("a@contoso.com", "hi\r\n", "b@contoso.com", "c@contoso.com", "d@contoso.com")},
			[]string{"final 250 queued as 1 | rcpt 550 5.1.1 who? | rcpt 451 4.7.500 busy"}, false},

		{"all recipients refused: what BDAT answers is not about them", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< RCPT TO:<c@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
> 250 ok
> 550 5.1.1 who?
> 550 5.1.10 who?
> 554 5.5.1 no valid recipients` + bye,
			[]*Transaction{message("a@contoso.com", "hi\r\n", "b@contoso.com", "c@contoso.com")},
			[]string{"rcpt 550 5.1.1 who? | rcpt 550 5.1.10 who?"}, false},

		{"all recipients refused and 354 all the same: an empty message", plainHello + `
< MAIL FROM:<a@contoso.com>
< RCPT TO:<b@contoso.com>
< DATA
> 250 ok
> 550 5.1.1 who?
> 354 go on
= ".\r\n"
> 554 5.5.1 no valid recipients` + bye,
			[]*Transaction{one}, []string{"rcpt 550 5.1.1 who?"}, false},

		{"all recipients refused, DATA too", plainHello + `
< MAIL FROM:<a@contoso.com>
< RCPT TO:<b@contoso.com>
< DATA
> 250 ok
> 550 5.1.1 who?
> 503 5.5.1 RCPT first` + bye,
			[]*Transaction{one}, []string{"rcpt 550 5.1.1 who?"}, false},

		{"a dot at the beginning of a line is doubled, and a last line gets its end", plainHello + `
< MAIL FROM:<a@contoso.com>
< RCPT TO:<b@contoso.com>
< DATA
> 250 ok
> 250 ok
> 354 go on
= "..\r\n...\r\na.b\r\n..x\r\n.\r\n"
> 250 ok` + bye,
			[]*Transaction{message("a@contoso.com", ".\r\n..\r\na.b\r\n.x", "b@contoso.com")}, []string{"final 250 ok"}, false},

		{"8-bit and international mail say so", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=4 BODY=8BITMIME
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "h\xef\r\n"
> 250 ok
> 250 ok
> 250 ok
< RSET
< MAIL FROM:<jörg@contoso.com> SIZE=4 SMTPUTF8
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
> 250 ok
> 250 ok
> 250 ok
> 250 ok` + bye,
			[]*Transaction{eightBit, international}, []string{"final 250 ok", "final 250 ok"}, false},

		{"what the server cannot take is not sent, and other mail goes on", plainHello + `
< MAIL FROM:<a@contoso.com>
< RCPT TO:<b@contoso.com>
< DATA
> 250 ok
> 250 ok
> 354 go on
= "hi\r\n.\r\n"
> 250 ok` + bye,
			[]*Transaction{eightBit, one, international, onlyHeader}, []string{
				"mail 554 5.6.3 The message was not sent: it has 8-bit characters and the server does not offer 8BITMIME",
				"final 250 ok",
				"mail 553 5.6.7 The message was not sent: an address or a header is not ASCII and the server does not offer SMTPUTF8",
				"mail 553 5.6.7 The message was not sent: an address or a header is not ASCII and the server does not offer SMTPUTF8",
			}, false},

		{"a message over the server's SIZE is not sent", ehlo + bye,
			[]*Transaction{huge}, []string{"mail 552 5.3.4 The message of 157286401 bytes was not sent: the server takes 157286400 bytes at most"}, false},

		{"addresses that would break out of their command are not sent", ehlo + `
< MAIL FROM:<"a b"@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
> 250 ok
> 250 ok
> 250 ok` + bye,
			[]*Transaction{
				message("a@contoso.com>\r\nRSET", "hi\r\n", "b@contoso.com"),
				message(`"a b"@contoso.com`, "hi\r\n", "c@contoso.com> NOTIFY=NEVER", "b@contoso.com", ""),
			},
			[]string{
				`mail 501 5.1.7 The sender "a@contoso.com>\r\nRSET" was not sent to the server: '>' may stand inside quotes only`,
				`rcpt 501 5.1.3 The recipient "c@contoso.com> NOTIFY=NEVER" was not sent to the server: '>' may stand inside quotes only | ` +
					`final 250 ok | rcpt 501 5.1.3 The recipient "" was not sent to the server: it is empty`,
			}, false},

		{"a body that cannot be opened harms no other message, and its outcome keeps its turn", ehlo + `
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
< RSET
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
> 250 ok
> 250 ok
> 250 queued as 1
> 250 ok
> 250 ok
> 250 ok
> 250 queued as 2` + bye,
			[]*Transaction{one, unopened, one}, []string{"final 250 queued as 1",
				"data the stored body of 4 bytes could not be read beyond byte 0: chunk 3 is missing", "final 250 queued as 2"}, false},

		{"no message at all", ehlo + bye, nil, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			options := plain()
			options.Pipelining = !test.stepwise
			got := run(t, options, test.script, test.transactions...)
			if diff := cmp.Diff(test.want, got.outcomes); diff != "" {
				t.Error("-want +got", diff)
			}
			if got.err != nil {
				t.Error("an orderly end was expected:", got.err)
			}
			if got.summary.Broken || got.summary.OutOfStep {
				t.Errorf("the connection did not break: %+v", got.summary)
			}
		})
	}
}
