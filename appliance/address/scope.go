package address

import "strings"

// Scope is one mailbox, or all mailboxes of a domain. It is comparable and fits as key of a map; the zero
// value covers nobody. Local parts are compared without regard to case, as the cloud endpoints do, although
// RFC 5321 2.4 would let them differ.
type Scope struct {
	local  string // lower case; empty: the whole domain
	domain string
}

// ParseScope reads "scanner@contoso.com" or "contoso.com". Errors are of type *Error.
func ParseScope(text string) (Scope, error) {
	if strings.Contains(text, "@") {
		mailbox, err := Parse(text)
		return MailboxScope(mailbox), err
	}
	domain, err := ParseDomain(text)
	return Scope{domain: domain}, err
}

// MailboxScope covers this address alone.
func MailboxScope(a Address) Scope { return Scope{strings.ToLower(a.Local), a.Domain} }

// DomainScope covers all addresses in this one's domain.
func DomainScope(a Address) Scope { return Scope{"", a.Domain} }

// Covers tells whether an address lies within the scope. The null sender lies in none.
func (s Scope) Covers(a Address) bool {
	return !a.IsNull() && (s == DomainScope(a) || s == MailboxScope(a))
}

func (s Scope) String() string {
	if s.local == "" {
		return s.domain
	}
	return Address{s.local, s.domain}.String()
}

// MarshalText writes what UnmarshalText, which is ParseScope, reads.
func (s Scope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s *Scope) UnmarshalText(text []byte) (err error) {
	*s, err = ParseScope(string(text))
	return err
}
