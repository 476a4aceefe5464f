package delivery

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"mailchute/appliance/address"
	"mailchute/appliance/reply"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// What happens to mail while it is in the air: an administrator acts, settings change, the clock jumps, the box stops.

// stall makes a cloud keep its answers back; what it returns lets them go.
func (o *office) stall(c *cloud) (release func()) {
	gate := make(chan struct{})
	c.set(func(c *cloud) { c.gate = gate })
	return func() {
		c.set(func(c *cloud) { c.gate = nil })
		close(gate)
	}
}

// use sets connectors by name; all mail goes by the first of them, but that for recipients at fabrikam.com by the last.
func (o *office) use(connections int, clouds map[string]*cloud, names ...string) {
	var endpoints []Endpoint
	for _, name := range names {
		endpoints = append(endpoints, Endpoint{Name: name, Connections: connections, Connect: clouds[name].connect})
	}
	o.d.Set(Settings{Endpoints: endpoints, Retry: testRetry, Route: func(_, recipient address.Address) (string, bool) {
		if recipient.Domain == "fabrikam.com" {
			return names[len(names)-1], true
		}
		return names[0], true
	}})
}

func answers(text map[string]string) func(sender, recipient string) reply.Answer {
	return func(_, recipient string) reply.Answer {
		if text[recipient] != "" {
			return said(reply.Rcpt, text[recipient])
		}
		return ok
	}
}

func TestARetryOfAFailedRecipientDoesNotTakeTheAnswerOfAnother(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) {
			c.answer = answers(map[string]string{"anna@contoso.com": "550 5.1.1 unknown", "ben@contoso.com": "451 4.2.1 later"})
		})
		id := o.hand("copier", "anna@contoso.com", "ben@contoso.com")
		o.after(0)
		o.cloud.set(func(c *cloud) { c.answer = nil })
		release := o.stall(o.cloud)
		o.after(testRetry.First) // ben is being tried
		if n, err := o.d.Retry([]trace.ID{id}, "eva"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		release()
		o.after(testRetry.First)
		o.wantGone(id)
		if given := o.cloud.now().given; given[len(given)-1] != "copier@contoso.com → anna@contoso.com" {
			t.Errorf("anna's mailbox was mended and her message tried anew, but the cloud was given %q", given)
		}
	})
}

func TestWhatIsDueWhenItsAttemptEndsIsNotForgotten(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) { c.answer = answers(map[string]string{"anna@contoso.com": "451 4.2.1 later"}) })
		release := o.stall(o.cloud)
		id := o.hand("copier", "anna@contoso.com")
		o.after(time.Second)
		if n, err := o.d.Retry([]trace.ID{id}, "eva"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		release()
		o.after(time.Second)
		if n := len(o.cloud.now().given); n != 2 {
			t.Errorf("%d attempts; the retry that was asked for during the first is due at its end", n)
		}
		o.cloud.set(func(c *cloud) { c.answer = nil })
		o.after(testRetry.Ceiling)
		o.wantGone(id)
	})
}

func TestMailInTheAirIsRoutedAnewWhenItsConnectorGoes(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		old, backup := &cloud{}, &cloud{}
		clouds := map[string]*cloud{"old": old, "backup": backup}
		o.use(1, clouds, "old")
		old.set(func(c *cloud) { c.answer = answers(map[string]string{"0@contoso.com": "451 4.2.1 later"}) })
		release := o.stall(old)
		var ids []trace.ID
		for _, recipient := range []string{"0@contoso.com", "1@contoso.com", "2@contoso.com"} {
			ids = append(ids, o.hand("copier", recipient))
			o.after(0)
		}
		o.use(1, clouds, "backup")
		o.after(time.Minute)
		o.wantGone(ids[1:]...) // they waited in memory for the connection
		release()
		o.after(time.Minute)
		o.wantGone(ids...)
		if n := len(backup.now().given); n != 3 {
			t.Errorf("%d messages went by the new connector, want 3", n)
		}
	})
}

func TestAConnectorThatIsRemovedAndSetAgainGoesOn(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		clouds := map[string]*cloud{"old": {closes: true}}
		o.use(1, clouds, "old")
		release := o.stall(clouds["old"])
		id := o.hand("copier", "anna@contoso.com")
		o.after(0)
		o.d.Set(Settings{Route: func(_, _ address.Address) (string, bool) { return "", false }, Retry: testRetry})
		o.use(1, clouds, "old")
		o.after(0)
		clouds["old"].set(func(c *cloud) { c.closes = false })
		release() // the first connection ends, and the message is due again
		o.after(time.Second)
		o.wantGone(id)
	})
}

func TestWhatIsInTheAirByOneConnectorIsNotSentByAnother(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		slow, next := &cloud{}, &cloud{}
		clouds := map[string]*cloud{"slow": slow, "next": next}
		o.use(1, clouds, "slow")
		release := o.stall(slow)
		id := o.hand("copier", "anna@contoso.com")
		o.after(0)
		o.use(1, clouds, "next", "slow")
		if n, err := o.d.Retry([]trace.ID{id}, "eva"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		o.after(time.Second)
		release()
		o.after(time.Second)
		o.wantGone(id)
		if n := len(next.now().given); n != 0 {
			t.Errorf("the message was on its way, and was sent by another connector too")
		}
	})
}

