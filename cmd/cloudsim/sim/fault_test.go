package sim

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseFault(t *testing.T) {
	good := map[string]Fault{
		"rcpt=stall":                    {Stage: Rcpt, Action: Stall},
		"final=451:3":                   {Stage: Final, Reply: "451 4.7.500 Server busy. Please try again later", Count: 3},
		"rcpt~a@b=550 5.1.1 No: really": {Stage: Rcpt, Match: "a@b", Reply: "550 5.1.1 No: really"},
		"body=552+half-close":           {Stage: Body, Reply: "552 5.3.4 Message size exceeds fixed maximum message size", Action: HalfClose},
		"mail=421 Bye+close:2":          {Stage: Mail, Reply: "421 Bye", Action: Close, Count: 2},
		"banner=refuse":                 {Stage: Banner, Reply: "554 5.3.2 No SMTP service here"},
		"hello=refuse":                  {Stage: Hello, Reply: "554 5.2.0 Transaction failed"},
		"connect=refuse":                {Stage: Connect, Action: Abort},
		"auth=4xx":                      {Stage: Auth, Reply: "451 4.7.500 Server busy. Please try again later"},
		"data=499":                      {Stage: Data, Reply: "499 4.0.0 A fault was set"},
		"tls=tls-alert":                 {Stage: TLS, Action: Alert},
	}
	for text, want := range good {
		got, err := ParseFault(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", text, err, diff)
		}
	}
	bad := map[string]string{
		"rcpt":              "no =",
		"lunch=stall":       `unknown stage "lunch"; the stages are connect, banner,`,
		"rcpt=explode":      `found "explode"; allowed are`,
		"rcpt=":             `found ""`,
		"rcpt=650":          `found "650"`,
		"rcpt=5500":         `found "5500"`,
		"rcpt=stall:0":      "a count of 0",
		"tls=550":           "no reply can be given at stage tls",
		"connect=421+close": "no reply can be given at stage connect",
		"rcpt=tls-alert":    "belongs to stage tls",
	}
	for text, want := range bad {
		if _, err := ParseFault(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", text, err, want)
		}
	}
	script := "# at first\n\n rcpt=stall\nfinal=451:3\n"
	if faults, err := ParseFaults(strings.NewReader(script)); len(faults) != 2 || err != nil {
		t.Errorf("script: %v, %v", faults, err)
	}
	if _, err := ParseFaults(strings.NewReader("\nrcpt\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("script: error %v, want line 2", err)
	}
}

func FuzzParseFault(f *testing.F) {
	for _, seed := range []string{"rcpt=stall", "final=451:3", "rcpt~a=550 x+close:1", "banner=refuse", "tls=tls-alert", "body=+close"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fault, err := ParseFault(text)
		if err != nil {
			return
		}
		again, err := ParseFault(fault.String())
		if again != fault || err != nil {
			t.Errorf("%q gives %+v; written as %q it gives %+v, %v", text, fault, fault, again, err)
		}
	})
}

// converse brings a conversation up to stage and returns the error or the reply it met there.
func converse(address string, stage Stage) (reply string, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	read := func() {
		for err == nil {
			reply, err = r.ReadString('\n')
			if err == nil && (len(reply) < 4 || reply[3] != '-') {
				return
			}
		}
	}
	say := func(text string) {
		if err == nil {
			_, err = io.WriteString(conn, text)
		}
		read()
	}
	if read(); stage == Connect || stage == Banner || err != nil {
		return reply, err
	}
	if say("EHLO x\r\n"); stage == Hello || err != nil {
		return reply, err
	}
	if stage == StartTLS || stage == TLS || stage == Auth {
		if say("STARTTLS\r\n"); stage == StartTLS || err != nil {
			return reply, err
		}
		secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
		if err := secure.Handshake(); err != nil {
			return "", err
		}
		conn, r = secure, bufio.NewReader(secure)
		if say("EHLO x\r\n"); stage == TLS || err != nil {
			return reply, err
		}
		say("AUTH LOGIN\r\n")
		return reply, err
	}
	commands := []struct {
		stage Stage
		text  string
	}{{Mail, "MAIL FROM:<a@contoso.com>\r\n"}, {Rcpt, "RCPT TO:<b@contoso.com>\r\n"}, {Data, "DATA\r\n"}, {Body, "x\r\n.\r\n"}, {Reset, "RSET\r\n"}, {Quit, "QUIT\r\n"}}
	for _, command := range commands {
		if say(command.text); command.stage == stage || command.stage == Body && stage == Final || err != nil {
			break
		}
	}
	return reply, err
}

