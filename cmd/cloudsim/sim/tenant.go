// Package sim is a stand-in for the SMTP side of Exchange Online, for the demo and for tests. Its replies
// follow from the state of a tenant (accepted domains, inbound connectors, accounts) and from faults set by
// the caller. It shares no code with the appliance, so that one cannot hide the other's mistakes.
package sim

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
	"time"
)

// Tenant is an organisation's account at the cloud, as far as SMTP shows it. It must not be changed while a
// Server uses it.
type Tenant struct {
	Host            string   // the endpoint's name, in its banner; empty: contoso-com.mail.protection.outlook.com
	AcceptedDomains []string // domains the organisation owns
	Connectors      []Connector
	Mailboxes       []string // known recipients in accepted domains; empty: all exist

	RejectDirectSend   bool // own senders without connector or account are refused (550 5.7.68)
	RequireCertificate bool // a partner connector covers every sender: without its certificate 550 5.7.51

	// Accounts, by user name with their passwords, make this a submission endpoint: AUTH is offered under TLS
	// and mail is taken from those who signed in, or came by a connector.
	Accounts   map[string]string
	Mechanisms []string // of AUTH: LOGIN, PLAIN; empty: LOGIN alone, as Exchange Online

	Certificate *tls.Certificate // the server's own; nil: STARTTLS is not offered
	Roots       *x509.CertPool   // trusted for client certificates; nil: none is
	ImplicitTLS bool             // the handshake comes before the banner (RFC 8314)

	MaxMessageSize int64    // bytes, announced as SIZE; 0: 157286400
	MaxRecipients  int      // a transaction; 0: 1000
	Without        []string // EHLO keywords this server does not know, such as CHUNKING
}

// Connector is an inbound connector of type OnPremises.
type Connector struct {
	Name            string
	CertificateName string // TlsSenderCertificateName: relay.contoso.com, or *.contoso.com
}

// Contoso is the tenant of the demo: it owns contoso.com, has a connector for the certificates authority
// issues to names under it, and takes mail from nobody else.
func Contoso(authority *Authority) (Tenant, error) {
	const host = "contoso-com.mail.protection.outlook.com"
	certificate, err := authority.Issue(host, "localhost", "127.0.0.1", "::1")
	if err != nil {
		return Tenant{}, err
	}
	return Tenant{
		Host:               host,
		AcceptedDomains:    []string{"contoso.com"},
		Connectors:         []Connector{{Name: "Relay box", CertificateName: "*.contoso.com"}},
		RejectDirectSend:   true,
		RequireCertificate: true,
		Certificate:        &certificate,
		Roots:              authority.Roots(),
	}, nil
}

// withDefaults fills in what was left empty.
func (t Tenant) withDefaults() Tenant {
	if t.Host == "" {
		t.Host = "contoso-com.mail.protection.outlook.com"
	}
	if t.MaxMessageSize == 0 {
		t.MaxMessageSize = 157286400
	}
	if t.MaxRecipients == 0 {
		t.MaxRecipients = 1000
	}
	if len(t.Mechanisms) == 0 {
		t.Mechanisms = []string{"LOGIN"}
	}
	return t
}

func (t *Tenant) knows(keyword string) bool {
	return !slices.ContainsFunc(t.Without, func(without string) bool { return strings.EqualFold(without, keyword) })
}

// accepts tells whether domain is one of the accepted domains.
func (t *Tenant) accepts(domain string) bool {
	return slices.ContainsFunc(t.AcceptedDomains, func(accepted string) bool { return strings.EqualFold(accepted, domain) })
}

// owns tells whether a certificate's name is an accepted domain or lies under one.
func (t *Tenant) owns(name string) bool {
	name = strings.ToLower(strings.TrimPrefix(name, "*."))
	return slices.ContainsFunc(t.AcceptedDomains, func(accepted string) bool {
		accepted = strings.ToLower(accepted)
		return name == accepted || strings.HasSuffix(name, "."+accepted)
	})
}

// attribute finds the connector a verified certificate with these names belongs to. Both must hold: a name is
// (or lies under) an accepted domain, and a connector names it.
func (t *Tenant) attribute(names []string) (Connector, bool) {
	for _, name := range names {
		if !t.owns(name) {
			continue
		}
		for _, connector := range t.Connectors {
			if nameMatches(connector.CertificateName, name) {
				return connector, true
			}
		}
	}
	return Connector{}, false
}

// nameMatches compares a certificate's name with a connector's, which may be a wildcard for one label or more.
func nameMatches(pattern, name string) bool {
	pattern, name = strings.ToLower(pattern), strings.ToLower(name)
	if parent, ok := strings.CutPrefix(pattern, "*."); ok {
		return name == pattern || strings.HasSuffix(name, "."+parent)
	}
	return name == pattern
}

// verify checks a client's chain against the tenant's roots with the intermediates it sent, as attribution
// does: the handshake never fails for it. It returns the leaf's names whether trusted or not.
func (t *Tenant) verify(chain []*x509.Certificate, now time.Time) (names []string, trusted bool) {
	if len(chain) == 0 {
		return nil, false
	}
	leaf := chain[0]
	names = slices.Clone(leaf.DNSNames)
	if name := leaf.Subject.CommonName; name != "" && !slices.Contains(names, name) {
		names = append([]string{name}, names...)
	}
	if t.Roots == nil {
		return names, false
	}
	intermediates := x509.NewCertPool()
	for _, certificate := range chain[1:] {
		intermediates.AddCert(certificate)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:         t.Roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		// No statement of Microsoft demands the purpose clientAuth; public authorities are giving it up.
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return names, err == nil
}

// judge decides about one recipient. An empty string accepts it.
func (t *Tenant) judge(sender, recipient path, connector string, account string) (refusal string) {
	attributed := connector != "" || account != ""
	switch {
	case len(t.Accounts) > 0 && !attributed:
		return "530 5.7.57 Client not authenticated to send mail."
	case recipient.domain != "" && !t.accepts(recipient.domain):
		if !attributed {
			return "550 5.7.64 TenantAttribution; Relay Access Denied [" + t.Host + "] ATTR36"
		}
	case t.RequireCertificate && !attributed:
		return "550 5.7.51 TenantInboundAttribution; There is a partner connector configured that matched the message's recipient domain. The connector had either the RestrictDomainsToIPAddresses or RestrictDomainsToCertificate set"
	case t.RejectDirectSend && !attributed && t.accepts(sender.domain):
		return "550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization from unauthorized sources"
	case len(t.Mailboxes) > 0 && !slices.ContainsFunc(t.Mailboxes, func(mailbox string) bool {
		return strings.EqualFold(mailbox, recipient.String())
	}):
		return "550 5.4.1 Recipient address rejected: Access denied. [" + t.Host + "]"
	}
	return ""
}
