// Package connector is one cloud endpoint each: where it is, who the box is to it, and what earlier connections
// have taught about it.
package connector

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"mailchute/appliance/config"
	"mailchute/appliance/reply"
	"mailchute/appliance/smtpclient"
)

const (
	lookupTimeout  = 30 * time.Second
	connectTimeout = 30 * time.Second // each address
)

// Network is the way out of the box.
type Network interface {
	// Lookup gives the addresses of a host; network is "ip", "ip4" or "ip6" (see net.Resolver.LookupNetIP).
	Lookup(ctx context.Context, network, host string) ([]netip.Addr, error)
	// Dial opens a TCP connection, from source where it is valid.
	Dial(ctx context.Context, source netip.Addr, target netip.AddrPort) (net.Conn, error)
}

// System is the machine's own network.
var System Network = system{}

type system struct{}

func (system) Lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, network, host)
}

func (system) Dial(ctx context.Context, source netip.Addr, target netip.AddrPort) (net.Conn, error) {
	var dialer net.Dialer
	if source.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	return dialer.DialContext(ctx, "tcp", target.String())
}

// Connector opens connections to one endpoint. It may be used by several goroutines.
type Connector struct {
	settings config.Connector
	network  Network
	options  smtpclient.Options
	leaf     *x509.Certificate

	mu       sync.Mutex
	lastGood netip.Addr // tried first
	stepwise bool       // it has answered 503 to pipelined commands
	careful  bool       // a connection broke, and no message has been taken since
}

// New makes a connector from its settings and the files they name: certificate and key, authorities, password. The
// error names the connector, the key and what to do. hostname is the name the box greets with.
func New(settings config.Connector, hostname, stateDir string, network Network) (*Connector, error) {
	c := &Connector{settings: settings, network: network}
	c.options = smtpclient.Options{
		Host:       settings.Host,
		Hello:      hostname,
		TLS:        smtpclient.Policy(settings.TLS),
		Implicit:   settings.TLSMode == config.TLSImplicit,
		VerifyName: strings.TrimSuffix(settings.TLSName, "."),
		Username:   settings.Username,
		Ended:      c.learn,
	}
	if c.options.VerifyName == "" {
		c.options.VerifyName = strings.TrimSuffix(settings.Host, ".")
	}
	var err error
	if settings.Certificate != "" {
		certificate, key := settings.CertificateFiles(stateDir)
		if c.options.Certificate, err = loadCertificate(certificate, key); err != nil {
			return nil, fmt.Errorf("connector %q: certificate %q: %w", settings.Name, settings.Certificate, err)
		}
		c.leaf = c.options.Certificate.Leaf
	}
	if settings.CAFile != "" {
		if c.options.Roots, err = loadRoots(config.Path(stateDir, settings.CAFile)); err != nil {
			return nil, fmt.Errorf("connector %q: ca_file: %w", settings.Name, err)
		}
	}
	if settings.PasswordFile != "" {
		if c.options.Password, err = loadPassword(config.Path(stateDir, settings.PasswordFile)); err != nil {
			return nil, fmt.Errorf("connector %q: password_file: %w", settings.Name, err)
		}
	}
	return c, nil
}

// Certificate is the client certificate the box shows the endpoint; nil: none.
func (c *Connector) Certificate() *x509.Certificate { return c.leaf }

// Connect resolves the host and opens a connection that is ready for mail. All addresses are tried, the one that
// worked last before the others. The error is a *smtpclient.Error: its answer is that of the address where it got
// farthest, and its Err names all that were tried.
func (c *Connector) Connect(ctx context.Context) (*smtpclient.Conn, error) {
	addresses, err := c.addresses(ctx)
	if err != nil {
		return nil, &smtpclient.Error{Answer: reply.Answer{Stage: reply.Resolve, Err: err}}
	}
	options := c.lessons()
	failed := &failures{host: c.settings.Host}
	for _, address := range addresses {
		target := netip.AddrPortFrom(address, uint16(c.settings.Port))
		conn, err := c.try(ctx, target, options)
		if err == nil {
			c.mu.Lock()
			c.lastGood = address
			c.mu.Unlock()
			return conn, nil
		}
		answer := err.Answer
		failed.add(target, answer)
		// The next address would ask the same account again, and an account is locked after a few refusals.
		if ctx.Err() != nil || answer.Stage == reply.Auth && answer.Reply.Code/100 == 5 {
			break
		}
	}
	return nil, failed.error()
}

