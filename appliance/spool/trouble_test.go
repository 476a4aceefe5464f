package spool

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"mailchute/appliance/trace"
)

// patch changes the queue file behind the spool's back, in a transaction, so that its pages are sound.
func patch(t testing.TB, path string, change func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, boltOptions())
	if err == nil {
		err = errors.Join(db.Update(change), db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestADamagedOutcomeIsMetOnce(t *testing.T) {
	s := open(t, t.TempDir(), testOptions())
	id, other := hand(t, s, letter("copier", "a@contoso.com"), nil), hand(t, s, letter("copier", "a@contoso.com"), nil)
	for _, err := range s.ChangeAll([]trace.ID{id, other}, settle) {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	patch(t, s.path, func(tx *bolt.Tx) error {
		value := bytes.Clone(tx.Bucket(outcomeBucket).Get(idKey(id)))
		value[len(value)/2] ^= 1
		return tx.Bucket(outcomeBucket).Put(idKey(id), value)
	})
	s = open(t, filepath.Dir(s.path), testOptions())
	if _, err := s.Outcomes(10); !errors.Is(err, ErrDamaged) {
		t.Fatalf("a damaged outcome was read: %v", err)
	}
	s.Close()
	s, salvage, err := Open(s.path, testOptions())
	if err != nil || salvage == nil || len(salvage.Missing) != 1 || salvage.Missing[0].ID != id {
		t.Fatalf("the next start: %+v, %v", salvage, err)
	}
	defer s.Close()
	records, err := s.Outcomes(10)
	if err != nil || len(records) != 2 || !containsRecord(records, id) || !containsRecord(records, other) {
		t.Errorf("the start after a salvage meets the damage again: %v, %v", records, err)
	}
}

func TestARecordThatIsNoEnvelopeDoesNotKeepTheBoxFromStarting(t *testing.T) {
	for name, key := range map[string][]byte{"a value cut short": idKey(7), "a key cut short": {7}} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir(), testOptions())
			id := hand(t, s, letter("copier", "a@contoso.com"), scan(100))
			s.Close()
			patch(t, s.path, func(tx *bolt.Tx) error { return tx.Bucket(envelopeBucket).Put(key, []byte("short")) })
			s, salvage, err := Open(s.path, testOptions())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if salvage == nil || salvage.Saved != 1 {
				t.Errorf("salvage: %+v", salvage)
			}
			checkBody(t, s, id, scan(100))
		})
	}
}

func TestCompactingKeepsEverythingAndGivesTheDiskBack(t *testing.T) {
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, folder, testOptions())
		var gone []trace.ID
		for body := scan(1 << 20); len(gone) < 75; {
			gone = append(gone, hand(t, s, letter("copier", "a@contoso.com"), body))
		}
		kept := hand(t, s, letter("copier", "a@contoso.com"), scan(200_000))
		s.SetState("delivery", []byte("held"))
		s.ChangeAll(gone, settle)
		time.Sleep(idleTime + time.Second)
		synctest.Wait()
		if info, err := os.Stat(s.path); err != nil || info.Size() > 32<<20 {
			t.Fatalf("the file was not compacted: %d bytes, %v", info.Size(), err)
		}
		later := hand(t, s, letter("copier", "a@contoso.com"), scan(300_000))
		s.Close()
		s = open(t, folder, testOptions())
		defer s.Close()
		checkBody(t, s, kept, scan(200_000))
		checkBody(t, s, later, scan(300_000))
		if n := s.Waiting("m365"); n != 2 {
			t.Errorf("%d messages are in the index, want 2", n)
		}
		if value, err := s.State("delivery"); string(value) != "held" || err != nil {
			t.Errorf("state %q, %v", value, err)
		}
		if records, err := s.Outcomes(100); err != nil || len(records) != len(gone) {
			t.Errorf("%d outcomes, want %d, %v", len(records), len(gone), err)
		}
	})
}

