package sim

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// errEnd ends a session that is over as it should be: by QUIT, or by a fault.
var errEnd = errors.New("the session is over")

// session is one conversation.
type session struct {
	server *Server
	tenant *Tenant
	raw    net.Conn // as accepted
	conn   net.Conn // raw, or TLS above it
	r      *bufio.Reader
	w      *bufio.Writer
	out    *bufio.Writer // collects the lines of a body

	helo         string
	extended     bool // EHLO, not HELO
	tls          string
	certificates []string
	trusted      bool
	connector    string
	account      string
	transaction
}

// transaction is what MAIL begins and RSET, EHLO or the answer to the body ends.
type transaction struct {
	mailed     bool
	sender     path
	parameters []string
	utf8       bool
	binary     bool
	recipients []string
	body       *body // of a BDAT that was not the last
	broken     bool  // a chunk was refused: only RSET helps (RFC 3030 section 2)
}

func newSession(server *Server, conn net.Conn) *session {
	s := &session{server: server, tenant: &server.tenant, raw: conn, out: bufio.NewWriterSize(nil, 64<<10)}
	s.use(conn)
	return s
}

// use begins to talk over conn. Replies are written when more input is needed, so that those to a pipelined
// batch travel together.
func (s *session) use(conn net.Conn) {
	s.conn = conn
	s.w = bufio.NewWriter(conn)
	s.r = bufio.NewReaderSize(&flushing{conn, s.w}, 64<<10)
}

type flushing struct {
	io.Reader
	w *bufio.Writer
}

func (f *flushing) Read(p []byte) (int, error) {
	if err := f.w.Flush(); err != nil {
		return 0, err
	}
	return f.Reader.Read(p)
}

func (s *session) run() error {
	defer func() { s.body.drop() }()
	if _, err := s.meet(Connect, s.raw.RemoteAddr().String()); err != nil {
		return err
	}
	if s.tenant.ImplicitTLS {
		if err := s.handshake(); err != nil {
			return err
		}
	}
	if met, err := s.meet(Banner, s.raw.RemoteAddr().String()); err != nil {
		return err
	} else if !met {
		s.say("220 " + s.tenant.Host + " Microsoft ESMTP MAIL Service ready at " + time.Now().UTC().Format(time.RFC1123Z))
	}
	for {
		line, err := s.r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) || len(line) > maxLine {
			s.say(fmt.Sprintf("500 5.5.2 Line longer than %d octets", maxLine))
			s.w.Flush()
			return errors.New("a command line was too long")
		}
		if errors.Is(err, io.EOF) && s.helo == "" && len(line) == 0 { // somebody looked whether the port answers
			return errEnd
		}
		if err != nil {
			return err
		}
		command, err := parseCommand(line)
		if err != nil {
			s.say(err.Error())
			continue
		}
		if err := s.answer(command); err != nil {
			flushed := s.w.Flush()
			return errors.Join(err, flushed)
		}
	}
}

func (s *session) say(reply string) {
	s.w.WriteString(reply)
	s.w.WriteString("\r\n")
}

// answer gives the reply to one command.
func (s *session) answer(c command) error {
	switch c.verb {
	case "EHLO", "HELO":
		return s.hello(c)
	case "STARTTLS":
		return s.startTLS(c)
	case "AUTH":
		return s.auth(c)
	case "MAIL":
		return s.mail(c)
	case "RCPT":
		return s.rcpt(c)
	case "DATA":
		return s.data(c)
	case "BDAT":
		return s.bdat(c)
	case "RSET":
		if met, err := s.meet(Reset, ""); met || err != nil {
			return err
		}
		s.reset()
		s.say("250 2.0.0 Resetting")
	case "NOOP":
		s.say("250 2.0.0 OK")
	case "VRFY":
		s.say("252 2.1.5 Cannot VRFY user")
	case "QUIT":
		if met, err := s.meet(Quit, ""); met || err != nil {
			return err
		}
		s.say("221 2.0.0 Service closing transmission channel")
		return errEnd
	default:
		s.say("500 5.3.3 Unrecognized command")
	}
	return nil
}

func (s *session) reset() {
	s.body.drop()
	s.transaction = transaction{}
}