// try opens one connection to one address. Where TLS is a matter of opportunity and fails, it begins again in plain.
func (c *Connector) try(ctx context.Context, target netip.AddrPort, options smtpclient.Options) (*smtpclient.Conn, *smtpclient.Error) {
	conn, err := c.dial(ctx, target, options)
	if err == nil || ctx.Err() != nil || !encryptionFailed(err) {
		return conn, err
	}
	if options.TLS != smtpclient.Opportunistic || options.Implicit || options.Username != "" {
		return nil, err
	}
	options.TLS = smtpclient.None
	return c.dial(ctx, target, options)
}

func encryptionFailed(err *smtpclient.Error) bool {
	stage := err.Answer.Stage
	return stage == reply.TLS || stage == reply.StartTLS && err.Answer.Err != nil
}

func (c *Connector) dial(ctx context.Context, target netip.AddrPort, options smtpclient.Options) (*smtpclient.Conn, *smtpclient.Error) {
	limited, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	established, err := c.network.Dial(limited, c.settings.SourceAddress, target)
	if err != nil {
		return nil, &smtpclient.Error{Answer: reply.Answer{Stage: reply.Connect, Err: err}}
	}
	conn, err := smtpclient.Open(ctx, established, options)
	if err != nil {
		var failed *smtpclient.Error
		if !errors.As(err, &failed) {
			failed = &smtpclient.Error{Answer: reply.Answer{Stage: reply.Hello, Err: err}}
		}
		return nil, failed
	}
	return conn, nil
}

// addresses gives the host's addresses of the kinds the settings allow, the last good one first.
func (c *Connector) addresses(ctx context.Context) ([]netip.Addr, error) {
	family, network := string(c.settings.IP), "ip"
	switch source := c.settings.SourceAddress; {
	case c.settings.IP == config.IP4, source.IsValid() && source.Unmap().Is4():
		family, network = "4", "ip4"
	case c.settings.IP == config.IP6, source.IsValid():
		family, network = "6", "ip6"
	}
	resolved, err := c.lookup(ctx, network)
	if err != nil {
		return nil, err
	}
	addresses := make([]netip.Addr, 0, len(resolved))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, address := range resolved {
		address = address.Unmap()
		if network == "ip4" && !address.Is4() || network == "ip6" && address.Is4() {
			continue
		}
		addresses = append(addresses, address)
		if address == c.lastGood {
			copy(addresses[1:], addresses)
			addresses[0] = address
		}
	}
	if len(addresses) == 0 {
		return nil, &net.DNSError{Name: c.settings.Host, IsNotFound: true,
			Err: fmt.Sprintf("no address the connector may use (ip: %s, source_address: %s)", family, orNone(c.settings.SourceAddress))}
	}
	return addresses, nil
}

func (c *Connector) lookup(ctx context.Context, network string) ([]netip.Addr, error) {
	if literal, err := netip.ParseAddr(c.settings.Host); err == nil {
		return []netip.Addr{literal}, nil
	}
	limited, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	return c.network.Lookup(limited, network, c.settings.Host)
}

func orNone(address netip.Addr) string {
	if !address.IsValid() {
		return "none"
	}
	return address.String()
}

// learn takes what a connection has taught.
func (c *Connector) learn(summary smtpclient.Summary) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stepwise = c.stepwise || summary.OutOfStep
	switch {
	case summary.Broken:
		c.careful = true
	case summary.Sent > 0:
		c.careful = false
	}
}

// lessons are the options of the next connection.
func (c *Connector) lessons() smtpclient.Options {
	c.mu.Lock()
	defer c.mu.Unlock()
	options := c.options
	options.Pipelining = !c.stepwise
	options.Careful = c.careful
	return options
}
