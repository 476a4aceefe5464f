package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
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
	if s.Err() != nil {
		return
	}
	size, unused := s.fileSize()
	if size <= compactAbove || (size-unused) >= size/4 || s.now().Sub(s.compacted).Abs() < compactPause {
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

func (s *Spool) compact() (err error) {
	defer func() { // a page of the old file that cannot be read
		if failure := recover(); failure != nil {
			err = s.fail(fmt.Errorf("read %s: %v", s.path, failure), true)
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	s.swap.Lock() // readers wait: what is copied is at most a quarter of the file
	defer s.swap.Unlock()
	path := compactPath(s.path)
	if err := removeIfThere(path); err != nil {
		return err
	}
	fresh, err := bolt.Open(path, 0o600, boltOptions())
	if err != nil {
		return err
	}
	if err = bolt.Compact(fresh, s.db, pendingLimit); err == nil {
		err = os.Rename(path, s.path)
	}
	if err != nil {
		return errors.Join(err, fresh.Close(), removeIfThere(path))
	}
	// From the rename on the old file has no name: nothing may be written there any more, whatever happens.
	old := s.db
	s.db = fresh
	if err := syncFolder(filepath.Dir(s.path)); err != nil { // the old one could come back with a power cut
		return s.fail(fmt.Errorf("the compacted queue file: %w", err), false)
	}
	if err := old.Close(); err != nil {
		s.log.Error("close the queue file that was compacted", "error", err)
	}
	return nil
}

// compactPath is where the new file is made. What a crash leaves there is of no use.
func compactPath(path string) string { return path + ".compact" }
