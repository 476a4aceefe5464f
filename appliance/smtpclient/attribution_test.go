package smtpclient

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"mailchute/appliance/reply"
)

// plan is one random afternoon: messages, a server's moods, and when it has had enough.
type plan struct {
	recipients  []int // of each message
	sizes       []int // of each body
	moods       []int // 0 to 9, one a reply: below 7 it is positive
	cut         int   // replies until the connection ends; negative: never
	farewell    string
	chunking    bool
	pipelining  bool
	careful     bool
	window      int
	windowBytes int
	shy         []bool // whether next gives nothing when it is first asked
}

func drawPlan(t *rapid.T) plan {
	count := rapid.IntRange(0, 12).Draw(t, "messages")
	return plan{
		recipients:  rapid.SliceOfN(rapid.IntRange(1, 4), count, count).Draw(t, "recipients"),
		sizes:       rapid.SliceOfN(rapid.IntRange(0, 400), count, count).Draw(t, "sizes"),
		moods:       rapid.SliceOfN(rapid.IntRange(0, 9), 1, 80).Draw(t, "moods"),
		cut:         rapid.IntRange(-20, 80).Draw(t, "cut"),
		farewell:    rapid.SampledFrom([]string{"", "421 4.3.2 enough", "garbage", "451-half of a reply"}).Draw(t, "farewell"),
		chunking:    rapid.Bool().Draw(t, "CHUNKING"),
		pipelining:  rapid.Bool().Draw(t, "PIPELINING"),
		careful:     rapid.Bool().Draw(t, "careful"),
		window:      rapid.IntRange(1, 8).Draw(t, "window"),
		windowBytes: rapid.IntRange(1, 1000).Draw(t, "window bytes"),
		shy:         rapid.SliceOfN(rapid.Bool(), 1, 12).Draw(t, "shy"),
	}
}

// TestEveryAnswerBelongsToItsMessage: whatever the server answers and whenever the connection ends, each transaction
// gets exactly one outcome, in order; every reply in it was about that message and that recipient; what was taken
// and said so counts as taken, and nothing else does.
func TestEveryAnswerBelongsToItsMessage(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlan(rt)
		var problems []string
		synctest.Test(t, func(t *testing.T) { problems = p.live(t.Context()) })
		if len(problems) > 0 {
			rt.Fatal(strings.Join(problems, "\n"))
		}
	})
}

// live runs the plan and tells what went wrong.
func (p plan) live(ctx context.Context) (problems []string) {
	wrong := func(format string, values ...any) { problems = append(problems, fmt.Sprintf(format, values...)) }
	near, far := net.Pipe()
	server := &moodyServer{plan: p, taken: map[string]bool{}}
	served := make(chan struct{})
	go func() {
		defer close(served)
		defer far.Close()
		server.serve(far)
	}()
	options := plain()
	options.Window, options.WindowBytes, options.Careful = p.window, int64(p.windowBytes), p.careful
	c, err := Open(ctx, near, options)
	if err != nil {
		return []string{err.Error()}
	}

	mu := &server.mu // done is called by the reader, Body by the writer
	var inAir, inAirBytes, sent int
	transactions := make([]*Transaction, len(p.recipients))
	launched := make([]bool, len(p.recipients))
	for n := range transactions {
		body := strings.Repeat("x", p.sizes[n])
		tx := message(fmt.Sprintf("m%d@contoso.com", n), body)
		for r := range p.recipients[n] {
			tx.Recipients = append(tx.Recipients, fmt.Sprintf("m%dr%d@contoso.com", n, r))
		}
		open := tx.Body
		tx.Body = func() (io.ReadCloser, error) {
			mu.Lock()
			defer mu.Unlock()
			if launched[n] {
				wrong("the body of message %d was opened twice", n)
			}
			if inAir >= p.window || inAir > 0 && inAirBytes+len(body) > p.windowBytes || p.careful && sent == 0 && inAir > 0 {
				wrong("message %d left while %d with %d bytes were unanswered", n, inAir, inAirBytes)
			}
			launched[n] = true
			inAir, inAirBytes = inAir+1, inAirBytes+len(body)
			return open()
		}
		transactions[n] = tx
	}

	taken, done, asks := 0, 0, 0
	untried := false
	err = c.Run(ctx, func(ctx context.Context) *Transaction {
		if ctx == asked {
			if asks++; p.shy[asks%len(p.shy)] {
				return nil
			}
		}
		if taken == len(transactions) || ctx != asked && ctx.Err() != nil {
			return nil
		}
		taken++
		return transactions[taken-1]
	}, func(tx *Transaction, outcome Outcome) {
		mu.Lock()
		defer mu.Unlock()
		n := done
		done++
		if n >= len(transactions) || tx != transactions[n] {
			wrong("outcome %d is not that of message %d", n, n)
			return
		}
		if launched[n] {
			inAir, inAirBytes = inAir-1, inAirBytes-p.sizes[n]
		}
		if outcome.Untried {
			untried = true
			return
		}
		if untried {
			wrong("message %d has an answer, and an older one has none", n)
		}
		if len(outcome.Answers) != len(tx.Recipients) {
			wrong("message %d: %d answers for %d recipients", n, len(outcome.Answers), len(tx.Recipients))
			return
		}
		for r, answer := range outcome.Answers {
			recipient := fmt.Sprintf("m%dr%d", n, r)
			text := answer.Reply.String()
			positive := answer.Err == nil && answer.Reply.Positive()
			switch {
			case positive && answer.Stage != reply.Final:
				wrong("%s counts as taken at %s", recipient, answer.Stage)
			case positive && !server.taken[recipient]:
				wrong("%s counts as taken, and was not: %s", recipient, text)
			case positive && !strings.Contains(text, fmt.Sprintf(" m%d.", n)):
				wrong("%s has the answer of another message: %s", recipient, text)
			case answer.Err == nil && answer.Stage == reply.Rcpt && !strings.Contains(text, " "+recipient+".") && answer.Reply.Code != 421:
				wrong("%s has the answer of another recipient: %s", recipient, text)
			case answer.Err == nil && !positive && answer.Stage != reply.Rcpt && !strings.Contains(text, fmt.Sprintf(" m%d.", n)) &&
				answer.Reply.Code != 421 && answer.Stage != reply.Reset:
				wrong("%s has the answer of another message: %s", recipient, text)
			case !positive && server.taken[recipient]:
				wrong("%s was taken, the client was told so, and counts as %s %s", recipient, answer.Stage, answer)
			}
			if positive {
				sent++
			}
		}
	})
	<-served
	if done != taken {
		wrong("%d transactions were taken, %d have an outcome", taken, done)
	}
	if err == nil && !untried && taken != len(transactions) && p.cut < 0 {
		wrong("only %d of %d transactions were taken from next", taken, len(transactions))
	}
	return problems
}

