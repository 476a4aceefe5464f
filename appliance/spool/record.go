package spool

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"

	"mailchute/appliance/trace"
)

// An envelope is stored as: CRC-32C of what follows (4 bytes), flags (1), size of the body (8), JSON. The flags and
// the size are there so that counting 100,000 messages at start parses nothing.
const headLength = 4 + 1 + 8

const (
	flagWaiting = 1 << iota
	flagFailed
	flagHeld
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type head struct {
	flags byte
	size  int64
}

func headOf(e *Envelope) head {
	h := head{size: e.Size}
	for _, recipient := range e.Recipients {
		switch recipient.State {
		case trace.Waiting:
			h.flags |= flagWaiting
		case trace.Failed:
			h.flags |= flagFailed
		}
	}
	if e.Hold != nil {
		h.flags |= flagHeld
	}
	return h
}

// settled: nothing is left to be done for any recipient.
func (h head) settled() bool { return h.flags&(flagWaiting|flagFailed) == 0 }

func (c *Counts) add(h head, sign int) {
	c.Messages += sign
	c.Bytes += int64(sign) * h.size
	if h.flags&flagWaiting != 0 {
		c.Waiting += sign
	}
	if h.flags&flagFailed != 0 {
		c.Failed += sign
	}
	if h.flags&flagHeld != 0 {
		c.Held += sign
	}
}

func encodeEnvelope(e *Envelope) ([]byte, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("envelope of %s: %w", e.ID, err)
	}
	h := headOf(e)
	value := make([]byte, headLength, headLength+len(text))
	value[4] = h.flags
	binary.BigEndian.PutUint64(value[5:], uint64(h.size))
	value = append(value, text...)
	binary.BigEndian.PutUint32(value, crc32.Checksum(value[4:], castagnoli))
	return value, nil
}

// readHead reads flags and size; it does not verify the checksum.
func readHead(value []byte) (head, error) {
	if len(value) < headLength {
		return head{}, fmt.Errorf("%w: record of %d bytes", ErrDamaged, len(value))
	}
	return head{flags: value[4], size: int64(binary.BigEndian.Uint64(value[5:]))}, nil
}

func decodeEnvelope(value []byte) (*Envelope, error) {
	if len(value) < headLength || crc32.Checksum(value[4:], castagnoli) != binary.BigEndian.Uint32(value) {
		return nil, fmt.Errorf("%w: the checksum of the envelope is wrong", ErrDamaged)
	}
	e := new(Envelope)
	if err := json.Unmarshal(value[headLength:], e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return e, nil
}

func idKey(id trace.ID) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

func idOf(key []byte) trace.ID { return trace.ID(binary.BigEndian.Uint64(key)) }

func chunkKey(id trace.ID, sequence uint32) []byte {
	return binary.BigEndian.AppendUint32(idKey(id), sequence)
}
