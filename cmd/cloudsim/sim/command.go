package sim

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A command line may be longer than RFC 5321's 512 octets, for AUTH's sake: RFC 4954 section 4 asks for 12288.
const maxLine = 12288

// command is one line a client sent: the verb in upper case and what follows it.
type command struct {
	verb     string
	argument string
}

// parseCommand takes a line apart. The line must end with CRLF (RFC 5321 section 2.3.8).
func parseCommand(line []byte) (command, error) {
	text, ended := strings.CutSuffix(string(line), "\r\n")
	if !ended {
		return command{}, errors.New("500 5.5.2 Line does not end with CRLF")
	}
	if i := strings.IndexAny(text, "\r\n\x00"); i >= 0 {
		return command{}, fmt.Errorf("500 5.5.2 Character %#x in a command", text[i])
	}
	if !utf8.ValidString(text) {
		return command{}, errors.New("500 5.5.2 Command is not UTF-8")
	}
	verb, argument, _ := strings.Cut(text, " ")
	return command{strings.ToUpper(verb), strings.Trim(argument, " ")}, nil
}

// path is a mailbox of the envelope, without brackets and source route; the null path is empty.
type path struct {
	local  string // as written, quotes kept
	domain string
}

func (p path) String() string {
	if p.local == "" {
		return ""
	}
	if p.domain == "" {
		return p.local
	}
	return p.local + "@" + p.domain
}

func (p path) ascii() bool {
	return !strings.ContainsFunc(p.local+p.domain, func(r rune) bool { return r >= utf8.RuneSelf })
}

// parameter is one of the words after a path, the keyword in upper case.
type parameter struct{ keyword, value string }

// parsePath reads "FROM:<path> parameters" or "TO:<path> parameters" (RFC 5321 section 4.1.2): strictly,
// since what an appliance says to the cloud is its own and must be clean.
func parsePath(argument, keyword string) (path, []parameter, error) {
	if len(argument) < len(keyword) || !strings.EqualFold(argument[:len(keyword)], keyword) {
		return path{}, nil, fmt.Errorf("501 5.5.4 Expected %s<address>", keyword)
	}
	rest := argument[len(keyword):]
	if !strings.HasPrefix(rest, "<") {
		return path{}, nil, errors.New("501 5.1.7 Invalid address: no <")
	}
	end, err := closingBracket(rest)
	if err != nil {
		return path{}, nil, err
	}
	mailbox, err := parseMailbox(rest[1:end])
	if err != nil {
		return path{}, nil, err
	}
	parameters, err := parseParameters(rest[end+1:])
	return mailbox, parameters, err
}

// closingBracket finds the > that ends a path; one within quotes does not.
func closingBracket(text string) (int, error) {
	quoted := false
	for i := 1; i < len(text); i++ {
		switch {
		case quoted && text[i] == '\\':
			i++
		case text[i] == '"':
			quoted = !quoted
		case !quoted && text[i] == '>':
			return i, nil
		}
	}
	return 0, errors.New("501 5.1.7 Invalid address: no >")
}

func parseMailbox(text string) (path, error) {
	if text == "" || strings.EqualFold(text, "postmaster") {
		return path{local: text}, nil
	}
	if text[0] == '@' { // a source route: accepted, ignored (RFC 5321 appendix C)
		_, mailbox, found := strings.Cut(text, ":")
		if !found || mailbox == "" || mailbox[0] == '@' {
			return path{}, errors.New("501 5.1.7 Invalid address: source route without mailbox")
		}
		return parseMailbox(mailbox)
	}
	at := strings.LastIndexByte(text, '@')
	if at < 1 || at == len(text)-1 {
		return path{}, errors.New("501 5.1.7 Invalid address: not local-part@domain")
	}
	mailbox := path{text[:at], text[at+1:]}
	if len(mailbox.local) > 64 || len(mailbox.domain) > 255 {
		return path{}, errors.New("501 5.1.7 Invalid address: longer than 64 octets before or 255 after the @")
	}
	if !validLocal(mailbox.local) || !validDomain(mailbox.domain) {
		return path{}, errors.New("501 5.1.7 Invalid address")
	}
	return mailbox, nil
}

// validLocal tells a dot-string or a quoted-string.
func validLocal(local string) bool {
	if strings.HasPrefix(local, `"`) {
		if len(local) < 2 || !strings.HasSuffix(local, `"`) {
			return false
		}
		inner := local[1 : len(local)-1]
		for i := 0; i < len(inner); i++ {
			switch c := inner[i]; {
			case c == '\\':
				i++
				if i == len(inner) || inner[i] < ' ' || inner[i] > '~' {
					return false
				}
			case c == '"' || c < ' ' || c == 0x7f:
				return false
			}
		}
		return true
	}
	for atom := range strings.SplitSeq(local, ".") {
		if atom == "" || strings.ContainsFunc(atom, func(r rune) bool {
			return r <= ' ' || r == 0x7f || strings.ContainsRune(`"(),:;<>@[\]`, r)
		}) {
			return false
		}
	}
	return true
}

// validDomain tells a domain or an address literal.
func validDomain(domain string) bool {
	if strings.HasPrefix(domain, "[") {
		return len(domain) > 2 && strings.IndexByte(domain, ']') == len(domain)-1 &&
			!strings.ContainsFunc(domain, func(r rune) bool { return r <= ' ' || r >= 0x7f })
	}
	for label := range strings.SplitSeq(domain, ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
		for _, r := range label {
			letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
			if !letter && r < utf8.RuneSelf {
				return false
			}
		}
	}
	return true
}

func parseParameters(text string) ([]parameter, error) {
	if text == "" {
		return nil, nil
	}
	if text[0] != ' ' {
		return nil, errors.New("501 5.5.4 Invalid arguments: no space after >")
	}
	var parameters []parameter
	for _, word := range strings.Fields(text) {
		keyword, value, valued := strings.Cut(word, "=")
		if keyword == "" || valued && value == "" {
			return nil, fmt.Errorf("501 5.5.4 Invalid arguments: %q", word)
		}
		parameters = append(parameters, parameter{strings.ToUpper(keyword), value})
	}
	return parameters, nil
}

// parseChunk reads BDAT's argument: a size in bytes, and LAST (RFC 3030 section 2).
func parseChunk(argument string) (size int64, last bool, err error) {
	words := strings.Fields(argument)
	if len(words) == 0 || len(words) > 2 {
		return 0, false, errors.New("501 5.5.4 Expected BDAT size [LAST]")
	}
	unsigned, err := strconv.ParseUint(words[0], 10, 62)
	if err != nil {
		return 0, false, fmt.Errorf("501 5.5.4 Chunk size %q is not a number", words[0])
	}
	if len(words) == 2 {
		if !strings.EqualFold(words[1], "LAST") {
			return 0, false, fmt.Errorf("501 5.5.4 %q after the chunk size, expected LAST or nothing", words[1])
		}
		last = true
	}
	return int64(unsigned), last, nil
}
