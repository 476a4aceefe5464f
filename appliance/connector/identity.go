package connector

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxFile bounds what is read of a certificate, key or password file, in bytes.
const maxFile = 1 << 20

// loadCertificate reads a client certificate with its intermediates, in any order, and the key. The leaf is the one
// that belongs to the key; the others follow in the order in which they sign each other, a root left out.
func loadCertificate(certificateFile, keyFile string) (*tls.Certificate, error) {
	certificates, err := readCertificates(certificateFile)
	if err != nil {
		return nil, err
	}
	key, err := readKey(keyFile)
	if err != nil {
		return nil, err
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return nil, fmt.Errorf("%s: the key is of a kind that is not known; use an RSA or ECDSA key", keyFile)
	}
	var leaf *x509.Certificate
	for _, certificate := range certificates {
		if public.Equal(certificate.PublicKey) {
			leaf = certificate
			break
		}
	}
	if leaf == nil {
		return nil, fmt.Errorf("%s: none of its %d certificates belongs to the key in %s; put the pair that was issued together there",
			certificateFile, len(certificates), keyFile)
	}
	loaded := &tls.Certificate{PrivateKey: key, Leaf: leaf}
	for _, certificate := range chain(leaf, certificates) {
		loaded.Certificate = append(loaded.Certificate, certificate.Raw)
	}
	return loaded, nil
}

// chain orders the certificates from the leaf upwards. What does not lead upwards from the leaf is left out, and so
// is a root: the endpoint has its own.
func chain(leaf *x509.Certificate, certificates []*x509.Certificate) []*x509.Certificate {
	ordered := []*x509.Certificate{leaf}
	for last := leaf; len(ordered) <= len(certificates); {
		var issuer *x509.Certificate
		for _, candidate := range certificates {
			if candidate != last && bytes.Equal(candidate.RawSubject, last.RawIssuer) && last.CheckSignatureFrom(candidate) == nil {
				issuer = candidate
				break
			}
		}
		if issuer == nil || bytes.Equal(issuer.RawSubject, issuer.RawIssuer) {
			break
		}
		ordered = append(ordered, issuer)
		last = issuer
	}
	return ordered
}

func readCertificates(file string) ([]*x509.Certificate, error) {
	content, err := readFile(file)
	if err != nil {
		return nil, err
	}
	var certificates []*x509.Certificate
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d cannot be read: %w", file, len(certificates)+1, err)
		}
		certificates = append(certificates, certificate)
	}
	if len(certificates) == 0 {
		return nil, fmt.Errorf("%s: no certificate in it; it must be PEM, with lines that say BEGIN CERTIFICATE", file)
	}
	return certificates, nil
}

// readKey reads a private key: PKCS #8, PKCS #1 or SEC 1, as PEM without a password.
func readKey(file string) (crypto.Signer, error) {
	content, err := readFile(file)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			return nil, fmt.Errorf("%s: no private key in it; it must be PEM, with lines that say BEGIN PRIVATE KEY", file)
		}
		var key any
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return nil, fmt.Errorf("%s: the key is protected by a password; remove it with openssl pkey", file)
		case block.Type == "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case block.Type == "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case block.Type == "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			continue // "EC PARAMETERS" stands before a key of OpenSSL's
		}
		if err != nil {
			// The parser's own words could quote the key.
			return nil, fmt.Errorf("%s: the private key is damaged; put the key that belongs to the certificate there", file)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("%s: the key cannot sign; use an RSA or ECDSA key", file)
		}
		return signer, nil
	}
}

// loadRoots reads the authorities that may vouch for the endpoint.
func loadRoots(file string) (*x509.CertPool, error) {
	certificates, err := readCertificates(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	for _, certificate := range certificates {
		roots.AddCert(certificate)
	}
	return roots, nil
}

// loadPassword reads a password: the whole file but one line end. Its name stays out of the errors, because it may be
// a password that somebody wrote in the wrong place.
func loadPassword(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", withoutName(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", withoutName(err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("the file has mode %04o; it holds a secret and must have mode 0600: chmod 600 it", mode)
	}
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return "", withoutName(err)
	}
	password := string(content)
	if trimmed, ok := strings.CutSuffix(password, "\n"); ok {
		password = strings.TrimSuffix(trimmed, "\r")
	}
	const maxPassword = 1024
	if password == "" || len(password) > maxPassword || strings.ContainsAny(password, "\r\n\x00") {
		return "", fmt.Errorf("the file must hold one line of 1 to %d bytes, the password alone", maxPassword)
	}
	return password, nil
}

func withoutName(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("the file cannot be read: %w; relative names begin in the state folder", path.Err)
	}
	return err
}

func readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes, which no certificate or key is", name, maxFile)
	}
	return content, nil
}
