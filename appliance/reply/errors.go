package reply

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// Errors of the client itself that Judge knows, so that a verdict can say what to do.
var (
	ErrNoStartTLS = errors.New("the server does not offer STARTTLS")
	ErrInjected   = errors.New("more bytes than the reply to STARTTLS arrived before TLS began")
	ErrNoAuth     = errors.New("the server offers neither AUTH PLAIN nor AUTH LOGIN")
	ErrAuthPlain  = errors.New("the connection is not encrypted, and a password is sent under TLS only")
	ErrOutOfStep  = errors.New("the server's replies do not match the commands")
)

// Faulty is an error that knows who has to act, such as a body that the box could not read.
type Faulty interface {
	error
	Fault() Fault
}

// judgeError is the meaning of an answer without a usable reply. Its code is the stage.
func judgeError(stage Stage, err error) Verdict {
	return errorMeaning(stage, err).verdict(string(stage))
}

func errorMeaning(stage Stage, err error) meaning {
	var faulty Faulty
	if errors.As(err, &faulty) {
		return meaning{Temporary, faulty.Fault(),
			"The box could not send the message: " + err.Error() + ".",
			"If it stays, look at the box's disk and report it with the trace.", ""}
	}
	for _, row := range clientErrors {
		if errors.Is(err, row.err) {
			return row.meaning
		}
	}
	if meaning, ok := tlsMeaning(stage, err); ok {
		return meaning
	}
	if meaning, ok := networkMeaning(stage, err); ok {
		return meaning
	}
	var syntax *SyntaxError
	if errors.As(err, &syntax) {
		return meaning{Temporary, Cloud,
			"The endpoint sent something that is no SMTP reply.",
			"Check that host and port are those of a mail server and that no firewall changes the connection.", rfc5321}
	}
	return lost(stage, err)
}

// clientErrors are the meanings of the client's own errors.
var clientErrors = []struct {
	err error
	meaning
}{
	{ErrNoStartTLS, meaning{Connector, Administrator,
		"The endpoint offers no TLS, and the connector demands it.",
		`Check host and port; set tls_mode = "implicit" for a port that begins with TLS (465); look for a firewall that hides STARTTLS.`,
		"RFC 3207 section 4"}},
	{ErrInjected, meaning{Connector, Network,
		"Somebody between box and endpoint put bytes into the connection before it was encrypted.",
		"Look for the device that does it; send by another network until it is found.", "CVE-2011-0411"}},
	{ErrNoAuth, meaning{Connector, Administrator,
		"The endpoint offers no sign-in by PLAIN or LOGIN.",
		"Check host and port, or remove username and password_file from the connector.", rfc4954}},
	{ErrAuthPlain, meaning{Connector, Administrator,
		"The connection is not encrypted, and the box sends a password under TLS only.",
		`Set tls = "verified" on the connector.`, rfc4954}},
	{ErrOutOfStep, meaning{Temporary, Cloud,
		"The endpoint lost step in the conversation.",
		"Nothing: it is tried again, more slowly.", rfc5321}},
	{net.ErrClosed, meaning{Temporary, Box,
		"The box closed the connection because it was stopping.",
		"Nothing: it is tried again.", ""}},
}

