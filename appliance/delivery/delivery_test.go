package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mailchute/appliance/address"
	"mailchute/appliance/reply"
	"mailchute/appliance/smtpclient"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// cloud is an endpoint that answers as the test says.
type cloud struct {
	mu     sync.Mutex
	refuse error                                       // of a connection
	answer func(sender, recipient string) reply.Answer // nil: 250
	window int                                         // messages taken in before the first is answered; 0: 1
	fail   func(n int) bool                            // the connection breaks at the n-th message it is given
	gate   chan struct{}                               // answers wait until it is closed; nil: they do not
	closes bool                                        // it closes connections in order, before it says anything about a message
	dials  int
	given  []string // "sender → recipient" of each message, in the order they came
	bodies map[string]int
	verify []string
	open   int
	most   int // connections at once
}

func (c *cloud) connect(context.Context) (Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dials++
	if c.refuse != nil {
		return nil, &smtpclient.Error{Answer: reply.Answer{Stage: reply.Connect, Err: c.refuse}}
	}
	c.open++
	c.most = max(c.most, c.open)
	return &line{c: c}, nil
}

func (c *cloud) set(change func(*cloud)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

// seen is what came to a cloud so far.
type seen struct {
	dials, most   int
	given, verify []string
}

func (c *cloud) now() seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	return seen{c.dials, c.most, slices.Clone(c.given), slices.Clone(c.verify)}
}

func (c *cloud) says(sender, recipient string) reply.Answer {
	if c.answer == nil {
		return ok
	}
	return c.answer(sender, recipient)
}

// line is one connection.
type line struct {
	c *cloud
	n int
}

func (l *line) Peer() smtpclient.Peer { return smtpclient.Peer{Host: "cloud", Address: "192.0.2.1:25"} }
func (l *line) Close() error          { return nil }

func (l *line) Verify(_ context.Context, sender, recipient string) reply.Answer {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.c.verify = append(l.c.verify, sender)
	return l.c.says(sender, recipient)
}

func (l *line) Run(ctx context.Context, next func(context.Context) *smtpclient.Transaction, done func(*smtpclient.Transaction, smtpclient.Outcome)) error {
	defer l.c.set(func(c *cloud) { c.open-- })
	var flight []*smtpclient.Transaction
	for {
		tx := next(ctx)
		if tx != nil {
			flight = append(flight, tx)
			l.c.mu.Lock()
			l.n++
			l.c.given = append(l.c.given, tx.Sender+" → "+strings.Join(tx.Recipients, " "))
			broken := l.c.fail != nil && l.c.fail(l.n)
			window, gate, closes := max(1, l.c.window), l.c.gate, l.c.closes
			l.c.mu.Unlock()
			if gate != nil {
				<-gate
			}
			if closes {
				done(tx, smtpclient.Outcome{Untried: true})
				return nil
			}
			if broken {
				lost := reply.Answer{Stage: reply.Final, Err: io.ErrUnexpectedEOF}
				for i, tx := range flight {
					done(tx, smtpclient.Outcome{Answers: slices.Repeat([]reply.Answer{lost}, len(tx.Recipients)), Untried: i > 0})
				}
				return &smtpclient.Error{Answer: lost}
			}
			if len(flight) < window {
				continue
			}
		}
		for _, tx := range flight {
			body, _ := tx.Body()
			size, err := io.Copy(io.Discard, body)
			body.Close()
			var answers []reply.Answer
			l.c.mu.Lock()
			for _, recipient := range tx.Recipients {
				answer := l.c.says(tx.Sender, recipient)
				if err != nil {
					answer = reply.Answer{Stage: reply.Data, Err: &smtpclient.BodyError{Size: tx.Size, Err: err}}
				}
				if l.c.bodies == nil {
					l.c.bodies = make(map[string]int)
				}
				l.c.bodies[recipient] += int(size)
				answers = append(answers, answer)
			}
			l.c.mu.Unlock()
			done(tx, smtpclient.Outcome{Answers: answers})
		}
		flight = flight[:0]
		if tx == nil {
			return nil
		}
	}
}