func TestWhatWaitsInMemoryCanBeHeld(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.set(1)
		release := o.stall(o.cloud)
		first := o.hand("copier", "anna@contoso.com")
		held := o.hand("copier", "ben@contoso.com")
		o.after(0)
		if n, err := o.d.Hold([]trace.ID{held}, "eva", ""); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		release()
		o.after(time.Hour)
		o.wantGone(first)
		if n := len(o.cloud.now().given); n != 1 {
			t.Fatalf("%d messages were sent, one of them is on hold", n)
		}
		if n, err := o.d.Release([]trace.ID{held}, "eva"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		o.after(0)
		o.wantGone(held)
	})
}

func TestWhatCouldNotBeDeletedIsStillDelivered(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		dialled, partner := make(chan struct{}), &cloud{}
		o.d.Set(Settings{
			Endpoints: []Endpoint{
				{"m365", 1, func(ctx context.Context) (Conn, error) { <-dialled; return o.cloud.connect(ctx) }},
				{"partner", 1, partner.connect},
			},
			Route: func(_, recipient address.Address) (string, bool) {
				if recipient.Domain == "fabrikam.com" {
					return "partner", true
				}
				return "m365", true
			},
			Retry: testRetry,
		})
		release := o.stall(partner)
		id := o.hand("copier", "anna@contoso.com", "ben@fabrikam.com") // waits for the one, and is in the air by the other
		o.after(0)
		if _, err := o.d.Delete([]trace.ID{id}, "eva"); !errors.Is(err, spool.ErrBusy) {
			t.Fatalf("deleted while it is being delivered: %v", err)
		}
		close(dialled)
		release()
		o.after(testRetry.First)
		o.wantGone(id)
	})
}

func TestAMessageIsTriedBeforeItIsGivenUp(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := &office{t: t, cloud: &cloud{}}
		o.start(folder)
		o.cloud.set(func(c *cloud) { c.answer = answers(map[string]string{"anna@contoso.com": "451 4.2.1 later"}) })
		id := o.hand("copier", "anna@contoso.com")
		o.after(0)
		o.stop()
		time.Sleep(2 * testRetry.GiveUp) // the box is switched off over the holidays
		o.cloud.set(func(c *cloud) { c.answer = nil })
		o.start(folder)
		o.after(0)
		o.wantGone(id)
		o.stop()
	})
}

func TestAHoldOfASenderEndsWhenNoneOfItsMailIsLeft(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) {
			c.answer = func(string, string) reply.Answer {
				return said(reply.Mail, "550 5.7.60 Client does not have permissions")
			}
		})
		id := o.hand("fax", "anna@contoso.com")
		o.after(0)
		if len(o.d.States()[0].Senders) != 1 {
			t.Fatalf("the sender is not on hold: %+v", o.d.States()[0])
		}
		if n, err := o.d.Delete([]trace.ID{id}, "eva"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		o.after(testRetry.Ceiling) // the device was given a right sender: this one will not be seen again
		if state := o.d.States()[0]; len(state.Senders) != 0 {
			t.Errorf("a sender without mail is still on hold: %+v", state.Senders)
		}
	})
}

func TestAnEndpointThatClosesBeforeItSaysAnythingIsHeld(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) { c.closes = true })
		id := o.hand("copier", "anna@contoso.com")
		for range 50 { // as long as it takes the box, were it to try at once for ever
			synctest.Wait()
			if o.cloud.now().dials > 100 {
				break
			}
		}
		o.after(time.Second)
		if n := o.cloud.now().dials; n > maxBroken || o.hold() == nil {
			o.cloud.set(func(c *cloud) { c.closes = false })
			t.Fatalf("%d connections were made in vain; on hold: %t", n, o.hold() != nil)
		}
		o.after(time.Hour)
		if n := o.cloud.now().dials; n > 20 {
			t.Errorf("%d connections in an hour: a probe is no message after message", n)
		}
		o.cloud.set(func(c *cloud) { c.closes = false })
		o.after(testRetry.Ceiling)
		o.wantGone(id)
	})
}

func TestAProbeThatIsPutOffIsOneProbe(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		good := o.hand("copier", "anna@contoso.com")
		o.after(0)
		o.wantGone(good)
		refuse := func(text string) {
			o.cloud.set(func(c *cloud) {
				c.answer = func(string, string) reply.Answer { return said(reply.Mail, text) }
			})
		}
		refuse("550 5.7.64 TenantAttribution; Relay Access Denied")
		for range 50 {
			o.hand("fax", "anna@contoso.com")
			o.after(0)
		}
		if o.hold() == nil {
			t.Fatal("the connector is not on hold")
		}
		before := len(o.cloud.now().given)
		refuse("451 4.3.0 later")
		o.after(testRetry.soon())
		if n := len(o.cloud.now().given) - before; n != 1 {
			t.Errorf("%d messages were tried at the first probe, want 1", n)
		}
	})
}

