package sim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Authority is a certificate authority of two steps, as the public ones are: a root, and an intermediate that
// signs. A client that leaves its intermediate out is not trusted.
type Authority struct {
	root, intermediate *x509.Certificate
	rootKey, key       *ecdsa.PrivateKey
}

// NewAuthority makes an authority with new keys, valid for ten years.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root, err := sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "Cloudsim Root"},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}, nil, key, key)
	if err != nil {
		return nil, err
	}
	return newAuthority(root, key)
}

func newAuthority(root *x509.Certificate, rootKey *ecdsa.PrivateKey) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	intermediate, err := sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "Cloudsim Intermediate"},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}, root, key, rootKey)
	if err != nil {
		return nil, err
	}
	return &Authority{root: root, intermediate: intermediate, rootKey: rootKey, key: key}, nil
}

// LoadAuthority reads ca.pem and ca.key in folder, or makes an authority and writes them there.
func LoadAuthority(folder string) (*Authority, error) {
	certificateFile, keyFile := filepath.Join(folder, "ca.pem"), filepath.Join(folder, "ca.key")
	pair, err := tls.LoadX509KeyPair(certificateFile, keyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		authority, err := NewAuthority()
		if err != nil {
			return nil, err
		}
		return authority, writePair(certificateFile, keyFile, [][]byte{authority.root.Raw}, authority.rootKey)
	case err != nil:
		return nil, fmt.Errorf("reading the authority: %w; remove %s and %s to have a new one made", err, certificateFile, keyFile)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: found a %T, an authority has an ECDSA key", keyFile, pair.PrivateKey)
	}
	return newAuthority(pair.Leaf, key)
}

// Issue makes a key and a certificate for names (host names or IP addresses), good for servers and clients. The
// certificate carries the intermediate.
func (a *Authority) Issue(names ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	if len(template.DNSNames) > 0 {
		template.Subject.CommonName = template.DNSNames[0]
	}
	leaf, err := sign(template, a.intermediate, key, a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{
		Certificate: [][]byte{leaf.Raw, a.intermediate.Raw},
		PrivateKey:  key,
		Leaf:        leaf,
	}, nil
}

// Roots is the pool that trusts this authority.
func (a *Authority) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.root)
	return pool
}

// RootPEM is the root certificate, as ca_file takes it.
func (a *Authority) RootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw})
}

// WriteCertificate writes a certificate with its intermediates to folder/name.crt and its key to
// folder/name.key, mode 0600.
func WriteCertificate(folder, name string, certificate tls.Certificate) error {
	return writePair(filepath.Join(folder, name+".crt"), filepath.Join(folder, name+".key"), certificate.Certificate, certificate.PrivateKey)
}

func writePair(certificateFile, keyFile string, chain [][]byte, key any) error {
	var certificates []byte
	for _, certificate := range chain {
		certificates = append(certificates, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})...)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600); err != nil {
		return err
	}
	return os.WriteFile(certificateFile, certificates, 0o644)
}

// sign completes template and signs it; without a parent it signs itself.
func sign(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template.SerialNumber = serial
	template.NotBefore = now.Add(-24 * time.Hour) // clocks differ
	template.NotAfter = now.AddDate(10, 0, 0)
	if parent == nil {
		parent = template
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(raw)
}
