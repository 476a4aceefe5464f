package endtoend

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailchute/appliance/api"
	"mailchute/appliance/reply"
	"mailchute/appliance/trace"
	"mailchute/cmd/cloudsim/sim"
)

// Ways to fail, as the stand-in's faults are written. A stall ends when the cloud gives up the connection.
var (
	breaks  = []string{"close", "reset", "half-close", "garbage", "stall"}
	putsOff = []string{"4xx", "421 4.3.2 Service not active+close"}
	refuses = []string{"5xx", "5xx+close"}
	alerts  = []string{"tls-alert", "tls-reject"}
)

// TestFaults has the cloud fail at every step in every way. Each ends in its class: the message is tried again, refused
// for good, or the sender or the whole connector is held; an administrator is told why. Once it is over the message
// arrives, once.
func TestFaults(t *testing.T) {
	t.Parallel()
	for name, without := range map[string][]string{"BDAT": nil, "DATA": {"CHUNKING"}, "one at a time": {"CHUNKING", "PIPELINING"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cloud := newCloud(t, func(tenant *sim.Tenant) { tenant.Without = without })
			box := newBox(t, office, cloud.connector())
			cloud.trust(box)
			box.start()
			for _, test := range []struct {
				stage sim.Stage
				ways  []string
				class reply.Class
			}{
				// Before any mail: it would hit every message.
				{sim.Connect, slices.Concat([]string{"refuse"}, breaks), reply.Connector},
				{sim.Banner, slices.Concat(putsOff, refuses, breaks), reply.Connector},
				{sim.Hello, slices.Concat(putsOff, refuses, breaks), reply.Connector},
				{sim.StartTLS, slices.Concat(putsOff, refuses, breaks), reply.Connector},
				{sim.TLS, slices.Concat(breaks, alerts), reply.Connector},

				{sim.Mail, slices.Concat(putsOff, breaks), reply.Temporary},
				{sim.Mail, refuses, reply.Sender},
				{sim.Rcpt, slices.Concat(putsOff, breaks), reply.Temporary},
				{sim.Rcpt, refuses, reply.Permanent},
				{sim.Data, slices.Concat(putsOff, breaks), reply.Temporary},
				{sim.Data, refuses, reply.Permanent},
				{sim.Body, slices.Concat(putsOff, breaks), reply.Temporary},
				{sim.Body, refuses, reply.Permanent},
				{sim.Final, slices.Concat(putsOff, breaks), reply.Temporary},
				{sim.Final, refuses, reply.Permanent},

				// Between two messages: it says nothing about the second.
				{sim.Reset, breaks, reply.Temporary},
			} {
				for _, way := range test.ways {
					testFault(t, box, cloud, test.stage, way, test.class)
				}
			}
			if without != nil { // with BDAT the whole message is on the wire when RSET is refused, and may be taken
				for _, way := range slices.Concat(putsOff, refuses) {
					testFault(t, box, cloud, sim.Reset, way, reply.Temporary)
				}
			}
			box.stop()
		})
	}
}

func testFault(t *testing.T, b *box, c *cloud, stage sim.Stage, way string, class reply.Class) {
	fault := string(stage) + "=" + way
	if class == reply.Temporary {
		fault += ":1" // a way on which no message gets through at all is held: see TestHopeless
	}
	t.Run(fault, func(t *testing.T) {
		b, c := b.in(t), c.in(t)
		if stage == sim.Reset { // comes before the second message of a connection
			name, id := hand(b, wordOf("before "+fault), 1000)
			b.awaitState(id, trace.Sent)
			c.cameOnce(name)
		} else {
			c.hangUp(b)
		}
		c.fail(fault)
		before := len(b.log())
		name, id := hand(b, wordOf(fault), 100_000)
		met := <-c.met
		if met.Action == sim.Stall {
			if record := b.record(id); record.Recipients[0].State != trace.Waiting || countEvents(record, trace.Attempted) == 0 {
				t.Errorf("while the cloud is silent: %+v", record)
			}
			if running := b.status().Queue.Running; running != 1 {
				t.Errorf("while the cloud is silent %d messages are on their way, want 1", running)
			}
			c.fail(string(stage) + "=close") // from now on it is quicker
			c.server.Cut()
		}
		switch class {
		case reply.Connector:
			heldConnector(b, met.Reply)
		case reply.Sender:
			heldSender(b, met.Reply)
		case reply.Permanent:
			failed(b, id, met.Reply)
		}
		c.fail()
		if class == reply.Permanent { // the administrator has had it mended
			b.change("retry", id)
		}
		record := b.awaitState(id, trace.Sent)
		if class == reply.Temporary {
			putOff(b, record, met)
			if log := b.log()[before:]; strings.Contains(log, "on hold") {
				t.Errorf("others were held for it:\n%s", log)
			}
		}
		if n := countEvents(record, trace.Delivered); n != 1 {
			t.Errorf("delivered %d times: %+v", n, record.Events)
		}
		c.cameOnce(name)
		if status := b.status(); !status.Flowing || len(status.Problems) > 0 {
			t.Errorf("mail does not flow after the fault: %+v", status.Problems)
		}
	})
}

