package sim

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// client speaks lines; nothing helps it to be right.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, address string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn, bufio.NewReader(conn)}
}

// replies reads n replies, each with its lines joined by " / ".
func (c *client) replies(n int) []string {
	c.t.Helper()
	var replies []string
	for range n {
		var lines []string
		for {
			line, err := c.r.ReadString('\n')
			if err != nil {
				c.t.Fatalf("after %q: %v", append(replies, lines...), err)
			}
			lines = append(lines, strings.TrimRight(line, "\r\n"))
			if len(line) < 4 || line[3] != '-' {
				break
			}
		}
		replies = append(replies, strings.Join(lines, " / "))
	}
	return replies
}

// talk plays a dialog: "> " is sent with CRLF, "< " is the beginning of the next reply. Lines sent one after
// another travel in one batch.
func (c *client) talk(dialog string) {
	c.t.Helper()
	batch := ""
	for line := range strings.SplitSeq(strings.TrimSpace(dialog), "\n") {
		kind, text, _ := strings.Cut(strings.TrimLeft(line, "\t "), " ")
		switch kind {
		case ">":
			batch += text + "\r\n"
		case "<":
			if _, err := io.WriteString(c, batch); err != nil {
				c.t.Fatal(err)
			}
			batch = ""
			if reply := c.replies(1)[0]; !strings.HasPrefix(reply, text) {
				c.t.Fatalf("reply %q, want %q…", reply, text)
			}
		case "":
		default:
			c.t.Fatalf("dialog line %q: neither > nor <", line)
		}
	}
}

func (c *client) startTLS(certificates ...tls.Certificate) {
	c.t.Helper()
	c.talk(`
		> STARTTLS
		< 220 2.0.0`)
	secure := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true, Certificates: certificates})
	if err := secure.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.Conn, c.r = secure, bufio.NewReader(secure)
}

