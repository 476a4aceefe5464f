package address

import (
	"net/netip"
	"strings"
	"unicode/utf8"
)

// ParseDomain reads a domain name and gives it as Address.Domain has it: lower case, U-labels as A-labels.
// Underscores pass, which the names of office machines have; a final dot does not. Errors are of type *Error.
func ParseDomain(text string) (string, error) {
	if len(text) > maxInput {
		return "", fault(text, "a domain has at most %d octets", maxDomain)
	}
	if !utf8.ValidString(text) {
		return "", fault(text, "the domain is neither ASCII nor UTF-8")
	}
	domain := text
	if !isASCII(domain) {
		ascii, err := aLabels(domain)
		if err != nil {
			return "", fault(text, "not an international domain name (RFC 5891): %v", err)
		}
		domain = ascii
	}
	if domain == "" {
		return "", fault(text, "the domain is empty")
	}
	if len(domain) > maxDomain {
		return "", fault(text, "the domain has %d octets, allowed are %d", len(domain), maxDomain)
	}
	for label := range strings.SplitSeq(domain, ".") {
		if err := checkLabel(text, label); err != nil {
			return "", err
		}
	}
	return strings.ToLower(domain), nil
}

func checkLabel(text, label string) error {
	switch {
	case label == "":
		return fault(text, "a domain has no dot at its start or end, nor two in a row")
	case len(label) > 63:
		return fault(text, "between dots a domain has at most 63 octets")
	case label[0] == '-' || label[len(label)-1] == '-':
		return fault(text, "a hyphen stands at the start or the end of %q", label)
	}
	for i := range len(label) {
		switch c := label[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return fault(text, "%q is not allowed in a domain", rune(c))
		}
	}
	return nil
}

// parseHost reads what may follow the @: a domain or an address literal.
func parseHost(text string) (string, error) {
	if !strings.HasPrefix(text, "[") {
		return ParseDomain(text)
	}
	// IPv6 is the only tag of literals that IANA has registered (RFC 5321 4.1.3).
	content, closed := strings.CutSuffix(text[1:], "]")
	tag, isIPv6 := "IPv6:", false
	if len(content) >= len(tag) && strings.EqualFold(content[:len(tag)], tag) {
		content, isIPv6 = content[len(tag):], true
	}
	ip, err := netip.ParseAddr(content)
	if !closed || err != nil || ip.Zone() != "" || ip.Is4() == isIPv6 {
		return "", fault(text, "an address literal is written [192.0.2.1] or [IPv6:2001:db8::1]")
	}
	if isIPv6 {
		return "[" + tag + ip.String() + "]", nil
	}
	return "[" + ip.String() + "]", nil
}
