package endtoend

import (
	"net"
	"strings"
	"testing"

	"mailchute/cmd/cloudsim/sim"
)

// TestSendAfterARepair: a connector is on hold, and would be left alone for long; the fault is mended, and an administrator
// asks whether mail flows now. The answer is that of now, not the one before.
func TestSendAfterARepair(t *testing.T) {
	t.Parallel()
	cloud := newCloud(t, nil)
	box := newBox(t, strings.NewReplacer(`"20ms"`, `"24h"`, `"200ms"`, `"24h"`).Replace(office), cloud.connector())
	cloud.trust(box)
	box.start()

	cloud.down()
	if status, said := box.run("send", to); status != 1 || !strings.Contains(said, "It stays in the queue: connector m365 is on hold") {
		t.Errorf("while the cloud is down: exit status %d: %s", status, said)
	}
	// What comes is not held against what devices send: it is the box's own.
	server, err := sim.New(cloud.tenant, sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", cloud.address)
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(listener)
	defer server.Close()
	if status, said := box.run("send", to); status != 0 || !strings.HasSuffix(strings.TrimSpace(said), "Sent.") {
		t.Errorf("after it came up: exit status %d: %s", status, said)
	}
	box.awaitEmpty() // the first one has followed
}
