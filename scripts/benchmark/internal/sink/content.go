package sink

import "hash/crc32"

// castagnoli has an instruction on the processors of today: tens of gigabytes a second, nothing beside the mail.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is how the sink judges a body: CRC-32C.
func Checksum(body []byte) uint32 { return crc32.Checksum(body, castagnoli) }

// content takes the bytes of one message. The header grows on the way (Received), so that only the body after
// the first empty line can be compared with what was sent.
type content struct {
	size     int64
	checksum uint32
	body     bool // the empty line has passed
	matched  int  // bytes of CRLF CRLF seen so far
}

func (c *content) write(p []byte) {
	c.size += int64(len(p))
	if !c.body {
		p = c.skipHeader(p)
	}
	if len(p) > 0 {
		c.checksum = crc32.Update(c.checksum, castagnoli, p)
	}
}

// skipHeader returns what of p lies behind the header.
func (c *content) skipHeader(p []byte) []byte {
	for i, b := range p {
		switch {
		case b == '\r' && c.matched == 2:
			c.matched = 3
		case b == '\r':
			c.matched = 1
		case b == '\n' && c.matched == 1:
			c.matched = 2
		case b == '\n' && c.matched == 3:
			c.body = true
			return p[i+1:]
		default:
			c.matched = 0
		}
	}
	return nil
}
