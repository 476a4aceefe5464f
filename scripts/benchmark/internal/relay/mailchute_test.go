package relay

import (
	"strconv"
	"testing"

	"mailchute/appliance/config"
)

// TestMailchuteGetsItsDefaults reads the generated settings as the box does: they are valid, and give Mailchute
// nothing that an installer would not have, except what the row demands.
func TestMailchuteGetsItsDefaults(t *testing.T) {
	for _, test := range []struct {
		connections int
		want        int
	}{{0, 4}, {2, 2}} {
		t.Run(strconv.Itoa(test.connections), func(t *testing.T) {
			m, err := NewMailchute("mailchute", Setup{Folder: t.TempDir(), Sink: 2525, Connections: test.connections})
			if err != nil {
				t.Fatal(err)
			}
			settings, err := config.Check("config.toml", []byte(m.config()), m.state())
			if err != nil {
				t.Fatal(err)
			}
			if len(settings.Connectors) != 1 || len(settings.SMTP.Listeners) != 1 {
				t.Fatalf("%d connectors, %d listeners, want one each", len(settings.Connectors), len(settings.SMTP.Listeners))
			}
			if got := settings.Connectors[0]; int(got.Port) != 2525 || int(got.Connections) != test.want {
				t.Errorf("port %d, %d connections, want 2525, %d", got.Port, got.Connections, test.want)
			}
			if got := settings.SMTP.Listeners[0].Address; got != m.Address() {
				t.Errorf("listens at %s, want %s", got, m.Address())
			}
		})
	}
}