func TestWhatACrashLeftOfACompactionIsRemoved(t *testing.T) {
	folder := t.TempDir()
	left := filepath.Join(folder, "queue.db.compact")
	if err := os.WriteFile(left, []byte("half of it"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, folder, testOptions())
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it still takes room on the disk: %v", err)
	}
}

// TestAFileThatMayNotGrowIsAFullQueue: on a machine of 32 bits the file has to fit into the address space.
func TestAFileThatMayNotGrowIsAFullQueue(t *testing.T) {
	before := maxFile
	maxFile = 128 << 20
	defer func() { maxFile = before }()
	s, body := open(t, t.TempDir(), testOptions()), scan(1<<20)
	var ids []trace.ID
	for s.Room(int64(len(body))) == nil && len(ids) < 200 {
		ids = append(ids, hand(t, s, letter("copier", "a@contoso.com"), body))
	}
	if len(ids) < 80 || len(ids) > 128 {
		t.Errorf("%d messages of 1 MB fit into a file of 128 MB", len(ids))
	}
	maxFile = 0 // the file that is open cannot grow, and the spool does not know
	var err error
	for n := 0; err == nil && n < 200; n++ {
		w := s.Create()
		if _, err = w.Write(body); err == nil {
			err = w.Accept(letter("copier", "a@contoso.com"))
		}
		w.Abort()
		if err == nil {
			ids = append(ids, w.ID())
		}
	}
	if !errors.Is(err, ErrFull) || s.Err() != nil {
		t.Fatalf("the file is as large as it may be: %v; the spool: %v", err, s.Err())
	}
	for _, id := range ids {
		if err := s.Change(id, settle); err != nil {
			t.Fatal(err)
		}
	}
	hand(t, s, letter("copier", "a@contoso.com"), body)
}

func TestADeviceWithManySendersIsLookedThroughWhole(t *testing.T) {
	s := open(t, t.TempDir(), testOptions())
	put := func(sender string, next time.Time) trace.ID {
		e := letter("newsletter", "a@contoso.com")
		e.Sender, e.Legs[0].Next = sender, next
		return hand(t, s, e, nil)
	}
	for i := range maxSenders {
		put(fmt.Sprintf("bounce-%04d@contoso.com", i), noon.Add(time.Hour))
	}
	id := put("the-last@contoso.com", noon)
	none := Pass{Sender: func(string) bool { return false }, Message: func(trace.ID) bool { return false }}
	var turns Turns
	found, soonest, err := s.Due("m365", &turns, noon, 10, 10, none)
	if err != nil || len(found) != 1 || found[0].ID != id || !soonest.Equal(noon.Add(time.Hour)) {
		t.Errorf("found %v, the next at %v, error %v", found, soonest, err)
	}
}

func TestMailPutOffWhileTheClockWasAheadIsDue(t *testing.T) {
	s := open(t, t.TempDir(), testOptions())
	e := letter("copier", "a@contoso.com")
	e.Legs[0].Next = noon.AddDate(73, 0, 0)
	ahead := hand(t, s, e, nil)
	e = letter("copier", "a@contoso.com")
	e.Legs[0].Next = noon.Add(time.Minute)
	soon := hand(t, s, e, nil)
	pass := Pass{Sender: func(string) bool { return false }, Message: func(trace.ID) bool { return false }, Beyond: noon.Add(time.Hour)}
	var turns Turns
	now := noon
	for _, want := range []trace.ID{soon, ahead} {
		found, soonest, err := s.Due("m365", &turns, now, 10, 1, pass)
		if want == soon && (len(found) != 0 || !soonest.Equal(noon.Add(time.Minute))) {
			t.Fatalf("at noon: found %v, the next at %v, error %v", found, soonest, err)
		}
		now = noon.Add(time.Minute)
		if found, _, err = s.Due("m365", &turns, now, 10, 1, pass); err != nil || len(found) != 1 || found[0].ID != want {
			t.Fatalf("found %v, want %v, error %v", found, want, err)
		}
		if err := s.Change(want, settle); err != nil {
			t.Fatal(err)
		}
		now = noon.Add(-time.Hour)
	}
}
