package intake

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	"github.com/emersion/go-smtp"

	"mailchute/appliance/address"
	"mailchute/appliance/trace"
)

// The answers that are the box's own, with their enhanced codes (RFC 3463). Devices show or print the text: it says
// what was found and what to do.

// maxText keeps a reply line below 512 bytes (RFC 5321 4.5.3.1.5).
const maxText = 490

func answer(code int, enhanced smtp.EnhancedCode, format string, arguments ...any) *smtp.SMTPError {
	text := fmt.Sprintf(format, arguments...)
	return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: text[:min(len(text), maxText)]}
}

var (
	replyTooManyRecipients = answer(452, smtp.EnhancedCode{4, 5, 3},
		"A message has at most %d recipients; send it to the others in another one", maxRecipients)
	replyFull = answer(452, smtp.EnhancedCode{4, 3, 1},
		"The queue is full, try again later; the administrator has to make room")
	replyQueueFailed = answer(451, smtp.EnhancedCode{4, 3, 0},
		"The message could not be stored, try again later; the log of the box says why")
	replyHeaderTooLarge = answer(552, smtp.EnhancedCode{5, 3, 4}, "The header has more than %d bytes", maxHeader)
	replyLoop           = answer(554, smtp.EnhancedCode{5, 4, 6},
		"Mail loop: the message has more than %d Received fields", maxHops)
	errSequence   = answer(503, smtp.EnhancedCode{5, 5, 1}, "MAIL and a RCPT that is accepted come first")
	errUnfinished = answer(451, smtp.EnhancedCode{4, 4, 2}, "The message was not finished")
)

// replyQueued is given to the library as an error: its own text could not carry the id.
func replyQueued(id trace.ID) *smtp.SMTPError {
	return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: "Queued as " + id.String()}
}

func replyStopping(hostname string) *smtp.SMTPError {
	return answer(421, smtp.EnhancedCode{4, 3, 2}, "%s is stopping, try again later", hostname)
}

func replyStranger(client netip.Addr, hostname string) *smtp.SMTPError {
	return answer(550, smtp.EnhancedCode{5, 7, 1},
		"%s may not send through %s: the administrator has to add this address to a device entry", client, hostname)
}

func replyTooLarge(maxSize int64) *smtp.SMTPError {
	return answer(552, smtp.EnhancedCode{5, 3, 4}, "A message has at most %d bytes", maxSize)
}

func replySenderSyntax(fault error) *smtp.SMTPError {
	return answer(501, smtp.EnhancedCode{5, 1, 7}, "Sender %s", fault)
}

func replyRecipientSyntax(fault error) *smtp.SMTPError {
	return answer(501, smtp.EnhancedCode{5, 1, 3}, "Recipient %s", fault)
}

func replyNoRoute(sender, recipient address.Address) *smtp.SMTPError {
	return answer(550, smtp.EnhancedCode{5, 4, 4},
		"No connector takes mail from <%s> to <%s>: the administrator has to add the domain to a connector", sender, recipient)
}

// parsePath reads what the library made of a path: a local part without its quotes, and the domain. A quoted local
// part with an @ within can no longer be told from a second @, and is refused.
func parsePath(path string) (address.Address, error) {
	if path == "" {
		return address.Address{}, nil
	}
	local, domain, found := strings.Cut(path, "@")
	if !found {
		return address.Parse(path) // says what is wrong
	}
	return address.New(local, domain)
}

// maxShown is the length of what a client said in logs and traces, bytes.
const maxShown = 255

// clean makes what a client said fit to be shown.
func clean(text string) string {
	if len(text) > maxShown {
		text = text[:maxShown]
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}
