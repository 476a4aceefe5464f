package intake

import (
	"strings"
	"testing"

	"mailchute/appliance/address"
)

// A reply line has at most 512 bytes (RFC 5321 4.5.3.1.5), whatever it quotes.
func TestReplyLength(t *testing.T) {
	long, err := address.Parse("a@" + strings.Repeat(strings.Repeat("b", 60)+".", 4) + "com")
	if err != nil {
		t.Fatal(err)
	}
	reply := replyNoRoute(long, long)
	if n := len("550 5.4.4 " + reply.Message + "\r\n"); n > 512 {
		t.Errorf("%d bytes", n)
	}
}
