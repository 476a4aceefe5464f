package reply

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// What a server may send as one reply. RFC 5321 section 4.5.3.1.5 allows 512 octets a line; real servers say
// more, and a few hundred lines are no conversation.
const (
	maxLine  = 2048      // octets, line end included
	maxLines = 128       // lines of one reply
	maxReply = 32 * 1024 // octets of one reply
)

// SyntaxError says that what a server sent is not an SMTP reply. After it nothing on the connection can be trusted.
type SyntaxError struct {
	Found   string // the offending line, cut to 100 octets
	Problem string // what is wrong with it, and what is allowed
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("the server sent %q, which is no SMTP reply: %s", e.Found, e.Problem)
}

func syntaxError(line []byte, problem string) error {
	const shown = 100
	return &SyntaxError{Found: string(line[:min(len(line), shown)]), Problem: problem}
}

// Read takes one reply, of one line or more, from a server (RFC 5321 section 4.2). Lines may end in a bare LF and
// may lack their text; control characters become "?" and octets that are not UTF-8 become U+FFFD.
//
// The error is io.EOF where the server closed between replies, io.ErrUnexpectedEOF where it closed within one, a
// *SyntaxError for anything that is no reply, or the reader's own. What was read of a reply before the error is
// returned with it.
func Read(r *bufio.Reader) (Reply, error) {
	var (
		reply Reply
		total int
	)
	for {
		line, err := readLine(r)
		if err != nil {
			if err == io.EOF && (len(line) > 0 || reply.Code != 0) {
				err = io.ErrUnexpectedEOF
			}
			return reply, err
		}
		code, more, text, err := parseLine(line)
		if err != nil {
			return reply, err
		}
		if reply.Code != 0 && code != reply.Code {
			return reply, syntaxError(line, fmt.Sprintf("every line of a reply has the same code, and this one began with %d", reply.Code))
		}
		if total += len(line); total > maxReply || len(reply.Lines) == maxLines {
			return reply, syntaxError(line, fmt.Sprintf("a reply may have %d lines and %d octets", maxLines, maxReply))
		}
		enhanced, text := splitEnhanced(text)
		if reply.Code == 0 {
			reply.Code, reply.Enhanced = code, enhanced
		} else if enhanced != "" && reply.Enhanced == "" {
			reply.Enhanced = enhanced
		}
		reply.Lines = append(reply.Lines, printable(text))
		if !more {
			return reply, nil
		}
	}
}

// readLine gives one line with its end, valid until the next read. A line longer than the reader's buffer is put
// together; on an error the beginning of the line comes with it.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		long := append([]byte(nil), line...)
		for errors.Is(err, bufio.ErrBufferFull) && len(long) <= maxLine {
			line, err = r.ReadSlice('\n')
			long = append(long, line...)
		}
		line = long
	}
	if len(line) > maxLine {
		return line, syntaxError(line, fmt.Sprintf("a line may have %d octets", maxLine))
	}
	return line, err
}

// parseLine takes a line apart: "250-text", "250 text", or the code alone.
func parseLine(line []byte) (code int, more bool, text []byte, err error) {
	text = line
	text = text[:len(text)-1] // the LF
	if n := len(text); n > 0 && text[n-1] == '\r' {
		text = text[:n-1]
	}
	if len(text) < 3 || text[0] < '2' || text[0] > '5' || !digit(text[1]) || !digit(text[2]) {
		return 0, false, nil, syntaxError(line, "a reply begins with three digits, the first of them 2 to 5")
	}
	code = int(text[0]-'0')*100 + int(text[1]-'0')*10 + int(text[2]-'0')
	if text = text[3:]; len(text) == 0 {
		return code, false, nil, nil
	}
	switch text[0] {
	case ' ':
	case '-':
		more = true
	default:
		return 0, false, nil, syntaxError(line, `after the code comes a space, "-" or the end of the line`)
	}
	return code, more, text[1:], nil
}

// splitEnhanced takes the enhanced status code off a text (RFC 2034 section 4: class.subject.detail, at most three
// digits each of the latter, then a space or the end).
func splitEnhanced(text []byte) (enhanced string, rest []byte) {
	if len(text) < 5 || (text[0] != '2' && text[0] != '4' && text[0] != '5') {
		return "", text
	}
	at := 1
	for range 2 {
		if at >= len(text) || text[at] != '.' {
			return "", text
		}
		at++
		start := at
		for at < len(text) && digit(text[at]) {
			at++
		}
		if at == start || at-start > 3 {
			return "", text
		}
	}
	if at == len(text) {
		return string(text), nil
	}
	if text[at] != ' ' {
		return "", text
	}
	return string(text[:at]), text[at+1:]
}

// printable makes a text safe for a log, a page and JSON.
func printable(text []byte) string {
	for _, c := range text {
		if c < ' ' || c >= 0x7f {
			return strings.Map(func(r rune) rune {
				if r < ' ' || r >= 0x7f && r < 0xa0 {
					return '?'
				}
				return r
			}, strings.ToValidUTF8(string(text), string(utf8.RuneError)))
		}
	}
	return string(text)
}

func digit(c byte) bool { return c >= '0' && c <= '9' }