// tlsMeaning knows the ways a handshake fails. A refused client certificate counts at any stage: with TLS 1.3 the
// server's alert comes after the handshake is done on this side.
func tlsMeaning(stage Stage, err error) (meaning, bool) {
	var (
		unknown  x509.UnknownAuthorityError
		roots    x509.SystemRootsError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		header   tls.RecordHeaderError
	)
	const checkFirewall = "Check that no firewall inspects TLS between box and endpoint"
	switch alert, isAlert := remoteAlert(err); {
	case errors.As(err, &unknown) || errors.As(err, &roots):
		return meaning{Connector, Administrator,
			"The endpoint's certificate comes from an authority the box does not trust.",
			checkFirewall + "; set ca_file if the endpoint has an authority of its own; update the box's roots (DigiCert Global Root G2).",
			rfc5280}, true
	case errors.As(err, &hostname):
		return meaning{Connector, Administrator,
			"The endpoint's certificate is for another name.",
			"Check the connector's host; set tls_name to the name in the certificate if that is right.",
			"RFC 9525 section 6"}, true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return meaning{Connector, Cloud,
			"The endpoint's certificate has expired or is not valid yet.",
			"Check the box's clock; if it is right, tell the endpoint's operator.", rfc5280}, true
	case errors.As(err, &invalid):
		return meaning{Connector, Cloud,
			"The endpoint's certificate is not valid for a server.",
			checkFirewall + "; tell the endpoint's operator.", rfc5280}, true
	case errors.As(err, &header):
		return meaning{Connector, Administrator,
			"The endpoint does not speak TLS where the box expected it.",
			`Check port and tls_mode: "starttls" for 25 and 587, "implicit" for 465.`, rfc8446}, true
	case isAlert && (strings.Contains(alert, "certificate") || strings.Contains(alert, "access denied")):
		return meaning{Connector, Administrator,
			"The endpoint refuses the box's client certificate.",
			"Check that the certificate is in date, issued by an authority the endpoint trusts, meant for client authentication, and that its file has the intermediate certificates.",
			rfc8446}, true
	case isAlert && stage == TLS:
		return meaning{Connector, Administrator,
			"The endpoint broke off the TLS handshake: no common version or cipher, or it wants a client certificate.",
			"Set certificate on the connector if the endpoint demands one; otherwise ask its operator which TLS versions it takes.",
			rfc8446}, true
	}
	return meaning{}, false
}

// remoteAlert gives the text of a TLS alert that the server sent; crypto/tls has no exported type for it.
func remoteAlert(err error) (string, bool) {
	var operation *net.OpError
	if errors.As(err, &operation) && operation.Op == "remote error" && operation.Err != nil {
		return operation.Err.Error(), true
	}
	return "", false
}

// networkMeaning knows the ways a host is not found or not reached.
func networkMeaning(stage Stage, err error) (meaning, bool) {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return meaning{Connector, Administrator,
			"The endpoint's host name does not exist, or has no address of the kind the connector may use.",
			"Check the connector's host and ip against the name the tenant's administration page shows.", "RFC 1035"}, true
	case stage == Resolve:
		return meaning{Connector, Network,
			"The name server did not answer.",
			"Check the box's name servers and the line to the Internet.", "RFC 1035"}, true
	case errors.Is(err, syscall.EADDRNOTAVAIL) && stage == Connect:
		return meaning{Connector, Administrator,
			"The connector's source_address is not an address of the box.",
			"Correct source_address, or leave it empty.", ""}, true
	case errors.Is(err, syscall.ECONNREFUSED):
		return meaning{Connector, Network,
			"The endpoint refused the connection.",
			"Check host and port; see that no firewall blocks outgoing mail.", ""}, true
	case stage == Connect:
		return meaning{Connector, Network,
			"The endpoint cannot be reached.",
			"Check the line to the Internet; see that neither firewall nor provider blocks the port (25 often is).", ""}, true
	}
	return meaning{}, false
}

// lost is a connection that ended or fell silent.
func lost(stage Stage, err error) meaning {
	switch {
	case stage == TLS:
		return meaning{Connector, Network,
			"The connection ended during the TLS handshake.",
			"Check that no firewall inspects TLS; an endpoint that wants another client certificate may also hang up.", rfc8446}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return meaning{Temporary, Network,
			"The endpoint fell silent.",
			"Nothing: it is tried again. If it stays, check the line to the Internet.", rfc5321Timeout}
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return meaning{Temporary, Cloud,
			"The endpoint closed the connection without an answer.",
			"Nothing: it is tried again. If it stays, check the client certificate, and ask the endpoint's operator.", rfc5321}
	default:
		return meaning{Temporary, Network,
			"The connection broke.",
			"Nothing: it is tried again. If it stays, check the line to the Internet.", rfc5321}
	}
}
