package endtoend

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"mailchute/cmd/cloudsim/sim"
)

// cloud is a stand-in for Exchange Online that remembers what arrived in all the times it was up.
type cloud struct {
	t         *testing.T
	authority *sim.Authority
	tenant    sim.Tenant
	address   string
	server    *sim.Server
	met       chan sim.Fault // faults that have happened
	arriving  func()         // called for each message before it is answered
	*archive
}

// archive is what arrived at a cloud.
type archive struct {
	mu       sync.Mutex
	epoch    int // counted by whoever wants arrivals told apart
	arrivals map[string][]arrival
	talks    int        // conversations that go on
	silence  *sync.Cond // talks has become 0
}

// arrival is one message that the cloud took; Body is empty where it is a letter, which has been compared already.
type arrival struct {
	sim.Message
	epoch int
}

// newCloud is the tenant of contoso.com, which demands a certificate that its own authority has issued; change makes it
// another. Its address is one that no outgoing connection has, so that its port stays free while it is down.
func newCloud(t *testing.T, change func(*sim.Tenant)) *cloud {
	authority, err := sim.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	tenant, err := sim.Contoso(authority)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&tenant)
	}
	c := &cloud{t: t, authority: authority, tenant: tenant, address: "127.77.0.1:0",
		met: make(chan sim.Fault, 100_000), arriving: func() {}, archive: &archive{arrivals: make(map[string][]arrival)}}
	c.silence = sync.NewCond(&c.mu)
	c.up()
	t.Cleanup(c.down)
	return c
}

// in is the same cloud within a part of the test.
func (c *cloud) in(t *testing.T) *cloud {
	part := *c
	part.t = t
	return &part
}

// up listens, at the address it had before.
func (c *cloud) up() {
	c.t.Helper()
	server, err := sim.New(c.tenant, sim.Options{OnMessage: c.take, OnFault: func(fault sim.Fault) { c.met <- fault }})
	if err != nil {
		c.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", c.address)
	if err != nil {
		c.t.Fatal(err)
	}
	c.address, c.server = listener.Addr().String(), server
	go server.Serve(&counting{listener, c})
}

// down cuts every connection and refuses new ones.
func (c *cloud) down() { c.server.Close() }

// counting counts the conversations of a cloud.
type counting struct {
	net.Listener
	c *cloud
}

func (l *counting) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.c.talk(1)
	return &counted{TCPConn: conn.(*net.TCPConn), over: sync.OnceFunc(func() { l.c.talk(-1) })}, nil
}

type counted struct {
	*net.TCPConn
	over func()
}

func (c *counted) Close() error {
	c.over()
	return c.TCPConn.Close()
}

func (a *archive) talk(change int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.talks += change; a.talks == 0 {
		a.silence.Broadcast()
	}
}

// awaitSilence returns when the conversations are over that a box held which is dead now: nothing of it arrives
// afterwards.
func (a *archive) awaitSilence() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.talks > 0 {
		a.silence.Wait()
	}
}

// nextEpoch begins to mark arrivals with the next number.
func (a *archive) nextEpoch() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.epoch++
}

// take looks at a message before it is answered.
func (c *cloud) take(m sim.Message) {
	c.arriving()
	name, letter, err := openLetter(m.Body)
	if err != nil {
		c.t.Errorf("message %d at the cloud: %v", m.Number, err)
	}
	if letter {
		m.Body = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.arrivals[name] = append(c.arrivals[name], arrival{m, c.epoch})
}

// came gives the arrivals of a message, by its Message-ID.
func (a *archive) came(name string) []arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.arrivals[name])
}

// cameOnce demands that a message has arrived, and not twice.
func (c *cloud) cameOnce(name string) {
	c.t.Helper()
	if n := len(c.came(name)); n != 1 {
		c.t.Errorf("%s has arrived %d times, want once", name, n)
	}
}

// fail sets faults in place of those before, and forgets what has happened.
func (c *cloud) fail(faults ...string) {
	c.t.Helper()
	if err := c.server.Fail(faults...); err != nil {
		c.t.Fatal(err)
	}
	for len(c.met) > 0 {
		<-c.met
	}
}

// trust makes the box one that the tenant takes mail from: it has a certificate for its connector to show.
func (c *cloud) trust(b *box) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(b.state, "ca.pem"), c.authority.RootPEM(), 0o600); err != nil {
		c.t.Fatal(err)
	}
	issue(b, c.authority, "relay.contoso.com")
}

// connector is the table of config.toml for this cloud.
func (c *cloud) connector(more ...string) string {
	return connector(c.address, slices.Concat([]string{`tls_name = "` + c.tenant.Host + `"`, `ca_file = "ca.pem"`, `certificate = "relay"`}, more)...)
}

// hangUp ends the connections of a box that has nothing to send, and returns when it has noticed.
func (c *cloud) hangUp(b *box) {
	c.t.Helper()
	c.server.Cut()
	eventually(c.t, func() error {
		if n := b.status().Connectors[0].Connections; n > 0 {
			return fmt.Errorf("the box has %d connections to the cloud", n)
		}
		return nil
	})
}

// issue puts a certificate from authority into the state folder, as "relay".
func issue(b *box, authority *sim.Authority, name string) {
	b.t.Helper()
	certificate, err := authority.Issue(name)
	if err == nil {
		err = sim.WriteCertificate(filepath.Join(b.state, "certs"), "relay", certificate)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// connector is the table of config.toml for an endpoint at address; more are further lines of it.
func connector(address string, more ...string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		panic(err)
	}
	text := fmt.Sprintf("[[connector]]\nname = \"m365\"\nkind = \"smarthost\"\nhost = %q\nport = %s\ndomains = [\"*\"]\n", host, port)
	for _, line := range more {
		text += line + "\n"
	}
	return text
}
