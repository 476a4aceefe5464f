package connector

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailchute/appliance/config"
)

// TestLoadCertificate: any order of the file, any form of the key; the leaf first, then what signed it, no root.
func TestLoadCertificate(t *testing.T) {
	root := newAuthority(t, "Root", nil)
	upper := newAuthority(t, "Upper", root)
	lower := newAuthority(t, "Lower", upper)
	stranger := newAuthority(t, "Stranger", nil)
	leaf, key := lower.leaf(t, "relay.contoso.com")
	lone, loneKey := root.leaf(t, "lone.contoso.com")
	sec1, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	openssl := "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" +
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}))
	all := []*x509.Certificate{leaf, lower.certificate, upper.certificate}
	for _, test := range []struct {
		name, certificates, key string
		want                    []*x509.Certificate
	}{
		{"in order", certificatesPEM(leaf, lower.certificate, upper.certificate), keyPEM(t, key), all},
		{"backwards, with the root", certificatesPEM(root.certificate, upper.certificate, lower.certificate, leaf), keyPEM(t, key), all},
		{"with a stranger and twice the same", certificatesPEM(stranger.certificate, lower.certificate, leaf, lower.certificate, upper.certificate, leaf), keyPEM(t, key), all},
		{"the intermediate is missing", certificatesPEM(leaf, upper.certificate), keyPEM(t, key), all[:1]},
		{"no intermediate is needed", certificatesPEM(lone), keyPEM(t, loneKey), []*x509.Certificate{lone}},
		{"OpenSSL's form of the key, text around it", "Subject: x\n" + certificatesPEM(leaf) + "\n", openssl, all[:1]},
		{"self-signed", certificatesPEM(root.certificate), keyPEM(t, root.key), []*x509.Certificate{root.certificate}},
	} {
		t.Run(test.name, func(t *testing.T) {
			state := t.TempDir()
			loaded, err := loadCertificate(write(t, state, "a.crt", test.certificates, 0o644), write(t, state, "a.key", test.key, 0o600))
			if err != nil {
				t.Fatal(err)
			}
			if len(loaded.Certificate) != len(test.want) {
				t.Fatalf("%d certificates, want %d", len(loaded.Certificate), len(test.want))
			}
			for at, certificate := range test.want {
				if string(loaded.Certificate[at]) != string(certificate.Raw) {
					t.Errorf("certificate %d is not that of %s", at, certificate.Subject)
				}
			}
			if !loaded.PrivateKey.(*ecdsa.PrivateKey).PublicKey.Equal(test.want[0].PublicKey) {
				t.Error("the key is another")
			}
		})
	}
}

// TestBadFiles: what is wrong, where, and what to do; never a secret.
func TestBadFiles(t *testing.T) {
	root := newAuthority(t, "Root", nil)
	leaf, key := root.leaf(t, "relay.contoso.com")
	_, otherKey := root.leaf(t, "other.contoso.com")
	const secret = "hunter2"
	good := map[string]string{"certs/relay.crt": certificatesPEM(leaf), "certs/relay.key": keyPEM(t, key),
		"ca.pem": certificatesPEM(root.certificate), "secrets/m365": secret}
	for _, test := range []struct {
		name, file, content string // "" removes it
		mode                os.FileMode
		want                []string
	}{
		{"no certificate file", "certs/relay.crt", "", 0, []string{`certificate "relay"`, "no such file"}},
		{"no certificate in it", "certs/relay.crt", "hello", 0o644, []string{"relay.crt: no certificate in it", "BEGIN CERTIFICATE"}},
		{"a damaged certificate", "certs/relay.crt", "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n", 0o644, []string{"certificate 1 cannot be read"}},
		{"the key of another", "certs/relay.key", keyPEM(t, otherKey), 0o600, []string{"none of its 1 certificates belongs to the key"}},
		{"no key in it", "certs/relay.key", certificatesPEM(leaf), 0o600, []string{"relay.key: no private key in it"}},
		{"a damaged key", "certs/relay.key", "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----\n", 0o600, []string{"relay.key: the private key is damaged"}},
		{"a key behind a password", "certs/relay.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\naGVsbG8=\n-----END ENCRYPTED PRIVATE KEY-----\n", 0o600, []string{"protected by a password"}},
		{"a huge file", "certs/relay.crt", strings.Repeat("x", maxFile+1), 0o644, []string{"larger than 1048576 bytes"}},
		{"no authority in ca_file", "ca.pem", "hello", 0o644, []string{"ca_file", "ca.pem: no certificate in it"}},
		{"a password others may read", "secrets/m365", secret, 0o640, []string{"password_file", "mode 0640", "chmod 600"}},
		{"an empty password", "secrets/m365", "\n", 0o600, []string{"one line of 1 to 1024 bytes"}},
		{"a password of two lines", "secrets/m365", secret + "\n" + secret + "\n", 0o600, []string{"one line"}},
		{"no password file", "secrets/m365", "", 0, []string{"password_file: the file cannot be read: no such file"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			state := t.TempDir()
			for file, content := range good {
				write(t, state, file, content, 0o600)
			}
			if test.content == "" {
				if err := os.Remove(filepath.Join(state, test.file)); err != nil {
					t.Fatal(err)
				}
			} else {
				write(t, state, test.file, test.content, test.mode)
			}
			s := settings(config.TLSVerified)
			s.Certificate, s.CAFile, s.Username, s.PasswordFile = "relay", "ca.pem", "scan", "secrets/m365"
			_, err := New(s, "relay.contoso.com", state, System)
			if err == nil {
				t.Fatal("it is accepted")
			}
			for _, want := range append(test.want, `connector "m365"`) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is missing: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "aGVsbG8") {
				t.Error("a secret is in the error:", err)
			}
		})
	}
}

func TestPassword(t *testing.T) {
	for content, want := range map[string]string{"a b": "a b", "a\n": "a", "a\r\n": "a", " a \n": " a ", "ä": "ä"} {
		got, err := loadPassword(write(t, t.TempDir(), "p", content, 0o600))
		if err != nil || got != want {
			t.Errorf("%q gives %q (%v), want %q", content, got, err, want)
		}
	}
}
