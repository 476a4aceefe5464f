package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// After a backlog has drained the file is mostly free pages: every start would walk them, and the disk does not get
// them back. Such a file is copied into a new one.
const (
	compactAbove = 64 << 20        // bytes of file
	compactPause = 5 * time.Minute // between two tries
)

// compactIfSparse runs in the committer, between commits.
func (s *Spool) compactIfSparse() {
	size, unused := s.fileSize()
	if size <= compactAbove || (size-unused) >= size/4 || s.now().Sub(s.compacted).Abs() < compactPause || s.Err() != nil {
		return
	}
	s.compacted = s.now()
	if err := s.compact(); err != nil {
		s.log.Error("compact the queue file", "error", err)
		return
	}
	after, _ := s.fileSize()
	s.log.Info("compacted the queue file", "bytes_before", size, "bytes_after", after)
	s.measure()
}

func (s *Spool) compact() error {
	s.swap.Lock() // readers wait: what is copied is at most a quarter of the file
	defer s.swap.Unlock()
	fresh := s.path + ".compact"
	os.Remove(fresh)
	target, err := bolt.Open(fresh, 0o600, boltOptions())
	if err != nil {
		return err
	}
	err = bolt.Compact(target, s.db, pendingLimit)
	if err := errors.Join(err, target.Close()); err != nil {
		os.Remove(fresh)
		return err
	}
	if err := os.Rename(fresh, s.path); err != nil {
		return err
	}
	if err := syncFolder(filepath.Dir(s.path)); err != nil {
		return err
	}
	if err := s.db.Close(); err != nil {
		s.log.Error("close the queue file that was compacted", "error", err)
	}
	db, err := openFile(s.path)
	if err != nil { // nothing is lost, but nothing can be read or written until the box starts again
		go s.fail(fmt.Errorf("open the compacted queue file: %w", err), false)
		return err
	}
	s.db = db
	return nil
}
