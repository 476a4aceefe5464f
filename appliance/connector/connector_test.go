package connector

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mailchute/appliance/config"
	"mailchute/appliance/reply"
	"mailchute/appliance/smtpclient"
)

var (
	first  = netip.MustParseAddr("192.0.2.1")
	second = netip.MustParseAddr("192.0.2.2")
	sixth  = netip.MustParseAddr("2001:db8::6")
)

func settings(tlsPolicy config.TLS) config.Connector {
	return config.Connector{Name: "m365", Kind: config.Smarthost, Host: "mx.contoso.com", Port: 25, TLS: tlsPolicy,
		TLSMode: config.TLSStartTLS, IP: config.IPAuto, Connections: 4}
}

func connect(t *testing.T, c *Connector) error {
	t.Helper()
	conn, err := c.Connect(t.Context())
	if err == nil {
		conn.Close()
	}
	return err
}

func mustNew(t *testing.T, settings config.Connector, state string, network Network) *Connector {
	t.Helper()
	c, err := New(settings, "relay.contoso.com", state, network)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// send gives a number of messages to a new connection and returns their outcomes and Run's error.
func send(t *testing.T, c *Connector, count int) (outcomes []smtpclient.Outcome, err error) {
	t.Helper()
	conn, err := c.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.Run(t.Context(), func(ctx context.Context) *smtpclient.Transaction {
		if count == 0 {
			return nil
		}
		count--
		return &smtpclient.Transaction{Sender: "a@contoso.com", Recipients: []string{"b@contoso.com"}, Size: 4,
			Body: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("hi\r\n")), nil }}
	}, func(_ *smtpclient.Transaction, outcome smtpclient.Outcome) { outcomes = append(outcomes, outcome) })
	return outcomes, err
}

// TestCertificateAndAccount: the server sees the certificate with its intermediate, however the file orders them, and
// verifies it; the server's own is verified by ca_file; then the box signs in.
func TestCertificateAndAccount(t *testing.T) {
	root := newAuthority(t, "Root", nil)
	middle := newAuthority(t, "Intermediate", root)
	client, clientKey := middle.leaf(t, "relay.contoso.com")
	server, serverKey := root.leaf(t, "mx.contoso.com")
	state := t.TempDir()
	write(t, state, "certs/relay.crt", certificatesPEM(root.certificate, middle.certificate, client), 0o644)
	write(t, state, "certs/relay.key", keyPEM(t, clientKey), 0o600)
	write(t, state, "certs/ca.pem", certificatesPEM(root.certificate), 0o644)
	write(t, state, "secrets/m365", "correct horse\r\n", 0o600)
	cloud := &endpoint{
		config: &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw}, PrivateKey: serverKey}},
			ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: root.pool(),
		},
		account: base64.StdEncoding.EncodeToString([]byte("\x00scan@contoso.com\x00correct horse")),
	}
	internet := &network{names: map[string][]netip.Addr{"mx.contoso.com": {first}}, endpoints: map[netip.Addr]*endpoint{first: cloud}}
	s := settings(config.TLSVerified)
	s.Certificate, s.CAFile, s.Username, s.PasswordFile = "relay", "certs/ca.pem", "scan@contoso.com", "secrets/m365"
	c := mustNew(t, s, state, internet)
	outcomes, err := send(t, c, 1)
	if err != nil || len(outcomes) != 1 || !outcomes[0].Answers[0].Reply.Positive() {
		t.Fatalf("%v %+v", err, outcomes)
	}
	if len(cloud.shown) != 1 || len(cloud.shown[0]) != 2 || !cloud.shown[0][0].Equal(client) || !cloud.shown[0][1].Equal(middle.certificate) {
		t.Errorf("the server was shown %v, want the leaf and its intermediate", cloud.shown)
	}
	if !c.Certificate().Equal(client) {
		t.Error("Certificate is not the leaf")
	}

	s.TLSName = "mx.fabrikam.com"
	err = connect(t, mustNew(t, s, state, internet))
	var failed *smtpclient.Error
	if !errors.As(err, &failed) || failed.Answer.Stage != reply.TLS || !strings.Contains(reply.Judge(failed.Answer).Cause, "another name") {
		t.Error("another tls_name passes:", err)
	}
	s.TLSName = ""
	write(t, state, "secrets/m365", "wrong horse", 0o600)
	internet.names["mx.contoso.com"] = []netip.Addr{first, second}
	internet.endpoints[second] = cloud
	internet.calls()
	err = connect(t, mustNew(t, s, state, internet))
	if !errors.As(err, &failed) || !reply.Judge(failed.Answer).SignIn || strings.Contains(err.Error(), "horse") {
		t.Error("a refused sign-in:", err)
	}
	if dialled := internet.calls(); len(dialled) != 1 {
		t.Errorf("a refused sign-in was tried at %v: that locks accounts", dialled)
	}
}

