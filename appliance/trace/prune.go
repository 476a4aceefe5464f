package trace

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// pruneBatch is how many records one transaction deletes at most, so that an Add never waits for long.
const pruneBatch = 5000

// Prune deletes what is older than 30 days, and the oldest while more than 200 MB of the file live. It tells how many
// records went. The file does not shrink; its free pages are used again.
func (s *Store) Prune(now time.Time) (pruned int, err error) {
	oldest := IDAt(now.Add(-s.keep))
	for {
		count, err := s.pruneSome(oldest)
		pruned += count
		if err != nil {
			return pruned, fmt.Errorf("pruning the trace: %w", err)
		}
		if count == 0 {
			return pruned, nil
		}
	}
}

// pruneSome deletes a batch of the records older than oldest, or, where there are none and the file is too large, of the
// oldest there are.
func (s *Store) pruneSome(oldest ID) (count int, err error) {
	s.adding.Lock()
	defer s.adding.Unlock()
	if s.closed {
		return 0, ErrClosed
	}
	var excess int64
	err = s.view(func(tx *bbolt.Tx) error {
		excess = s.living(tx) - s.size
		key, _ := tx.Bucket(recordBucket).Cursor().First()
		if key == nil || excess <= 0 && ID(binary.BigEndian.Uint64(key)) >= oldest {
			count = -1
		}
		return nil
	})
	if err != nil || count < 0 {
		return 0, err
	}
	err = s.update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(recordBucket)
		cursor := bucket.Cursor()
		// Found first and deleted then: a cursor that deletes may leave one out.
		var keys [][]byte
		for key, value := cursor.First(); key != nil && len(keys) < pruneBatch; key, value = cursor.Next() {
			if ID(binary.BigEndian.Uint64(key)) >= oldest {
				if excess <= 0 {
					break
				}
				excess -= int64(len(value))
			}
			keys = append(keys, bytes.Clone(key))
		}
		for _, key := range keys {
			if err := bucket.Delete(key); err != nil {
				return err
			}
		}
		count = len(keys)
		return pruneSignatures(tx)
	})
	return count, err
}

// pruneSignatures deletes the oldest blocks, those that have no record left.
func pruneSignatures(tx *bbolt.Tx) error {
	first, _ := tx.Bucket(recordBucket).Cursor().First()
	bucket := tx.Bucket(signatureBucket)
	cursor := bucket.Cursor()
	var keys [][]byte
	for key, value := cursor.First(); key != nil; key, value = cursor.Next() {
		if first != nil && block(value).highest() >= ID(binary.BigEndian.Uint64(first)) {
			break
		}
		keys = append(keys, bytes.Clone(key))
	}
	for _, key := range keys {
		if err := bucket.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// living gives the bytes of the file that are in use.
func (s *Store) living(tx *bbolt.Tx) int64 {
	stats := s.db.Stats()
	return tx.Size() - int64(stats.FreePageN+stats.PendingPageN)*int64(s.db.Info().PageSize)
}
