package smtpclient

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOneMessageTravelsInOneBatch(t *testing.T) {
	got := run(t, plain(), ehlo+`
< MAIL FROM:<a@contoso.com> SIZE=4
< RCPT TO:<b@contoso.com>
< BDAT 4 LAST
= "hi\r\n"
> 250 2.1.0 ok
> 250 2.1.5 ok
> 250 2.0.0 queued as 1
< QUIT
> 221 2.0.0 bye
eof
`, message("a@contoso.com", "hi\r\n", "b@contoso.com"))
	if diff := cmp.Diff([]string{"final 250 2.0.0 queued as 1"}, got.outcomes); diff != "" || got.err != nil {
		t.Error(diff, got.err)
	}
}
