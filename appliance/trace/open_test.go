package trace

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// whole is the content of a trace file with a few pages in every bucket.
func whole(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trace.db")
	store, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 20 {
		var records []Record
		for minute := range 20 {
			records = append(records, scan(20*round+minute, "Floor 1", "anna@contoso.com", Sent))
		}
		add(t, store, records...)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimRight(content, "\x00")
}

func TestDamaged(t *testing.T) {
	good := whole(t)
	page := os.Getpagesize()
	for _, test := range []struct {
		name    string
		content []byte
	}{
		{"another file", []byte("this is not a database")},
		{"another file, long", bytes.Repeat([]byte("not a database. "), page)},
		{"both meta pages overwritten", append(make([]byte, 2*page), good[2*page:]...)},
		{"every page but the meta pages overwritten", append(bytes.Clone(good[:2*page]), bytes.Repeat([]byte{0xff}, len(good)-2*page)...)},
		{"cut off after the meta pages", good[:2*page]},
		{"cut off in the middle of a meta page", good[:page+100]},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "trace.db")
			if err := os.WriteFile(path, test.content, 0o600); err != nil {
				t.Fatal(err)
			}
			store := open(t, path)
			kept, err := os.ReadFile(store.SetAside())
			if err != nil || !bytes.HasPrefix(kept, test.content) {
				t.Errorf("set aside as %q: %v", store.SetAside(), err)
			}
			add(t, store, scan(1, "Floor 1", "anna@contoso.com", Sent))
		})
	}
}

// TestInterruptedCreation: the power was cut after the file was made and before anything was in it.
func TestInterruptedCreation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	store := open(t, path)
	add(t, store, scan(1, "Floor 1", "anna@contoso.com", Sent))
	if store.SetAside() != "" {
		t.Errorf("an empty file was set aside")
	}
}

// TestAnyDamage: whatever is overwritten, the box starts, and takes records.
func TestAnyDamage(t *testing.T) {
	good := whole(t)
	folder := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		damaged := bytes.Clone(good)
		for range rapid.IntRange(1, 4).Draw(t, "places") {
			place := rapid.IntRange(0, len(damaged)-1).Draw(t, "place")
			copy(damaged[place:], rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "bytes"))
		}
		damaged = damaged[:rapid.IntRange(len(damaged)/2, len(damaged)).Draw(t, "length")]
		path := filepath.Join(folder, "trace.db")
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		store, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		// Damage within a record is not found by opening; what bbolt cannot read is an error, never a panic.
		_, _ = store.Find(Query{Address: "anna@contoso.com"})
		if err := store.Add([]Record{scan(1, "Floor 1", "bert@contoso.com", Sent)}); err != nil && store.SetAside() != "" {
			t.Fatal(err)
		}
	})
}
