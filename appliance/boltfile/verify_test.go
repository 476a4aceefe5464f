package boltfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

// example is a file with a tree of two levels, an inline bucket, a nested one, a value over several pages and free
// pages.
func example(t testing.TB, synced bool) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "example.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: !synced, PageSize: 1024})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		err := db.Update(func(tx *bbolt.Tx) error {
			small, err := tx.CreateBucketIfNotExists([]byte("small"))
			if err != nil {
				return err
			}
			tree, err := tx.CreateBucketIfNotExists([]byte("tree"))
			if err != nil {
				return err
			}
			nested, err := tree.CreateBucketIfNotExists([]byte("nested"))
			if err != nil {
				return err
			}
			for i := range 100 {
				for _, bucket := range []*bbolt.Bucket{tree, nested} {
					if err := bucket.Put(fmt.Appendf(nil, "%03d", i), bytes.Repeat([]byte{byte(round)}, 40)); err != nil {
						return err
					}
				}
			}
			return errors.Join(tree.Put([]byte("large"), make([]byte, 3000)), small.Put([]byte("a"), []byte("b")))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	meta, ok := findMeta(content)
	if !ok {
		t.Fatal("no meta page in a new file")
	}
	return content[:meta.pages*meta.pageSize]
}

func TestWhole(t *testing.T) {
	folder := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, path := range []string{
		filepath.Join(folder, "not there"),
		write("empty", nil),
		write("without freelist", example(t, false)),
		write("with freelist", example(t, true)),
	} {
		if err := Verify(path); err != nil {
			t.Error(err)
		}
	}
	if err := Verify(folder); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("a folder: %v", err)
	}
	if err := Verify(write("text", []byte("hello"))); !errors.Is(err, ErrDamaged) {
		t.Errorf("a text: %v", err)
	}
}

func TestInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "used.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := Verify(path); !errors.Is(err, ErrInUse) {
		t.Errorf("while it is open: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Verify(path); err != nil {
		t.Errorf("once it is closed: %v", err)
	}
}

func TestDamaged(t *testing.T) {
	good := example(t, false)
	m, _ := findMeta(good)
	size := int(m.pageSize)
	used := walk{content: good, meta: m, seen: make([]bool, m.pages)}
	used.tree(m.root, nil, nil)
	var branch, leaf int // positions of a page of each kind
	for at := 2 * size; at < len(good); at += size {
		if !used.seen[at/size] {
			continue
		}
		switch p := (page{good[at:]}); {
		case p.flags() == branchPage:
			branch = at
		case p.flags() == leafPage && p.count() > 5:
			leaf = at
		}
	}
	for _, test := range []struct {
		name   string
		damage func([]byte) []byte
		want   string
	}{
		{"cut off", func(b []byte) []byte { return b[:len(b)-1] }, "cut off"},
		{"cut within the meta pages", func(b []byte) []byte { return b[:40] }, "neither of its two meta pages"},
		{"a meta page of zeros", func(b []byte) []byte { clear(b[:size]); return b }, ""},
		{"both meta pages of zeros", func(b []byte) []byte { clear(b[:2*size]); return b }, "neither of its two meta pages"},
		{"a branch that points at itself", func(b []byte) []byte {
			order.PutUint64(b[branch+pageHeader+8:], uint64(branch/size))
			return b
		}, "is used twice"},
		{"a branch that points out of the file", func(b []byte) []byte {
			order.PutUint64(b[branch+pageHeader+8:], 1<<40)
			return b
		}, "is beyond the last one"},
		{"a branch without elements", func(b []byte) []byte { order.PutUint16(b[branch+10:], 0); return b }, "a branch without a leaf"},
		{"another page", func(b []byte) []byte { order.PutUint64(b[branch:], 1); return b }, "calls itself 1"},
		{"another kind of page", func(b []byte) []byte { order.PutUint16(b[branch+8:], 7); return b }, "neither branch nor leaf"},
		{"a key beyond its page", func(b []byte) []byte {
			order.PutUint32(b[leaf+pageHeader+4:], 1<<31)
			return b
		}, "beyond the page"},
		{"more elements than the page holds", func(b []byte) []byte { order.PutUint16(b[leaf+10:], 0xffff); return b }, ""},
		{"more pages than there are", func(b []byte) []byte { order.PutUint32(b[leaf+12:], 1<<31); return b }, "is"},
	} {
		t.Run(test.name, func(t *testing.T) {
			damaged := test.damage(bytes.Clone(good))
			err := verify(damaged)
			if test.name == "a meta page of zeros" {
				// bbolt falls back on the other one, one transaction older; its pages may be used anew.
				open(t, damaged, err)
				return
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// open lets bbolt read and write a file that was found to be whole.
func open(t *testing.T, content []byte, verdict error) {
	t.Helper()
	if verdict != nil {
		if !errors.Is(verdict, ErrDamaged) {
			t.Error(verdict)
		}
		return
	}
	path := filepath.Join(t.TempDir(), "verified.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, NoSync: true})
	if err != nil {
		t.Fatalf("bbolt refuses what was found to be whole: %v", err)
	}
	defer db.Close()
	if err := db.View(func(tx *bbolt.Tx) error { return walkBucket(tx.Cursor().Bucket()) }); err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists([]byte("new"))
		return err
	})
	if err != nil && !errors.Is(err, bbolt.ErrIncompatibleValue) {
		t.Fatal(err)
	}
}

func walkBucket(bucket *bbolt.Bucket) error {
	return bucket.ForEach(func(key, value []byte) error {
		if nested := bucket.Bucket(key); value == nil && nested != nil {
			return walkBucket(nested)
		}
		return nil
	})
}

// FuzzVerify: what is found to be whole, bbolt opens, reads through and writes to, without a panic or a fault.
func FuzzVerify(f *testing.F) {
	good := example(f, false)
	f.Add(uint32(0), []byte{})
	f.Add(uint32(2*1024+8), []byte{1, 0})
	f.Add(uint32(3*1024+16), []byte{0xff, 0xff, 0xff, 0xff})
	f.Add(uint32(5*1024+12), []byte{2, 0, 0, 0})
	f.Fuzz(func(t *testing.T, place uint32, written []byte) {
		damaged := bytes.Clone(good)
		copy(damaged[int(place)%len(damaged):], written)
		open(t, damaged, verify(damaged))
	})
}
