package spool

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	bolt "go.etcd.io/bbolt"

	"mailchute/appliance/trace"
)

// Body reads a stored body of size bytes, verifying each chunk before its first byte; a wrong one ends it with
// ErrDamaged. It holds nothing between two reads.
func (s *Spool) Body(id trace.ID, size int64) io.ReadCloser {
	return &body{s: s, id: id, size: size}
}

type body struct {
	s        *Spool
	id       trace.ID
	size     int64
	at       int64 // bytes read
	verified int64 // bytes up to the end of the last chunk that was verified
}

// Read fills p from as many chunks as it takes, copied out of the file in one transaction that does not outlast it.
func (b *body) Read(p []byte) (n int, err error) {
	if b.at == b.size {
		return 0, io.EOF
	}
	err = b.s.view(func(tx *bolt.Tx) error {
		chunks := tx.Bucket(chunkBucket)
		for n < len(p) && b.at < b.size {
			data, err := b.chunk(chunks, uint32(b.at/chunkSize))
			if err != nil {
				return err
			}
			copied := copy(p[n:], data[b.at%chunkSize:])
			n, b.at = n+copied, b.at+int64(copied)
		}
		return nil
	})
	return n, err
}

// chunk gives the data of a chunk, in the mapped file.
func (b *body) chunk(chunks *bolt.Bucket, sequence uint32) ([]byte, error) {
	start := int64(sequence) * chunkSize
	length := min(b.size-start, chunkSize)
	stored := chunks.Get(chunkKey(b.id, sequence))
	if int64(len(stored)) != chunkHeader+length {
		return nil, fmt.Errorf("%w: message %s, chunk %d: %d bytes, %d were stored", ErrDamaged, b.id, sequence, len(stored), chunkHeader+length)
	}
	data := stored[chunkHeader:]
	if b.verified <= start {
		if crc32.Checksum(data, castagnoli) != binary.BigEndian.Uint32(stored) {
			return nil, fmt.Errorf("%w: message %s, chunk %d: its checksum is wrong", ErrDamaged, b.id, sequence)
		}
		b.verified = start + length
	}
	return data, nil
}

func (b *body) Close() error { return nil }