func said(stage reply.Stage, text string) reply.Answer {
	var code int
	var enhanced, words string
	fmt.Sscanf(text, "%d %s", &code, &enhanced)
	if _, rest, ok := strings.Cut(text, enhanced+" "); ok {
		words = rest
	}
	return reply.Answer{Stage: stage, Reply: reply.Reply{Code: code, Enhanced: enhanced, Lines: []string{words}}}
}

var ok = said(reply.Final, "250 2.0.0 Queued")

// office is a queue with a delivery, in a bubble of time.
type office struct {
	t     *testing.T
	spool *spool.Spool
	d     *Delivery
	cloud *cloud
	ahead atomic.Int64 // of the box's clock, time.Duration
}

var testRetry = Retry{First: time.Minute, Ceiling: 30 * time.Minute, GiveUp: 5 * 24 * time.Hour}

// inOffice runs a test in a bubble, with one connector "m365" to a cloud.
func inOffice(t *testing.T, test func(*testing.T, *office)) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := &office{t: t, cloud: &cloud{}}
		o.start(folder)
		test(t, o)
		o.stop()
	})
}

type plenty struct{}

func (plenty) Space() (free, total int64, err error) { return 1 << 40, 1 << 41, nil }

func (o *office) start(folder string) {
	log := slog.New(slog.DiscardHandler)
	s, salvage, err := spool.Open(filepath.Join(folder, "queue.db"), spool.Options{Log: log, Disk: plenty{}})
	if err != nil || salvage != nil {
		o.t.Fatal(err, salvage)
	}
	o.spool = s
	o.d = New(Options{Spool: s, Log: log, Now: o.now, Jitter: func(d time.Duration) time.Duration { return d }})
	o.set(4)
}

func (o *office) now() time.Time { return time.Now().Add(time.Duration(o.ahead.Load())) }

func (o *office) set(connections int) {
	o.d.Set(Settings{
		Endpoints: []Endpoint{{Name: "m365", Connections: connections, Connect: o.cloud.connect}},
		Route:     func(_, _ address.Address) (string, bool) { return "m365", true },
		Retry:     testRetry,
	})
}

func (o *office) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	o.d.Stop(ctx)
	o.spool.Close()
}

// hand hands in a message of a device whose sender has its name.
func (o *office) hand(device string, recipients ...string) trace.ID {
	o.t.Helper()
	m := o.d.Create()
	fmt.Fprintf(m, "Subject: scan\r\n\r\nfrom %s\r\n", device)
	e := &spool.Envelope{Record: trace.Record{Accepted: o.now(), Device: device, Sender: device + "@contoso.com"}}
	for _, r := range recipients {
		e.Recipients = append(e.Recipients, trace.Recipient{Address: r, State: trace.Waiting})
	}
	if err := m.Accept(e); err != nil {
		o.t.Fatal(err)
	}
	return m.ID()
}

// after lets time pass; it returns when everything that is due by then is done.
func (o *office) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
	o.spool.SetState("test", nil) // a flush: what was handed to the committer before is done
	synctest.Wait()
}

func (o *office) hold() *Hold { return o.d.States()[0].Hold }

func (o *office) wantGone(ids ...trace.ID) {
	o.t.Helper()
	for _, id := range ids {
		if _, err := o.spool.Get(id); !errors.Is(err, spool.ErrNotFound) {
			o.t.Errorf("message %s is still in the queue (%v)", id, err)
		}
	}
}

func (o *office) envelope(id trace.ID) *spool.Envelope {
	o.t.Helper()
	e, err := o.spool.Get(id)
	if err != nil {
		o.t.Fatal(err)
	}
	return e
}

func TestAMessageGoesAtOnceAndItsStoryIsKept(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		id := o.hand("copier", "anna@contoso.com", "ben@fabrikam.com")
		o.after(0)
		o.wantGone(id)
		records, err := o.spool.Outcomes(10)
		if err != nil || len(records) != 1 {
			t.Fatal(records, err)
		}
		var kinds []trace.Kind
		for _, e := range records[0].Events {
			kinds = append(kinds, e.Kind)
		}
		if want := []trace.Kind{trace.Attempted, trace.Delivered}; !slices.Equal(kinds, want) {
			t.Errorf("events %q, want %q", kinds, want)
		}
		if got := records[0].Events[1]; got.Peer != "cloud [192.0.2.1:25] plain" || got.Reply != "250 2.0.0 Queued" || got.Recipients != nil {
			t.Errorf("the delivery is told as %+v", got)
		}
		if o.cloud.now().dials != 1 || len(o.cloud.now().given) != 1 {
			t.Errorf("%d connections, messages %q: one of each was needed", o.cloud.now().dials, o.cloud.now().given)
		}
	})
}

