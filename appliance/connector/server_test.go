package connector

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// authority issues certificates for tests.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string, parent *authority) *authority {
	t.Helper()
	certificate, key := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, parent)
	return &authority{certificate, key}
}

func (a *authority) leaf(t *testing.T, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	return issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, a)
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

func issue(t *testing.T, template *x509.Certificate, parent *authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	issuer, issuerKey := template, key
	if parent != nil {
		issuer, issuerKey = parent.certificate, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, key
}

func certificatesPEM(certificates ...*x509.Certificate) string {
	var text strings.Builder
	for _, certificate := range certificates {
		pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
	}
	return text.String()
}

func keyPEM(t *testing.T, key crypto.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// write puts a file into a state folder and returns its name.
func write(t *testing.T, state, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(state, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// endpoint is a server of a cloud that stands on one or more addresses of a fake network. All traffic is on loopback.
type endpoint struct {
	config     *tls.Config // nil: no STARTTLS
	account    string      // base64 of the AUTH PLAIN response that is right; empty: no AUTH
	banner     string      // instead of 220
	strict     bool        // offers PIPELINING and answers 503 when it is used
	hangUp     bool        // closes after the first body
	brokenTLS  bool        // closes in the middle of the handshake
	mu         sync.Mutex
	shown      [][]*x509.Certificate // client certificates, one list a handshake
	commands   []string
	inOneWrite int // most commands that came at once
}

func (e *endpoint) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	say := func(lines ...string) { fmt.Fprint(conn, strings.Join(lines, "\r\n")+"\r\n") }
	if e.banner != "" {
		say(e.banner)
	} else {
		say("220 ready")
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		verb, _, _ := strings.Cut(line, " ")
		e.mu.Lock()
		e.commands = append(e.commands, line)
		e.inOneWrite = max(e.inOneWrite, 1+strings.Count(peek(r), "\r\n"))
		e.mu.Unlock()
		_, encrypted := conn.(*tls.Conn)
		switch {
		case verb == "EHLO":
			lines := []string{"250-mx.contoso.com", "250-PIPELINING", "250-CHUNKING"}
			if e.config != nil && !encrypted {
				lines = append(lines, "250-STARTTLS")
			}
			if e.account != "" {
				lines = append(lines, "250-AUTH PLAIN")
			}
			say(append(lines, "250 8BITMIME")...)
		case verb == "STARTTLS":
			say("220 go on")
			if e.brokenTLS {
				io.CopyN(io.Discard, r, 10)
				return
			}
			secured := tls.Server(conn, e.config)
			if secured.Handshake() != nil {
				return
			}
			e.mu.Lock()
			e.shown = append(e.shown, secured.ConnectionState().PeerCertificates)
			e.mu.Unlock()
			conn, r = secured, bufio.NewReader(secured)
		case verb == "AUTH" && line == "AUTH PLAIN "+e.account:
			say("235 2.7.0 welcome")
		case verb == "AUTH":
			say("535 5.7.3 Authentication unsuccessful")
		case verb == "BDAT":
			size := 0
			fmt.Sscanf(line, "BDAT %d", &size)
			r.Discard(size)
			if e.hangUp {
				return
			}
			say("250 queued")
		case verb == "QUIT":
			say("221 bye")
			return
		case e.strict && (verb == "MAIL" || verb == "RCPT") && r.Buffered() > 0:
			say("250 ok")
			for r.Buffered() > 0 {
				if _, err = r.ReadString('\n'); err != nil {
					return
				}
				say("503 5.5.1 one after the other, please")
			}
		default:
			say("250 ok")
		}
	}
}

func peek(r *bufio.Reader) string {
	buffered, _ := r.Peek(r.Buffered())
	return string(buffered)
}

// network is a small Internet: names, addresses, and what stands there.
type network struct {
	names     map[string][]netip.Addr
	endpoints map[netip.Addr]*endpoint // nil: refused
	mu        sync.Mutex
	asked     []string // "ip4 mx.contoso.com"
	dialled   []string // "192.0.2.1:25 from invalid IP"
}

func (n *network) Lookup(_ context.Context, network, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, network+" "+host)
	addresses, ok := n.names[host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addresses, nil
}

func (n *network) Dial(ctx context.Context, source netip.Addr, target netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	n.dialled = append(n.dialled, target.String()+" from "+source.String())
	n.mu.Unlock()
	server := n.endpoints[target.Addr()]
	if server == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(target), Err: errors.New("connection refused")}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	near, err := System.Dial(ctx, netip.Addr{}, netip.MustParseAddrPort(listener.Addr().String()))
	if err != nil {
		return nil, err
	}
	far, err := listener.Accept()
	if err != nil {
		return nil, err
	}
	go server.serve(far)
	return near, nil
}

func (n *network) calls() (dialled []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	dialled, n.dialled = n.dialled, nil
	return dialled
}
