package smtpclient

import (
	"io"

	"mailchute/appliance/reply"
)

// Transaction is one message for the recipients that go by one connection.
type Transaction struct {
	Sender     string   // reverse-path without brackets; empty: the null sender
	Recipients []string // forward-paths without brackets, at least one
	Size       int64    // bytes of the body, line ends CRLF
	EightBit   bool     // the body has bytes above 127: needs 8BITMIME (RFC 6152)
	UTF8       bool     // addresses or header fields need SMTPUTF8 (RFC 6531)
	// Body opens the message. It is called just before MAIL is written, at most once, so that a message that cannot
	// be opened costs no connection. It yields exactly Size bytes; anything else ends as a *BodyError.
	Body func() (io.ReadCloser, error)
}

// Outcome is how a transaction ended.
type Outcome struct {
	Answers []reply.Answer // one a recipient, in their order
	// Untried: the connection ended before the server said anything about this message and an older one was
	// the first to go unanswered, or the connection was closing: the message is simply due again.
	Untried bool
}