func authority(t *testing.T) *Authority {
	t.Helper()
	authority, err := NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func issue(t *testing.T, authority *Authority, names ...string) tls.Certificate {
	t.Helper()
	certificate, err := authority.Issue(names...)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func start(t *testing.T, tenant Tenant, options Options) (*Server, string) {
	t.Helper()
	server, address, err := Start(tenant, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server, address
}

// open is a tenant that takes mail for contoso.com from everybody.
var open = Tenant{AcceptedDomains: []string{"contoso.com"}}

const begin = `
	< 220
	> EHLO mfp.contoso.com
	< 250-contoso-com.mail.protection.outlook.com Hello [127.0.0.1] / 250-SIZE 157286400
`

func TestDialogs(t *testing.T) {
	tests := map[string]struct {
		change func(*Tenant)
		faults []string
		dialog string
	}{
		"pipelined": {dialog: begin + `
			> MAIL FROM:<mfp@contoso.com> SIZE=20 BODY=8BITMIME
			> RCPT TO:<a@contoso.com>
			> RCPT TO:<b@fabrikam.com>
			> DATA
			< 250 2.1.0
			< 250 2.1.5
			< 550 5.7.64 TenantAttribution; Relay Access Denied
			< 354
			> Subject: x
			>
			> ..
			> .
			> QUIT
			< 250 2.6.0
			< 221`},
		"chunks": {dialog: begin + `
			> MAIL FROM:<> BODY=BINARYMIME
			> RCPT TO:<a@contoso.com>
			> BDAT 6
			> abcd
			> BDAT 4 LAST
			> ef
			> RSET
			< 250
			< 250
			< 250 2.6.0 CHUNK received OK, 6 octets
			< 250 2.6.0 <1@
			< 250 2.0.0 Resetting`},
		"chunks without a recipient are read and refused": {dialog: begin + `
			> MAIL FROM:<a@contoso.com>
			> RCPT TO:<a@fabrikam.com>
			> BDAT 6 LAST
			> QUIT
			> NOOP
			< 250
			< 550 5.7.64
			< 503 5.5.2 Need rcpt
			< 250 2.0.0 OK`},
		"order": {dialog: `
			< 220
			> MAIL FROM:<a@contoso.com>
			< 503 5.5.2 Send hello first
			> HELO x
			< 250 contoso-com
			> MAIL FROM:<a@contoso.com> SIZE=1
			< 555 5.5.4 Unsupported parameter SIZE
			> RCPT TO:<a@contoso.com>
			< 503 5.5.2 Need mail
			> DATA
			< 503 5.5.2 Need mail
			> MAIL FROM:<a@contoso.com>
			< 250
			> MAIL FROM:<a@contoso.com>
			< 503 5.5.2 Sender already specified
			> DATA
			< 503 5.5.2 Need rcpt
			> EHLO x
			< 250
			> RCPT TO:<a@contoso.com>
			< 503 5.5.2 Need mail
			> VRFY a
			< 252
			> TURN
			< 500 5.3.3`},
		"limits": {change: func(t *Tenant) { t.MaxRecipients, t.MaxMessageSize = 1, 4 }, dialog: `
			< 220
			> EHLO x
			< 250
			> MAIL FROM:<a@contoso.com> SIZE=5
			< 552 5.3.4
			> MAIL FROM:<a@contoso.com> SIZE=4
			< 250
			> RCPT TO:<a@contoso.com>
			> RCPT TO:<b@contoso.com>
			< 250
			< 452 4.5.3
			> DATA
			< 354
			> abc
			> .
			< 552 5.3.4
			> MAIL FROM:<a@contoso.com>
			> RCPT TO:<a@contoso.com>
			> BDAT 6
			> abcd
			> BDAT 4 LAST
			> ab
			> RSET
			< 250
			< 250
			< 552 5.3.4
			< 503 5.5.1
			< 250
			> MAIL FROM:<a@contoso.com>
			> RCPT TO:<a@contoso.com>
			> BDAT 4 LAST
			> ab
			< 250
			< 250
			< 250 2.6.0`},
		"addresses": {dialog: begin + `
			> MAIL FROM:a@contoso.com
			< 501 5.1.7
			> MAIL FROM: <a@contoso.com>
			< 501 5.1.7
			> MAIL FROM:<"a b> SIZE=1"@contoso.com>
			< 250
			> RCPT TO:<"a@contoso.com>
			< 501 5.1.7
			> RCPT TO:<a b@contoso.com>
			< 501 5.1.7
			> RCPT TO:<>
			< 501 5.1.3
			> RCPT TO:<é@contoso.com>
			< 553 5.6.7
			> RCPT TO:<Postmaster>
			< 250
			> RCPT TO:<@hop.example:a@contoso.com> NOTIFY=NEVER
			< 250
			> RCPT TO:<a@contoso.com> SIZE=3
			< 555 5.5.4`},
		"extensions left out": {change: func(t *Tenant) { t.Without = []string{"CHUNKING", "SMTPUTF8", "8BITMIME", "SIZE"} }, dialog: `
			< 220
			> EHLO x
			< 250-contoso-com.mail.protection.outlook.com Hello [127.0.0.1] / 250-PIPELINING / 250-DSN / 250-ENHANCEDSTATUSCODES / 250 BINARYMIME
			> BDAT 0 LAST
			< 500
			> MAIL FROM:<a@contoso.com> SMTPUTF8
			< 555
			> MAIL FROM:<a@contoso.com> BODY=8BITMIME
			< 555
			> STARTTLS
			< 500`},
		"unknown mailbox": {change: func(t *Tenant) { t.Mailboxes = []string{"Boss@contoso.com"} }, dialog: begin + `
			> MAIL FROM:<a@contoso.com>
			> RCPT TO:<boss@contoso.com>
			> RCPT TO:<clerk@contoso.com>
			< 250
			< 250
			< 550 5.4.1 Recipient address rejected`},
		"direct send off": {change: func(t *Tenant) { t.RejectDirectSend = true }, dialog: begin + `
			> MAIL FROM:<a@contoso.com>
			> RCPT TO:<b@contoso.com>
			> RSET
			> MAIL FROM:<a@elsewhere.example>
			> RCPT TO:<b@contoso.com>
			< 250
			< 550 5.7.68
			< 250
			< 250
			< 250`},
		"certificate required": {change: func(t *Tenant) { t.RequireCertificate = true }, dialog: begin + `
			> MAIL FROM:<a@elsewhere.example>
			> RCPT TO:<b@contoso.com>
			< 250
			< 550 5.7.51`},
		"faults by reply": {faults: []string{"mail=451:1", "rcpt~bad@=550 5.1.1 no such user", "final=4xx:1", "reset=5xx:1", "quit=421"}, dialog: begin + `
			> MAIL FROM:<a@contoso.com>
			< 451 4.7.500
			> MAIL FROM:<a@contoso.com>
			> RCPT TO:<bad@contoso.com>
			> RCPT TO:<good@contoso.com>
			< 250
			< 550 5.1.1 no such user
			< 250
			> BDAT 2 LAST
			>
			< 451
			> RSET
			< 550
			> MAIL FROM:<a@contoso.com>
			> RCPT TO:<good@contoso.com>
			> BDAT 2 LAST
			>
			< 250
			< 250
			< 250 2.6.0
			> QUIT
			< 421 4.3.2`},
		"early reply, then the rest is read": {faults: []string{"body=552:1"}, dialog: begin + `
			> MAIL FROM:<a@contoso.com>
			> RCPT TO:<b@contoso.com>
			> DATA
			> QUIT
			> .
			> MAIL FROM:<a@contoso.com>
			< 250
			< 250
			< 354
			< 552 5.3.4
			< 250`},
		"refused chunk": {faults: []string{"data=554:1"}, dialog: begin + `
			> MAIL FROM:<a@contoso.com>
			> RCPT TO:<b@contoso.com>
			> BDAT 6 LAST
			> QUIT
			> BDAT 0 LAST
			< 250
			< 250
			< 554
			< 503`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			tenant := open
			if test.change != nil {
				test.change(&tenant)
			}
			server, address := start(t, tenant, Options{})
			if err := server.Fail(test.faults...); err != nil {
				t.Fatal(err)
			}
			dial(t, address).talk(test.dialog)
		})
	}
}

// Who may relay follows from the certificate, as the chain was sent.
func TestAttribution(t *testing.T) {
	trusted, stranger := authority(t), authority(t)
	relay := issue(t, trusted, "relay.contoso.com")
	alone := relay
	alone.Certificate = relay.Certificate[:1]
	tests := map[string]struct {
		certificates []tls.Certificate
		external     string
		connector    string
	}{
		"trusted":              {[]tls.Certificate{relay}, "250 2.1.5", "Relay box"},
		"the domain itself":    {[]tls.Certificate{issue(t, trusted, "other.example", "contoso.com")}, "250 2.1.5", "Exact"},
		"no certificate":       {nil, "550 5.7.64", ""},
		"no intermediate":      {[]tls.Certificate{alone}, "550 5.7.64", ""},
		"unknown authority":    {[]tls.Certificate{issue(t, stranger, "relay.contoso.com")}, "550 5.7.64", ""},
		"another's name":       {[]tls.Certificate{issue(t, trusted, "relay.notcontoso.com")}, "550 5.7.64", ""},
		"no connector for it":  {[]tls.Certificate{issue(t, trusted, "mail.fabrikam.com")}, "550 5.7.64", ""},
		"an address, no names": {[]tls.Certificate{issue(t, trusted, "192.0.2.1")}, "550 5.7.64", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			tenant, err := Contoso(trusted)
			if err != nil {
				t.Fatal(err)
			}
			tenant.AcceptedDomains = append(tenant.AcceptedDomains, "fabrikam.com")
			tenant.Connectors = append(tenant.Connectors, Connector{"Exact", "contoso.com"})
			tenant.RejectDirectSend, tenant.RequireCertificate = false, false
			server, address := start(t, tenant, Options{})
			c := dial(t, address)
			c.talk(begin)
			c.startTLS(test.certificates...)
			c.talk(`
				> EHLO relay.contoso.com
				< 250
				> MAIL FROM:<mfp@contoso.com>
				> RCPT TO:<someone@elsewhere.example>
				> RCPT TO:<boss@contoso.com>
				> BDAT 2 LAST
				>
				< 250
				< ` + test.external + `
				< 250
				< 250`)
			messages := server.Messages()
			if len(messages) != 1 || messages[0].Connector != test.connector || !strings.HasPrefix(messages[0].TLS, "TLS 1.3, ") {
				t.Errorf("messages %+v, want one by connector %q over TLS 1.3", messages, test.connector)
			}
		})
	}
}

func TestSignIn(t *testing.T) {
	certificate := issue(t, authority(t), "localhost")
	tenant := Tenant{Certificate: &certificate, AcceptedDomains: []string{"contoso.com"}, Accounts: map[string]string{"mfp@contoso.com": "pass"}}
	tests := map[string]struct {
		mechanisms []string
		dialog     string
	}{
		"login": {nil, `
			> EHLO x
			< 250-contoso-com.mail.protection.outlook.com Hello [127.0.0.1] / 250-SIZE 157286400 / 250-PIPELINING / 250-DSN / 250-ENHANCEDSTATUSCODES / 250-AUTH LOGIN
			> MAIL FROM:<mfp@contoso.com>
			> RCPT TO:<a@contoso.com>
			> RSET
			< 250
			< 530 5.7.57
			< 250
			> AUTH PLAIN AG1mcEBjb250b3NvLmNvbQBwYXNz
			< 504 5.7.4
			> AUTH LOGIN
			< 334 VXNlcm5hbWU6
			> bWZwQGNvbnRvc28uY29t
			< 334 UGFzc3dvcmQ6
			> d3Jvbmc=
			< 535 5.7.3
			> AUTH LOGIN !
			< 501
			> AUTH LOGIN bWZwQGNvbnRvc28uY29t
			< 334 UGFzc3dvcmQ6
			> cGFzcw==
			< 235
			> AUTH LOGIN
			< 503
			> MAIL FROM:<mfp@contoso.com>
			> RCPT TO:<a@elsewhere.example>
			> BDAT 0 LAST
			< 250
			< 250
			< 250 2.6.0
			> MAIL FROM:<boss@contoso.com>
			> RCPT TO:<a@contoso.com>
			> BDAT 0 LAST
			< 250
			< 250
			< 554 5.2.252 SendAsDenied; mfp@contoso.com not allowed to send as boss@contoso.com`},
		"plain": {[]string{"PLAIN"}, `
			> EHLO x
			< 250
			> AUTH PLAIN
			< 334
			> AG1mcEBjb250b3NvLmNvbQBwYXNz
			< 235`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			tenant := tenant
			tenant.Mechanisms = test.mechanisms
			_, address := start(t, tenant, Options{})
			c := dial(t, address)
			c.talk(begin + `
				> AUTH LOGIN
				< 500`)
			c.startTLS()
			c.talk(test.dialog)
		})
	}
}