func TestEveryRecipientGetsItsOwnResult(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) {
			c.answer = func(_, recipient string) reply.Answer {
				switch recipient {
				case "gone@contoso.com":
					return said(reply.Rcpt, "550 5.1.1 no such user")
				case "busy@contoso.com":
					return said(reply.Rcpt, "452 4.2.2 mailbox busy")
				}
				return ok
			}
		})
		id := o.hand("copier", "anna@contoso.com", "gone@contoso.com", "busy@contoso.com")
		o.after(0)
		e := o.envelope(id)
		states := []trace.State{e.Recipients[0].State, e.Recipients[1].State, e.Recipients[2].State}
		if want := []trace.State{trace.Sent, trace.Failed, trace.Waiting}; !slices.Equal(states, want) {
			t.Errorf("states %q, want %q", states, want)
		}
		if e.Recipients[1].Reply != "550 5.1.1 no such user" || e.Recipients[1].Fix == "" {
			t.Errorf("the failed recipient does not say why and what to do: %+v", e.Recipients[1])
		}
		o.cloud.set(func(c *cloud) { c.answer = nil })
		o.after(testRetry.First)
		if got := o.cloud.now().given[1]; got != "copier@contoso.com → busy@contoso.com" {
			t.Errorf("the second attempt was %q: only who waits is tried again", got)
		}
		if e := o.envelope(id); len(e.Legs) != 0 || e.Recipients[2].State != trace.Sent || e.Recipients[1].State != trace.Failed {
			t.Errorf("after the second attempt: %+v", e)
		}
	})
}

// TestChangedSettingsAreForEveryMessageAfterThem: a connection that was open before takes none of those.
func TestChangedSettingsAreForEveryMessageAfterThem(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.hand("copier", "anna@contoso.com")
		o.after(time.Second) // the connection is kept
		o.set(4)
		o.after(time.Second)
		if open := o.d.States()[0].Connections; open != 0 {
			t.Errorf("%d connections are kept beyond their settings", open)
		}
		id := o.hand("copier", "anna@contoso.com")
		o.after(0)
		o.wantGone(id)
		if dials := o.cloud.now().dials; dials != 2 {
			t.Errorf("dialled %d times, want a connection for each settings", dials)
		}
	})
}

// TestChangedSettingsNeedNotWaitForAConnectionThatDoesNotComeAbout: the new endpoint is tried at once.
func TestChangedSettingsNeedNotWaitForAConnectionThatDoesNotComeAbout(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		right := o.cloud.connect
		stalled := func(ctx context.Context) (Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		settings := Settings{
			Endpoints: []Endpoint{{Name: "m365", Connections: 1, Connect: stalled}},
			Route:     func(_, _ address.Address) (string, bool) { return "m365", true },
			Retry:     testRetry,
		}
		o.d.Set(settings)
		id := o.hand("copier", "anna@contoso.com")
		o.after(time.Second)
		settings.Endpoints = []Endpoint{{Name: "m365", Connections: 1, Connect: right}}
		o.d.Set(settings)
		o.after(time.Second)
		o.wantGone(id)
		if h := o.hold(); h != nil {
			t.Errorf("on hold for the settings before: %+v", h)
		}
	})
}

// TestASlowRefusalIsTriedAgain: the next attempt is due before the answer to the first has come, and nothing else
// happens that would have the queue looked at.
func TestASlowRefusalIsTriedAgain(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) {
			c.answer = func(_, _ string) reply.Answer {
				time.Sleep(5 * time.Minute)
				c.answer = nil
				return reply.Answer{Stage: reply.Final, Err: io.ErrUnexpectedEOF}
			}
		})
		id := o.hand("copier", "anna@contoso.com")
		o.after(5 * time.Minute)
		o.after(time.Minute)
		o.wantGone(id)
	})
}

