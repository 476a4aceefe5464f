package smtpclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailchute/appliance/reply"
)

// open plays a script to a client that only opens the connection.
func open(t *testing.T, options Options, script string) (c *Conn, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		played := make(chan error, 1)
		go func() { played <- play(far, script) }()
		if c, err = Open(t.Context(), near, options); err == nil {
			c.Close()
		}
		if err := <-played; err != nil {
			t.Error("the script:", err)
		}
	})
	return c, err
}

func TestPeer(t *testing.T) {
	options := plain()
	options.Host = "contoso-com.mail.protection.outlook.com"
	c, err := open(t, options, `
> 220-SY5P282CA0097.outlook.office365.com Microsoft ESMTP MAIL Service
> 220 ready
< EHLO relay.contoso.com
> 250-SY5P282CA0097.outlook.office365.com Hello [203.0.113.10]
> 250-SIZE 157286400
> 250-pipelining
> 250-AUTH LOGIN XOAUTH2
> 250-AUTH=PLAIN
> 250-CHUNKING
> 250 8BITMIME
eof`)
	if err != nil {
		t.Fatal(err)
	}
	want := Peer{
		Host: "contoso-com.mail.protection.outlook.com", Address: "pipe",
		Banner: "220 SY5P282CA0097.outlook.office365.com Microsoft ESMTP MAIL Service ready",
		Lines: []string{"SY5P282CA0097.outlook.office365.com Hello [203.0.113.10]", "SIZE 157286400", "pipelining",
			"AUTH LOGIN XOAUTH2", "AUTH=PLAIN", "CHUNKING", "8BITMIME"},
		Extensions: map[string]string{"SIZE": "157286400", "PIPELINING": "", "AUTH": "LOGIN XOAUTH2 PLAIN", "CHUNKING": "", "8BITMIME": ""},
		Pipelined:  true, Chunked: true, MaxSize: 157286400,
	}
	if diff := cmp.Diff(want, c.Peer()); diff != "" {
		t.Error("-want +got", diff)
	}
	if got := c.Peer().String(); got != "contoso-com.mail.protection.outlook.com [pipe] plain" {
		t.Error(got)
	}
}

func TestHELOWhereEHLOIsRefused(t *testing.T) {
	c, err := open(t, plain(), hello+`
> 500 5.5.1 what?
< HELO relay.contoso.com
> 250 mx.contoso.com
eof`)
	if err != nil {
		t.Fatal(err)
	}
	if peer := c.Peer(); peer.Pipelined || peer.Chunked || len(peer.Lines) > 0 {
		t.Errorf("a server that knows only HELO offers nothing: %+v", peer)
	}
}

