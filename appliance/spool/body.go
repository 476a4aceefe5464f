package spool

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	bolt "go.etcd.io/bbolt"

	"mailchute/appliance/trace"
)

// Body reads a stored body of size bytes, verifying each chunk; a wrong one ends it with ErrDamaged. It holds one
// chunk in memory and no transaction.
func (s *Spool) Body(id trace.ID, size int64) io.ReadCloser {
	return &body{s: s, id: id, left: size}
}

type body struct {
	s        *Spool
	id       trace.ID
	left     int64 // bytes not yet loaded
	sequence uint32
	buffer   *[]byte // borrowed while there is something to read
	unread   []byte
}

func (b *body) Read(p []byte) (int, error) {
	if len(b.unread) == 0 {
		if err := b.load(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.unread)
	b.unread = b.unread[n:]
	return n, nil
}

// WriteTo hands on whole chunks.
func (b *body) WriteTo(w io.Writer) (written int64, err error) {
	for {
		if len(b.unread) == 0 {
			if err := b.load(); err == io.EOF {
				return written, nil
			} else if err != nil {
				return written, err
			}
		}
		n, err := w.Write(b.unread)
		written += int64(n)
		b.unread = b.unread[n:]
		if err != nil {
			return written, err
		}
	}
}

// load copies the next chunk out of the file, so that no transaction outlasts it.
func (b *body) load() error {
	if b.left == 0 {
		b.Close()
		return io.EOF
	}
	if b.buffer == nil {
		b.buffer = chunkBuffers.Get().(*[]byte)
	}
	err := b.s.view(func(tx *bolt.Tx) error {
		chunk := tx.Bucket(chunkBucket).Get(chunkKey(b.id, b.sequence))
		if int64(len(chunk)) != chunkHeader+min(b.left, chunkSize) {
			return fmt.Errorf("%w: message %s, chunk %d: %d bytes, %d were stored",
				ErrDamaged, b.id, b.sequence, len(chunk), chunkHeader+min(b.left, chunkSize))
		}
		*b.buffer = append((*b.buffer)[:0], chunk...)
		return nil
	})
	if err != nil {
		return err
	}
	if crc32.Checksum((*b.buffer)[chunkHeader:], castagnoli) != binary.BigEndian.Uint32(*b.buffer) {
		return fmt.Errorf("%w: message %s, chunk %d: its checksum is wrong", ErrDamaged, b.id, b.sequence)
	}
	b.unread = (*b.buffer)[chunkHeader:]
	b.left -= int64(len(b.unread))
	b.sequence++
	return nil
}

func (b *body) Close() error {
	if b.buffer != nil {
		*b.buffer = (*b.buffer)[:chunkHeader]
		chunkBuffers.Put(b.buffer)
		b.buffer, b.unread, b.left = nil, nil, 0
	}
	return nil
}