// wordOf makes a fault a word that can stand in a Message-ID.
func wordOf(fault string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" .=+:", r) {
			return '-'
		}
		return r
	}, fault)
}

// heldConnector demands that the connector is held, and that an administrator is told what was answered, what it
// means and what to do.
func heldConnector(b *box, answer string) api.Connector {
	b.t.Helper()
	held := b.awaitConnector(api.ConnectorHeld)
	if held.Reply == "" || held.Cause == "" || held.Fix == "" || !strings.Contains(held.Reply, answer) {
		b.t.Errorf("held without saying why: %+v", held)
	}
	return held
}

// heldSender demands that the usual sender's mail is held, and no other.
func heldSender(b *box, answer string) {
	b.t.Helper()
	var status api.Status
	eventually(b.t, func() error {
		if status = b.status(); len(status.HeldSenders) != 1 {
			return fmt.Errorf("the sender is not held: %+v", status)
		}
		return nil
	})
	if held := status.HeldSenders[0]; held.Sender != from || held.Reply != answer || held.Cause == "" || held.Fix == "" {
		b.t.Errorf("held without saying why: %+v", held)
	}
	if connector := status.Connectors[0]; connector.State != api.ConnectorOK {
		b.t.Errorf("the connector is held with the sender: %+v", connector)
	}
}

// failed demands that the message is kept as refused for good.
func failed(b *box, id trace.ID, answer string) {
	b.t.Helper()
	recipient := b.awaitState(id, trace.Failed).Recipients[0]
	if recipient.Reply != answer || recipient.Cause == "" || recipient.Fix == "" {
		b.t.Errorf("refused without saying why: %+v", recipient)
	}
}

// putOff demands that the story of a message that was sent in the end says why it was put off before.
func putOff(b *box, record trace.Record, fault sim.Fault) {
	b.t.Helper()
	if countEvents(record, trace.Deferred) == 0 && fault.Stage != sim.Reset {
		b.t.Errorf("the story does not say that it was put off: %+v", record.Events)
	}
	for _, event := range record.Events {
		if event.Kind == trace.Deferred && (event.Class != string(reply.Temporary) || event.Text == "" || !strings.Contains(event.Reply, fault.Reply)) {
			b.t.Errorf("put off without saying why: %+v", event)
		}
	}
}

// TestHopeless: a cloud that takes connections and breaks each of them is no way: the connector is held.
func TestHopeless(t *testing.T) {
	t.Parallel()
	cloud := newCloud(t, nil)
	box := newBox(t, office, cloud.connector())
	cloud.trust(box)
	box.start()
	for _, stage := range []sim.Stage{sim.Mail, sim.Final} {
		cloud.fail(string(stage) + "=close")
		name, id := hand(box, string(stage), 1000)
		heldConnector(box, "")
		cloud.fail()
		box.awaitState(id, trace.Sent)
		cloud.cameOnce(name)
	}
	box.stop()
}

// TestUnreachable: nothing listens where the cloud should be.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	cloud := newCloud(t, nil)
	box := newBox(t, office, cloud.connector())
	cloud.trust(box)
	cloud.down()
	box.start()
	var names []string
	var ids []trace.ID
	for n := range 20 {
		name, id := hand(box, fmt.Sprint(n), 20_000)
		names, ids = append(names, name), append(ids, id)
	}
	if held := heldConnector(box, "connection refused"); held.Waiting != len(ids) {
		t.Errorf("%d messages wait, want %d", held.Waiting, len(ids))
	}
	cloud.up()
	for i, id := range ids {
		box.awaitState(id, trace.Sent)
		cloud.cameOnce(names[i])
	}
	box.stop()
}

