package message

import (
	"bytes"
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What is kept of a header section while it passes. A longer line passes in parts.
const (
	maxLine      = 1024 // bytes of a line looked at at once; a field's name must end within
	maxValue     = 2048 // bytes of a field's value, folded lines joined
	maxSubject   = 200  // bytes, decoded
	maxMessageID = 250  // bytes
)

// header reads the header section of a message (RFC 5322 2.2) line by line.
type header struct {
	received []byte // the box's own field; nil: put on top already
	line     []byte // what has come of the line, or of its next part
	within   bool   // line goes on a line that was read in part
	ended    bool   // the rest is body

	size      int     // bytes read
	hops      int     // Received fields
	value     *[]byte // where the field's value is kept; nil: nowhere
	subject   []byte  // raw; nil: no such field yet
	messageID []byte
}

// lineKind is what a line is to the header section.
type lineKind int

const (
	fieldLine lineKind = iota // begins a field or goes on one
	emptyLine                 // ends the header section
	bodyLine                  // cannot be of a header section, which ended without an empty line
)

// collect takes bytes up to the end of the line, and tells how many.
func (h *header) collect(p []byte) int {
	n := bytes.IndexByte(p, '\n') + 1
	if n == 0 {
		n = len(p)
	}
	n = min(n, maxLine-len(h.line))
	h.line = append(h.line, p[:n]...)
	return n
}

// collected: the line is there whole, or a part of it that is as long as the parts become.
func (h *header) collected() bool {
	return len(h.line) == maxLine || h.line[len(h.line)-1] == '\n'
}

// read takes note of the collected line. What it returns is valid until the next collect.
func (h *header) read() ([]byte, lineKind) {
	line := h.line
	h.line = h.line[:0]
	whole := line[len(line)-1] == '\n'
	text := bytes.TrimRight(line, "\r\n")
	first := h.size == 0
	kind := fieldLine
	switch {
	case h.within:
		h.keep(text)
	case whole && len(text) == 0:
		kind = emptyLine
	case text[0] == ' ' || text[0] == '\t':
		if first {
			kind = bodyLine
		} else {
			h.keep(text)
		}
	default:
		name, value, found := bytes.Cut(text, []byte(":"))
		if name = bytes.TrimRight(name, " \t"); found && isFieldName(name) {
			h.begin(name, value)
		} else {
			kind = bodyLine
		}
	}
	h.within = !whole
	h.ended = kind != fieldLine
	if kind != bodyLine {
		h.size += len(line)
	}
	return line, kind
}

// begin notes the start of a field. Of fields that may appear once the first counts.
func (h *header) begin(name, value []byte) {
	h.value = nil
	switch {
	case bytes.EqualFold(name, []byte("Received")):
		h.hops++
	case h.subject == nil && bytes.EqualFold(name, []byte("Subject")):
		h.value = &h.subject
	case h.messageID == nil && bytes.EqualFold(name, []byte("Message-ID")):
		h.value = &h.messageID
	}
	if h.value != nil {
		*h.value = []byte{}
		h.keep(value)
	}
}

func (h *header) keep(text []byte) {
	if h.value != nil {
		*h.value = append(*h.value, text[:min(len(text), maxValue-len(*h.value))]...)
	}
}

// isFieldName: printable ASCII but the colon (RFC 5322 3.6.8).
func isFieldName(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return len(name) > 0
}

// words decodes what Go can without tables: UTF-8, ISO-8859-1 and ASCII. Another character set stays encoded.
var words mime.WordDecoder

// readSubject decodes a Subject (RFC 2047) and makes it fit to be shown.
func readSubject(raw []byte) string {
	text := strings.TrimSpace(string(raw))
	if decoded, err := words.DecodeHeader(text); err == nil {
		text = decoded
	}
	return clip(printable(text), maxSubject)
}

func readMessageID(raw []byte) string {
	return clip(printable(strings.TrimSpace(string(raw))), maxMessageID)
}

// printable drops control characters, and those that turn the direction of the text around them; what is not
// UTF-8 becomes U+FFFD.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

// clip cuts text to at most limit bytes, between characters.
func clip(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}