func (s *session) hello(c command) error {
	if met, err := s.meet(Hello, c.argument); met || err != nil {
		return err
	}
	if c.argument == "" || strings.ContainsAny(c.argument, " \t") {
		s.say("501 5.5.4 Invalid domain name")
		return nil
	}
	s.reset()
	s.helo, s.extended = c.argument, c.verb == "EHLO"
	client, _, err := net.SplitHostPort(s.raw.RemoteAddr().String())
	if err != nil {
		client = s.raw.RemoteAddr().String()
	}
	greeting := s.tenant.Host + " Hello [" + client + "]"
	if !s.extended {
		s.say("250 " + greeting)
		return nil
	}
	lines := []string{greeting}
	for _, keyword := range []string{"SIZE", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "STARTTLS", "AUTH", "8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"} {
		if !s.tenant.knows(keyword) {
			continue
		}
		switch keyword {
		case "SIZE":
			keyword = fmt.Sprintf("SIZE %d", s.tenant.MaxMessageSize)
		case "STARTTLS":
			if s.tls != "" || s.server.tls == nil {
				continue
			}
		case "AUTH":
			if s.tls == "" || len(s.tenant.Accounts) == 0 {
				continue
			}
			keyword = "AUTH " + strings.Join(s.tenant.Mechanisms, " ")
		}
		lines = append(lines, keyword)
	}
	for _, line := range lines[:len(lines)-1] {
		s.say("250-" + line)
	}
	s.say("250 " + lines[len(lines)-1])
	return nil
}

func (s *session) startTLS(c command) error {
	if met, err := s.meet(StartTLS, ""); met || err != nil {
		return err
	}
	switch {
	case s.server.tls == nil || !s.tenant.knows("STARTTLS"):
		s.say("500 5.3.3 Unrecognized command")
		return nil
	case s.tls != "":
		s.say("503 5.5.1 TLS is on already")
		return nil
	case c.argument != "":
		s.say("501 5.5.4 STARTTLS takes no argument")
		return nil
	case s.r.Buffered() > 0: // RFC 3207 section 6: nothing said in clear may count afterwards
		s.say("501 5.5.2 Commands after STARTTLS in the same batch")
		return errors.New("commands were pipelined behind STARTTLS")
	}
	s.say("220 2.0.0 SMTP server ready")
	if err := s.w.Flush(); err != nil {
		return err
	}
	return s.handshake()
}

// handshake does TLS and forgets what was said in clear (RFC 3207 section 4.2).
func (s *session) handshake() error {
	config := s.server.tls
	fault, found := s.reach(TLS, s.helo)
	refuse := errors.New("refused by a fault")
	switch {
	case found && fault.Action == Alert:
		config = config.Clone()
		config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, refuse }
	case found && fault.Action == Reject:
		config = config.Clone()
		config.VerifyConnection = func(tls.ConnectionState) error { return refuse }
	case found:
		return s.act(fault)
	}
	conn := tls.Server(s.raw, config)
	if err := conn.Handshake(); err != nil {
		s.fallSilent() // so that a reset does not overtake the alert
		if found {
			return errEnd
		}
		return fmt.Errorf("TLS handshake: %w", err)
	}
	s.use(conn)
	state := conn.ConnectionState()
	s.tls = tls.VersionName(state.Version) + ", " + tls.CipherSuiteName(state.CipherSuite)
	s.certificates, s.trusted = s.tenant.verify(state.PeerCertificates, time.Now())
	s.connector = ""
	if s.trusted {
		connector, _ := s.tenant.attribute(s.certificates)
		s.connector = connector.Name
	}
	s.reset()
	s.helo = ""
	return nil
}

func (s *session) mail(c command) error {
	if met, err := s.meet(Mail, c.argument); met || err != nil {
		return err
	}
	if s.helo == "" {
		s.say("503 5.5.2 Send hello first")
		return nil
	}
	if s.mailed {
		s.say("503 5.5.2 Sender already specified")
		return nil
	}
	sender, parameters, err := parsePath(c.argument, "FROM:")
	if err != nil {
		s.say(err.Error())
		return nil
	}
	next := transaction{mailed: true, sender: sender}
	if refusal := s.mailParameters(&next, parameters); refusal != "" {
		s.say(refusal)
		return nil
	}
	if refusal := utf8Refusal(sender, next.utf8); refusal != "" {
		s.say(refusal)
		return nil
	}
	s.transaction = next
	s.say("250 2.1.0 Sender OK")
	return nil
}

