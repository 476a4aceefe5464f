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
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
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
	meta := mapped(content).meta
	return content[:meta.pages*meta.pageSize]
}

// mapped is a file with this content.
func mapped(content []byte) *File {
	f := &File{content: content, harmed: make(map[string]bool)}
	f.readMetas()
	return f
}

func verify(content []byte) error { return mapped(content).Each(func(string, []byte, []byte) {}) }

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
	used := mapped(good)
	size := int(used.meta.pageSize)
	if err := used.Each(func(string, []byte, []byte) {}); err != nil {
		t.Fatal(err)
	}
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
		}, "is beyond the end"},
		{"a branch without elements", func(b []byte) []byte { order.PutUint16(b[branch+10:], 0); return b }, "a branch without a leaf"},
		{"another page", func(b []byte) []byte { order.PutUint64(b[branch:], 1); return b }, "calls itself 1"},
		{"another kind of page", func(b []byte) []byte { order.PutUint16(b[branch+8:], 7); return b }, "neither branch nor leaf"},
		{"a key beyond its page", func(b []byte) []byte {
			order.PutUint32(b[leaf+pageHeader+4:], 1<<31)
			return b
		}, "lies outside of it"},
		{"more elements than the page holds", func(b []byte) []byte { order.PutUint16(b[leaf+10:], 0xffff); return b }, ""},
		{"more pages than there are", func(b []byte) []byte { order.PutUint32(b[leaf+12:], 1<<31); return b }, "beyond the end"},
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

func TestWhatIsReadableIsVisited(t *testing.T) {
	good := example(t, false)
	count := func(f *File) (n int) {
		f.Each(func(bucket string, key, value []byte) {
			if bucket != "tree" && bucket != "small" {
				t.Errorf("key %q in bucket %q", key, bucket)
			}
			n++
		})
		return n
	}
	whole := mapped(good)
	if n := count(whole); n != 102 { // a hundred and "large" in tree, one in small
		t.Errorf("%d elements of a whole file, want 102", n)
	}
	size := int(whole.meta.pageSize)
	for id, used := range whole.seen[2:] {
		damaged := bytes.Clone(good)
		clear(damaged[(id+2)*size : (id+3)*size])
		f := mapped(damaged)
		n := count(f)
		strays := 0
		f.Strays(func(key, value []byte) { strays++ })
		if len(f.damage) == 0 && n != 102 {
			t.Errorf("page %d of zeros (used %t): %d elements, and nothing is said", id+2, used, n)
		}
		if len(f.damage) > 0 && n > 50 && f.Harmed("small") && f.Harmed("tree") && !f.harmed[""] {
			t.Errorf("page %d of zeros: both buckets are harmed", id+2)
		}
	}
	cut := bytes.Clone(good) // the branch of the tree: its leaves are strays then
	for id := range whole.seen {
		if p, err := whole.page(uint64(id)); err == nil && whole.seen[id] && p.flags() == branchPage {
			clear(cut[id*size : (id+1)*size])
		}
	}
	f := mapped(cut)
	n, strays := count(f), 0
	if f.Strays(func([]byte, []byte) { strays++ }); n+strays < 200 {
		t.Errorf("%d elements and %d strays of a file without branches", n, strays)
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
	if err != nil && !errors.Is(err, bolterrors.ErrIncompatibleValue) {
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

// TestASectorThatCannotBeReadIsDamageOfItsPagesAlone: the disk answers with a fault of the memory map.
func TestASectorThatCannotBeReadIsDamageOfItsPagesAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "example.db")
	good := example(t, false)
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	most := 0
	for at := 0; at < len(good); at += os.Getpagesize() {
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Mprotect(f.content[at:min(at+os.Getpagesize(), len(good))], unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		n := 0
		f.readMetas()
		damage := f.Each(func(string, []byte, []byte) { n++ })
		f.Strays(func(key, value []byte) {})
		if damage != nil && at > 0 {
			most = max(most, n)
		}
		if damage == nil && n != 102 {
			t.Errorf("from byte %d on: %d elements, and nothing is said", at, n)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if most < 50 {
		t.Errorf("%d elements at most were read around the sector", most)
	}
}