func TestTheScheduleDoublesToTheCeilingAndGivesUp(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		var mu sync.Mutex
		var at []time.Duration
		begin := time.Now()
		o.cloud.set(func(c *cloud) {
			c.answer = func(_, _ string) reply.Answer {
				mu.Lock()
				defer mu.Unlock()
				at = append(at, time.Since(begin))
				return said(reply.Rcpt, "451 4.3.0 try later")
			}
		})
		id := o.hand("copier", "anna@contoso.com")
		o.after(3 * time.Hour)
		mu.Lock()
		want := []time.Duration{0, 1, 3, 7, 15, 31, 61, 91, 121, 151}
		for i, minutes := range want {
			if i >= len(at) || at[i] != minutes*time.Minute {
				t.Fatalf("attempts at %v, want them at %v minutes", at, want)
			}
		}
		if e := o.envelope(id); e.Legs[0].Attempts != len(at) || e.Skipped != 0 {
			t.Errorf("%d attempts on record, %d made", e.Legs[0].Attempts, len(at))
		}
		mu.Unlock()
		o.after(5 * 24 * time.Hour)
		e := o.envelope(id)
		if e.Recipients[0].State != trace.Failed || len(e.Legs) != 0 || e.Events[len(e.Events)-1].Kind != trace.Expired {
			t.Errorf("after five days: %+v", e)
		}
		if len(e.Events) != 50 || e.Skipped == 0 {
			t.Errorf("%d events are kept, %d left out", len(e.Events), e.Skipped)
		}
		if changed, err := o.d.Retry([]trace.ID{id}, "eva"); changed != 1 || err != nil {
			t.Fatal(changed, err)
		}
		o.after(time.Minute)
		if e := o.envelope(id); e.Recipients[0].State != trace.Waiting {
			t.Errorf("asked to be tried anew, it is %q", e.Recipients[0].State)
		}
		o.cloud.set(func(c *cloud) { c.answer = nil })
		o.after(time.Hour)
		o.wantGone(id)
	})
}

func TestADeadWayHoldsTheConnectorAndHealsByItself(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) { c.refuse = syscall.ECONNREFUSED })
		var ids []trace.ID
		for range 10 {
			ids = append(ids, o.hand("copier", "anna@contoso.com"))
			o.after(0)
		}
		if o.cloud.now().dials != 1 {
			t.Errorf("%d connections were tried; the first failure says it all", o.cloud.now().dials)
		}
		hold := o.hold()
		if hold == nil || hold.Stage != reply.Connect || hold.Verdict.Fix == "" {
			t.Fatalf("the hold: %+v", hold)
		}
		o.after(testRetry.soon())
		if o.cloud.now().dials != 2 {
			t.Errorf("%d connections after the first probe was due, want 2", o.cloud.now().dials)
		}
		o.after(7 * 24 * time.Hour) // time on hold does not count
		for _, id := range ids {
			e := o.envelope(id)
			if e.Recipients[0].State != trace.Waiting {
				t.Fatalf("a message on hold was given up: %+v", e)
			}
			if len(e.Legs) != 1 || e.Legs[0].Attempts != 0 {
				t.Fatalf("attempts that only probed the connector were counted: %+v", e.Legs)
			}
		}
		if probes := o.cloud.now().dials; probes < 300 || probes > 350 {
			t.Errorf("%d probes in a week, want one each half hour", probes)
		}
		o.cloud.set(func(c *cloud) { c.refuse = nil })
		o.after(31 * time.Minute)
		o.wantGone(ids...)
		if o.hold() != nil {
			t.Errorf("still on hold: %+v", o.hold())
		}
	})
}

func TestARefusedSignInIsProbedHourlyAndAfterAChange(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		var tries atomic.Int32
		var accept atomic.Bool
		connect := func(context.Context) (Conn, error) {
			tries.Add(1)
			if !accept.Load() {
				return nil, &smtpclient.Error{Answer: said(reply.Auth, "535 5.7.3 Authentication unsuccessful")}
			}
			return o.cloud.connect(context.Background())
		}
		settings := Settings{Endpoints: []Endpoint{{"m365", 4, connect}}, Retry: testRetry,
			Route: func(_, _ address.Address) (string, bool) { return "m365", true }}
		o.d.Set(settings)
		id := o.hand("copier", "anna@contoso.com")
		o.after(5*time.Hour + time.Minute)
		if n := tries.Load(); n != 6 {
			t.Errorf("%d sign-ins in five hours, want 6: more lock the account", n)
		}
		accept.Store(true)
		o.d.Set(settings)
		o.after(0)
		o.wantGone(id)
	})
}

