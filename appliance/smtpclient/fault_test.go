package smtpclient

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
	"testing/synctest"
	"time"

	"mailchute/appliance/reply"
)

// faults are the ways a server can fail at a step.
var faults = []string{"4xx", "5xx", "421", "garbage", "half a reply", "close", "reset", "stall", "early", "unasked"}

// steps are all the steps of a conversation at which a server can fail.
var steps = []reply.Stage{reply.Banner, reply.Hello, reply.StartTLS, reply.TLS, reply.Auth, reply.Mail, reply.Rcpt, reply.Data, reply.Final, reply.Reset}

// TestEveryFaultAtEveryStep lets a server fail at every step in every way, over TLS, with and without CHUNKING and
// PIPELINING. The first message goes well where the fault is in the second one (RSET). The answer must name the step,
// keep what the server said, and mean what such a failure means.
func TestEveryFaultAtEveryStep(t *testing.T) {
	root := newAuthority(t, "Root", nil)
	config := &tls.Config{Certificates: []tls.Certificate{*root.leaf(t, "mx.contoso.com", century)}}
	for _, extensions := range [][]string{{"PIPELINING", "CHUNKING"}, {"PIPELINING"}, {"CHUNKING"}, nil} {
		for _, step := range steps {
			for _, fault := range faults {
				server := &faultyServer{step: step, fault: fault, config: config, extensions: extensions}
				if !server.makesSense() {
					continue
				}
				name := fmt.Sprintf("%s/%s/%s", strings.Join(append([]string{"ESMTP"}, extensions...), "+"), step, fault)
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { server.test(t, root) })
				})
			}
		}
	}
}

// makesSense leaves out what cannot be told apart from another case or cannot be.
func (s *faultyServer) makesSense() bool {
	chunking := strings.Contains(strings.Join(s.extensions, " "), "CHUNKING")
	switch {
	case s.step == reply.Data && chunking && s.fault != "early" && s.fault != "reset" && s.fault != "close" && s.fault != "stall":
		return false // there is no DATA to answer
	case s.step == reply.TLS:
		return s.fault == "garbage" || s.fault == "close" || s.fault == "reset" || s.fault == "stall"
	case s.fault == "early":
		return s.step == reply.Data // in the middle of the body
	case s.fault == "unasked":
		return s.step == reply.Mail // while nothing is unanswered
	}
	return true
}

func (s *faultyServer) test(t *testing.T, root *authority) {
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		defer far.Close()
		s.serve(far)
	}()
	conn := net.Conn(near)
	if s.fault == "reset" {
		conn = resetting{near}
	}
	options := Options{Hello: "relay.contoso.com", TLS: Verified, VerifyName: "mx.contoso.com", Roots: root.pool(),
		Username: "scan", Password: "secret", Pipelining: true, Window: 1}
	start := time.Now()
	var answers []reply.Answer
	c, err := Open(t.Context(), conn, options)
	var failed *Error
	switch {
	case err != nil && !errors.As(err, &failed):
		t.Fatal("no *Error:", err)
	case err != nil:
		answers = []reply.Answer{failed.Answer}
		if !s.step.BeforeMail() {
			t.Fatal("opening failed:", err)
		}
	default:
		if s.step.BeforeMail() {
			c.Close()
			t.Fatal("the connection opened all the same")
		}
		answers = s.send(t, c)
	}
	took := time.Since(start)
	<-served
	if took > 15*time.Minute {
		t.Errorf("it took %v to find out", took)
	}
	for _, answer := range answers {
		s.check(t, answer)
	}
}

