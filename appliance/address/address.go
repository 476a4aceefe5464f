// Package address knows mail addresses and domains: parsed, compared, never guessed. Every Address it gives
// out can be written into an SMTP command as it is.
package address

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Address is one mailbox, or the null sender (the zero value). Values come from Parse, ParseSender or New,
// which normalise them: two addresses of one domain have equal Domains.
type Address struct {
	// Local is the part before the @, without quoting. Its case is kept; see Scope for comparing it.
	Local string
	// Domain is lower case, in A-labels (RFC 5890 2.3.2.1), or an address literal: "[192.0.2.1]",
	// "[IPv6:2001:db8::1]".
	Domain string
}

// Limits in octets, of addresses as String writes them (RFC 5321 4.5.3.1; 254 is the path of 256 without <>).
const (
	maxLocal   = 64
	maxDomain  = 255
	maxAddress = 254
	// What is read may be longer than what is written: quoting that is not needed, U-labels.
	maxInput = 1024
)

// Error says why a text is not an address, a domain, a Pattern or a Scope.
type Error struct {
	Text   string // as found, cut to 100 bytes
	Reason string // what is wrong with it, and what is allowed
}

func (e *Error) Error() string { return fmt.Sprintf("%q: %s", e.Text, e.Reason) }

func fault(text, reason string, arguments ...any) error {
	if len(text) > 100 {
		text = text[:100] + "..."
	}
	return &Error{Text: text, Reason: fmt.Sprintf(reason, arguments...)}
}

// Parse reads a mailbox (RFC 5321 4.1.2, with UTF-8 by RFC 6531 3.3): what stands between the brackets of a
// path, without a source route. Errors are of type *Error.
func Parse(text string) (Address, error) {
	if len(text) > maxInput {
		return Address{}, fault(text, "an address has at most %d octets", maxAddress)
	}
	local, domain, err := split(text)
	if err != nil {
		return Address{}, err
	}
	return normalise(text, local, domain)
}

// ParseSender reads a reverse-path's content: a mailbox, or nothing for the null sender.
func ParseSender(text string) (Address, error) {
	if text == "" {
		return Address{}, nil
	}
	return Parse(text)
}

// New makes an address of a local part that has been unquoted already, and a domain. Errors are of type
// *Error.
func New(local, domain string) (Address, error) {
	if len(local)+len(domain) > maxInput {
		return Address{}, fault(local+"@"+domain, "an address has at most %d octets", maxAddress)
	}
	return normalise(local+"@"+domain, local, domain)
}

// IsNull tells whether this is the null sender of bounces (RFC 5321 4.5.5).
func (a Address) IsNull() bool { return a == Address{} }

// NeedsUTF8 tells whether the address can only be sent with SMTPUTF8 (RFC 6531). The domain never asks for it.
func (a Address) NeedsUTF8() bool { return !isASCII(a.Local) }

// String writes the mailbox as it goes into a path, the local part quoted where it has to be; the null
// sender is empty. Parse reads it back to the same Address.
func (a Address) String() string {
	if a.IsNull() {
		return ""
	}
	if dotStringFault(a.Local) == "" {
		return a.Local + "@" + a.Domain
	}
	var text strings.Builder
	text.Grow(quotedLength(a.Local) + 1 + len(a.Domain))
	text.WriteByte('"')
	for i := range len(a.Local) {
		if c := a.Local[i]; c == '"' || c == '\\' {
			text.WriteByte('\\')
		}
		text.WriteByte(a.Local[i])
	}
	text.WriteString(`"@`)
	text.WriteString(a.Domain)
	return text.String()
}

// split parts a mailbox at its @ and unquotes the local part.
func split(text string) (local, domain string, err error) {
	if !strings.HasPrefix(text, `"`) {
		local, domain, found := strings.Cut(text, "@")
		if !found {
			return "", "", fault(text, "there is no @; an address is written name@domain")
		}
		if reason := dotStringFault(local); reason != "" {
			return "", "", fault(text, "%s", reason)
		}
		return local, domain, nil
	}
	var content strings.Builder
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			if i++; i == len(text) {
				return "", "", fault(text, "it ends within the quotes")
			}
		case '"':
			domain, found := strings.CutPrefix(text[i+1:], "@")
			if !found {
				return "", "", fault(text, "the quoted local part is not followed by @")
			}
			return content.String(), domain, nil
		}
		content.WriteByte(text[i])
	}
	return "", "", fault(text, "it ends within the quotes")
}

// normalise checks both parts and the limits; text is what they come from, for errors.
func normalise(text, local, domain string) (Address, error) {
	if local == "" {
		return Address{}, fault(text, "the part before the @ is empty")
	}
	if !utf8.ValidString(local) {
		return Address{}, fault(text, "the local part is neither ASCII nor UTF-8")
	}
	if i := strings.IndexFunc(local, unicode.IsControl); i >= 0 {
		return Address{}, fault(text, "the local part has a control character, U+%04X", []rune(local[i:])[0])
	}
	domain, err := parseHost(domain)
	if err != nil {
		return Address{}, err
	}
	length := len(local)
	if dotStringFault(local) != "" {
		length = quotedLength(local)
	}
	if length > maxLocal {
		return Address{}, fault(text, "the local part has %d octets, allowed are %d", length, maxLocal)
	}
	if length += 1 + len(domain); length > maxAddress {
		return Address{}, fault(text, "the address has %d octets, allowed are %d", length, maxAddress)
	}
	return Address{Local: local, Domain: domain}, nil
}

// dotStringFault says why a local part cannot go without quotes (RFC 5321 Dot-string); empty: it can.
func dotStringFault(local string) string {
	if local == "" {
		return "the part before the @ is empty"
	}
	atStart := true
	for i := range len(local) {
		switch c := local[i]; {
		case c == '.':
			if atStart || i == len(local)-1 {
				return "a dot at the start, the end, or after a dot is allowed within quotes only"
			}
			atStart = true
		case isAtom[c]:
			atStart = false
		default:
			return fmt.Sprintf("%q in the local part is allowed within quotes only", rune(c))
		}
	}
	return ""
}

func quotedLength(local string) int {
	return len(local) + strings.Count(local, `"`) + strings.Count(local, `\`) + 2
}

// isAtom holds atext (RFC 5322 3.2.3) and the bytes of UTF-8 beyond ASCII (RFC 6531 3.3).
var isAtom = func() (table [256]bool) {
	for c := range 256 {
		table[c] = c >= utf8.RuneSelf || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' ||
			strings.IndexByte("!#$%&'*+-/=?^_`{|}~", byte(c)) >= 0
	}
	return table
}()

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
