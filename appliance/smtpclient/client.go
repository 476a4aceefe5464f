// Package smtpclient is the wire to the cloud: one SMTP connection that is greeted, encrypted, signed in and then
// carries messages back to back, several in flight, each reply matched to the message it is about.
package smtpclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"mailchute/appliance/reply"
)

// Policy says what TLS a connection must have.
type Policy string

const (
	None          Policy = "none"          // plain
	Opportunistic Policy = "opportunistic" // encrypted where STARTTLS is offered and works, unverified
	Required      Policy = "required"      // encrypted, unverified
	Verified      Policy = "verified"      // encrypted, the server's certificate checked for VerifyName
)

// Options is what a connection needs to know of its endpoint.
type Options struct {
	Host  string // the name that was dialled, for Peer
	Hello string // the name to greet with (RFC 5321 section 4.1.1.1)

	TLS         Policy           // empty: Verified
	Implicit    bool             // TLS from the first byte (RFC 8314 section 3.3), without STARTTLS
	VerifyName  string           // the name the server's certificate must have, also sent as SNI
	Roots       *x509.CertPool   // nil: the system's
	Certificate *tls.Certificate // the client's, leaf first, sent whole whenever the server asks; nil: none

	Username, Password string // AUTH PLAIN or LOGIN, under TLS only; an empty Username: no sign-in

	Pipelining  bool  // may be used where it is offered (RFC 2920); false: one command at a time
	Window      int   // messages unanswered at once; 0: 8
	WindowBytes int64 // bytes of bodies unanswered at once, a single larger one goes alone; 0: 1 MiB
	Careful     bool  // one message at a time until one has been taken

	Timeouts Timeouts
	// Ended is called once when Run is over, before it returns; nil: nobody asks.
	Ended func(Summary)
}

// Timeouts are the longest waits for one step; 0: the default. Writing a body renews its own with every block.
type Timeouts struct {
	Banner time.Duration // 5 min
	Hello  time.Duration // 5 min; also STARTTLS
	TLS    time.Duration // 1 min, the whole handshake
	Auth   time.Duration // 2 min, each step
	Mail   time.Duration // 5 min; also RSET
	Rcpt   time.Duration // 5 min
	Data   time.Duration // 2 min, the answer to DATA
	Block  time.Duration // 3 min, until the server has room for 64 KiB more
	Final  time.Duration // 10 min, the answer after the body
	Quit   time.Duration // 5 s; also what a server still says after it stopped reading
}

// withDefaults fills in RFC 5321 section 4.5.3.2. What the RFC leaves open is short: a handshake needs no patience,
// and nothing depends on the answer to QUIT.
func (t Timeouts) withDefaults() Timeouts {
	fill := func(field *time.Duration, value time.Duration) {
		if *field == 0 {
			*field = value
		}
	}
	fill(&t.Banner, 5*time.Minute)
	fill(&t.Hello, 5*time.Minute)
	fill(&t.TLS, time.Minute)
	fill(&t.Auth, 2*time.Minute)
	fill(&t.Mail, 5*time.Minute)
	fill(&t.Rcpt, 5*time.Minute)
	fill(&t.Data, 2*time.Minute)
	fill(&t.Block, 3*time.Minute)
	fill(&t.Final, 10*time.Minute)
	fill(&t.Quit, 5*time.Second)
	return t
}

// of is the longest wait for the answer at a stage.
func (t *Timeouts) of(stage reply.Stage) time.Duration {
	switch stage {
	case reply.Banner:
		return t.Banner
	case reply.Hello, reply.StartTLS:
		return t.Hello
	case reply.Auth:
		return t.Auth
	case reply.Rcpt:
		return t.Rcpt
	case reply.Data:
		return t.Data
	case reply.Final:
		return t.Final
	case reply.Quit:
		return t.Quit
	default:
		return t.Mail
	}
}

const (
	defaultWindow      = 8
	defaultWindowBytes = 1 << 20
)

// Summary is what a connection teaches for the next one.
type Summary struct {
	Sent      int  // messages taken for at least one recipient
	Broken    bool // the connection ended while a message was unanswered
	OutOfStep bool // the server answered 503 to pipelined commands: ask it one at a time
}