func (s *session) rcpt(c command) error {
	if met, err := s.meet(Rcpt, c.argument); met || err != nil {
		return err
	}
	if !s.mailed {
		s.say("503 5.5.2 Need mail command")
		return nil
	}
	recipient, parameters, err := parsePath(c.argument, "TO:")
	if err != nil {
		s.say(err.Error())
		return nil
	}
	for _, parameter := range parameters {
		if !s.extended || !s.tenant.knows("DSN") || parameter.keyword != "NOTIFY" && parameter.keyword != "ORCPT" {
			s.say("555 5.5.4 Unsupported parameter " + parameter.keyword)
			return nil
		}
	}
	refusal := utf8Refusal(recipient, s.utf8)
	switch {
	case recipient == path{}:
		refusal = "501 5.1.3 Invalid address: a recipient cannot be null"
	case refusal != "":
	case len(s.recipients) >= s.tenant.MaxRecipients:
		refusal = "452 4.5.3 Too many recipients"
	default:
		refusal = s.tenant.judge(s.sender, recipient, s.connector, s.account)
	}
	if refusal != "" {
		s.say(refusal)
		return nil
	}
	s.recipients = append(s.recipients, recipient.String())
	s.say("250 2.1.5 Recipient OK")
	return nil
}

func utf8Refusal(address path, allowed bool) string {
	if allowed || address.ascii() {
		return ""
	}
	return "553 5.6.7 An address that is not ASCII needs SMTPUTF8" // RFC 6531 section 3.5
}

// mailParameters puts MAIL's parameters into the transaction; each needs its extension.
func (s *session) mailParameters(next *transaction, parameters []parameter) (refusal string) {
	for _, parameter := range parameters {
		keyword, extension := parameter.keyword, parameter.keyword
		switch keyword {
		case "BODY":
			extension = "8BITMIME"
		case "RET", "ENVID":
			extension = "DSN"
		case "SIZE", "SMTPUTF8", "AUTH":
		default:
			return "555 5.5.4 Unsupported parameter " + keyword
		}
		if !s.extended || !s.tenant.knows(extension) {
			return "555 5.5.4 Unsupported parameter " + keyword
		}
		text := keyword
		if parameter.value != "" {
			text += "=" + parameter.value
		}
		next.parameters = append(next.parameters, text)
		switch keyword {
		case "SMTPUTF8":
			next.utf8 = true
		case "SIZE":
			if refusal := s.sizeRefusal(parameter.value); refusal != "" {
				return refusal
			}
		case "BODY":
			switch strings.ToUpper(parameter.value) {
			case "7BIT", "8BITMIME":
			case "BINARYMIME":
				if !s.tenant.knows("BINARYMIME") {
					return "555 5.5.4 Unsupported parameter BODY=BINARYMIME"
				}
				next.binary = true
			default:
				return "501 5.5.4 Invalid arguments: BODY is 7BIT, 8BITMIME or BINARYMIME"
			}
		}
	}
	return ""
}

func (s *session) sizeRefusal(value string) string {
	size, _, err := parseChunk(value)
	switch {
	case err != nil:
		return "501 5.5.4 Invalid arguments: SIZE is a number of bytes"
	case size > s.tenant.MaxMessageSize:
		return "552 5.3.4 Message size exceeds fixed maximum message size"
	}
	return ""
}

// meet lets a fault happen that was set for this stage. Where one was met, the proper answer is not given.
func (s *session) meet(stage Stage, subjects ...string) (met bool, err error) {
	fault, found := s.reach(stage, subjects...)
	if !found {
		return false, nil
	}
	return true, s.act(fault)
}

func (s *session) reach(stage Stage, subjects ...string) (Fault, bool) {
	fault, found := s.server.faults.reach(stage, subjects)
	if found && s.server.options.OnFault != nil {
		s.server.options.OnFault(fault)
	}
	return fault, found
}

// act does what a fault says; errEnd where the conversation cannot go on.
func (s *session) act(fault Fault) error {
	if fault.Reply != "" {
		s.say(fault.Reply)
	}
	if fault.Action == Proceed {
		return nil
	}
	if fault.Action == Garbage {
		s.w.WriteString("\x16\x03HTTP/1.1 400 Bad Request\r\n\x00\xff\xfe\r\n")
	}
	s.w.Flush()
	switch fault.Action {
	case Close, Garbage:
		s.conn.Close()
	case Abort:
		if tcp, ok := s.raw.(interface{ SetLinger(seconds int) error }); ok {
			tcp.SetLinger(0)
		}
		s.raw.Close()
	case Stall:
		if fault.Stage == Body {
			<-s.server.done
		}
		io.Copy(io.Discard, s.conn)
	case HalfClose:
		s.fallSilent()
	}
	return errEnd
}

// fallSilent closes the way to the client and drops what it still sends.
func (s *session) fallSilent() {
	type halfCloser interface{ CloseWrite() error }
	if secure, ok := s.conn.(*tls.Conn); ok {
		secure.CloseWrite()
	}
	half, ok := s.raw.(halfCloser)
	if !ok { // a pipe of a test has no halves
		s.raw.Close()
		return
	}
	half.CloseWrite()
	io.Copy(io.Discard, s.raw)
}
