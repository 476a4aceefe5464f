package smtpclient

import (
	"fmt"
	"strings"

	"mailchute/appliance/reply"
)

// maxPath is the longest path sent; RFC 5321 section 4.5.3.1.3 allows 256 octets, which with an address beyond
// ASCII in mind is counted generously here.
const maxPath = 512

// checkPath tells what would let an address break out of MAIL FROM:<…> or RCPT TO:<…>; empty: nothing. It is the last
// guard before the wire, not a parser of addresses.
func checkPath(path string) (problem string) {
	if len(path) > maxPath {
		return fmt.Sprintf("it has %d octets, %d are allowed", len(path), maxPath)
	}
	quoted := false
	for at := 0; at < len(path); at++ {
		switch c := path[at]; {
		case c < ' ' || c == 0x7f:
			return fmt.Sprintf("octet %d is a control character", at+1)
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			if at++; at == len(path) || path[at] < ' ' || path[at] == 0x7f {
				return "a backslash must be followed by a printable character"
			}
		case !quoted && strings.IndexByte(` <>\`, c) >= 0:
			return fmt.Sprintf("%q may stand inside quotes only", c)
		}
	}
	if quoted {
		return "a quote is not closed"
	}
	return ""
}

func ascii(text string) bool {
	for at := range len(text) {
		if text[at] >= 0x80 {
			return false
		}
	}
	return true
}

// local is a refusal the client gives in the server's place, before anything is sent.
func local(stage reply.Stage, code int, enhanced, text string) reply.Answer {
	return reply.Answer{Stage: stage, Reply: reply.Reply{Code: code, Enhanced: enhanced, Lines: []string{text}}}
}

// admit tells whether the server can take the transaction at all (RFC 1870 section 6.1, RFC 6152 section 3, RFC 6531
// section 3.1.1) and whether its sender can be written to the wire.
func (p *Peer) admit(t *Transaction) (refusal reply.Answer, ok bool) {
	switch problem := checkPath(t.Sender); {
	case problem != "":
		return local(reply.Mail, 501, "5.1.7",
			fmt.Sprintf("The sender %q was not sent to the server: %s", t.Sender, problem)), false
	case p.MaxSize > 0 && t.Size > p.MaxSize:
		return local(reply.Mail, 552, "5.3.4",
			fmt.Sprintf("The message of %d bytes was not sent: the server takes %d bytes at most", t.Size, p.MaxSize)), false
	case t.EightBit && !p.offers("8BITMIME"):
		return local(reply.Mail, 554, "5.6.3",
			"The message was not sent: it has 8-bit characters and the server does not offer 8BITMIME"), false
	case needsUTF8(t) && !p.offers("SMTPUTF8"):
		return local(reply.Mail, 553, "5.6.7",
			"The message was not sent: an address or a header is not ASCII and the server does not offer SMTPUTF8"), false
	}
	return reply.Answer{}, true
}

// admitRecipient tells whether a recipient can be written to the wire.
func admitRecipient(path string) (refusal reply.Answer, ok bool) {
	problem := checkPath(path)
	if problem == "" && path == "" {
		problem = "it is empty"
	}
	if problem == "" {
		return reply.Answer{}, true
	}
	return local(reply.Rcpt, 501, "5.1.3", fmt.Sprintf("The recipient %q was not sent to the server: %s", path, problem)), false
}

func needsUTF8(t *Transaction) bool {
	if t.UTF8 || !ascii(t.Sender) {
		return true
	}
	for _, recipient := range t.Recipients {
		if !ascii(recipient) {
			return true
		}
	}
	return false
}
