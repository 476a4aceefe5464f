// Package message is the way of a body from the wire into the queue: one pass, in constant memory, that makes
// line ends CRLF, puts the box's Received field on top, and notes what the queue and the trace want to know.
// Nothing else of a message changes.
package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// Limits of one message.
type Limits struct {
	Size   int64 // bytes as the client sent them, dots undone; a message of exactly that size passes
	Header int   // bytes of the header section
	Hops   int   // Received fields it may come with
}

var (
	// ErrTooLarge: the message has more bytes than Limits.Size.
	ErrTooLarge = errors.New("the message is larger than allowed")
	// ErrHeaderTooLarge: the header section has more bytes than Limits.Header.
	ErrHeaderTooLarge = errors.New("the header of the message is larger than allowed")
	// ErrLoop: the message came with more than Limits.Hops Received fields (RFC 5321 6.3).
	ErrLoop = errors.New("the message has passed too many servers: it goes round in a loop")
)

// Summary is what was noted about a message.
type Summary struct {
	Size           int64  // bytes written, the box's Received field included
	EightBit       bool   // the message has bytes above 127
	EightBitHeader bool   // its header section has
	Hops           int    // Received fields it came with
	MessageID      string // of the Message-ID field, at most 250 bytes, without control characters
	Subject        string // the first 200 bytes, decoded (RFC 2047), without control characters
}

var lineEnd = []byte("\r\n")

// Writer passes one message on. Close ends it.
type Writer struct {
	to      io.Writer
	limits  Limits
	header  header
	summary Summary

	taken    int64 // bytes of the client
	heldCR   bool  // the last byte was a CR: what follows decides whether it is half of a CRLF
	openLine bool  // the last byte passed on did not end a line
	err      error // the first failure, for good
}

// NewWriter begins a message: received, a whole field as Received.Append writes it, goes on top.
func NewWriter(to io.Writer, received []byte, limits Limits) *Writer {
	return &Writer{to: to, limits: limits, header: header{received: received}}
}

// Write takes the next bytes, cut anywhere. Its errors are those of the package and of the writer below; after
// the first nothing more is passed on.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if w.taken += int64(len(p)); w.taken > w.limits.Size {
		w.err = ErrTooLarge
		return 0, w.err
	}
	if w.err = w.normalise(p); w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// Close passes on what was held back, and ends the last line where the client did not: DATA could not carry
// the message otherwise.
func (w *Writer) Close() error {
	if w.err == nil && (w.heldCR || w.openLine) {
		w.err = w.pass(lineEnd)
	}
	if w.err == nil && w.header.received != nil {
		w.err = w.putReceived()
	}
	w.heldCR, w.openLine = false, false
	w.summary.Subject = readSubject(w.header.subject)
	w.summary.MessageID = readMessageID(w.header.messageID)
	w.summary.Hops = w.header.hops
	return w.err
}

// Summary is complete after Close.
func (w *Writer) Summary() Summary { return w.summary }

// normalise passes p on with every bare CR and bare LF made CRLF.
func (w *Writer) normalise(p []byte) error {
	if w.heldCR && len(p) > 0 {
		w.heldCR = false
		if err := w.pass(lineEnd); err != nil {
			return err
		}
		if p[0] == '\n' {
			p = p[1:]
		}
	}
	for len(p) > 0 {
		clean := cleanLength(p)
		if clean > 0 {
			if err := w.pass(p[:clean]); err != nil {
				return err
			}
		}
		switch {
		case clean == len(p):
			return nil
		case clean == len(p)-1 && p[clean] == '\r':
			w.heldCR = true
			return nil
		}
		if err := w.pass(lineEnd); err != nil {
			return err
		}
		p = p[clean+1:]
	}
	return nil
}

// cleanLength is the length of the longest start of p in which CR and LF appear as CRLF only.
func cleanLength(p []byte) int {
	for start := 0; ; {
		lf := bytes.IndexByte(p[start:], '\n')
		if lf < 0 {
			if cr := bytes.IndexByte(p[start:], '\r'); cr >= 0 {
				return start + cr
			}
			return len(p)
		}
		cr := bytes.IndexByte(p[start:start+lf], '\r')
		switch {
		case cr < 0:
			return start + lf
		case cr < lf-1:
			return start + cr
		}
		start += lf + 1
	}
}

// pass takes normalised bytes to the writer below, the header section line by line.
func (w *Writer) pass(p []byte) error {
	w.openLine = p[len(p)-1] != '\n'
	for !w.header.ended && len(p) > 0 {
		n := w.header.collect(p)
		p = p[n:]
		if w.header.collected() {
			if err := w.passHeaderLine(); err != nil {
				return err
			}
		}
	}
	if len(p) == 0 {
		return nil
	}
	w.summary.EightBit = w.summary.EightBit || hasEightBit(p)
	return w.put(p)
}

func (w *Writer) passHeaderLine() error {
	line, kind := w.header.read()
	if kind != bodyLine && w.header.size > w.limits.Header {
		return ErrHeaderTooLarge
	}
	if w.header.hops > w.limits.Hops {
		return ErrLoop
	}
	if hasEightBit(line) {
		w.summary.EightBit = true
		w.summary.EightBitHeader = w.summary.EightBitHeader || kind != bodyLine
	}
	if w.header.received != nil {
		if err := w.putReceived(); err != nil {
			return err
		}
		if kind == bodyLine { // a message without a header: its first line must not become part of ours
			if err := w.put(lineEnd); err != nil {
				return err
			}
		}
	}
	return w.put(line)
}

func (w *Writer) putReceived() error {
	received := w.header.received
	w.header.received = nil
	return w.put(received)
}

func (w *Writer) put(p []byte) error {
	n, err := w.to.Write(p)
	w.summary.Size += int64(n)
	return err
}

// hasEightBit tells whether p has a byte above 127, 32 bytes a step.
func hasEightBit(p []byte) bool {
	const high = 0x8080808080808080
	for len(p) >= 32 {
		word := binary.LittleEndian.Uint64(p) | binary.LittleEndian.Uint64(p[8:]) |
			binary.LittleEndian.Uint64(p[16:]) | binary.LittleEndian.Uint64(p[24:])
		if word&high != 0 {
			return true
		}
		p = p[32:]
	}
	for _, c := range p {
		if c >= 0x80 {
			return true
		}
	}
	return false
}