// What is stored is what was sent, by either command, cut anywhere.
func TestBodyArrivesWhole(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	body := "Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n" + long + "\r\n" + long[:65535] + "\r\n.\rend\r\n"
	stuffed := strings.ReplaceAll("\r\n"+body, "\r\n.", "\r\n..")[2:]
	for name, sent := range map[string]string{
		"DATA": "DATA\r\n" + stuffed + ".\r\n",
		"BDAT": fmt.Sprintf("BDAT 7\r\n%sBDAT %d LAST\r\n%s", body[:7], len(body)-7, body[7:]),
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			var told []Message
			server, address := start(t, open, Options{Folder: folder, OnMessage: func(m Message) { told = append(told, m) }})
			c := dial(t, address)
			c.talk(begin + `
				> MAIL FROM:<mfp@contoso.com> SIZE=1000 BODY=8BITMIME
				> RCPT TO:<a@contoso.com>
				< 250
				< 250`)
			if _, err := io.WriteString(c, sent+"QUIT\r\n"); err != nil {
				t.Fatal(err)
			}
			replies := c.replies(3)
			if !strings.HasPrefix(replies[1], "250 2.6.0") || !strings.HasPrefix(replies[2], "221") {
				t.Fatalf("replies %q", replies)
			}
			stored, err := os.ReadFile(filepath.Join(folder, "000001.eml"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(body, string(stored)); diff != "" {
				t.Error(diff)
			}
			sum := sha256.Sum256([]byte(body))
			want := Message{
				Number: 1, Client: c.LocalAddr().String(), Helo: "mfp.contoso.com",
				Sender: "mfp@contoso.com", Recipients: []string{"a@contoso.com"}, Parameters: []string{"SIZE=1000", "BODY=8BITMIME"},
				Chunked: name == "BDAT", Size: int64(len(body)), SHA256: hex.EncodeToString(sum[:]), File: filepath.Join(folder, "000001.eml"),
			}
			description, err := os.ReadFile(filepath.Join(folder, "000001.json"))
			if err != nil {
				t.Fatal(err)
			}
			var described Message
			if err := json.Unmarshal(description, &described); err != nil {
				t.Fatal(err)
			}
			for _, got := range [][]Message{server.Messages(), told, {described}} {
				if len(got) == 1 {
					if got[0].Received.IsZero() {
						t.Error("no time of arrival")
					}
					got[0].Received = time.Time{}
				}
				if diff := cmp.Diff([]Message{want}, got); diff != "" {
					t.Error(diff)
				}
			}
			again, err := New(open, Options{Folder: folder})
			if err != nil || again.number != 1 {
				t.Errorf("a second run counts on from %d, %v; want 1", again.number, err)
			}
		})
	}
}

