package sim

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// data takes a body by DATA (RFC 5321 section 4.1.1.4).
func (s *session) data(c command) error {
	if met, err := s.meet(Data, s.addresses()...); met || err != nil {
		return err
	}
	switch {
	case c.argument != "":
		s.say("501 5.5.4 DATA takes no argument")
		return nil
	case !s.mailed:
		s.say("503 5.5.2 Need mail command")
		return nil
	case len(s.recipients) == 0:
		s.say("503 5.5.2 Need rcpt command")
		return nil
	case s.body != nil || s.broken || s.binary:
		s.say("503 5.5.1 Bad sequence of commands: this message comes by BDAT")
		return nil
	}
	s.say("354 Start mail input; end with <CRLF>.<CRLF>")
	s.body = s.server.newBody()
	s.out.Reset(s.body)
	if err := s.readDotted(); err != nil {
		return fmt.Errorf("in the body: %w", err)
	}
	s.out.Flush()
	return s.final(false)
}

// readDotted reads up to CRLF.CRLF, and takes away the dots that stuffing added. Nothing else ends a body.
func (s *session) readDotted() error {
	begun, lineStart := false, true
	var before byte
	for {
		line, err := s.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return unexpected(err)
		}
		if !begun {
			begun = true
			if err := s.meetBody(); err != nil {
				return err
			}
		}
		if lineStart && line[0] == '.' {
			if string(line) == ".\r\n" {
				return nil
			}
			line = line[1:]
		}
		s.out.Write(line)
		lineStart = err == nil && (bytes.HasSuffix(line, []byte("\r\n")) || len(line) == 1 && before == '\r')
		if len(line) > 0 {
			before = line[len(line)-1]
		}
	}
}

// bdat takes a chunk of a body (RFC 3030 section 2). A chunk that is refused is read all the same.
func (s *session) bdat(c command) error {
	size, last, err := parseChunk(c.argument)
	if !s.tenant.knows("CHUNKING") {
		s.say("500 5.3.3 Unrecognized command")
		return nil
	}
	if err != nil { // where the next command begins is not known
		s.say(err.Error())
		return errors.New("a BDAT command could not be understood")
	}
	if fault, found := s.reach(Data, s.addresses()...); found {
		if fault.Action == Proceed {
			if err := s.skip(size); err != nil {
				return err
			}
			s.breakOff()
		}
		return s.act(fault)
	}
	refusal := ""
	switch {
	case !s.mailed:
		refusal = "503 5.5.2 Need mail command"
	case len(s.recipients) == 0:
		refusal = "503 5.5.2 Need rcpt command"
	case s.broken:
		refusal = "503 5.5.1 Bad sequence of commands: an earlier chunk was refused"
	}
	if refusal != "" {
		if err := s.skip(size); err != nil {
			return err
		}
		s.say(refusal)
		return nil
	}
	begun := s.body != nil
	if !begun {
		s.body = s.server.newBody()
	}
	s.out.Reset(s.body)
	if !begun && size > 0 {
		if _, err := s.r.Peek(1); err != nil {
			return fmt.Errorf("in a chunk: %w", unexpected(err))
		}
		if err := s.meetBody(); err != nil {
			return err
		}
	}
	if _, err := io.CopyN(s.out, s.r, size); err != nil {
		return fmt.Errorf("in a chunk: %w", unexpected(err))
	}
	s.out.Flush()
	if last {
		return s.final(true)
	}
	if refusal := s.body.refusal(); refusal != "" {
		s.breakOff()
		s.say(refusal)
		return nil
	}
	if !s.body.answered {
		s.say(fmt.Sprintf("250 2.6.0 CHUNK received OK, %d octets", size))
	}
	return nil
}

// meetBody lets a fault happen in the middle of a body. An early reply stands for the proper one.
func (s *session) meetBody() error {
	met, err := s.meet(Body, s.addresses()...)
	s.body.answered = met
	return err
}

func (s *session) breakOff() {
	s.body.drop()
	s.body, s.broken = nil, true
}