// TestAllAddressesAreTried, the one that worked last first; the error names them all and is that of the one that
// got farthest.
func TestAllAddressesAreTried(t *testing.T) {
	good, bad := &endpoint{}, &endpoint{banner: "554 5.7.1 not here"}
	internet := &network{
		names:     map[string][]netip.Addr{"mx.contoso.com": {first, sixth, second}},
		endpoints: map[netip.Addr]*endpoint{second: good, first: bad},
	}
	c := mustNew(t, settings(config.TLSNone), t.TempDir(), internet)
	for _, want := range [][]string{
		{"192.0.2.1:25 from invalid IP", "[2001:db8::6]:25 from invalid IP", "192.0.2.2:25 from invalid IP"},
		{"192.0.2.2:25 from invalid IP"},
	} {
		if err := connect(t, c); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, internet.calls()); diff != "" {
			t.Error("-want +got", diff)
		}
	}
	delete(internet.endpoints, second)
	err := connect(t, c)
	const want = "banner: 554 5.7.1 not here (mx.contoso.com: 192.0.2.2:25 at connect: connection refused; " +
		"192.0.2.1:25 at banner; [2001:db8::6]:25 at connect: connection refused)"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	var failed *smtpclient.Error
	if !errors.As(err, &failed) || reply.Judge(failed.Answer).Code != "554 5.7.1" {
		t.Error("the reply is lost:", err)
	}
}

// TestWhichAddresses: ip and source_address choose.
func TestWhichAddresses(t *testing.T) {
	mapped := netip.MustParseAddr("::ffff:192.0.2.1")
	for _, test := range []struct {
		name, host string
		ip         config.IPVersion
		source     netip.Addr
		want       []string // dialled
		asked      []string
	}{
		{"all", "mx.contoso.com", config.IPAuto, netip.Addr{}, []string{"192.0.2.1:25 from invalid IP", "[2001:db8::6]:25 from invalid IP"}, []string{"ip mx.contoso.com"}},
		{"IPv4", "mx.contoso.com", config.IP4, netip.Addr{}, []string{"192.0.2.1:25 from invalid IP"}, []string{"ip4 mx.contoso.com"}},
		{"IPv6", "mx.contoso.com", config.IP6, netip.Addr{}, []string{"[2001:db8::6]:25 from invalid IP"}, []string{"ip6 mx.contoso.com"}},
		{"as the source", "mx.contoso.com", config.IPAuto, netip.MustParseAddr("192.0.2.9"), []string{"192.0.2.1:25 from 192.0.2.9"}, []string{"ip4 mx.contoso.com"}},
		{"an address", "192.0.2.2", config.IPAuto, netip.Addr{}, []string{"192.0.2.2:25 from invalid IP"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			internet := &network{names: map[string][]netip.Addr{"mx.contoso.com": {mapped, sixth}}}
			s := settings(config.TLSNone)
			s.Host, s.IP, s.SourceAddress = test.host, test.ip, test.source
			if err := connect(t, mustNew(t, s, t.TempDir(), internet)); err == nil {
				t.Error("nobody is there, and yet it connects")
			}
			if diff := cmp.Diff(test.want, internet.dialled); diff != "" {
				t.Error("-want +got", diff)
			}
			if diff := cmp.Diff(test.asked, internet.asked); diff != "" {
				t.Error("-want +got", diff)
			}
		})
	}
}

func TestNoAddress(t *testing.T) {
	internet := &network{names: map[string][]netip.Addr{"mx.contoso.com": {first}}}
	for _, test := range []struct{ host, want string }{
		{"mx.contoso.com", "resolve: lookup mx.contoso.com: no address the connector may use (ip: 6, source_address: none)"},
		{"mx.contoso.invalid", "resolve: lookup mx.contoso.invalid: no such host"},
	} {
		s := settings(config.TLSNone)
		s.Host, s.IP = test.host, config.IP6
		err := connect(t, mustNew(t, s, t.TempDir(), internet))
		var failed *smtpclient.Error
		if !errors.As(err, &failed) || err.Error() != test.want {
			t.Errorf("got  %v\nwant %s", err, test.want)
			continue
		}
		if verdict := reply.Judge(failed.Answer); verdict.Class != reply.Connector || verdict.Fault != reply.Administrator {
			t.Errorf("%+v", verdict)
		}
	}
}