// moodyServer answers by the plan, and remembers for whom it has said that a message was taken.
type moodyServer struct {
	plan
	w       io.Writer
	replies int
	over    bool

	mu    sync.Mutex
	taken map[string]bool
}

func (s *moodyServer) serve(conn net.Conn) {
	s.w = conn
	r := bufio.NewReader(conn)
	fmt.Fprint(conn, "220 ready\r\n")
	r.ReadString('\n')
	lines := []string{"contoso.com"}
	if s.pipelining {
		lines = append(lines, "PIPELINING")
	}
	if s.chunking {
		lines = append(lines, "CHUNKING")
	}
	for _, line := range lines {
		fmt.Fprintf(conn, "250-%s\r\n", line)
	}
	fmt.Fprint(conn, "250 ENHANCEDSTATUSCODES\r\n")

	message, known := "", false // of the transaction: its name, and whether MAIL was taken
	var recipients []string
	for !s.over {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, _, _ := strings.Cut(rest[min(len(rest), strings.IndexByte(rest, '<')+1):], "@")
		switch verb {
		case "RSET":
			message, known, recipients = "", false, nil
			s.say("250", "reset")
		case "MAIL":
			message = name
			known = s.answer("mail", name, known)
		case "RCPT":
			if s.answer("rcpt", name, !known) {
				recipients = append(recipients, name)
			}
		case "DATA":
			if len(recipients) == 0 && s.mood()%2 == 0 || !known {
				s.say("503", message+". no recipient")
				continue
			}
			if s.mood() >= 8 {
				s.say("451", message+". no room")
				continue
			}
			if !s.say("354", "go on") {
				return
			}
			for {
				if line, err = r.ReadString('\n'); err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
			}
			s.final(message, recipients)
			known, recipients = false, nil
		case "BDAT":
			size, _, _ := strings.Cut(rest, " ")
			n, _ := strconv.Atoi(size)
			if _, err := r.Discard(n); err != nil {
				return
			}
			if len(recipients) == 0 {
				s.say("503", message+". no recipient")
				continue
			}
			s.final(message, recipients)
			known, recipients = false, nil
		case "QUIT":
			s.say("221", "bye")
			return
		}
	}
}

// answer is positive or not by mood, and never when the command comes out of order.
func (s *moodyServer) answer(stage, name string, disorder bool) bool {
	switch mood := s.mood(); {
	case disorder:
		s.say("503", name+". out of order")
		return false
	case mood < 7:
		return s.say("250", name+". "+stage)
	case mood < 9:
		s.say("451", name+". "+stage)
	default:
		s.say("550", name+". "+stage)
	}
	return false
}

func (s *moodyServer) final(message string, recipients []string) {
	if len(recipients) == 0 || s.mood() >= 7 || s.enough() {
		s.say("554", message+". no")
		return
	}
	// Noted before it is said: the client may be quicker than this goroutine.
	s.mu.Lock()
	for _, recipient := range recipients {
		s.taken[recipient] = true
	}
	s.mu.Unlock()
	if !s.say("250", message+". queued") {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, recipient := range recipients {
			delete(s.taken, recipient) // taken, but the client cannot know
		}
	}
}

func (s *moodyServer) mood() int { return s.moods[s.replies%len(s.moods)] }

func (s *moodyServer) enough() bool { return s.cut >= 0 && s.replies >= s.cut }

// say sends a reply, unless it is time for the farewell; then the connection ends.
func (s *moodyServer) say(code, text string) bool {
	if s.over {
		return false
	}
	if s.enough() {
		s.over = true
		if s.farewell != "" {
			fmt.Fprint(s.w, s.farewell+"\r\n")
		}
		return false
	}
	s.replies++
	_, err := fmt.Fprintf(s.w, "%s %s\r\n", code, text)
	return err == nil
}
