package intake

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"mailchute/appliance/address"
	"mailchute/appliance/config"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// testQueue keeps messages in memory and fails as told.
type testQueue struct {
	mu       sync.Mutex
	room     error // what Room says
	write    error // what Write says
	accept   error // what Accept says
	created  trace.ID
	accepted int
	aborted  int
	messages []*testMessage // accepted
}

type testMessage struct {
	queue    *testQueue
	id       trace.ID
	body     bytes.Buffer
	envelope *spool.Envelope
}

func (q *testQueue) Room(int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.room
}

func (q *testQueue) Create() Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.created++
	return &testMessage{queue: q, id: q.created}
}

func (m *testMessage) ID() trace.ID { return m.id }

func (m *testMessage) Write(p []byte) (int, error) {
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	if m.queue.write != nil {
		return 0, m.queue.write
	}
	return m.body.Write(p)
}

func (m *testMessage) Accept(envelope *spool.Envelope) error {
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	if m.queue.accept != nil {
		return m.queue.accept
	}
	m.envelope = envelope
	m.queue.accepted++
	m.queue.messages = append(m.queue.messages, m)
	return nil
}

func (m *testMessage) Abort() {
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	if m.envelope == nil {
		m.queue.aborted++
	}
}

// next takes the oldest message out of the queue; nil: there is none.
func (q *testQueue) next() *testMessage {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.messages) == 0 {
		return nil
	}
	m := q.messages[0]
	q.messages = q.messages[1:]
	return m
}

// split parts the box's Received field, unfolded, from what the client sent.
func (m *testMessage) split() (received, body string) {
	field, body, _ := strings.Cut(m.body.String(), "-0000\r\n")
	if before, after, found := strings.Cut(m.body.String(), "+0000\r\n"); found {
		field, body = before, after
	}
	return strings.ReplaceAll(field, "\r\n\t", " "), body
}

// testRefusals writes down who was refused.
type testRefusals struct {
	mu    sync.Mutex
	lines []string
}

func (r *testRefusals) Refused(client netip.Addr, sender, recipient, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf("%s <%s> <%s> %s", client, sender, recipient, reason))
}

func (r *testRefusals) next() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) == 0 {
		return ""
	}
	line := r.lines[0]
	r.lines = r.lines[1:]
	return line
}

// testDevices are the office's: a floor of scanners, IPv4 and IPv6.
type testDevices struct{}

func (testDevices) Find(client netip.Addr) (*config.Device, bool) {
	for _, covered := range []string{"192.168.1.0/24", "fd00::/64", "127.0.0.1/32"} {
		if netip.MustParsePrefix(covered).Contains(client) {
			return &config.Device{Name: "Floor 2"}, true
		}
	}
	return nil, false
}

// testRules has a connector for everything but nowhere.example.
func testRules() Rules {
	return Rules{Hostname: "relay.contoso.com", MaxMessageSize: 150 << 20, MaxConnections: 500, MaxConnectionsPerAddress: 50,
		Devices: testDevices{},
		Routes:  func(_, recipient address.Address) bool { return recipient.Domain != "nowhere.example" }}
}

// testCertificate signs itself; clients of tests do not verify it.
var testCertificate = sync.OnceValues(func() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
})

var clientTLS = &tls.Config{InsecureSkipVerify: true}

// box is a server with everything around it in memory.
type box struct {
	*Server
	queue    *testQueue
	refusals *testRefusals
	rules    Rules
	log      *logBuffer
}

func newBox(t testing.TB) *box {
	b := &box{queue: &testQueue{}, refusals: &testRefusals{}, rules: testRules(), log: &logBuffer{}}
	if _, err := testCertificate(); err != nil {
		t.Fatal(err)
	}
	b.Server = New(Options{Queue: b.queue, Refusals: b.refusals, Certificate: testCertificate,
		Log: slog.New(slog.NewTextHandler(b.log, nil)), Now: func() time.Time { return time.Now().UTC() }})
	b.SetRules(b.rules)
	return b
}

// logBuffer is a log a test can read while it is written.
type logBuffer struct {
	mu      sync.Mutex
	text    strings.Builder
	discard bool
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.discard {
		return len(p), nil
	}
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// pipeListener is a listener whose connections are made by dial, in memory.
type pipeListener struct {
	address     string
	connections chan net.Conn
	closed      chan struct{}
	once        sync.Once
}

func newPipeListener(address string) *pipeListener {
	return &pipeListener{address: address, connections: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.connections:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return tcpAddr(l.address) }

// dial connects as if from the client's address; nil when the listener is closed.
func (l *pipeListener) dial(client string) net.Conn {
	near, far := net.Pipe()
	select {
	case l.connections <- addressedConn{far, tcpAddr(client + ":49152")}:
		return near
	case <-l.closed:
		return nil
	}
}

type addressedConn struct {
	net.Conn
	remote net.Addr
}

func (c addressedConn) RemoteAddr() net.Addr { return c.remote }

func tcpAddr(address string) net.Addr {
	if !strings.HasPrefix(address, "[") && strings.Count(address, ":") > 1 {
		last := strings.LastIndex(address, ":")
		address = "[" + address[:last] + "]" + address[last:]
	}
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))
}
