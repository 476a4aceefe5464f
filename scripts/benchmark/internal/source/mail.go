package source

import (
	"bytes"
	"fmt"
	"strings"

	"mailchute/scripts/benchmark/internal/sink"
)

// Mail is one scan, as every scanner of a run sends it: only the sender and the number in Message-ID differ.
type Mail struct {
	// Checksum is the sink's checksum of the body.
	Checksum uint32
	// Size is that of the content in bytes, header included, without the final dot.
	Size int

	template string // the header with room for Message-ID
	payload  []byte // body and final dot, shared by all scanners and never written to
}

// boundary and part are what a scanner wraps its PDF in.
const (
	boundary    = "=_scan_7d1f"
	part        = "--" + boundary + "\r\nContent-Type: application/pdf; name=\"scan.pdf\"\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\"scan.pdf\"\r\n\r\n"
	epilogue    = "\r\n--" + boundary + "--\r\n"
	terminator  = ".\r\n"
	idDigits    = 12
	minimumFill = 80
)

// NewMail makes a mail whose content is exactly size bytes: a header and a base64 attachment in lines of 76.
func NewMail(size int) (*Mail, error) {
	m := &Mail{Size: size}
	m.template = "From: Scanner <scanner@bench.test>\r\n" +
		"To: Archive <archive@bench.test>\r\n" +
		"Subject: Scan from the second floor\r\n" +
		"Date: Mon, 02 Jun 2025 09:30:00 +0200\r\n" +
		"Message-ID: <" + strings.Repeat("0", idDigits) + "@scanner.bench.test>\r\n" +
		"MIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed; boundary=\"" + boundary + "\"\r\n\r\n"
	fill := size - len(m.template) - len(part) - len(epilogue)
	if fill < minimumFill {
		return nil, fmt.Errorf("a mail of %d bytes: has no room for a header and an attachment, which take %d", size, size-fill+minimumFill)
	}
	var payload bytes.Buffer
	payload.Grow(size + len(terminator))
	payload.WriteString(part)
	// A multiplicative generator gives base64 digits that do not compress and are the same in every run.
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	state := uint32(1)
	for column := 0; fill > 0; fill-- {
		if column == 76 && fill > 2 {
			payload.WriteString("\r\n")
			column, fill = 0, fill-2
		}
		state = state*1664525 + 1013904223
		payload.WriteByte(digits[state>>26])
		column++
	}
	payload.WriteString(epilogue)
	m.Checksum = sink.Checksum(payload.Bytes())
	payload.WriteString(terminator)
	m.payload = payload.Bytes()
	return m, nil
}

// header returns a scanner's own copy of the header, and the digits in it that Message-ID is counted up in.
func (m *Mail) header() (header, digits []byte) {
	header = []byte(m.template)
	at := strings.Index(m.template, "Message-ID: <") + len("Message-ID: <")
	return header, header[at : at+idDigits]
}

// stamp writes n right-aligned over digits.
func stamp(digits []byte, n int64) {
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = byte('0' + n%10)
		n /= 10
	}
}
