package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Disk tells how much room there is where the queue file lies.
type Disk interface {
	Space() (free, total int64, err error) // bytes; free is what this process may use
}

// RealDisk is the file system a folder is on.
type RealDisk string

func (folder RealDisk) Space() (free, total int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(string(folder), &s); err != nil {
		return 0, 0, fmt.Errorf("space of the disk at %s: %w", string(folder), err)
	}
	return int64(s.Bavail) * int64(s.Bsize), int64(s.Blocks) * int64(s.Bsize), nil
}

// spare is left free on the disk for the trace, settings and the queue file's own bookkeeping: a twentieth, at
// most 32 MiB.
func spare(total int64) int64 { return min(32<<20, total/20) }

// measure works out how far the queue may grow, from the file and the disk as they are now.
func (s *Spool) measure() {
	size, unused := s.fileSize()
	s.mu.Lock()
	s.live, s.unused = size-unused, unused
	s.mu.Unlock()
	s.measureDisk()
}

func (s *Spool) measureDisk() {
	free, total, err := s.disk.Space()
	if err != nil {
		s.log.Error("the room for the queue is not known; the file is not limited by it", "error", err)
		free, total = 1<<62, 1<<62
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ceiling = s.maxSize
	if s.ceiling == 0 {
		s.ceiling = total / 2
	}
	s.ceiling = min(s.ceiling, s.live+max(0, free+s.unused-spare(total)))
	if maxFile != 0 { // what is delivered must still find free pages that lie together
		s.ceiling = min(s.ceiling, int64(maxFile)/8*7)
	}
}

// fileSize gives the bytes of the queue file that were ever written, and how many of them are in free pages.
func (s *Spool) fileSize() (size, unused int64) {
	s.view(func(tx *bolt.Tx) error { size = tx.Size(); return nil })
	stats := s.db.Stats()
	return size, int64(stats.FreePageN+stats.PendingPageN) * int64(s.db.Info().PageSize)
}

// overLocked: so many bytes more would not fit.
func (s *Spool) overLocked(size int64) bool { return s.live+s.loading+s.storing+size > s.ceiling }

// Room says whether a message of so many bytes (0: unknown) may come in: nil, or ErrFull.
func (s *Spool) Room(size int64) error {
	s.measureDisk()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return s.failure
	}
	if s.overLocked(size) {
		return fmt.Errorf("%w: %d bytes of %d in use", ErrFull, s.live, s.ceiling)
	}
	return nil
}

// Usage tells how many bytes of the disk the queue uses and how many it may use.
func (s *Spool) Usage() (used, ceiling int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live, s.ceiling
}

// SetMaxSize changes the ceiling; 0: half the disk.
func (s *Spool) SetMaxSize(size int64) {
	s.mu.Lock()
	s.maxSize = size
	s.mu.Unlock()
	s.measureDisk()
}

// reserve is a file that holds blocks of the disk back, given up when others have filled it: a delivery can
// only be recorded by writing, even though it makes room.
type reserve struct {
	path string
	used bool // given up; the committer's
}

const reserveSize = 8 << 20

// keep makes the reserve where there is none and the disk has room for it and as much again.
func (r *reserve) keep(disk Disk) error {
	if _, err := os.Stat(r.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if free, _, err := disk.Space(); err != nil || free < 2*reserveSize {
		return err
	}
	file, err := os.OpenFile(r.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(file.Fd()), 0, 0, reserveSize)
	if errors.Is(err, syscall.EOPNOTSUPP) {
		_, err = file.Write(make([]byte, reserveSize))
	}
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		os.Remove(r.path)
		return fmt.Errorf("reserve for a full disk: %w", err)
	}
	r.used = false
	return nil
}

// release gives the blocks back to the disk; false where there was no reserve.
func (r *reserve) release() bool {
	r.used = true
	return os.Remove(r.path) == nil
}

// syncFolder makes renames and new files in a folder survive a power cut.
func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