func TestOneMisconfiguredScannerDoesNotStopTheOffice(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) {
			c.answer = func(sender, _ string) reply.Answer {
				if sender == "fax@contoso.com" {
					return said(reply.Mail, "550 5.7.60 Client does not have permissions to send as this sender")
				}
				return ok
			}
		})
		good := o.hand("copier", "anna@contoso.com")
		o.after(0)
		var held []trace.ID
		for range 5 {
			held = append(held, o.hand("fax", "anna@contoso.com"))
			o.after(0)
		}
		other := o.hand("scanner", "anna@contoso.com")
		o.after(0)
		o.wantGone(good, other)
		state := o.d.States()[0]
		if state.Hold != nil || state.Senders["fax@contoso.com"] == nil {
			t.Fatalf("the connector: %+v", state)
		}
		if want := []string{"copier@contoso.com"}; !slices.Equal(o.cloud.now().verify, want) {
			t.Errorf("verified with %q, want %q", o.cloud.now().verify, want)
		}
		if n := len(o.cloud.now().given); n != 3 {
			t.Errorf("%d messages were sent, want 3: the four behind the refused one wait", n)
		}
		o.cloud.set(func(c *cloud) { c.answer = nil })
		o.after(testRetry.First)
		o.wantGone(held...)
	})
}

func TestWhenAGoodSenderIsRefusedTooItIsTheConnector(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		good := o.hand("copier", "anna@contoso.com")
		o.after(0)
		o.wantGone(good)
		o.cloud.set(func(c *cloud) {
			c.answer = func(_, _ string) reply.Answer {
				return said(reply.Mail, "550 5.1.8 Access denied, bad outbound sender")
			}
		})
		id := o.hand("fax", "anna@contoso.com")
		o.after(0)
		state := o.d.States()[0]
		if state.Hold == nil || len(state.Senders) != 0 {
			t.Fatalf("the connector: %+v", state)
		}
		o.cloud.set(func(c *cloud) { c.answer = nil })
		o.after(testRetry.First)
		o.wantGone(id)
	})
}

func TestOthersAreSimplyDueAgainWhenAConnectionBreaks(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.set(1)
		first := o.hand("copier", "first@contoso.com") // opens the connection
		o.after(0)
		o.wantGone(first)
		o.cloud.set(func(c *cloud) { c.window, c.fail = 3, func(n int) bool { return n == 4 } })
		var ids []trace.ID
		for i := range 3 {
			ids = append(ids, o.hand("copier", fmt.Sprintf("%d@contoso.com", i)))
		}
		o.cloud.set(func(c *cloud) { c.fail = func(n int) bool { return false } })
		o.after(0)
		o.after(testRetry.First)
		o.after(keepAlive)
		o.wantGone(ids...)
	})
}

func TestAConnectionThatAlwaysBreaksIsHeld(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) { c.fail = func(int) bool { return true } })
		for i := range 20 {
			o.hand("copier", fmt.Sprintf("%d@contoso.com", i))
		}
		o.after(0)
		if o.hold() == nil {
			t.Error("the connector is not held")
		}
		if o.cloud.now().dials > 2*maxBroken {
			t.Errorf("%d connections were made in vain", o.cloud.now().dials)
		}
	})
}

func TestDevicesTakeTurns(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.set(1)
		o.cloud.set(func(c *cloud) { c.refuse = syscall.ECONNREFUSED })
		for range 300 {
			o.hand("invoices", "customer@fabrikam.com")
		}
		scan := o.hand("scanner", "anna@contoso.com")
		o.cloud.set(func(c *cloud) { c.refuse = nil })
		o.after(time.Minute)
		o.wantGone(scan)
		at := slices.Index(o.cloud.now().given, "scanner@contoso.com → anna@contoso.com")
		if at < 0 || at > 40 {
			t.Errorf("the scan was sent as number %d of %d", at, len(o.cloud.now().given))
		}
		if n := len(o.cloud.now().given); n != 301 {
			t.Errorf("%d messages were sent, want 301", n)
		}
	})
}

