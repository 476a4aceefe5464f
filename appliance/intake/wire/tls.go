package wire

import (
	"crypto/tls"
	"fmt"
	"strings"
	"time"
)

// TLS describes the encryption, as "TLS1.3 TLS_AES_128_GCM_SHA256"; empty: there is none.
func (c *Conn) TLS() string {
	if !c.secure {
		return ""
	}
	state := c.tls.ConnectionState()
	version := strings.ReplaceAll(tls.VersionName(state.Version), " ", "")
	return version + " " + tls.CipherSuiteName(state.CipherSuite)
}

// startTLS answers STARTTLS (RFC 3207).
func (c *Conn) startTLS(argument string) error {
	switch {
	case c.tls != nil:
		return c.say("503 5.5.1 TLS is in use already\r\n")
	case argument != "":
		return c.say("501 5.5.4 STARTTLS takes no argument\r\n")
	}
	if err := c.say("220 2.0.0 Ready to start TLS\r\n"); err != nil {
		return err
	}
	if err := c.flush(); err != nil {
		return c.failWrite(err)
	}
	c.r, c.w = 0, 0 // what came in clear after the command may be anybody's (CVE-2011-0411)
	c.tls = tls.Server(c.socket, c.settings.TLS)
	c.stream = c.tls
	if err := c.shakeHands(); err != nil {
		return err
	}
	c.insertReset() // what was said in clear counts no more (4.2), but for the name in HELO: some never repeat it
	return nil
}

// shakeHands does the TLS handshake where one is due.
func (c *Conn) shakeHands() error {
	if c.tls == nil || c.secure || c.err != nil {
		return c.err
	}
	if err := c.socket.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return c.fail(err, "")
	}
	if err := c.tls.Handshake(); err != nil {
		c.out = nil // nothing can be said any more
		return c.fail(fmt.Errorf("TLS handshake: %w", err), "")
	}
	c.secure = true
	return nil
}