// TestSignIn: an account whose sign-in is refused is not tried again and again, for endpoints lock such accounts; an
// administrator's word, or a new password, has it tried at once.
func TestSignIn(t *testing.T) {
	t.Parallel()
	cloud := newCloud(t, func(tenant *sim.Tenant) { tenant.Accounts = map[string]string{from: "correct horse"} })
	box := newBox(t, office, cloud.connector(`username = "`+from+`"`, `password_file = "secrets/m365"`))
	cloud.trust(box)
	setPassword(box, "battery staple")
	box.start()
	wrong, wrongID := hand(box, "wrong-password", 1000)
	heldConnector(box, "535 5.7.3 Authentication unsuccessful")
	attempts := cloud.server.Count(sim.Auth)
	_, probes := hand(box, "one-more", 1000) // does not have it tried
	if record := box.record(probes); countEvents(record, trace.Attempted) > 0 || cloud.server.Count(sim.Auth) != attempts {
		t.Errorf("the account is tried again: %+v", record)
	}
	setPassword(box, "correct horse")
	if status, said := box.run("config", "reload"); status != 0 {
		t.Fatalf("config reload: %s", said)
	}
	box.awaitState(wrongID, trace.Sent)
	box.awaitState(probes, trace.Sent)
	cloud.cameOnce(wrong)

	for _, way := range slices.Concat(putsOff, refuses, breaks) {
		t.Run("auth="+way, func(t *testing.T) {
			b, c := box.in(t), cloud.in(t)
			c.hangUp(b)
			c.fail("auth=" + way)
			name, id := hand(b, wordOf(way), 1000)
			met := <-c.met
			if met.Action == sim.Stall {
				c.fail("auth=close")
				c.server.Cut()
			}
			heldConnector(b, met.Reply)
			c.fail()
			b.change("retry", id)
			b.awaitState(id, trace.Sent)
			c.cameOnce(name)
		})
	}
	box.stop()
	if strings.Contains(box.log(), "correct horse") || strings.Contains(box.log(), "battery staple") {
		t.Error("a password is in the log")
	}
}

func setPassword(b *box, password string) {
	b.t.Helper()
	secrets := filepath.Join(b.state, "secrets")
	if err := os.MkdirAll(secrets, 0o700); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(secrets, "m365"), []byte(password+"\n"), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// TestRefusedSender: one misconfigured scanner does not stop the office; a refusal that hits senders known to be good
// too is the connector's.
func TestRefusedSender(t *testing.T) {
	t.Parallel()
	cloud := newCloud(t, nil)
	box := newBox(t, office, cloud.connector())
	cloud.trust(box)
	box.start()
	const good = "copier@contoso.com"
	first, id := handFrom(box, good, "first", 1000)
	box.awaitState(id, trace.Sent)
	cloud.cameOnce(first)

	cloud.fail("mail~" + from + "=550 5.7.60 SMTP; Client does not have permissions to send as this sender")
	bad, badID := hand(box, "bad", 1000)
	heldSender(box, "550 5.7.60 SMTP; Client does not have permissions to send as this sender")
	for n := range 5 {
		name, id := handFrom(box, good, fmt.Sprint("good", n), 1000)
		box.awaitState(id, trace.Sent)
		cloud.cameOnce(name)
	}
	cloud.fail()
	box.awaitState(badID, trace.Sent)
	cloud.cameOnce(bad)

	_, id = handFrom(box, good, "good-again", 1000)
	box.awaitState(id, trace.Sent)
	cloud.fail("mail=550 5.7.60 SMTP; Client does not have permissions to send as this sender")
	all, allID := hand(box, "all", 1000)
	heldConnector(box, "550 5.7.60")
	eventually(t, func() error { // each probe shows anew that it is not the sender
		if status := box.status(); len(status.HeldSenders) > 0 || status.Connectors[0].State != api.ConnectorHeld {
			return fmt.Errorf("senders are held for the connector's fault: %+v", status.HeldSenders)
		}
		return nil
	})
	cloud.fail()
	box.awaitState(allID, trace.Sent)
	cloud.cameOnce(all)
	box.stop()
}