func TestNoMoreConnectionsThanSet(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.set(2)
		o.cloud.set(func(c *cloud) { c.window = 3 })
		for i := range 50 {
			o.hand(fmt.Sprint("copier", i), "anna@contoso.com")
		}
		o.after(time.Minute)
		if o.cloud.now().most > 2 {
			t.Errorf("%d connections at once, 2 are allowed", o.cloud.now().most)
		}
		if n := len(o.cloud.now().given); n != 50 {
			t.Errorf("%d messages sent, want 50", n)
		}
	})
}

func TestWhatAnAdministratorDoes(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) {
			c.answer = func(_, _ string) reply.Answer { return said(reply.Rcpt, "451 4.3.0 later") }
		})
		id := o.hand("copier", "anna@contoso.com")
		o.after(0)
		if n, err := o.d.Hold([]trace.ID{id}, "eva", "looks like spam"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		o.cloud.set(func(c *cloud) { c.answer = nil })
		o.after(10 * 24 * time.Hour)
		if n := len(o.cloud.now().given); n != 1 {
			t.Fatalf("%d attempts while on hold", n-1)
		}
		if _, err := o.d.Retry([]trace.ID{id}, "eva"); err == nil {
			t.Error("a message on hold was retried")
		}
		if n, err := o.d.Release([]trace.ID{id}, "eva"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		o.after(0)
		o.wantGone(id)

		o.cloud.set(func(c *cloud) {
			c.answer = func(_, _ string) reply.Answer { return said(reply.Rcpt, "550 5.1.1 unknown") }
		})
		id = o.hand("copier", "anna@contoso.com")
		o.after(0)
		if n, err := o.d.Delete([]trace.ID{id, id + 1}, "eva"); n != 1 || !errors.Is(err, spool.ErrNotFound) {
			t.Errorf("%d deleted, error %v", n, err)
		}
		records, _ := o.spool.Outcomes(10)
		last := records[len(records)-1]
		if last.ID != id || last.Recipients[0].State != trace.Deleted || !strings.Contains(last.Events[len(last.Events)-1].Text, "eva") {
			t.Errorf("the trace does not show who deleted it: %+v", last)
		}
	})
}

func TestMailIsRoutedAnewWhenConnectorsChange(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) { c.refuse = syscall.ECONNREFUSED })
		id := o.hand("copier", "anna@contoso.com")
		o.after(0)
		other := &cloud{}
		o.d.Set(Settings{
			Endpoints: []Endpoint{{Name: "backup", Connections: 1, Connect: other.connect}}, Retry: testRetry,
			Route: func(_, _ address.Address) (string, bool) { return "backup", true },
		})
		o.after(0)
		o.wantGone(id)
		if len(other.now().given) != 1 {
			t.Errorf("sent by the new connector: %q", other.now().given)
		}
	})
}

func TestAStopLosesNothingAndTheNextStartGoesOn(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := &office{t: t, cloud: &cloud{refuse: syscall.ECONNREFUSED}}
		o.start(folder)
		var ids []trace.ID
		for range 30 {
			ids = append(ids, o.hand("copier", "anna@contoso.com"))
		}
		o.stop()
		o.cloud.set(func(c *cloud) { c.refuse = nil })
		o.start(folder)
		if o.hold() == nil {
			t.Error("the hold was forgotten")
		}
		o.after(testRetry.First)
		o.wantGone(ids...)
		if n := len(o.cloud.now().given); n != len(ids) {
			t.Errorf("%d messages sent, want %d", n, len(ids))
		}
		o.stop()
	})
}

func TestADamagedBodyFailsInsteadOfBeingSent(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) { c.refuse = syscall.ECONNREFUSED })
		id := o.hand("copier", "anna@contoso.com")
		o.after(0)
		if err := o.spool.Change(id, func(e *spool.Envelope) error { e.Size++; return nil }); err != nil {
			t.Fatal(err)
		}
		o.cloud.set(func(c *cloud) { c.refuse = nil })
		o.after(time.Minute)
		e := o.envelope(id)
		if e.Recipients[0].State != trace.Failed || !strings.Contains(e.Recipients[0].Reply, "damaged") {
			t.Errorf("the recipient: %+v", e.Recipients[0])
		}
	})
}