// TestOpenFails: the error names the stage, keeps the reply, and is the connector's affair.
func TestOpenFails(t *testing.T) {
	demanding := plain()
	demanding.TLS, demanding.VerifyName = Verified, "mx.contoso.com"
	opportunistic := plain()
	opportunistic.TLS = Opportunistic
	account := plain()
	account.Username, account.Password = "scan@contoso.com", "correct horse"
	for _, test := range []struct {
		name    string
		options Options
		script  string
		want    string
		is      error
	}{
		{"refused at the door", plain(), "> 554 5.7.1 no service for you\n< QUIT\neof", "banner: 554 5.7.1 no service for you", nil},
		{"421 at the door", plain(), "> 421 4.3.2 Service not active\nclose", "banner: 421 4.3.2 Service not active", nil},
		{"not a mail server", plain(), "> SSH-2.0-OpenSSH_9.2\neof", `banner: the server sent "SSH-2.0-OpenSSH_9.2\r\n", which is no SMTP reply: a reply begins with three digits, the first of them 2 to 5`, nil},
		{"an odd banner", plain(), "> 250 hello\n< QUIT\neof", "banner: 250 hello (the server's replies do not match the commands)", reply.ErrOutOfStep},
		{"closed at once", plain(), "close", "banner: the server closed the connection: EOF", io.EOF},
		{"silent", plain(), "stall", "banner: read pipe: i/o timeout", nil},
		{"EHLO and HELO refused", plain(), hello + "> 550 5.7.506 Bad HELO\n< HELO relay.contoso.com\n> 550 5.7.506 Bad HELO\n< QUIT\neof", "hello: 550 5.7.506 Bad HELO", nil},
		{"EHLO refused, and closed", plain(), hello + "> 550 5.7.506 Bad HELO\n< HELO relay.contoso.com\nclose", "hello: 550 5.7.506 Bad HELO (the server closed the connection: EOF)", io.EOF},
		{"EHLO refused for now", plain(), hello + "> 451 4.7.0 later\n< QUIT\neof", "hello: 451 4.7.0 later", nil},
		{"TLS demanded and not offered", demanding, bareHello + "eof", "starttls: the server does not offer STARTTLS", reply.ErrNoStartTLS},
		{"STARTTLS refused", demanding, hello + "> 250-mx\n> 250 STARTTLS\n< STARTTLS\n> 454 4.7.0 not now\n< QUIT\neof", "starttls: 454 4.7.0 not now", nil},
		{"STARTTLS and then silence", demanding, hello + "> 250-mx\n> 250 STARTTLS\n< STARTTLS\n> 220 go on\nearly\nstall", "tls: read pipe: i/o timeout", nil},
		{"no sign-in without TLS", account, hello + "> 250-mx\n> 250 AUTH PLAIN LOGIN\neof", "auth: the connection is not encrypted, and a password is sent under TLS only", reply.ErrAuthPlain},
		{"nor where TLS is an opportunity not offered", func() Options { o := account; o.TLS = Opportunistic; return o }(),
			hello + "> 250-mx\n> 250 AUTH PLAIN LOGIN\neof", "auth: the connection is not encrypted, and a password is sent under TLS only", reply.ErrAuthPlain},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := open(t, test.options, test.script)
			var failed *Error
			if !errors.As(err, &failed) {
				t.Fatalf("an *Error was expected: %v", err)
			}
			if err.Error() != test.want {
				t.Errorf("got  %s\nwant %s", err, test.want)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("the error hides its reason: %v", err)
			}
			if verdict := reply.Judge(failed.Answer); verdict.Class != reply.Connector {
				t.Errorf("class %s", verdict.Class)
			}
		})
	}
}

func TestOpportunisticGoesOnInPlain(t *testing.T) {
	options := plain()
	options.TLS = Opportunistic
	for _, script := range []string{
		bareHello + "eof",
		hello + "> 250-mx\n> 250 STARTTLS\n< STARTTLS\n> 454 4.7.0 not now\neof",
	} {
		if _, err := open(t, options, script); err != nil {
			t.Error(err)
		}
	}
}

// TestInjection: what arrives in clear behind the reply to STARTTLS is not taken for something said under TLS.
func TestInjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go func() {
			playOn(far, hello+"> 250-mx\n> 250 STARTTLS\n< STARTTLS")
			io.WriteString(far, "220 go on\r\n250-mx\r\n250 AUTH PLAIN\r\n") // in one segment
			far.Close()
		}()
		options := plain()
		options.TLS = Required
		if _, err := Open(t.Context(), near, options); !errors.Is(err, reply.ErrInjected) {
			t.Error(err)
		}
	})
}

func TestOpenEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := Open(ctx, near, plain())
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Error(err, time.Since(start))
		}
		if _, err := far.Write([]byte("220 late\r\n")); err == nil {
			t.Error("the connection is still open")
		}
	})
}

