package endtoend

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net"
	"net/mail"
	"net/textproto"
	"strings"
	"time"

	"mailchute/appliance/trace"
)

// letter is a message whose content follows from its name, so that whoever has it can tell whether it is whole. The
// name is its Message-ID. Lines with dots are among the others.
func letter(number string, size int) (name string, content []byte) {
	name = fmt.Sprintf("<%s.%d@scanner.contoso.com>", number, size)
	return name, compose(name, size)
}

func compose(name string, size int) []byte {
	var text bytes.Buffer
	text.Grow(size + 100)
	fmt.Fprintf(&text, "From: Scanner <scanner@contoso.com>\r\nTo: archive@fabrikam.com\r\nSubject: Scan %s\r\n"+
		"Date: Mon, 02 Jun 2025 09:30:00 +0200\r\nMessage-ID: %s\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n", name, name)
	random := rand.NewChaCha8(sha256.Sum256([]byte(name)))
	var raw [57]byte
	for line := 0; text.Len() < size; line++ {
		random.Read(raw[:])
		if line%50 == 0 {
			text.WriteString(strings.Repeat(".", 1+line%3))
		}
		text.WriteString(base64.StdEncoding.EncodeToString(raw[:]))
		text.WriteString("\r\n")
	}
	return text.Bytes()
}

// openLetter takes a message apart that has passed the box, and tells what is wrong with it: it must have the box's
// Received field on top, and nothing else may be changed. A message that is no letter is not compared.
func openLetter(message []byte) (name string, isLetter bool, err error) {
	content, err := withoutReceived(message)
	if err != nil {
		return "", false, err
	}
	parsed, err := mail.ReadMessage(bytes.NewReader(content))
	if err != nil {
		return "", false, err
	}
	name = parsed.Header.Get("Message-ID")
	var number string
	var size int
	if _, err := fmt.Sscanf(strings.ReplaceAll(name, ".", " "), "<%s %d@scanner", &number, &size); err != nil {
		return name, false, nil
	}
	if !bytes.Equal(content, compose(name, size)) {
		return name, true, fmt.Errorf("%s is not what was sent: %d bytes, sent %d", name, len(content), len(compose(name, size)))
	}
	return name, true, nil
}

// withoutReceived takes the box's field off a message.
func withoutReceived(message []byte) ([]byte, error) {
	if !bytes.HasPrefix(message, []byte("Received: from ")) {
		return nil, fmt.Errorf("no Received field on top: %.100q", message)
	}
	for rest := message; ; {
		_, after, found := bytes.Cut(rest, []byte("\r\n"))
		if !found {
			return nil, fmt.Errorf("the Received field does not end: %.100q", message)
		}
		if rest = after; len(rest) > 0 && rest[0] != ' ' && rest[0] != '\t' {
			return rest, nil
		}
	}
}

// scanner is a device with an open connection: EHLO has been said.
type scanner struct {
	conn net.Conn
	text *textproto.Conn
}

// moment is a point in the life of a message at which the box can be killed.
type moment int

func connect(address string) (*scanner, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	s := &scanner{conn: conn, text: textproto.NewConn(conn)}
	if _, _, err = s.text.ReadResponse(220); err == nil {
		_, err = s.ask(250, "EHLO scanner")
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (s *scanner) close() { s.conn.Close() }

// ask says a command and demands a reply. An error is a *textproto.Error where it was another one.
func (s *scanner) ask(code int, command string, arguments ...any) (reply string, err error) {
	if err := s.text.PrintfLine(command, arguments...); err != nil {
		return "", err
	}
	_, reply, err = s.text.ReadResponse(code)
	return reply, err
}

// envelope begins a message.
func (s *scanner) envelope(from, to string) error {
	if _, err := s.ask(250, "MAIL FROM:<%s>", from); err != nil {
		return err
	}
	if _, err := s.ask(250, "RCPT TO:<%s>", to); err != nil {
		return err
	}
	_, err := s.ask(354, "DATA")
	return err
}

// send hands in a message and gives the id the box has acknowledged it with.
func (s *scanner) send(from, to string, content []byte) (id trace.ID, err error) {
	if err := s.envelope(from, to); err != nil {
		return 0, err
	}
	dotted := s.text.DotWriter()
	if _, err := dotted.Write(content); err != nil {
		return 0, err
	}
	if err := dotted.Close(); err != nil {
		return 0, err
	}
	return s.acknowledged()
}

// acknowledged reads the answer to the final dot.
func (s *scanner) acknowledged() (trace.ID, error) {
	_, reply, err := s.text.ReadResponse(250)
	if err != nil {
		return 0, err
	}
	return trace.ParseID(reply[strings.LastIndexByte(reply, ' ')+1:])
}

// The usual sender and recipient.
const (
	from = "scanner@contoso.com"
	to   = "archive@fabrikam.com"
)

// hand hands in a letter over a connection of its own.
func hand(b *box, number string, size int) (name string, id trace.ID) {
	b.t.Helper()
	return handFrom(b, from, number, size)
}

func handFrom(b *box, sender, number string, size int) (name string, id trace.ID) {
	b.t.Helper()
	name, content := letter(number, size)
	s, err := connect(b.address("none"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer s.close()
	if id, err = s.send(sender, to, content); err != nil {
		b.t.Fatalf("handing in %s: %v", name, err)
	}
	return name, id
}
