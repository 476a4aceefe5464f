package reply

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

func parse(t *testing.T, text string) Reply {
	t.Helper()
	r, err := Read(bufio.NewReader(strings.NewReader(text + "\r\n")))
	if err != nil {
		t.Fatal(text, err)
	}
	return r
}

// TestEndpointReplies goes through every row of the endpoints' replies.
func TestEndpointReplies(t *testing.T) {
	seen := make(map[meaning]bool)
	for _, test := range []struct {
		stage Stage
		reply string
		class Class
		fault Fault
		cause string // part of it
	}{
		{StartTLS, "421 4.7.66 TLS 1.0 and 1.1 are not supported. Please upgrade/update your client to support TLS 1.2.", Connector, Administrator, "TLS 1.0 and 1.1"},
		{Mail, "421 4.7.66 TLS 1.0 and 1.1 are not supported.", Connector, Administrator, "TLS 1.0 and 1.1"},
		{Mail, "530 5.7.57 Client not authenticated to send mail.", Connector, Administrator, "wants a sign-in"},
		{Auth, "535 5.7.3 Authentication unsuccessful", Connector, Administrator, "User name or password is wrong"},
		{Auth, "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled", Connector, Administrator, "SMTP AUTH is switched off"},
		{Auth, "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.", Connector, Administrator, "SMTP AUTH is switched off"},
		{Auth, "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.", Connector, Administrator, "no sign-in by user name and password"},
		{Auth, "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy. Contact your administrator.", Connector, Administrator, "security defaults"},
		{Auth, "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully. Contact your administrator.", Connector, Administrator, "Conditional Access"},
		{Auth, "535 5.7.139 Authentication unsuccessful, the user credentials could not be verified because the federated STS service was unreachable", Connector, Administrator, "AD FS"},
		{Auth, "550 5.7.30 Basic authentication is not supported for Client Submission.", Connector, Administrator, "has ended sign-in"},
		{Auth, "504 5.7.4 Unrecognized authentication type", Connector, Administrator, "way of signing in"},
		{Mail, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", Sender, Administrator, "may not send as this sender"},
		{Final, "554 5.2.252 SendAsDenied; scan@contoso.com not allowed to send as boss@contoso.com", Sender, Administrator, "SendAsDenied"},
		{Final, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", Temporary, Administrator, "three connections"},
		{Mail, "421 4.4.2 Message submission rate for this client has exceeded the configured limit", Temporary, Nobody, "30 messages a minute"},
		{Final, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message", Connector, Administrator, "10,000 recipients"},
		{Final, "550 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients", Connector, Administrator, "10,000 recipients"},
		{Final, "550 5.2.2 Submission quota exceeded", Connector, Administrator, "10,000 recipients"},
		{Final, "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded", Connector, Administrator, "Sent Items"},
		{Final, "550 5.1.8 Access denied, bad outbound sender", Sender, Administrator, "restricted because of outbound spam"},
		{Rcpt, "550 5.7.64 TenantAttribution; Relay Access Denied [VE1EUR01FT049.eop-EUR01.prod.protection.outlook.com] (... ATTR36)", Connector, Administrator, "No inbound connector"},
		{Rcpt, "451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35.", Connector, Administrator, "wrong region"},
		{Final, "550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization from unauthorized sources", Connector, Administrator, "Direct Send"},
		{Rcpt, "550 5.7.51 TenantInboundAttribution; There is a partner connector configured that matched the message's recipient domain. The connector had either the RestrictDomainsToIPAddresses or RestrictDomainsToCertificate set", Connector, Administrator, "partner connector"},
		{Final, "550 5.7.711 Access denied, bad inbound connector. AS(2204)", Connector, Administrator, "restricted the inbound connector"},
		{Final, "550 5.7.705 Access denied, tenant has exceeded threshold", Connector, Administrator, "tenant is blocked"},
		{Final, "550 5.7.708 Access denied, traffic not accepted from this IP", Connector, Administrator, "no traffic from this address"},
		{Final, "550 5.7.750 Service unavailable. Client blocked from sending from unregistered domain", Sender, Administrator, "not one of the tenant's accepted domains"},
		{Final, "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit for sending email to external recipients", Connector, Administrator, "daily limit of external"},
		{Final, "550 5.7.232 Your message can't be sent because your trial tenant has exceeded its daily limit", Connector, Administrator, "daily limit of external"},
		{Rcpt, "550 5.4.1 Recipient address rejected: Access denied.", Permanent, Recipient, "no such recipient"},
		{Rcpt, "550 5.1.1 RESOLVER.ADR.RecipNotFound; not found", Permanent, Recipient, "no such recipient"},
		{Rcpt, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", Permanent, Recipient, "no such recipient"},
		{Rcpt, "550 5.2.121 Recipient's per hour message receive limit from specific sender exceeded.", Temporary, Recipient, "more messages an hour"},
		{Rcpt, "550 5.2.122 Recipient's per hour message receive limit exceeded.", Temporary, Recipient, "more messages an hour"},
		{Rcpt, "452 4.5.3 Too many recipients", Temporary, Nobody, "Too many recipients"},
		{Mail, "451 4.7.500 Server busy. Please try again later from [203.0.113.10]. (S77719)", Temporary, Nobody, "slows down"},
		{Mail, "451 4.7.651 The mail server [203.0.113.10] has been temporarily rate limited", Temporary, Nobody, "slows down"},
		{Mail, "450 4.7.850 Access denied, please try again later", Temporary, Nobody, "getting to know"},
		{Mail, "450 4.7.899 Access denied, please try again later", Temporary, Nobody, "getting to know"},
		{Final, "451 4.7.0 Temporary server error. Please try again later. PRX2", Temporary, Cloud, "busy or in trouble"},
		{Final, "451 4.3.2 Temporary server error. Please try again later ATTR5", Temporary, Cloud, "busy or in trouble"},
		{Mail, "421 4.3.2 Service not active", Temporary, Cloud, "busy or in trouble"},
		{Banner, "421 4.3.2 Service not active", Connector, Cloud, "busy or in trouble"},
		{Final, "451 4.7.700 PFA agent busy, please try again.", Temporary, Cloud, "busy or in trouble"},
		{Rcpt, "550 5.7.606 Access denied, banned sending IP [203.0.113.10]. To request removal from this list please visit https://sender.office.com/", Connector, Administrator, "bans mail from the office"},
		{Rcpt, "550 5.7.649 Access denied, banned sending IP [203.0.113.10]", Connector, Administrator, "bans mail from the office"},
		{Rcpt, "550 5.7.511 Access denied, banned sender[203.0.113.10]. To request removal from this list please forward this message to delist@microsoft.com", Connector, Administrator, "bans mail from the office"},
		{Final, "550 5.7.501 Access denied, spam abuse detected", Connector, Administrator, "banned the account or the domain"},
		{Final, "550 5.7.503 Access denied, banned sender", Connector, Administrator, "banned the account or the domain"},
		{Final, "550 5.7.800 banned", Connector, Administrator, "banned the account or the domain"},
		{Final, "550 5.7.23 The message was rejected because of Sender Policy Framework violation", Sender, Administrator, "SPF"},
		{Final, "550 5.7.509 Access denied, sending domain contoso.com does not pass DMARC verification", Sender, Administrator, "DMARC"},
		{Final, "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant", Permanent, Device, "From header"},
		{Final, "550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal; message contains bare linefeeds", Permanent, Box, "bare LF"},
		{Hello, "550 5.7.506 Access Denied, Bad HELO", Connector, Administrator, "name the box greets with"},
		{Final, "550 5.7.25 Access denied, the sending IPv6 address [2001:db8::1] must have a reverse DNS record", Connector, Administrator, "IPv6"},
		{Final, "450 4.7.26 Access denied, a message sent over IPv6 [2001:db8::1] must pass either SPF or DKIM validation", Connector, Administrator, "IPv6"},
		{Final, "550 5.7.510 Access denied, contoso.com does not accept email over IPv6", Connector, Administrator, "IPv6"},
		{Final, "550 5.7.703 Your message can't be delivered because one or more recipients are blocked by your organization's tenant allow/block list", Permanent, Administrator, "allow/block list"},
		{Final, "554 5.4.6 Routing loop detected", Permanent, Administrator, "circles"},
		{Final, "554 5.4.14 Hop count exceeded - possible mail loop", Permanent, Administrator, "circles"},
		{Rcpt, "550 5.5.105 external recipients are not supported", Permanent, Administrator, "inside the organisation only"},
		{Mail, "550 5.7.240 application is not allowed", Connector, Administrator, "high volume email"},
		{Auth, "535 5.7.142 token is expiring", Connector, Cloud, "expiring or has expired"},
		{Auth, "535 5.7.143 token has expired", Connector, Cloud, "expiring or has expired"},
		{Auth, "535 5.7.144 permission missing", Connector, Administrator, "lacks the permission"},
		{Auth, "501 5.5.121 malformed token", Connector, Box, "could not read the token"},
		{Auth, "501 5.5.126 malformed token", Connector, Box, "could not read the token"},
		{Rcpt, "450 4.2.1 Peak SMTP relay limit exceeded for customer.", Temporary, Nobody, "short time"},
		{Rcpt, "550 5.7.1 Daily SMTP relay limit exceeded for customer.", Connector, Administrator, "daily limit of relayed mail"},
		{Rcpt, "550 5.4.5 Daily SMTP relay limit exceeded for user.", Connector, Administrator, "daily limit of relayed mail"},
		{Final, "454 Throttling failure: Maximum sending rate exceeded.", Temporary, Nobody, "Amazon SES takes fewer"},
		{Final, "454 Throttling failure: Daily message quota exceeded.", Connector, Administrator, "daily quota at Amazon SES"},
	} {
		r := parse(t, test.reply)
		verdict := Judge(Answer{Stage: test.stage, Reply: r})
		if verdict.Class != test.class || verdict.Fault != test.fault || !strings.Contains(verdict.Cause, test.cause) {
			t.Errorf("%s at %s\ngot  %+v\nwant %s, %s, %q", test.reply, test.stage, verdict, test.class, test.fault, test.cause)
		}
		if verdict.Fix == "" || verdict.Source == "" {
			t.Errorf("%s: no fix or no source: %+v", test.reply, verdict)
		}
		if want := strings.TrimSpace(fmt.Sprintf("%d %s", r.Code, r.Enhanced)); verdict.Code != want {
			t.Errorf("found by %q, want %q", verdict.Code, want)
		}
		for _, row := range endpoints {
			if row.fits(test.stage, r, strings.ToLower(strings.Join(r.Lines, " "))) {
				seen[row.meaning] = true
				break
			}
		}
	}
	for _, row := range endpoints {
		if !seen[row.meaning] {
			t.Errorf("no test comes to the row %d %s %q", row.code, row.enhanced, row.text)
		}
	}
}

// TestStandardReplies are those of any SMTP server: the shared rows, then the first digit and the stage.
func TestStandardReplies(t *testing.T) {
	seen := make(map[meaning]bool)
	for _, test := range []struct {
		stage Stage
		reply string
		class Class
		fault Fault
	}{
		{Final, "250 2.0.0 queued", Sent, Nobody},
		{Rcpt, "251 will forward", Sent, Nobody},

		{Banner, "554 no service", Connector, Cloud},
		{Banner, "421 busy", Connector, Cloud},
		{Hello, "451 later", Connector, Cloud},
		{StartTLS, "454 4.7.0 TLS not available", Connector, Cloud},
		{Auth, "535 5.7.8 bad credentials", Connector, Administrator},
		{Auth, "550 5.7.8 bad credentials", Connector, Administrator},
		{Auth, "454 4.7.0 Temporary authentication failure", Connector, Administrator},
		{Auth, "534 5.7.9 mechanism is too weak", Connector, Administrator},
		{Auth, "538 5.7.11 encryption required", Connector, Administrator},

		{Mail, "530 5.7.0 Must issue a STARTTLS command first", Connector, Administrator},
		{Mail, "503 5.5.4 Error: send AUTH command first", Connector, Administrator},
		{Mail, "502 5.5.2 unrecognized", Connector, Administrator},
		{Mail, "521 5.3.2 host does not accept mail", Connector, Administrator},
		{Rcpt, "556 5.1.10 no such domain", Permanent, Recipient},
		{Rcpt, "556 domain takes no mail", Permanent, Recipient},
		{Hello, "421 4.7.1 mx.fabrikam.com Error: No client certificate presented", Connector, Administrator},
		{Hello, "421 4.7.1 mx.fabrikam.com Error: Client certificate not trusted", Connector, Administrator},
		{Rcpt, "554 5.7.1 <b@fabrikam.com>: Relay access denied", Connector, Administrator},
		{Rcpt, "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", Connector, Administrator},
		{Rcpt, "550 relaying denied", Connector, Administrator},
		{Rcpt, "550 relay not permitted", Connector, Administrator},
		{Rcpt, "503 5.5.1 Bad sequence of commands", Temporary, Cloud},

		{Mail, "550 5.7.1 sender rejected", Sender, Administrator},
		{Mail, "501 5.1.7 bad sender address", Sender, Device},
		{Mail, "553 5.1.7 bad sender address", Sender, Device},
		{Mail, "552 5.3.4 message too large", Permanent, Device},
		{Mail, "552 message too large", Permanent, Device},
		{Mail, "452 4.3.1 insufficient system storage", Temporary, Cloud},
		{Mail, "452 insufficient system storage", Temporary, Cloud},
		{Mail, "450 4.1.8 sender's domain not found", Temporary, Nobody},
		{Mail, "421 4.4.2 timeout", Temporary, Nobody},
		{Mail, "554 5.6.3 8-bit", Permanent, Device},
		{Mail, "553 5.6.7 not ASCII", Permanent, Device},

		{Rcpt, "550 no", Permanent, Recipient},
		{Rcpt, "550 5.1.2 bad domain", Permanent, Recipient},
		{Rcpt, "501 5.1.3 bad address", Permanent, Recipient},
		{Rcpt, "550 5.1.6 moved", Permanent, Recipient},
		{Rcpt, "552 5.2.2 mailbox full", Permanent, Recipient},
		{Rcpt, "452 4.2.2 mailbox full", Temporary, Recipient},
		{Rcpt, "552 too many recipients", Temporary, Nobody},
		{Rcpt, "450 4.2.0 greylisted", Temporary, Nobody},

		{Data, "554 5.5.1 no", Permanent, Device},
		{Data, "451 later", Temporary, Nobody},
		{Final, "554 5.7.1 spam", Permanent, Device},
		{Final, "552 5.2.3 too large for the mailbox", Permanent, Device},
		{Final, "421 closing", Temporary, Nobody},
		{Final, "354 go on", Temporary, Cloud},
		{Reset, "500 what?", Temporary, Cloud},
		{Reset, "451 later", Temporary, Nobody},
	} {
		r := parse(t, test.reply)
		verdict := Judge(Answer{Stage: test.stage, Reply: r})
		if verdict.Class != test.class || verdict.Fault != test.fault || verdict.Cause == "" || verdict.Source == "" {
			t.Errorf("%s at %s\ngot  %+v\nwant %s, %s", test.reply, test.stage, verdict, test.class, test.fault)
		}
		for _, row := range standards {
			if row.fits(test.stage, r, strings.ToLower(strings.Join(r.Lines, " "))) {
				seen[row.meaning] = true
				break
			}
		}
	}
	for _, row := range standards {
		if !seen[row.meaning] {
			t.Errorf("no test comes to the row %d %s %q", row.code, row.enhanced, row.text)
		}
	}
}

// TestSignInRefused: what may lock an account is told apart, so that it is tried hourly only.
func TestSignInRefused(t *testing.T) {
	for _, test := range []struct {
		stage Stage
		reply string
		want  bool
	}{
		{Auth, "535 5.7.3 Authentication unsuccessful", true},
		{Auth, "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.", true},
		{Auth, "550 5.7.30 Basic authentication is not supported", true},
		{Auth, "554 no", true},
		{Mail, "535 5.7.8 no", true},
		{Auth, "535 5.7.139 federated STS service was unreachable", false},
		{Auth, "454 4.7.0 Temporary authentication failure", false},
		{Auth, "421 4.3.2 Service not active", false},
		{Mail, "530 5.7.57 Client not authenticated to send mail", false}, // nobody tried to sign in
		{Mail, "550 5.7.60 Client does not have permissions to send as this sender", false},
	} {
		if got := Judge(Answer{Stage: test.stage, Reply: parse(t, test.reply)}).SignIn; got != test.want {
			t.Errorf("%s at %s: sign-in %v", test.reply, test.stage, got)
		}
	}
}

type bodyLost struct{}

func (bodyLost) Error() string { return "the stored body ends early" }
func (bodyLost) Fault() Fault  { return Box }

// TestErrors are the ways a step ends without a reply.
func TestErrors(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	alert := func(text string) error { return &net.OpError{Op: "remote error", Err: errors.New("tls: " + text)} }
	for _, test := range []struct {
		stage Stage
		err   error
		class Class
		fault Fault
		cause string
	}{
		{Resolve, &net.DNSError{Err: "no such host", IsNotFound: true}, Connector, Administrator, "host name does not exist"},
		{Resolve, &net.DNSError{Err: "i/o timeout", IsTimeout: true}, Connector, Network, "name server did not answer"},
		{Connect, refused, Connector, Network, "refused the connection"},
		{Connect, os.NewSyscallError("connect", syscall.EHOSTUNREACH), Connector, Network, "cannot be reached"},
		{Connect, os.ErrDeadlineExceeded, Connector, Network, "cannot be reached"},
		{Connect, os.NewSyscallError("bind", syscall.EADDRNOTAVAIL), Connector, Administrator, "source_address"},
		{Banner, io.EOF, Connector, Cloud, "closed the connection"},
		{Banner, os.ErrDeadlineExceeded, Connector, Network, "fell silent"},
		{Banner, &SyntaxError{Found: "SSH"}, Connector, Cloud, "no SMTP reply"},
		{StartTLS, ErrNoStartTLS, Connector, Administrator, "offers no TLS"},
		{StartTLS, ErrInjected, Connector, Network, "before it was encrypted"},
		{TLS, &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, Connector, Administrator, "authority the box does not trust"},
		{TLS, &tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"}}, Connector, Administrator, "another name"},
		{TLS, &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired}}, Connector, Cloud, "expired"},
		{TLS, &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.IncompatibleUsage}}, Connector, Cloud, "not valid for a server"},
		{TLS, tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, Connector, Administrator, "does not speak TLS"},
		{TLS, alert("bad certificate"), Connector, Administrator, "refuses the box's client certificate"},
		{TLS, alert("handshake failure"), Connector, Administrator, "broke off the TLS handshake"},
		{TLS, io.EOF, Connector, Network, "ended during the TLS handshake"},
		{Hello, alert("certificate required"), Connector, Administrator, "refuses the box's client certificate"},
		{Mail, alert("unknown certificate authority"), Connector, Administrator, "refuses the box's client certificate"},
		{Mail, alert("internal error"), Temporary, Network, "connection broke"},
		{Auth, fmt.Errorf("%w (it offers NTLM)", ErrNoAuth), Connector, Administrator, "no sign-in by PLAIN or LOGIN"},
		{Auth, ErrAuthPlain, Connector, Administrator, "under TLS only"},
		{Mail, io.ErrUnexpectedEOF, Temporary, Cloud, "closed the connection"},
		{Data, os.ErrDeadlineExceeded, Temporary, Network, "fell silent"},
		{Data, os.NewSyscallError("write", syscall.ECONNRESET), Temporary, Network, "connection broke"},
		{Data, bodyLost{}, Temporary, Box, "the stored body ends early"},
		{Final, fmt.Errorf("%w: 354 came", ErrOutOfStep), Temporary, Cloud, "lost step"},
		{Final, net.ErrClosed, Temporary, Box, "was stopping"},
	} {
		verdict := Judge(Answer{Stage: test.stage, Err: fmt.Errorf("wrapped: %w", test.err)})
		if verdict.Class != test.class || verdict.Fault != test.fault || !strings.Contains(verdict.Cause, test.cause) || verdict.Code != string(test.stage) || verdict.Fix == "" {
			t.Errorf("%v at %s\ngot  %+v\nwant %s, %s, %q", test.err, test.stage, verdict, test.class, test.fault, test.cause)
		}
	}
}

// TestReplyAndError: a refusal counts, though the connection broke behind it; a positive reply before an error does
// not make the message taken.
func TestReplyAndError(t *testing.T) {
	refused := Judge(Answer{Stage: Final, Reply: parse(t, "552 5.3.4 too large"), Err: io.EOF})
	if refused.Class != Permanent || refused.Code != "552 5.3.4" {
		t.Errorf("%+v", refused)
	}
	broken := Judge(Answer{Stage: Final, Reply: Reply{Code: 250}, Err: io.ErrUnexpectedEOF})
	if broken.Class != Temporary || broken.Code != "final" {
		t.Errorf("%+v", broken)
	}
}