// TestTLS: verification, and the client certificate with its intermediates.
func TestTLS(t *testing.T) {
	root := newAuthority(t, "Root", nil)
	middle := newAuthority(t, "Intermediate", root)
	other := newAuthority(t, "Somebody else's root", nil)
	server := middle.leaf(t, "mx.contoso.com", century)
	client := middle.leaf(t, "relay.contoso.com", century)
	for _, test := range []struct {
		name    string
		server  *tls.Config
		options Options
		wantErr string // part of the error; empty: it works
		class   string // of the error's meaning
	}{
		{"verified", &tls.Config{Certificates: []tls.Certificate{*server}}, Options{TLS: Verified, VerifyName: "mx.contoso.com"}, "", ""},
		{"verified with TLS 1.2", &tls.Config{Certificates: []tls.Certificate{*server}, MaxVersion: tls.VersionTLS12},
			Options{TLS: Verified, VerifyName: "mx.contoso.com"}, "", ""},
		{"another name", &tls.Config{Certificates: []tls.Certificate{*server}}, Options{TLS: Verified, VerifyName: "mx.fabrikam.com"},
			"tls: failed to verify certificate: x509: certificate is valid for mx.contoso.com, not mx.fabrikam.com", "another name"},
		{"another name, unverified", &tls.Config{Certificates: []tls.Certificate{*server}}, Options{TLS: Required, VerifyName: "mx.fabrikam.com"}, "", ""},
		{"an unknown authority", &tls.Config{Certificates: []tls.Certificate{*other.leaf(t, "mx.contoso.com", century)}},
			Options{TLS: Verified, VerifyName: "mx.contoso.com"}, "unknown authority", "authority the box does not trust"},
		{"an unknown authority, unverified", &tls.Config{Certificates: []tls.Certificate{*other.leaf(t, "mx.contoso.com", century)}},
			Options{TLS: Opportunistic, VerifyName: "mx.contoso.com"}, "", ""},
		{"expired", &tls.Config{Certificates: []tls.Certificate{*middle.leaf(t, "mx.contoso.com", 0)}},
			Options{TLS: Verified, VerifyName: "mx.contoso.com"}, "expired", "expired or is not valid yet"},
		{"too old a TLS", &tls.Config{Certificates: []tls.Certificate{*server}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
			Options{TLS: Verified, VerifyName: "mx.contoso.com"}, "tls:", ""},
		{"a client certificate is demanded and shown, intermediates and all",
			&tls.Config{Certificates: []tls.Certificate{*server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: root.pool()},
			Options{TLS: Verified, VerifyName: "mx.contoso.com", Certificate: client}, "", ""},
		{"the server's list of authorities does not name ours",
			&tls.Config{Certificates: []tls.Certificate{*server}, ClientAuth: tls.RequireAnyClientCert, ClientCAs: other.pool()},
			Options{TLS: Verified, VerifyName: "mx.contoso.com", Certificate: client}, "", ""},
		{"the server refuses our certificate",
			&tls.Config{Certificates: []tls.Certificate{*server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: other.pool()},
			Options{TLS: Verified, VerifyName: "mx.contoso.com", Certificate: client}, "unknown certificate authority", "refuses the box's client certificate"},
		{"the server refuses our certificate, TLS 1.2",
			&tls.Config{Certificates: []tls.Certificate{*server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: other.pool(), MaxVersion: tls.VersionTLS12},
			Options{TLS: Verified, VerifyName: "mx.contoso.com", Certificate: client}, "unknown certificate authority", "refuses the box's client certificate"},
		{"a certificate is demanded and we have none",
			&tls.Config{Certificates: []tls.Certificate{*server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: root.pool()},
			Options{TLS: Verified, VerifyName: "mx.contoso.com"}, "certificate required", "refuses the box's client certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(time.Minute) // of the bubble: the expired certificate was valid until its start
				near, far := net.Pipe()
				var shown []*x509.Certificate
				test.server.VerifyConnection = func(state tls.ConnectionState) error {
					shown = state.PeerCertificates
					return nil
				}
				served := make(chan error, 1)
				go func() {
					defer far.Close()
					encrypted, err := greet(far, test.server, "< EHLO relay.contoso.com\n> 250-mx.contoso.com\n> 250 PIPELINING\neof")
					if err == nil {
						encrypted.Close()
					}
					served <- err
				}()
				test.options.Hello = "relay.contoso.com"
				test.options.Roots = root.pool()
				c, err := Open(t.Context(), near, test.options)
				if c != nil {
					defer func() {
						if err := <-served; err != nil {
							t.Error("the server:", err)
						}
					}()
					defer c.conn.Close() // with the alert that a server expects
				}
				if test.wantErr == "" {
					if err != nil {
						t.Fatal(err)
					}
					if test.options.Certificate != nil && len(shown) != 2 {
						t.Errorf("the server was shown %d certificates, want the leaf and its intermediate", len(shown))
					}
					if peer := c.Peer(); !strings.HasPrefix(peer.TLS, "TLS1.") || !strings.Contains(peer.TLS, " TLS_") || peer.offersNot("PIPELINING") || peer.offers("STARTTLS") {
						t.Errorf("the peer is not the one behind TLS: %+v", peer)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Fatalf("%q was expected: %v", test.wantErr, err)
				}
				var failed *Error
				if !errors.As(err, &failed) {
					t.Fatal("no *Error:", err)
				}
				if verdict := reply.Judge(failed.Answer); verdict.Class != reply.Connector || !strings.Contains(verdict.Cause, test.class) {
					t.Errorf("%+v", verdict)
				}
			})
		})
	}
}

func (p Peer) offersNot(extension string) bool { return !p.offers(extension) }

func TestNotTLSAtAll(t *testing.T) {
	options := plain()
	options.TLS, options.Implicit, options.VerifyName = Verified, true, "mx.contoso.com"
	_, err := open(t, options, "early\n> 220 mx.contoso.com ready for plain text\nstall")
	var failed *Error
	if !errors.As(err, &failed) || failed.Answer.Stage != reply.TLS {
		t.Fatal(err)
	}
	if cause := reply.Judge(failed.Answer).Cause; !strings.Contains(cause, "does not speak TLS") {
		t.Error(cause)
	}
}

// TestSignIn: whichever of PLAIN and LOGIN is offered; the password is in no error.
func TestSignIn(t *testing.T) {
	const user, password = "scan@contoso.com", "correct horse"
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	root := newAuthority(t, "Root", nil)
	server := root.leaf(t, "mx.contoso.com", century)
	long := strings.Repeat("p", 400)
	for _, test := range []struct{ name, password, offer, script, want string }{
		{"PLAIN", password, "AUTH PLAIN LOGIN", "< AUTH PLAIN " + encode("\x00"+user+"\x00"+password) + "\n> 235 2.7.0 welcome\neof", ""},
		{"PLAIN, too long for one line", long, "AUTH PLAIN", "< AUTH PLAIN\n> 334\n< " + encode("\x00"+user+"\x00"+long) + "\n> 235 2.7.0 welcome\neof", ""},
		{"LOGIN", password, "AUTH LOGIN XOAUTH2", "< AUTH LOGIN\n> 334 VXNlcm5hbWU6\n< " + encode(user) + "\n> 334 UGFzc3dvcmQ6\n< " + encode(password) + "\n> 235 2.7.0 welcome\neof", ""},
		{"refused", password, "AUTH LOGIN", "< AUTH LOGIN\n> 334 VXNlcm5hbWU6\n< " + encode(user) + "\n> 334 UGFzc3dvcmQ6\n< " + encode(password) + "\n> 535 5.7.3 Authentication unsuccessful\n< QUIT\neof",
			"auth: 535 5.7.3 Authentication unsuccessful"},
		{"refused at the name", password, "AUTH LOGIN", "< AUTH LOGIN\n> 334 VXNlcm5hbWU6\n< " + encode(user) + "\n> 535 5.7.3 who?\n< QUIT\neof", "auth: 535 5.7.3 who?"},
		{"asked for more than there is", password, "AUTH PLAIN", "< AUTH PLAIN " + encode("\x00"+user+"\x00"+password) + "\n> 334 more\n< QUIT\neof",
			"auth: 334 more (the server's replies do not match the commands)"},
		{"nothing we can", password, "AUTH XOAUTH2 NTLM", "eof", `auth: the server offers neither AUTH PLAIN nor AUTH LOGIN (it offers "XOAUTH2 NTLM")`},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				served := make(chan error, 1)
				go func() {
					defer far.Close()
					encrypted, err := greet(far, &tls.Config{Certificates: []tls.Certificate{*server}},
						fmt.Sprintf("< EHLO relay.contoso.com\n> 250-mx\n> 250 %s\n%s", test.offer, strings.TrimSuffix(test.script, "eof")))
					if err == nil {
						encrypted.Close()
					}
					served <- err
				}()
				c, err := Open(t.Context(), near, Options{Hello: "relay.contoso.com", TLS: Required, Username: user, Password: test.password})
				if c != nil {
					c.Close()
				}
				if err := <-served; err != nil {
					t.Error("the server:", err)
				}
				if test.want == "" && err != nil || test.want != "" && (err == nil || err.Error() != test.want) {
					t.Errorf("got %v, want %s", err, test.want)
				}
				if err != nil && (strings.Contains(err.Error(), password) || strings.Contains(err.Error(), encode(password))) {
					t.Error("the password is in the error")
				}
			})
		})
	}
}
