package cert

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// oneKey is made once: making one takes longer than all else here.
var oneKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, keyBits) })

type fixture struct {
	Options
	now  time.Time
	made int // certificates
	log  bytes.Buffer
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{now: time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC)}
	f.Options = Options{
		Folder: filepath.Join(t.TempDir(), "certs"), Hostname: "relay.contoso.com",
		Addresses: func() ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("192.168.1.5"), netip.MustParseAddr("fd00::5")}, nil
		},
		Now: func() time.Time { return f.now },
		Log: slog.New(slog.NewTextHandler(&f.log, nil)),
		Generate: func(bits int) (*rsa.PrivateKey, error) {
			if f.made++; bits != 2048 {
				t.Errorf("a key of %d bits", bits)
			}
			return oneKey()
		},
	}
	return f
}

func (f *fixture) open(t *testing.T) (*Listener, *tls.Certificate) {
	t.Helper()
	l, err := OpenListener(f.Options)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := l.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	return l, certificate
}

func TestFirstStartMakesOne(t *testing.T) {
	f := newFixture(t)
	_, certificate := f.open(t)
	leaf := certificate.Leaf
	if diff := cmp.Diff([]string{"relay.contoso.com"}, leaf.DNSNames); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"relay.contoso.com", "192.168.1.5", "fd00::5"} {
		roots := x509.NewCertPool()
		roots.AddCert(leaf)
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: f.now}); err != nil {
			t.Errorf("a client that trusts it refuses it for %s: %v", name, err)
		}
	}
	if _, isRSA := leaf.PublicKey.(*rsa.PublicKey); !isRSA || leaf.SignatureAlgorithm != x509.SHA256WithRSA {
		t.Errorf("%T, %v", leaf.PublicKey, leaf.SignatureAlgorithm)
	}
	for _, name := range []string{"listener.crt", "listener.key"} {
		info, err := os.Stat(filepath.Join(f.Folder, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	entries, err := os.ReadDir(f.Folder)
	if err != nil || len(entries) != 2 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
	if strings.Contains(f.log.String(), "PRIVATE") {
		t.Error("the log has the key")
	}
}

func TestItStays(t *testing.T) {
	f := newFixture(t)
	_, first := f.open(t)
	l, second := f.open(t)
	if err := l.SetHostname("relay.contoso.com"); err != nil {
		t.Fatal(err)
	}
	if f.made != 1 || Fingerprint(first) != Fingerprint(second) {
		t.Errorf("%d were made", f.made)
	}
}

func TestItIsMadeAgain(t *testing.T) {
	for _, test := range []struct {
		name    string
		spoil   func(t *testing.T, f *fixture)
		reopen  bool
		unusual string // in the log
	}{
		{"key missing", func(t *testing.T, f *fixture) { remove(t, f, "listener.key") }, true, ""},
		{"certificate missing", func(t *testing.T, f *fixture) { remove(t, f, "listener.crt") }, true, ""},
		{"unreadable", func(t *testing.T, f *fixture) { write(t, f, "listener.crt", "garbage") }, true, "set aside"},
		{"cut off", func(t *testing.T, f *fixture) { write(t, f, "listener.key", "") }, true, "set aside"},
		{"expired", func(t *testing.T, f *fixture) { f.now = f.now.AddDate(12, 0, 0) }, true, ""},
		{"expired while running", func(t *testing.T, f *fixture) { f.now = f.now.AddDate(12, 0, 0) }, false, ""},
		{"another name at start", func(t *testing.T, f *fixture) { f.Hostname = "new.contoso.com" }, true, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			l, first := f.open(t)
			test.spoil(t, f)
			f.log.Reset()
			var second *tls.Certificate
			if test.reopen {
				_, second = f.open(t)
			} else if again, err := l.Certificate(); err != nil {
				t.Fatal(err)
			} else {
				second = again
			}
			if f.made != 2 || Fingerprint(first) == Fingerprint(second) {
				t.Errorf("%d were made", f.made)
			}
			if !f.now.Before(second.Leaf.NotAfter) || second.Leaf.DNSNames[0] != f.Hostname {
				t.Errorf("for %v until %v", second.Leaf.DNSNames, second.Leaf.NotAfter)
			}
			if !strings.Contains(f.log.String(), test.unusual) {
				t.Errorf("the log says %s", f.log.String())
			}
			if _, third := f.open(t); Fingerprint(second) != Fingerprint(third) {
				t.Error("it was not kept")
			}
		})
	}
}

func TestAnotherNameWhileRunning(t *testing.T) {
	f := newFixture(t)
	l, _ := f.open(t)
	if err := l.SetHostname("new.contoso.com"); err != nil {
		t.Fatal(err)
	}
	certificate, err := l.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"new.contoso.com"}, certificate.Leaf.DNSNames); diff != "" {
		t.Error(diff)
	}
}