func (s *session) skip(size int64) error {
	_, err := io.CopyN(io.Discard, s.r, size)
	return unexpected(err)
}

// final answers a whole body and ends the transaction.
func (s *session) final(chunked bool) error {
	defer s.reset()
	if s.body.answered {
		return nil
	}
	if met, err := s.meet(Final, s.addresses()...); met || err != nil {
		return err
	}
	refusal := s.body.refusal()
	if refusal == "" && s.account != "" && !strings.EqualFold(s.account, s.sender.String()) {
		refusal = fmt.Sprintf("554 5.2.252 SendAsDenied; %s not allowed to send as %s", s.account, s.sender)
	}
	if refusal != "" {
		s.say(refusal)
		return nil
	}
	message, err := s.server.take(Message{
		Client:       s.raw.RemoteAddr().String(),
		Helo:         s.helo,
		TLS:          s.tls,
		Certificates: s.certificates,
		Trusted:      s.trusted,
		Connector:    s.connector,
		Account:      s.account,
		Sender:       s.sender.String(),
		Recipients:   s.recipients,
		Parameters:   s.parameters,
		Chunked:      chunked,
	}, s.body)
	if err != nil {
		s.say("452 4.3.1 Insufficient system resources")
		return nil
	}
	s.body = nil // it has its place
	s.say(fmt.Sprintf("250 2.6.0 <%d@%s> [InternalId=%d, Hostname=%s] %d bytes Queued mail for delivery",
		message.Number, s.tenant.Host, message.Number, s.tenant.Host, message.Size))
	return nil
}

// addresses are those of the envelope, the sender first.
func (s *session) addresses() []string {
	return append([]string{s.sender.String()}, s.recipients...)
}

// auth signs in by LOGIN or PLAIN (RFC 4954), under TLS alone.
func (s *session) auth(c command) error {
	if met, err := s.meet(Auth, c.argument); met || err != nil {
		return err
	}
	mechanism, initial, _ := strings.Cut(c.argument, " ")
	mechanism = strings.ToUpper(mechanism)
	switch {
	case s.tls == "" || len(s.tenant.Accounts) == 0 || !s.tenant.knows("AUTH"):
		s.say("500 5.3.3 Unrecognized command")
		return nil
	case s.helo == "" || s.mailed || s.account != "":
		s.say("503 5.5.1 Bad sequence of commands")
		return nil
	case !slices.Contains(s.tenant.Mechanisms, mechanism):
		s.say("504 5.7.4 Unrecognized authentication type")
		return nil
	}
	var user, password string
	var err error
	switch mechanism {
	case "LOGIN":
		if user, err = s.ask("Username:", initial); err == nil {
			password, err = s.ask("Password:", "")
		}
	case "PLAIN":
		var answer string
		answer, err = s.ask("", initial)
		if parts := strings.Split(answer, "\x00"); len(parts) == 3 {
			user, password = parts[1], parts[2]
		}
	}
	var invalid base64.CorruptInputError
	switch wanted, known := s.tenant.Accounts[user]; {
	case errors.As(err, &invalid):
		s.say("501 5.5.2 Cannot decode the response")
	case err != nil:
		return err
	case !known || wanted != password:
		s.say("535 5.7.3 Authentication unsuccessful [" + s.tenant.Host + "]")
	default:
		s.account = user
		s.say("235 2.7.0 Authentication successful")
	}
	return nil
}

// ask gets the answer to a challenge, unless it was given with the command.
func (s *session) ask(challenge, answer string) (string, error) {
	if answer == "" {
		s.say("334 " + base64.StdEncoding.EncodeToString([]byte(challenge)))
		line, err := s.r.ReadSlice('\n')
		if err != nil {
			return "", unexpected(err)
		}
		answer = strings.TrimRight(string(line), "\r\n")
	}
	if answer == "=" {
		answer = ""
	}
	decoded, err := base64.StdEncoding.DecodeString(answer)
	return string(decoded), err
}

// unexpected makes an end within something an error.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
