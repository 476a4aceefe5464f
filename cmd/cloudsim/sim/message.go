package sim

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Message is one message the cloud has taken. As JSON it lies beside the body in Options.Folder.
type Message struct {
	Number       int       `json:"number"` // counts from 1
	Received     time.Time `json:"received"`
	Client       string    `json:"client"` // address and port
	Helo         string    `json:"helo"`
	TLS          string    `json:"tls,omitempty"`          // version and cipher suite; empty: plain
	Certificates []string  `json:"certificates,omitempty"` // names in the client's certificate, trusted or not
	Trusted      bool      `json:"trusted"`                // its chain leads to a root of the tenant
	Connector    string    `json:"connector,omitempty"`    // the inbound connector it was attributed to
	Account      string    `json:"account,omitempty"`      // who signed in
	Sender       string    `json:"sender"`                 // empty: the null sender
	Recipients   []string  `json:"recipients"`
	Parameters   []string  `json:"parameters,omitempty"` // of MAIL: SIZE=…, BODY=…, SMTPUTF8
	Chunked      bool      `json:"chunked"`              // came by BDAT
	Size         int64     `json:"size"`                 // bytes, dots unstuffed
	SHA256       string    `json:"sha256"`
	File         string    `json:"file,omitempty"` // where the body is stored
	Body         []byte    `json:"-"`              // the body where no folder was given and it is not discarded
}

// body takes what comes between a BDAT or DATA and the answer to it, whatever its size. Writing never fails: a
// full disk is found out at the end, when the client can be told.
type body struct {
	limit    int64
	size     int64
	last     byte
	bareLF   bool // a line feed without carriage return was seen
	hash     hash.Hash
	memory   *bytes.Buffer // nil: not kept in memory
	file     *os.File      // nil: not stored
	trouble  error
	answered bool // a fault has given the reply early
}

func (s *Server) newBody() *body {
	b := &body{limit: s.tenant.MaxMessageSize, hash: sha256.New()}
	switch {
	case s.options.Folder != "":
		b.file, b.trouble = os.CreateTemp(s.options.Folder, ".incoming-*")
	case !s.options.Discard:
		b.memory = new(bytes.Buffer)
	}
	return b
}

func (b *body) Write(piece []byte) (int, error) {
	written := len(piece)
	if written == 0 {
		return 0, nil
	}
	b.size += int64(written)
	if !b.bareLF {
		b.bareLF = bareLineFeed(b.last, piece)
	}
	b.last = piece[written-1]
	if b.size > b.limit || b.trouble != nil {
		return written, nil
	}
	b.hash.Write(piece)
	if b.memory != nil {
		b.memory.Write(piece)
	}
	if b.file != nil {
		_, b.trouble = b.file.Write(piece)
	}
	return written, nil
}

// refusal is the answer to a body that cannot be taken; empty: it can.
func (b *body) refusal() string {
	switch {
	case b.size > b.limit:
		return "552 5.3.4 Message size exceeds fixed maximum message size"
	case b.bareLF:
		return "550 5.6.11 Invalid characters: the message contains bare line feeds"
	case b.trouble != nil:
		return "452 4.3.1 Insufficient system resources"
	}
	return ""
}

// drop forgets a body that was not taken.
func (b *body) drop() {
	if b != nil && b.file != nil {
		b.file.Close()
		os.Remove(b.file.Name())
	}
}

// keep gives the body its place; message has its number already.
func (b *body) keep(folder string, message *Message) error {
	message.Size = b.size
	message.SHA256 = hex.EncodeToString(b.hash.Sum(nil))
	if b.memory != nil {
		message.Body = b.memory.Bytes()
	}
	if b.file == nil {
		return nil
	}
	if err := b.file.Close(); err != nil {
		return err
	}
	name := filepath.Join(folder, fmt.Sprintf("%06d", message.Number))
	message.File = name + ".eml"
	if err := os.Rename(b.file.Name(), message.File); err != nil {
		return err
	}
	description, err := json.MarshalIndent(message, "", "  ")
	if err != nil {
		return err
	}
	// The description appears whole and last: who waits for it finds both.
	unfinished := filepath.Join(folder, "."+filepath.Base(name))
	if err := os.WriteFile(unfinished, append(description, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(unfinished, name+".json")
}

// lastNumber finds the highest number among the messages an earlier run left in folder.
func lastNumber(folder string) (int, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return 0, err
	}
	last := 0
	for _, entry := range entries {
		name, found := strings.CutSuffix(entry.Name(), ".eml")
		if number, err := strconv.Atoi(name); found && err == nil {
			last = max(last, number)
		}
	}
	return last, nil
}

// bareLineFeed tells whether piece, which follows the byte before, has a line feed without carriage return.
func bareLineFeed(before byte, piece []byte) bool {
	for offset := 0; ; {
		i := bytes.IndexByte(piece[offset:], '\n')
		if i < 0 {
			return false
		}
		i += offset
		if i > 0 {
			before = piece[i-1]
		}
		if before != '\r' {
			return true
		}
		offset = i + 1
	}
}