// Peer is who answered.
type Peer struct {
	Host       string            // as dialled
	Address    string            // of the remote end, with port
	Banner     string            // the greeting in full
	Lines      []string          // the last answer to EHLO, line by line, the greeting first; empty after HELO
	Extensions map[string]string // by keyword in capitals: "SIZE": "157286400"
	TLS        string            // "TLS1.3 TLS_AES_128_GCM_SHA256"; empty: plain
	Pipelined  bool              // PIPELINING is offered and used
	Chunked    bool              // CHUNKING is offered (RFC 3030)
	MaxSize    int64             // bytes the server takes (RFC 1870); 0: it does not say
}

// String names the peer for a trace: "mx.contoso.com [192.0.2.1:25] TLS1.3 TLS_AES_128_GCM_SHA256".
func (p Peer) String() string {
	text := "[" + p.Address + "]"
	if p.Host != "" {
		text = p.Host + " " + text
	}
	if p.TLS == "" {
		return text + " plain"
	}
	return text + " " + p.TLS
}

func (p Peer) offers(extension string) bool {
	_, offered := p.Extensions[extension]
	return offered
}

// Error is a connection that failed, with the answer that tells at which stage and why.
type Error struct{ Answer reply.Answer }

func (e *Error) Error() string { return string(e.Answer.Stage) + ": " + e.Answer.String() }

// Unwrap gives the error that came instead of a reply, if one did.
func (e *Error) Unwrap() error { return e.Answer.Err }

// BodyError says that the box could not send a message's body; nothing is wrong with the server.
type BodyError struct {
	Size, Sent int64 // bytes announced, and bytes found before it failed
	Err        error // nil: the number of bytes is wrong
}

func (e *BodyError) Error() string {
	switch {
	case e.Err != nil:
		return fmt.Sprintf("the stored body of %d bytes could not be read beyond byte %d: %v", e.Size, e.Sent, e.Err)
	case e.Sent > e.Size:
		return fmt.Sprintf("the stored body has more than the %d bytes its envelope says", e.Size)
	default:
		return fmt.Sprintf("the stored body ends after %d bytes, its envelope says %d", e.Sent, e.Size)
	}
}

func (e *BodyError) Unwrap() error { return e.Err }

// Fault makes the box responsible (see reply.Faulty).
func (e *BodyError) Fault() reply.Fault { return reply.Box }

// explain says in words what Go says in three letters.
func explain(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("the server closed the connection: %w", err)
	}
	return err
}

// telling picks the error that says more when writing failed and reading after it did too: a TLS alert names the
// reason, anything else comes from the connection being gone.
func telling(read, write error) error {
	var operation *net.OpError
	if errors.As(read, &operation) && operation.Op == "remote error" {
		return read
	}
	return write
}

// describeTLS names version and cipher suite as traces show them.
func describeTLS(state tls.ConnectionState) string {
	return strings.ReplaceAll(tls.VersionName(state.Version), " ", "") + " " + tls.CipherSuiteName(state.CipherSuite)
}

// tlsConfig is what the handshake is made with.
func (o *Options) tlsConfig() *tls.Config {
	config := &tls.Config{
		ServerName:         o.VerifyName,
		RootCAs:            o.Roots,
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: o.TLS == Required || o.TLS == Opportunistic,
		// Bodies are long: full records from the start.
		DynamicRecordSizingDisabled: true,
	}
	if o.Certificate != nil {
		// Not by Certificates: crypto/tls would send none when the issuer is not in the server's list of authorities,
		// which endpoints leave short.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return o.Certificate, nil
		}
	}
	return config
}

// wire renews the write deadline with every block, below TLS, and remembers when the last one went out.
type wire struct {
	net.Conn
	block    time.Duration
	progress atomic.Int64 // Unix nanoseconds
}

func (w *wire) Write(block []byte) (int, error) {
	_ = w.Conn.SetWriteDeadline(time.Now().Add(w.block)) // a closed connection shows at writing
	n, err := w.Conn.Write(block)
	if n > 0 {
		w.progress.Store(time.Now().UnixNano())
	}
	return n, err
}
