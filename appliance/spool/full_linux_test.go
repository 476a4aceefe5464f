package spool

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mailchute/appliance/trace"
)

// smallFileSystem is a memory file system of 48 MB.
func smallFileSystem(t *testing.T) (folder string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	folder = t.TempDir()
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "size=48m"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(folder, 0) })
	return folder
}

// fill writes to a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
}

// A disk that is really full: a small memory file system, and a spool that is told it has room.
func TestAFullDiskLosesNothingAndDeliveriesAreStillRecorded(t *testing.T) {
	folder := smallFileSystem(t)
	options := testOptions() // believes the disk is never full
	s := open(t, folder, options)
	if err := s.reserve.keep(RealDisk(folder)); err != nil {
		t.Fatal(err)
	}
	bodies := make(map[trace.ID]int)
	var full error
	for size := 1 << 20; full == nil; size += 1000 {
		w := s.Create()
		if _, full = w.Write(scan(size)); full == nil {
			if full = w.Accept(letter("copier", "a@contoso.com")); full == nil {
				bodies[w.ID()] = size
			}
		}
		w.Abort()
	}
	if !errors.Is(full, ErrFull) {
		t.Fatalf("the full disk shows as %v", full)
	}
	filler := filepath.Join(folder, "filler") // what the last commit left is filled by others
	fill(t, filler)
	if err := s.Err(); err != nil {
		t.Fatalf("the spool stopped: %v", err)
	}
	n := 0
	for id := range bodies {
		if n++; n%2 == 0 {
			continue
		}
		if err := s.Change(id, settle); err != nil {
			t.Fatalf("a delivery could not be recorded: %v", err)
		}
		delete(bodies, id)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for id, size := range bodies {
		checkBody(t, s, id, scan(size))
	}
	bodies[hand(t, s, letter("copier", "a@contoso.com"), scan(1<<20))] = 1 << 20
	s.Close()
	s = open(t, folder, options)
	if got := s.Counts().Messages; got != len(bodies) {
		t.Errorf("%d messages after the start, want %d", got, len(bodies))
	}
	for id, size := range bodies {
		checkBody(t, s, id, scan(size))
	}
}

// TestAnAdministratorIsToldThatTheDiskIsFull: where even the reserve is gone, nobody is kept waiting for room, so that
// the box can be stopped.
func TestAnAdministratorIsToldThatTheDiskIsFull(t *testing.T) {
	folder := smallFileSystem(t)
	s := open(t, folder, testOptions())
	id := hand(t, s, letter("copier", "a@contoso.com"), scan(1<<20))
	if !s.reserve.release() {
		t.Fatal("there was no reserve")
	}
	fill(t, filepath.Join(folder, "filler"))
	long := func(e *Envelope) error {
		e.Recipients[0].Reply = strings.Repeat("words ", 4<<20) // more than the file has room for
		return nil
	}
	if err := s.Change(id, long); !errors.Is(err, ErrFull) {
		t.Errorf("a change on a full disk: %v", err)
	}
	done := make(chan error, 1)
	s.ChangeLater(id, settle, func(err error) { done <- err })
	if err := os.Remove(filepath.Join(folder, "filler")); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("a result is recorded as soon as there is room: %v", err)
	}
}
