package message

import (
	"net/netip"
	"strings"
	"time"
)

// Received is what the box says about how a message came in (RFC 5321 4.4).
type Received struct {
	Helo     string     // as the client said it; anything
	Client   netip.Addr // without zone
	Hostname string     // of the box
	ID       string     // of the message
	Extended bool       // the client said EHLO
	UTF8     bool       // it asked for SMTPUTF8
	TLS      string     // version and cipher suite; empty: plain
	Time     time.Time
}

// maxHelo is the longest HELO name repeated, the length of a domain (RFC 5321 4.5.3.1.2).
const maxHelo = 255

// Append writes the field, line ends included.
func (r *Received) Append(field []byte) []byte {
	field = append(field, "Received: from "...)
	literal := "[" + r.Client.String() + "]"
	if r.Client.Is6() {
		literal = "[IPv6:" + r.Client.String() + "]"
	}
	if isDomain(r.Helo) {
		field = append(field, r.Helo...)
		field = append(field, " ("...)
		field = append(field, literal...)
		field = append(field, ')')
	} else { // as Exim does: what is no domain may stand in a comment only
		field = append(field, literal...)
		field = append(field, " (helo="...)
		field = appendComment(field, r.Helo)
		field = append(field, ')')
	}
	field = append(field, "\r\n\tby "...)
	field = append(field, r.Hostname...)
	field = append(field, " with "...)
	field = append(field, r.protocol()...)
	if r.TLS != "" {
		field = append(field, " ("...)
		field = append(field, r.TLS...)
		field = append(field, ')')
	}
	field = append(field, " id "...)
	field = append(field, r.ID...)
	field = append(field, ";\r\n\t"...)
	field = r.Time.AppendFormat(field, "Mon, 02 Jan 2006 15:04:05 -0700")
	return append(field, "\r\n"...)
}

// protocol is the keyword of the IANA registry "Mail Transmission Types" (RFC 3848, RFC 6531 4.3). HELO under TLS
// has none of its own.
func (r *Received) protocol() string {
	switch {
	case !r.Extended:
		return "SMTP"
	case r.UTF8 && r.TLS != "":
		return "UTF8SMTPS"
	case r.UTF8:
		return "UTF8SMTP"
	case r.TLS != "":
		return "ESMTPS"
	}
	return "ESMTP"
}

// isDomain: a name that may stand in the field as it is. Devices say names with underscores; they pass.
func isDomain(helo string) bool {
	return helo != "" && len(helo) <= maxHelo && strings.IndexFunc(helo, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '.' && c != '-' && c != '_'
	}) < 0
}

// appendComment writes printable ASCII but what has a meaning in a comment (RFC 5322 3.2.2).
func appendComment(field []byte, text string) []byte {
	for i := range min(len(text), maxHelo) {
		c := text[i]
		if c < ' ' || c >= 0x7f || strings.IndexByte(`()\`, c) >= 0 {
			c = '?'
		}
		field = append(field, c)
	}
	return field
}