// send sends two messages for two recipients each, 100 KB long, and gives the answers of the one that met the fault.
func (s *faultyServer) send(t *testing.T, c *Conn) (answers []reply.Answer) {
	body := strings.Repeat("0123456789abcdef\r\n", 6000)
	messages := []*Transaction{
		message("a@contoso.com", body, "b@contoso.com", "c@contoso.com"),
		message("a@contoso.com", body, "b@contoso.com", "c@contoso.com"),
	}
	at := 0
	if s.step == reply.Reset {
		at = 1
	}
	next, done := 0, 0
	c.Run(t.Context(), func(ctx context.Context) *Transaction {
		if ctx == asked || next > at || ctx.Err() != nil {
			return nil
		}
		next++
		return messages[next-1]
	}, func(tx *Transaction, outcome Outcome) {
		if tx != messages[done] {
			t.Error("an outcome out of turn")
		}
		if done == at {
			answers = outcome.Answers
			if outcome.Untried && s.step == reply.Reset && s.mayBeUntried() {
				answers = nil
			} else if len(outcome.Answers) != 2 {
				t.Errorf("untried %v with %d answers", outcome.Untried, len(outcome.Answers))
			}
		}
		done++
	})
	if done != next {
		t.Errorf("%d transactions, %d outcomes", next, done)
	}
	return answers
}

// mayBeUntried: the connection went away without a word about the message.
func (s *faultyServer) mayBeUntried() bool {
	return s.fault == "421" || s.fault == "close" || s.fault == "reset"
}

func (s *faultyServer) check(t *testing.T, answer reply.Answer) {
	t.Helper()
	stage, class := s.step, reply.Temporary
	switch {
	case s.step.BeforeMail():
		class = reply.Connector
	case s.fault == "early":
		class = reply.Permanent
	case s.fault == "5xx" && s.step == reply.Mail:
		class = reply.Sender
	case s.fault == "5xx" && s.step != reply.Reset:
		class = reply.Permanent
	}
	if s.fault == "unasked" {
		return // judged by what the script of TestIdle says; here it must only end
	}
	if s.fault == "early" && answer.Stage == reply.Final {
		stage = reply.Final // the rest of the body was quicker than the reply
	}
	if answer.Stage != stage {
		t.Errorf("the answer is about %s, the fault was at %s: %s", answer.Stage, stage, answer)
	}
	verdict := reply.Judge(answer)
	if verdict.Class != class {
		t.Errorf("class %s, want %s: %s", verdict.Class, class, answer)
	}
	if text := answer.String(); s.fault == "4xx" && !strings.Contains(text, "451 4.3.0 so it is") ||
		s.fault == "5xx" && !strings.Contains(text, "554 5.0.0 so it is") ||
		s.fault == "421" && !strings.Contains(text, "421 4.3.2 so it is") ||
		s.fault == "half a reply" && !strings.Contains(text, "451 4.3.0 so") ||
		s.fault == "early" && !strings.Contains(text, "552 5.3.4 so it is") {
		t.Errorf("what the server said is lost: %s", text)
	}
	if s.fault == "reset" && !errors.Is(answer.Err, syscall.ECONNRESET) && !errors.Is(answer.Err, syscall.EPIPE) ||
		s.fault == "close" && answer.Err == nil {
		t.Errorf("the error is lost: %s", answer)
	}
}

// resetting makes the end of a pipe look like a TCP reset.
type resetting struct{ net.Conn }

func (r resetting) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if err == io.EOF {
		err = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	}
	return n, err
}

func (r resetting) Write(p []byte) (int, error) {
	n, err := r.Conn.Write(p)
	if err == io.ErrClosedPipe {
		err = &net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE}
	}
	return n, err
}

// faultyServer is an orderly server but for one fault at one step.
type faultyServer struct {
	step       reply.Stage
	fault      string
	config     *tls.Config
	extensions []string
	conn       net.Conn
	r          *bufio.Reader
}

var errFault = errors.New("the fault happened")