// TestOpportunisticFallsBack: where TLS fails, the same address is asked again in plain; where it is demanded, not.
func TestOpportunisticFallsBack(t *testing.T) {
	for _, test := range []struct {
		policy   config.TLS
		username string
		works    bool
		dials    int
	}{
		{config.TLSOpportunistic, "", true, 2},
		{config.TLSOpportunistic, "scan", false, 1}, // a password never goes in plain
		{config.TLSRequired, "", false, 1},
		{config.TLSVerified, "", false, 1},
	} {
		internet := &network{
			names:     map[string][]netip.Addr{"mx.contoso.com": {first}},
			endpoints: map[netip.Addr]*endpoint{first: {config: &tls.Config{}, brokenTLS: true}},
		}
		s := settings(test.policy)
		s.Username = test.username
		err := connect(t, mustNew(t, s, t.TempDir(), internet))
		if (err == nil) != test.works || len(internet.dialled) != test.dials {
			t.Errorf("%s: %v after %d connections", test.policy, err, len(internet.dialled))
		}
	}
}

// TestLessons: 503 to pipelined commands is remembered for good; a broken connection makes the next one careful until
// a message was taken.
func TestLessons(t *testing.T) {
	cloud := &endpoint{strict: true}
	internet := &network{names: map[string][]netip.Addr{"mx.contoso.com": {first}}, endpoints: map[netip.Addr]*endpoint{first: cloud}}
	c := mustNew(t, settings(config.TLSNone), t.TempDir(), internet)
	outcomes, err := send(t, c, 1)
	if !errors.Is(err, reply.ErrOutOfStep) || reply.Judge(outcomes[0].Answers[0]).Class != reply.Temporary {
		t.Fatalf("%v %+v", err, outcomes)
	}
	cloud.inOneWrite = 0
	for range 2 {
		outcomes, err = send(t, c, 2)
		if err != nil || len(outcomes) != 2 || !outcomes[1].Answers[0].Reply.Positive() {
			t.Fatalf("%v %+v", err, outcomes)
		}
	}
	if options := c.lessons(); options.Pipelining || options.Careful {
		t.Errorf("pipelining %v, careful %v", options.Pipelining, options.Careful)
	}

	cloud = &endpoint{hangUp: true}
	internet.endpoints[first] = cloud
	c = mustNew(t, settings(config.TLSNone), t.TempDir(), internet)
	if options := c.lessons(); !options.Pipelining || options.Careful {
		t.Errorf("at first: pipelining %v, careful %v", options.Pipelining, options.Careful)
	}
	outcomes, err = send(t, c, 3)
	if err == nil || len(outcomes) != 3 || outcomes[0].Untried || !outcomes[2].Untried {
		t.Fatalf("%v %+v", err, outcomes)
	}
	if !c.lessons().Careful {
		t.Error("a broken connection has taught nothing")
	}
	cloud = &endpoint{}
	internet.endpoints[first] = cloud
	if _, err = send(t, c, 1); err != nil || c.lessons().Careful {
		t.Error("a message was taken, and the connector is still careful:", err)
	}
}

func TestConnectEndsWithItsContext(t *testing.T) {
	internet := &network{names: map[string][]netip.Addr{"mx.contoso.com": {first, second}}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := mustNew(t, settings(config.TLSNone), t.TempDir(), internet).Connect(ctx); err == nil {
		t.Error("it connects")
	}
	if len(internet.dialled) != 1 {
		t.Errorf("%v was dialled after the end", internet.dialled)
	}
}

// TestSystem dials over loopback, from a chosen source.
func TestSystem(t *testing.T) {
	addresses, err := System.Lookup(t.Context(), "ip4", "localhost")
	if err != nil || len(addresses) == 0 || !addresses[0].Unmap().IsLoopback() {
		t.Error(addresses, err)
	}
	_, err = System.Dial(t.Context(), netip.MustParseAddr("192.0.2.77"), netip.MustParseAddrPort("127.0.0.1:9"))
	verdict := reply.Judge(reply.Answer{Stage: reply.Connect, Err: err})
	if err == nil || !strings.Contains(verdict.Cause, "source_address") {
		t.Error(err, verdict)
	}
}