// Only CRLF.CRLF ends a body, and bare line feeds are refused.
func TestBareLineFeeds(t *testing.T) {
	for _, body := range []string{"a\n.\r\nb\r\n", "a\r\n.\nb\r\n", "a\n\r\n", "\na\r\n"} {
		t.Run(fmt.Sprintf("%q", body), func(t *testing.T) {
			_, address := start(t, open, Options{})
			c := dial(t, address)
			c.talk(begin + `
				> MAIL FROM:<mfp@contoso.com>
				> RCPT TO:<a@contoso.com>
				> DATA
				< 250
				< 250
				< 354`)
			fmt.Fprintf(c, "%s.\r\nNOOP\r\n", body)
			replies := c.replies(2)
			if !strings.HasPrefix(replies[0], "550 5.6.11") || !strings.HasPrefix(replies[1], "250 2.0.0 OK") {
				t.Errorf("replies %q, want 550 5.6.11 and 250 2.0.0 OK", replies)
			}
		})
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	server, _ := start(t, open, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if messages, err := server.Wait(ctx, 1); len(messages) != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v", messages, err)
	}
}

// Commands pipelined behind STARTTLS could have been put in by anybody: none counts.
func TestStartTLSInjection(t *testing.T) {
	certificate := issue(t, authority(t), "localhost")
	tenant := open
	tenant.Certificate = &certificate
	server, address := start(t, tenant, Options{})
	c := dial(t, address)
	c.talk(begin + `
		> STARTTLS
		> MAIL FROM:<a@contoso.com>
		< 501 5.5.2`)
	if rest, err := io.ReadAll(c.r); len(rest) != 0 || err != nil {
		t.Errorf("then %q, %v; want the connection closed", rest, err)
	}
	if server.Count(Mail) != 0 {
		t.Error("MAIL was run")
	}
}
