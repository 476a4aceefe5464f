package spool

import (
	"errors"
	"sync"
	"testing"

	"mailchute/appliance/trace"
)

// smallDisk has so much left, less what is taken from it.
type smallDisk struct {
	mu   sync.Mutex
	free int64
}

func (d *smallDisk) Space() (free, total int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.free, 1 << 30, nil
}

func (d *smallDisk) set(free int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free = free
}

func TestAtTheCeilingMailIsRefusedAndWhatIsThereCanGo(t *testing.T) {
	options := testOptions()
	options.MaxSize = 1 << 20
	s := open(t, t.TempDir(), options)
	if err := s.Room(2 << 20); !errors.Is(err, ErrFull) {
		t.Errorf("room for a message above the ceiling: %v", err)
	}
	var ids []trace.ID
	for s.Room(100_000) == nil {
		ids = append(ids, hand(t, s, letter("copier", "a@contoso.com"), scan(100_000)))
	}
	if len(ids) < 5 || len(ids) > 10 {
		t.Errorf("%d messages of 100 KB fit under a ceiling of 1 MB", len(ids))
	}
	w := s.Create() // whose size was not declared
	_, err := w.Write(scan(1 << 20))
	if !errors.Is(err, ErrFull) {
		t.Errorf("a body that grows beyond the ceiling: %v", err)
	}
	if err := w.Accept(letter("copier", "a@contoso.com")); !errors.Is(err, ErrFull) {
		t.Errorf("it was accepted: %v", err)
	}
	for _, id := range ids {
		if err := s.Change(id, settle); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Room(100_000); err != nil {
		t.Errorf("after the queue has drained: %v", err)
	}
	s.SetMaxSize(10 << 20)
	if err := s.Room(2 << 20); err != nil {
		t.Errorf("after the ceiling was raised: %v", err)
	}
}

func TestADiskThatOthersFillRefusesMailInTime(t *testing.T) {
	disk := &smallDisk{free: 1 << 30}
	options := testOptions()
	options.Disk = disk
	s := open(t, t.TempDir(), options)
	if err := s.Room(1 << 20); err != nil {
		t.Fatal(err)
	}
	disk.set(1 << 20)
	if err := s.Room(60 << 20); !errors.Is(err, ErrFull) {
		t.Errorf("room for 60 MB on a disk with 1 MB left: %v", err)
	}
	w := s.Create()
	if _, err := w.Write(scan(30 << 20)); !errors.Is(err, ErrFull) {
		t.Errorf("30 MB were taken on a disk with 1 MB left: %v", err)
	}
	w.Abort()
}
