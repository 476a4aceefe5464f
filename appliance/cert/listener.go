// Package cert keeps certificates and their keys: now the box's own, which its listeners show to devices.
package cert

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// The listeners' certificate in its folder: certs/ of the state folder.
const (
	ListenerCertificate = "listener.crt"
	ListenerKey         = "listener.key"
)

// organization marks the certificates the box makes. One without it is an administrator's, and is never replaced.
const organization = "Mailchute (made by the box)"

// What old devices take: RSA of 2048 bits (many know no elliptic curves, and are slow with more bits), SHA-256, no
// end they could stumble over. Clocks that count seconds in 32 bits end on 19 January 2038; a device whose battery
// is empty believes to be in the year 2000.
const keyBits = 2048

var (
	notBefore    = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	end32Bit     = time.Date(2038, 1, 18, 0, 0, 0, 0, time.UTC)
	validity     = 10 * 365 * 24 * time.Hour
	leastLeft    = 2 * 365 * 24 * time.Hour // with less to go until the end of 32 bits, validity counts
	maxCommon    = 64                       // characters of a common name (RFC 5280 appendix A, ub-common-name)
	maxAddresses = 100
)

// Options of a Listener.
type Options struct {
	Folder    string                                  // where the two files are; made if missing, mode 0700
	Hostname  string                                  // of the box
	Addresses func() ([]netip.Addr, error)            // of the box; nil: those of its network interfaces
	Now       func() time.Time                        // nil: time.Now
	Log       *slog.Logger                            // nil: slog.Default
	Generate  func(bits int) (*rsa.PrivateKey, error) // nil: rsa.GenerateKey
}

// Listener is the certificate devices are shown: it signs itself, is made at first start, and made again when it
// is missing, cannot be read, has expired, or the box has another name.
type Listener struct {
	options Options

	mu       sync.Mutex
	hostname string
	current  *tls.Certificate
}

// OpenListener reads the certificate, or makes it.
func OpenListener(options Options) (*Listener, error) {
	if options.Addresses == nil {
		options.Addresses = interfaceAddresses
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Log == nil {
		options.Log = slog.Default()
	}
	if options.Generate == nil {
		options.Generate = func(bits int) (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, bits) }
	}
	l := &Listener{options: options, hostname: options.Hostname}
	loaded, err := l.load()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			options.Log.Warn("the listeners' certificate cannot be used; it is set aside and made again", "folder", options.Folder, "error", err)
		}
		l.setAside()
	}
	l.current = loaded
	_, err = l.Certificate()
	return l, err
}

// Certificate is the one to show now. Its signature fits tls.Config.GetCertificate but for the argument; it is
// cheap but when a certificate has to be made. An administrator's own is shown even when it has expired.
func (l *Listener) Certificate() (*tls.Certificate, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current != nil && l.fits(l.current.Leaf) {
		return l.current, nil
	}
	made, err := l.make()
	if err != nil {
		return nil, err
	}
	l.current = made
	return made, nil
}

// SetHostname has the certificate made again if it is for another name.
func (l *Listener) SetHostname(hostname string) error {
	l.mu.Lock()
	l.hostname = hostname
	l.mu.Unlock()
	_, err := l.Certificate()
	return err
}

// Fingerprint is the SHA-256 of a certificate, in hex, as people compare it with what a device shows.
func Fingerprint(certificate *tls.Certificate) string {
	sum := sha256.Sum256(certificate.Certificate[0])
	return hex.EncodeToString(sum[:])
}

// fits tells whether the certificate can stay.
func (l *Listener) fits(leaf *x509.Certificate) bool {
	if !slices.Equal(leaf.Subject.Organization, []string{organization}) {
		return true
	}
	return l.options.Now().Before(leaf.NotAfter) && slices.Contains(leaf.DNSNames, l.hostname)
}

func (l *Listener) load() (*tls.Certificate, error) {
	loaded, err := tls.LoadX509KeyPair(filepath.Join(l.options.Folder, ListenerCertificate), filepath.Join(l.options.Folder, ListenerKey))
	if err != nil {
		return nil, err
	}
	return &loaded, nil
}

// make makes the certificate and writes it down.
func (l *Listener) make() (*tls.Certificate, error) {
	made, certificatePEM, keyPEM, err := l.generate()
	if err != nil {
		return nil, fmt.Errorf("make the listeners' certificate: %w", err)
	}
	l.options.Log.Info("made the listeners' certificate", "hostname", l.hostname, "until", made.Leaf.NotAfter,
		"fingerprint", Fingerprint(made))
	if err := l.keep(certificatePEM, keyPEM); err != nil { // mail is taken all the same
		l.options.Log.Error("the listeners' certificate could not be kept; the next start makes another one", "error", err)
	}
	return made, nil
}

// keep writes the pair down. A crash in between leaves one that does not fit, which is made again.
func (l *Listener) keep(certificatePEM, keyPEM []byte) error {
	if err := os.MkdirAll(l.options.Folder, 0o700); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(l.options.Folder, ListenerKey), keyPEM); err != nil {
		return err
	}
	return writeFile(filepath.Join(l.options.Folder, ListenerCertificate), certificatePEM)
}

// setAside keeps what cannot be used: it may be an administrator's.
func (l *Listener) setAside() {
	for _, name := range []string{ListenerCertificate, ListenerKey} {
		path := filepath.Join(l.options.Folder, name)
		if err := os.Rename(path, path+".unusable"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.options.Log.Warn("set the listeners' certificate aside", "error", err)
		}
	}
}

func (l *Listener) generate() (made *tls.Certificate, certificatePEM, keyPEM []byte, err error) {
	addresses, err := l.options.Addresses()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("find the box's addresses: %w", err)
	}
	key, err := l.options.Generate(keyBits)
	if err != nil {
		return nil, nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)) // RFC 5280 4.1.2.2: at most 20 octets
	if err != nil {
		return nil, nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{organization}},
		NotBefore:    notBefore,
		NotAfter:     l.notAfter(),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment, // the second for RSA key exchange
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{l.hostname},
	}
	if len(l.hostname) <= maxCommon { // older clients look nowhere else
		template.Subject.CommonName = l.hostname
	}
	for _, address := range addresses[:min(len(addresses), maxAddresses)] {
		template.IPAddresses = append(template.IPAddresses, address.Unmap().WithZone("").AsSlice())
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, nil, err
	}
	certificatePEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	pair, err := tls.X509KeyPair(certificatePEM, keyPEM)
	return &pair, certificatePEM, keyPEM, err
}

func (l *Listener) notAfter() time.Time {
	now := l.options.Now()
	end := now.Add(validity)
	if end.After(end32Bit) && now.Add(leastLeft).Before(end32Bit) {
		return end32Bit
	}
	return end.UTC().Truncate(time.Second)
}

// interfaceAddresses are those devices can reach.
func interfaceAddresses() (addresses []netip.Addr, err error) {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for _, one := range found {
		prefix, err := netip.ParsePrefix(one.String())
		if err != nil || prefix.Addr().IsLoopback() || prefix.Addr().IsLinkLocalUnicast() {
			continue
		}
		addresses = append(addresses, prefix.Addr())
	}
	return addresses, nil
}

// writeFile replaces a file whole, on disk when it returns, for the owner alone to read.
func writeFile(path string, content []byte) (err error) {
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			temporary.Close()
			os.Remove(temporary.Name())
		}
	}()
	if _, err = temporary.Write(content); err != nil {
		return err
	}
	if err = temporary.Sync(); err != nil {
		return err
	}
	if err = temporary.Close(); err != nil {
		return err
	}
	if err = os.Rename(temporary.Name(), path); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