// What an administrator has put there stays, whatever its name and end.
func TestAnAdministratorsOwnStays(t *testing.T) {
	f := newFixture(t)
	key, err := oneKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "other"}, NotAfter: f.now.AddDate(-1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(f.Folder, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, f, "listener.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, f, "listener.key", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	if _, certificate := f.open(t); certificate.Leaf.Subject.CommonName != "other" || f.made != 0 {
		t.Errorf("%v is shown, %d were made", certificate.Leaf.Subject, f.made)
	}
}

// Unusable files are kept beside: they may be an administrator's.
func TestSetAside(t *testing.T) {
	f := newFixture(t)
	f.open(t)
	write(t, f, "listener.crt", "mine")
	f.open(t)
	content, err := os.ReadFile(filepath.Join(f.Folder, "listener.crt.unusable"))
	if err != nil || string(content) != "mine" {
		t.Errorf("%q, %v", content, err)
	}
	remove(t, f, "listener.crt")
	write(t, f, "listener.key", "my key, without its certificate yet")
	f.open(t)
	content, err = os.ReadFile(filepath.Join(f.Folder, "listener.key.unusable"))
	if err != nil || string(content) != "my key, without its certificate yet" {
		t.Errorf("%q, %v", content, err)
	}
}

// Without a place to keep it, the certificate serves as long as the box runs.
func TestNowhereToKeepIt(t *testing.T) {
	f := newFixture(t)
	if err := os.WriteFile(f.Folder, nil, 0o600); err != nil { // a file where the folder should be
		t.Fatal(err)
	}
	l, certificate := f.open(t)
	if again, err := l.Certificate(); err != nil || again != certificate {
		t.Errorf("the next handshake has another one, %v", err)
	}
	if !strings.Contains(f.log.String(), "could not be kept") {
		t.Errorf("the log says %s", f.log.String())
	}
}

func TestEnd(t *testing.T) {
	for _, test := range []struct{ now, end string }{
		{"2026-03-04", "2036-03-01"},
		{"2030-01-01", "2038-01-18"}, // the end of 32-bit time
		{"2037-01-01", "2046-12-30"}, // too near to it
		{"2045-01-01", "2054-12-30"},
	} {
		now, err := time.Parse(time.DateOnly, test.now)
		if err != nil {
			t.Fatal(err)
		}
		l := &Listener{options: Options{Now: func() time.Time { return now }}}
		if got := l.notAfter().Format(time.DateOnly); got != test.end {
			t.Errorf("made on %s it ends on %s, want %s", test.now, got, test.end)
		}
	}
}

func TestFailures(t *testing.T) {
	failure := errors.New("no such luck")
	f := newFixture(t)
	f.Addresses = func() ([]netip.Addr, error) { return nil, failure }
	if _, err := OpenListener(f.Options); !errors.Is(err, failure) {
		t.Errorf("%v, want %v", err, failure)
	}
	f = newFixture(t)
	f.Generate = func(int) (*rsa.PrivateKey, error) { return nil, failure }
	if _, err := OpenListener(f.Options); !errors.Is(err, failure) {
		t.Errorf("%v, want %v", err, failure)
	}
}

// The defaults make one a TLS client can use, RSA key exchange (TLS 1.2, old devices) included.
func TestHandshake(t *testing.T) {
	l, err := OpenListener(Options{Folder: t.TempDir(), Hostname: strings.Repeat("long.", 20) + "contoso.com",
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for name, suites := range map[string][]uint16{"modern": nil, "RSA key exchange": {tls.TLS_RSA_WITH_AES_128_CBC_SHA}} {
		near, far := net.Pipe()
		server := tls.Server(far, &tls.Config{CipherSuites: suites,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return l.Certificate() }})
		done := make(chan error, 1)
		go func() { done <- server.Handshake() }()
		maxVersion := uint16(0)
		if suites != nil {
			maxVersion = tls.VersionTLS12
		}
		client := tls.Client(near, &tls.Config{InsecureSkipVerify: true, CipherSuites: suites, MaxVersion: maxVersion})
		if err := client.Handshake(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		near.Close()
		far.Close()
	}
}

func remove(t *testing.T, f *fixture, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(f.Folder, name)); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, f *fixture, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.Folder, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
