package smtpclient

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"
)

// authority issues certificates for tests.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	chain       [][]byte // what leads to the root, the root left out
}

var validFrom = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // when the clock of a bubble starts

func newAuthority(t *testing.T, name string, parent *authority) *authority {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	a := &authority{}
	a.certificate, a.key = issue(t, template, parent)
	if parent != nil {
		a.chain = append([][]byte{a.certificate.Raw}, parent.chain...)
	}
	return a
}

// leaf issues a certificate for a name, valid for the given time, with all that leads to the root.
func (a *authority) leaf(t *testing.T, name string, lifetime time.Duration) *tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotAfter:    validFrom.Add(lifetime),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	certificate, key := issue(t, template, a)
	return &tls.Certificate{Certificate: append([][]byte{certificate.Raw}, a.chain...), PrivateKey: key, Leaf: certificate}
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
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore = serial, validFrom
	if template.NotAfter.IsZero() {
		template.NotAfter = validFrom.AddDate(100, 0, 0)
	}
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

// century is a lifetime that ends after every test.
const century = 100 * 365 * 24 * time.Hour

// greet speaks the server's part up to the encrypted EHLO.
func greet(conn net.Conn, config *tls.Config, script string) (net.Conn, error) {
	if err := playOn(conn, hello+"> 250-mx.contoso.com\n> 250 STARTTLS\n< STARTTLS\n> 220 go on"); err != nil {
		return nil, err
	}
	encrypted := tls.Server(conn, config)
	if err := encrypted.Handshake(); err != nil {
		return nil, err
	}
	return encrypted, playOn(encrypted, script)
}