func (s *faultyServer) serve(conn net.Conn) error {
	s.conn, s.r = conn, bufio.NewReader(conn)
	if err := s.at(reply.Banner, "220 ready"); err != nil {
		return err
	}
	encrypted, rejected := false, false
	for {
		line, err := s.r.ReadString('\n')
		if err != nil {
			return err
		}
		verb, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case verb == "EHLO" && !encrypted:
			err = s.at(reply.Hello, "250-mx", "250 STARTTLS")
		case verb == "EHLO":
			lines := []string{"250-mx"}
			for _, extension := range s.extensions {
				lines = append(lines, "250-"+extension)
			}
			err = s.say(append(lines, "250 AUTH PLAIN")...)
		case verb == "HELO":
			err = s.at(reply.Hello, "250 mx")
		case verb == "STARTTLS":
			if err = s.at(reply.StartTLS, "220 go on"); err != nil {
				break
			}
			if s.step == reply.TLS {
				return s.fail()
			}
			secured := tls.Server(conn, s.config)
			if err := secured.Handshake(); err != nil {
				return err
			}
			encrypted, s.conn, s.r = true, secured, bufio.NewReader(secured)
		case verb == "AUTH":
			err = s.at(reply.Auth, "235 welcome")
		case verb == "RSET":
			rejected = false
			err = s.at(reply.Reset, "250 reset")
		case verb == "MAIL":
			if s.fault == "unasked" {
				if err = s.say("250 taken"); err != nil {
					return err
				}
			}
			err = s.at(reply.Mail, "250 taken")
			rejected = s.step == reply.Mail && s.fault != "unasked"
		case verb == "QUIT":
			return s.say("221 bye")
		case rejected && verb == "BDAT":
			var n int
			fmt.Sscanf(line, "BDAT %d", &n)
			if _, err = s.r.Discard(n); err == nil {
				err = s.say("503 in order, please")
			}
		case rejected:
			err = s.say("503 in order, please")
		case verb == "RCPT":
			err = s.at(reply.Rcpt, "250 taken")
		case verb == "DATA":
			if s.fault == "early" {
				s.say("354 go on")
				s.r.Discard(5000)
				return s.fail()
			}
			if err = s.at(reply.Data, "354 go on"); err != nil || s.step == reply.Data {
				break
			}
			for err == nil && line != ".\r\n" {
				line, err = s.r.ReadString('\n')
			}
			if err == nil {
				err = s.at(reply.Final, "250 queued")
			}
		case verb == "BDAT":
			var n int
			fmt.Sscanf(line, "BDAT %d", &n)
			if s.step == reply.Data {
				s.r.Discard(5000)
				return s.fail()
			}
			if _, err = s.r.Discard(n); err == nil {
				err = s.at(reply.Final, "250 queued")
			}
		}
		if err != nil {
			return err
		}
	}
}

// at answers, or fails where it is time for that.
func (s *faultyServer) at(step reply.Stage, lines ...string) error {
	if step == s.step {
		return s.fail()
	}
	return s.say(lines...)
}

func (s *faultyServer) say(lines ...string) error {
	_, err := io.WriteString(s.conn, strings.Join(lines, "\r\n")+"\r\n")
	return err
}

func (s *faultyServer) fail() error {
	// The client may still be writing; a pipe has no buffer that would take it.
	readOn := func() { go io.Copy(io.Discard, s.r) }
	switch s.fault {
	case "4xx":
		return s.say("451-4.3.0 so", "451 4.3.0 it is")
	case "5xx":
		return s.say("554-5.0.0 so", "554 5.0.0 it is")
	case "421":
		s.say("421-4.3.2 so", "421 4.3.2 it is")
	case "garbage":
		readOn()
		s.say("HTTP/1.1 400 Bad Request", "")
		time.Sleep(time.Hour)
	case "half a reply":
		s.say("451-4.3.0 so")
	case "early":
		readOn()
		s.say("552-5.3.4 so", "552 5.3.4 it is")
		time.Sleep(time.Second)
	case "stall":
		time.Sleep(time.Hour)
	case "unasked":
		return nil
	}
	return errFault
}
