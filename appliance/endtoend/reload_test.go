package endtoend

import (
	"errors"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mailchute/appliance/api"
	"mailchute/appliance/trace"
)

// reload has the box apply its settings by command, and demands the exit status.
func reload(b *box, want int) (said string) {
	b.t.Helper()
	status, said := b.run("config", "reload")
	if status != want {
		b.t.Errorf("config reload: exit status %d, want %d: %s", status, want, said)
	}
	b.awaitReady() // each try begins and ends, as systemd is told
	return said
}

// TestReload changes settings while a device is in the middle of a message: that session survives, and the new
// settings are in force for what comes after it.
func TestReload(t *testing.T) {
	t.Parallel()
	for how, apply := range map[string]func(*box){
		"by command": func(b *box) { reload(b, 0) },
		"by SIGHUP":  func(b *box) { b.signal(syscall.SIGHUP); b.awaitReady() },
	} {
		t.Run(how, func(t *testing.T) {
			cloud := newCloud(t, nil)
			box := newBox(t, office, cloud.connector())
			cloud.trust(box)
			box.start()
			before := box.address("none")
			session, err := connect(before)
			if err != nil {
				t.Fatal(err)
			}
			defer session.close()
			if err := session.envelope(from, to); err != nil {
				t.Fatal(err)
			}
			name, content := letter("open", 200_000)
			body := session.text.DotWriter()
			body.Write(content[:100_000])
			session.text.W.Flush()

			box.configure(strings.NewReplacer(
				`hostname = "relay.contoso.com"`, `hostname = "mail.contoso.com"`,
				`address = "127.0.0.1:0"`, `address = "127.0.0.2:0"`,
				`addresses = ["127.0.0.0/8"]`, `addresses = ["127.0.0.2"]`).Replace(office), cloud.connector())
			apply(box)

			if status := box.status(); status.Hostname != "mail.contoso.com" || len(status.Listeners) != 1 || status.Connections != 1 {
				t.Errorf("after the change: %+v", status)
			}
			body.Write(content[100_000:])
			if err := body.Close(); err != nil {
				t.Fatal(err)
			}
			id, err := session.acknowledged()
			if err != nil {
				t.Fatalf("the open session did not survive: %v", err)
			}
			sentOnce(box, cloud, letters{name: id})

			_, err = session.ask(250, "MAIL FROM:<%s>", from)
			var refusal *textproto.Error
			if !errors.As(err, &refusal) || refusal.Code != 550 || !strings.HasPrefix(refusal.Msg, "5.7.1 127.0.0.1 may not send through mail.contoso.com") {
				t.Errorf("the next message of a device that is none any more: %v", err)
			}
			if _, err := connect(before); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("the listener that is gone: %v", err)
			}
			stranger, err := connect(box.address("none"))
			if err != nil {
				t.Fatalf("the new listener: %v", err)
			}
			stranger.close()
			box.stop()
		})
	}
}

// TestReloadOfWrongSettings: what is wrong is told, all of it, and the settings in use stay.
func TestReloadOfWrongSettings(t *testing.T) {
	t.Parallel()
	cloud := newCloud(t, nil)
	box := newBox(t, office, cloud.connector())
	cloud.trust(box)
	box.start()
	before := box.status()
	for _, test := range []struct {
		name     string
		settings []string
		status   int
		told     []string
	}{
		{"two mistakes", []string{strings.Replace(office, `first = "20ms"`, "first = 20\ncolour = \"blue\"", 1), cloud.connector()}, 2,
			[]string{"config.toml:14:9: retry.first: ", "config.toml:15:1: retry.colour: "}},
		{"no TOML", []string{"version = = 1"}, 2, []string{"config.toml:1:"}},
		{"a certificate that is not there", []string{office, strings.Replace(cloud.connector(), `"relay"`, `"relais"`, 1)}, 2, []string{"relais"}},
		{"an address in use", []string{strings.Replace(office, "127.0.0.1:0", cloud.address, 1), cloud.connector()}, 1, []string{cloud.address}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := box.in(t)
			b.configure(test.settings...)
			said := reload(b, test.status)
			logged := len(b.log())
			b.signal(syscall.SIGHUP)
			b.awaitReady()
			eventually(t, func() error {
				if !strings.Contains(b.log()[logged:], "config.toml is not applied; the settings in use stay") {
					return errors.New("the log does not say that SIGHUP did nothing")
				}
				return nil
			})
			for _, mistake := range test.told {
				if !strings.Contains(said, mistake) || !strings.Contains(b.log()[logged:], mistake) {
					t.Errorf("%q is not told: %s", mistake, said)
				}
			}
			if after := b.status(); !after.Applied.Equal(before.Applied) || after.Listeners[0] != before.Listeners[0] {
				t.Errorf("the settings have changed: %+v, before %+v", after, before)
			}
			name, id := hand(b, wordOf(test.name), 1000)
			sentOnce(b, cloud, letters{name: id})
		})
	}
	box.stop()
}

// TestReloadOfAConnector: mail that is held for a connector goes by the one it becomes, at once.
func TestReloadOfAConnector(t *testing.T) {
	t.Parallel()
	gone, cloud := newCloud(t, nil), newCloud(t, nil)
	gone.down()
	const patient = "[retry]\nfirst = \"1h\"\nceiling = \"1d\"\n" // nothing is tried again by itself
	settings, _, _ := strings.Cut(office, "[retry]")
	box := newBox(t, settings, patient, gone.connector())
	cloud.trust(box)
	box.start()
	held := make(letters)
	for _, number := range []string{"1", "2", "3"} {
		name, id := hand(box, number, 10_000)
		held[name] = id
	}
	heldConnector(box, "connection refused")
	box.configure(settings, patient, cloud.connector())
	reload(box, 0)
	sentOnce(box, cloud, held)
	box.awaitConnector(api.ConnectorOK)
	name, id := hand(box, "open", 1000) // the connection is kept
	sentOnce(box, cloud, letters{name: id})

	other := newCloud(t, nil)
	other.trust(box)
	box.configure(settings, patient, other.connector())
	reload(box, 0)
	name, id = hand(box, "moved", 1000)
	sentOnce(box, other, letters{name: id})

	box.configure(settings, patient, strings.Replace(other.connector(), `domains = ["*"]`, `domains = ["nowhere.test"]`, 1))
	reload(box, 0)
	s, err := connect(box.address("none"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.envelope(from, to); err == nil || !strings.Contains(err.Error(), "No connector takes mail") {
		t.Errorf("a recipient without connector: %v", err)
	}
	s.close()
	box.stop()
}

// TestNewBox: without settings it takes no mail and says so; with the first ones it does.
func TestNewBox(t *testing.T) {
	t.Parallel()
	cloud := newCloud(t, nil)
	box := newBox(t)
	if err := os.Remove(filepath.Join(box.state, "config.toml")); err != nil {
		t.Fatal(err)
	}
	box.start()
	if status := box.status(); status.Flowing || len(status.Listeners) > 0 || len(status.Problems) != 1 {
		t.Errorf("a new box: %+v", status)
	}
	cloud.trust(box)
	box.configure(office, cloud.connector())
	reload(box, 0)
	name, id := hand(box, "first", 1000)
	if record := box.awaitState(id, trace.Sent); record.Device != "Floor 2" {
		t.Errorf("the story of the first message: %+v", record)
	}
	cloud.cameOnce(name)
	box.stop()
}
