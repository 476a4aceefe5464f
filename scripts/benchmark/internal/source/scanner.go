// Package source is the near end of a benchmark: scanners that hand in mail as real ones do, EHLO, MAIL, RCPT and
// DATA one after another, each reply awaited.
package source

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"time"
)

// Scanner is one device: at most one connection, one message at a time. It has its own loopback address, so that
// the relay sees as many devices as there are scanners.
type Scanner struct {
	address string
	local   net.IP
	mail    *Mail

	conn     net.Conn
	cut      func() bool // takes back the closing of conn at the end of the context
	commands [3][]byte   // MAIL, RCPT, DATA
	header   []byte
	digits   []byte // in header
	buffers  [2][]byte
	pending  net.Buffers
	reply    [4096]byte
}

// What a reply can answer beside a command, for error texts.
var (
	banner   = []byte("the connection")
	finalDot = []byte("the final dot")
	quit     = []byte("QUIT\r\n")
	ehlo     = []byte("EHLO scanner.bench.test\r\n")
)

// NewScanner is the scanner of that number (1 to 250), which hands in to address (host:port on loopback).
func NewScanner(number int, address string, mail *Mail) *Scanner {
	s := &Scanner{address: address, local: net.IPv4(127, 0, 1, byte(number)), mail: mail}
	s.commands = [3][]byte{
		[]byte("MAIL FROM:<scanner" + strconv.Itoa(number) + "@bench.test>\r\n"),
		[]byte("RCPT TO:<archive@bench.test>\r\n"),
		[]byte("DATA\r\n"),
	}
	s.header, s.digits = mail.header()
	return s
}

// Connect opens the connection and says EHLO. The end of ctx closes it.
func (s *Scanner) Connect(ctx context.Context) error {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: s.local}}
	conn, err := dialer.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return err
	}
	s.conn = conn
	s.cut = context.AfterFunc(ctx, func() { conn.Close() })
	if err := s.expect('2', banner); err != nil {
		return err
	}
	return s.ask(ehlo, '2')
}

// Greet is Connect and a MAIL: the relay accepts mail when it returns without an error.
func (s *Scanner) Greet(ctx context.Context) error {
	if err := s.Connect(ctx); err != nil {
		return err
	}
	return s.ask(s.commands[0], '2')
}

// Send hands in the mail with that number in its Message-ID and waits for the 250. It returns the moment just
// before the last part of the content, with the final dot, was handed to the network.
func (s *Scanner) Send(number int64) (dot time.Time, err error) {
	stamp(s.digits, number)
	for i, command := range s.commands {
		code := byte('2')
		if i == 2 {
			code = '3'
		}
		if err := s.ask(command, code); err != nil {
			return time.Time{}, err
		}
	}
	dot = time.Now()
	s.buffers = [2][]byte{s.header, s.mail.payload}
	s.pending = s.buffers[:]
	if _, err := s.pending.WriteTo(s.conn); err != nil {
		return dot, fmt.Errorf("sending the content: %w", err)
	}
	return dot, s.expect('2', finalDot)
}

// Quit ends the session in order, Close without a word.
func (s *Scanner) Quit() error {
	defer s.Close()
	return s.ask(quit, '2')
}

// Close closes the connection if there is one.
func (s *Scanner) Close() {
	if s.conn != nil {
		s.cut()
		s.conn.Close()
		s.conn = nil
	}
}

func (s *Scanner) ask(command []byte, code byte) error {
	if _, err := s.conn.Write(command); err != nil {
		return fmt.Errorf("sending %s: %w", bytes.TrimSpace(command), err)
	}
	return s.expect(code, command)
}

// expect reads one reply, of any number of lines, and demands its first digit.
func (s *Scanner) expect(code byte, to []byte) error {
	n := 0
	for {
		m, err := s.conn.Read(s.reply[n:])
		if err != nil {
			return fmt.Errorf("waiting for the reply to %s: %w", bytes.TrimSpace(to), err)
		}
		n += m
		if s.reply[n-1] != '\n' {
			if n == len(s.reply) {
				return fmt.Errorf("the reply to %s is longer than %d bytes", bytes.TrimSpace(to), len(s.reply))
			}
			continue
		}
		line := s.reply[bytes.LastIndexByte(s.reply[:n-1], '\n')+1 : n]
		if len(line) < 4 || line[3] != '-' {
			if line[0] != code {
				return fmt.Errorf("the reply to %s is %q, expected %c…", bytes.TrimSpace(to), bytes.TrimSpace(line), code)
			}
			return nil
		}
	}
}