// Every stage can fail in every way, as many times as asked, and is well afterwards.
func TestEveryFaultAtEveryStage(t *testing.T) {
	certificate := issue(t, authority(t), "localhost")
	tenant := open
	tenant.Certificate = &certificate
	tenant.Accounts = map[string]string{"a@contoso.com": "p"}
	unlocked := tenant
	unlocked.Accounts = nil
	for _, stage := range Stages {
		for _, what := range []string{"451", "550", "421+half-close", "421+close", "close", "half-close", "reset", "garbage", "tls-alert", "tls-reject"} {
			text := string(stage) + "=" + what + ":1"
			if _, err := ParseFault(text); err != nil {
				continue // makes no sense there
			}
			t.Run(text, func(t *testing.T) {
				tenant := unlocked
				if stage == Auth {
					tenant = Tenant{Certificate: &certificate, Accounts: map[string]string{"a": "p"}}
				}
				met := make(chan Fault, 1)
				server, address := start(t, tenant, Options{OnFault: func(f Fault) { met <- f }})
				if err := server.Fail(text); err != nil {
					t.Fatal(err)
				}
				reply, err := converse(address, stage)
				if len(met) != 1 {
					t.Fatalf("the fault did not happen; reply %q, %v", reply, err)
				}
				code, _, _ := strings.Cut(what, "+")
				switch {
				case code == "garbage":
					if err == nil && !strings.Contains(reply, "HTTP/1.1") || err != nil && stage != TLS {
						t.Errorf("reply %q, %v; want garbage", reply, err)
					}
				case code[0] >= '0' && code[0] <= '9':
					// A connection closed while more is on its way may be reset, and the reply lost with it.
					if !strings.HasPrefix(reply, code) && !(strings.HasSuffix(what, "+close") && err != nil) {
						t.Errorf("reply %q, %v; want %s", reply, err, code)
					}
				case strings.HasPrefix(code, "tls-"):
					var alert net.Error
					if !errors.As(err, &alert) || !strings.Contains(err.Error(), "remote error: tls:") {
						t.Errorf("error %v, want an alert", err)
					}
				default:
					if err == nil {
						t.Errorf("reply %q; want the connection to end", reply)
					}
				}
				if code == "reset" && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
					t.Errorf("error %v; want a reset", err)
				}
				if code == "half-close" && !errors.Is(err, io.EOF) {
					t.Errorf("error %v; want EOF", err)
				}
				if reply, err := converse(address, stage); err != nil || reply[0] > '3' {
					t.Errorf("afterwards: %q, %v; want it well again", reply, err)
				}
			})
		}
	}
}

// A stalled connection says nothing until the client goes or the server closes.
func TestStall(t *testing.T) {
	for _, stage := range []Stage{Connect, Banner, Hello, Mail, Rcpt, Data, Body, Final} {
		t.Run(string(stage), func(t *testing.T) {
			met := make(chan struct{})
			server, address := start(t, open, Options{OnFault: func(Fault) { close(met) }})
			if err := server.Fail(string(stage) + "=stall"); err != nil {
				t.Fatal(err)
			}
			over := make(chan error)
			go func() {
				_, err := converse(address, stage)
				over <- err
			}()
			<-met
			select {
			case err := <-over:
				t.Fatalf("the conversation ended: %v", err)
			default:
			}
			server.Close()
			if err := <-over; err == nil {
				t.Error("a reply came")
			}
		})
	}
}

func TestCut(t *testing.T) {
	server, address := start(t, open, Options{})
	c := dial(t, address)
	c.talk(begin)
	server.Cut()
	if _, err := c.r.ReadByte(); err == nil {
		t.Error("the connection is alive")
	}
	dial(t, address).talk(begin)
}

// Many clients at once lose nothing.
func TestConcurrentClients(t *testing.T) {
	server, address := start(t, open, Options{Discard: true})
	const clients, each = 8, 50
	for range clients {
		go func() {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return
			}
			defer conn.Close()
			batch := "EHLO x\r\n"
			for i := range each {
				body := fmt.Sprintf("Subject: %d\r\n\r\n", i)
				batch += fmt.Sprintf("MAIL FROM:<a@contoso.com>\r\nRCPT TO:<b@contoso.com>\r\nBDAT %d LAST\r\n%s", len(body), body)
			}
			io.WriteString(conn, batch+"QUIT\r\n")
			io.Copy(io.Discard, conn)
		}()
	}
	messages, err := server.Wait(context.Background(), clients*each)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, message := range messages {
		seen[message.Number] = true
	}
	if len(seen) != clients*each {
		t.Errorf("%d numbers for %d messages", len(seen), len(messages))
	}
}