func TestARefusedSenderShowsThatTheWayWorksAgain(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) { c.refuse = syscall.ECONNREFUSED })
		o.hand("a fax", "anna@contoso.com")
		o.after(0)
		id := o.hand("copier", "anna@contoso.com")
		o.cloud.set(func(c *cloud) {
			c.refuse = nil
			c.answer = func(sender, _ string) reply.Answer {
				if sender != "copier@contoso.com" {
					return said(reply.Mail, "550 5.7.60 Client does not have permissions")
				}
				return ok
			}
		})
		o.after(testRetry.soon())
		o.wantGone(id)
	})
}

func TestFewerConnectionsAreNoReasonToWait(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		release := o.stall(o.cloud)
		var ids []trace.ID
		for range 4 {
			ids = append(ids, o.hand("copier", "anna@contoso.com"))
		}
		o.after(0)
		release()
		o.after(0)
		o.wantGone(ids...)
		o.set(1) // four connections have nothing to do
		id := o.hand("copier", "anna@contoso.com")
		o.after(time.Second)
		o.wantGone(id)
		if n := o.d.States()[0].Connections; n != 1 {
			t.Errorf("%d connections are open, 1 is allowed", n)
		}
	})
}

func TestAProbeThatWasAskedForBeginsTheScheduleAnew(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) { c.refuse = syscall.ECONNREFUSED })
		o.hand("copier", "anna@contoso.com")
		o.after(7 * time.Hour) // every half hour by now
		before := o.hold()
		o.after(time.Minute)
		asked := time.Now()
		o.d.Probe()
		o.after(0)
		hold := o.hold()
		if !hold.Tried.Equal(asked) || !hold.Since.Equal(before.Since) {
			t.Errorf("asked for at %s, the last failure was at %s; on hold since %s, before %s", asked, hold.Tried, hold.Since, before.Since)
		}
		if wait := hold.Probe.Sub(asked); wait != testRetry.soon() {
			t.Errorf("the next probe is %s away, want %s: somebody is at work on the fault", wait, testRetry.soon())
		}
	})
}

func TestAClockThatWasAheadKeepsNoMailBack(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.ahead.Store(int64(250 * 365 * 24 * time.Hour)) // a machine without a battery for its clock
		o.cloud.set(func(c *cloud) { c.answer = answers(map[string]string{"anna@contoso.com": "451 4.2.1 later"}) })
		id := o.hand("copier", "anna@contoso.com")
		o.after(0)
		o.cloud.set(func(c *cloud) { c.answer = nil })
		o.ahead.Store(0)
		other := o.hand("scanner", "ben@contoso.com")
		o.after(testRetry.Ceiling)
		o.wantGone(id, other)
	})
}

func TestAProbeThatWasSetWhileTheClockWasAheadIsMade(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := &office{t: t, cloud: &cloud{refuse: syscall.ECONNREFUSED}}
		o.ahead.Store(int64(250 * 365 * 24 * time.Hour))
		o.start(folder)
		id := o.hand("copier", "anna@contoso.com")
		o.after(0)
		o.stop()
		o.cloud.set(func(c *cloud) { c.refuse = nil })
		o.ahead.Store(0)
		o.start(folder)
		o.after(testRetry.Ceiling)
		o.wantGone(id)
		o.stop()
	})
}

func TestAClockThatIsSetRightGivesNothingUp(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) { c.answer = answers(map[string]string{"anna@contoso.com": "451 4.2.1 later"}) })
		id := o.hand("copier", "anna@contoso.com")
		o.after(0)
		o.ahead.Store(int64(25 * 365 * 24 * time.Hour)) // the time has come over the network
		o.after(30 * time.Minute)
		if r := o.envelope(id).Recipients[0]; r.State != trace.Waiting {
			t.Fatalf("given up half an hour after it came in: %+v", r)
		}
		o.cloud.set(func(c *cloud) { c.answer = nil })
		o.after(testRetry.Ceiling)
		o.wantGone(id)
	})
}

func TestMailIsRoutedAnewOnlyWhenRoutesChange(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		o.cloud.set(func(c *cloud) { c.refuse = syscall.ECONNREFUSED })
		id := o.hand("copier", "anna@contoso.com")
		o.after(0)
		to := func(routes, connector string) *spool.Envelope {
			o.d.Set(Settings{
				Endpoints: []Endpoint{{Name: "m365", Connections: 1, Connect: o.cloud.connect}, {Name: "backup", Connections: 1, Connect: o.cloud.connect}},
				Route:     func(_, _ address.Address) (string, bool) { return connector, true }, Routes: routes, Retry: testRetry,
			})
			o.after(0)
			return o.envelope(id)
		}
		if e := to("one", "backup"); e.Recipients[0].Connector != "backup" {
			t.Errorf("after the first routes: by %q", e.Recipients[0].Connector)
		}
		if state, err := o.spool.State(routesState); string(state) != "one" || err != nil {
			t.Errorf("the queue says it was routed by %q (%v)", state, err)
		}
		if e := to("two", "m365"); e.Recipients[0].Connector != "m365" {
			t.Errorf("after other routes: by %q", e.Recipients[0].Connector)
		}
	})
}
