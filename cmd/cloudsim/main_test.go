package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// serve runs cloudsim on a free port and returns its address, its credentials and its further lines.
func serve(t *testing.T, args arguments) (address string, lines *bufio.Scanner) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	reader, writer := io.Pipe()
	over := make(chan error, 1)
	go func() {
		err := run(ctx, args, writer)
		writer.CloseWithError(io.EOF)
		over <- err
	}()
	t.Cleanup(func() {
		cancel()
		go io.Copy(io.Discard, reader)
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	lines = bufio.NewScanner(reader)
	if !lines.Scan() {
		t.Fatalf("no line: %v", lines.Err())
	}
	_, address, found := strings.Cut(lines.Text(), " listens on ")
	if !found {
		t.Fatalf("first line %q", lines.Text())
	}
	return address, lines
}

func testArguments(t *testing.T) arguments {
	return arguments{Listen: "127.0.0.1:0", Store: t.TempDir(), Credentials: t.TempDir(), Domain: []string{"contoso.com"}}
}

// Go's own client, with the certificate cloudsim wrote, may relay to anybody.
func TestNetSMTP(t *testing.T) {
	args := testArguments(t)
	address, lines := serve(t, args)
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(args.Credentials, "ca.pem"))
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("ca.pem: %v", err)
	}
	certificate, err := tls.LoadX509KeyPair(filepath.Join(args.Credentials, "relay.crt"), filepath.Join(args.Credentials, "relay.key"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := smtp.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	steps := []func() error{
		func() error {
			return client.StartTLS(&tls.Config{ServerName: "contoso-com.mail.protection.outlook.com", RootCAs: roots, Certificates: []tls.Certificate{certificate}})
		},
		func() error { return client.Mail("mfp@contoso.com") },
		func() error { return client.Rcpt("archive@fabrikam.com") },
		func() error {
			body, err := client.Data()
			if err != nil {
				return err
			}
			if _, err := io.WriteString(body, "Subject: test\r\n\r\nwell\r\n"); err != nil {
				return err
			}
			return body.Close()
		},
	}
	done := make(chan string)
	go func() {
		lines.Scan()
		done <- lines.Text()
	}()
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	want := regexp.MustCompile(`^cloud: message 1 from <mfp@contoso.com> to <archive@fabrikam.com>, 23 bytes, TLS 1.3, \S+, certificate relay.contoso.com, stored as .*/000001.eml$`)
	if line := <-done; !want.MatchString(line) {
		t.Errorf("line %q, want %s", line, want)
	}
}

// OpenSSL, a stranger to Go's TLS, sees the same: with the certificate it relays, without it does not.
func TestOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed; scripts/setup installs it")
	}
	args := testArguments(t)
	address, lines := serve(t, args)
	go io.Copy(io.Discard, lineReader{lines})
	file := func(name string) string { return filepath.Join(args.Credentials, name) }
	for _, test := range []struct{ name, version, reply string }{
		{"relay", "-tls1_3", "250 2.1.5"},
		{"relay", "-tls1_2", "250 2.1.5"},
		{"", "-tls1_3", "550 5.7.64"},
	} {
		t.Run(test.name+test.version, func(t *testing.T) {
			command := exec.Command(openssl, "s_client", "-quiet", "-crlf", "-starttls", "smtp", "-connect", address, test.version,
				"-CAfile", file("ca.pem"), "-verify_return_error", "-verify_hostname", "contoso-com.mail.protection.outlook.com")
			if test.name != "" {
				command.Args = append(command.Args, "-cert", file(test.name+".crt"), "-cert_chain", file(test.name+".crt"), "-key", file(test.name+".key"))
			}
			in, err := command.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := command.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			defer command.Wait()
			defer command.Process.Kill()
			io.WriteString(in, "EHLO relay.contoso.com\nMAIL FROM:<>\nrCPT TO:<archive@fabrikam.com>\nQUIT\n")
			heard, _ := io.ReadAll(out)
			if !strings.Contains(string(heard), "\r\n"+test.reply) || !strings.Contains(string(heard), "\r\n221 ") {
				t.Errorf("heard %q, want %s to RCPT", heard, test.reply)
			}
		})
	}
}

type lineReader struct{ *bufio.Scanner }

func (l lineReader) Read(p []byte) (int, error) {
	if !l.Scan() {
		return 0, io.EOF
	}
	return copy(p, l.Bytes()), nil
}

// The authority stays the same over a restart, so that the certificate handed out before goes on being trusted.
func TestAuthorityIsKept(t *testing.T) {
	args := testArguments(t)
	read := func() string {
		ca, err := os.ReadFile(filepath.Join(args.Credentials, "ca.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return string(ca)
	}
	if _, err := newTenant(args); err != nil {
		t.Fatal(err)
	}
	first := read()
	handedOut, err := tls.LoadX509KeyPair(filepath.Join(args.Credentials, "relay.crt"), filepath.Join(args.Credentials, "relay.key"))
	if err != nil {
		t.Fatal(err)
	}
	tenant, err := newTenant(args)
	if err != nil {
		t.Fatal(err)
	}
	if first != read() {
		t.Error("another authority")
	}
	intermediates := x509.NewCertPool()
	intermediate, err := x509.ParseCertificate(handedOut.Certificate[1])
	if err != nil {
		t.Fatal(err)
	}
	intermediates.AddCert(intermediate)
	if _, err := handedOut.Leaf.Verify(x509.VerifyOptions{Roots: tenant.Roots, Intermediates: intermediates}); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(args.Credentials, "ca.pem"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newTenant(args); err == nil || !strings.Contains(err.Error(), "remove ") {
		t.Errorf("a broken authority: error %v, want what to do", err)
	}
}

func TestMistakesOnTheCommandLine(t *testing.T) {
	script := filepath.Join(t.TempDir(), "faults")
	if err := os.WriteFile(script, []byte("rcpt=stall\nrcpt\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, _ := serve(t, testArguments(t))
	for name, test := range map[string]struct {
		change func(*arguments)
		want   string
	}{
		"fault":      {func(a *arguments) { a.Fault = []string{"x=y"} }, `unknown stage "x"`},
		"fault file": {func(a *arguments) { a.Faults = script }, script + ": line 2"},
		"no file":    {func(a *arguments) { a.Faults = script + "?" }, "no such file"},
		"port":       {func(a *arguments) { a.Listen = taken }, "choose another address with --listen"},
		"no domain":  {func(a *arguments) { a.Domain = nil }, "--domain"},
	} {
		t.Run(name, func(t *testing.T) {
			args := testArguments(t)
			test.change(&args)
			err := run(t.Context(), args, io.Discard)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}
