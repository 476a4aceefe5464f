package spool

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"mailchute/appliance/boltfile"
	"mailchute/appliance/trace"
)

// filled makes a queue file with messages of many sizes, some already delivered, and gives the bodies of those
// that wait, and the pages in use. The file has pages of older states too, as one in use has.
func filled(t testing.TB) (data []byte, used []int, bodies map[trace.ID][]byte, delivered map[trace.ID]bool) {
	t.Helper()
	s := open(t, t.TempDir(), testOptions())
	bodies, delivered = make(map[trace.ID][]byte), make(map[trace.ID]bool)
	for i := range 40 {
		body := scan(i * i * 90)
		id := hand(t, s, letter(fmt.Sprint("copier ", i%3), "a@contoso.com"), body)
		if i%4 == 0 {
			if err := s.Change(id, settle); err != nil {
				t.Fatal(err)
			}
			delivered[id] = true
			continue
		}
		bodies[id] = body
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := boltfile.Open(s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Each(func(string, []byte, []byte) {}); err != nil {
		t.Fatal(err)
	}
	used = f.Used()
	return data[:f.Size()], used, bodies, delivered
}

// reopen puts a queue file into a folder and opens it.
func reopen(t testing.TB, data []byte) (*Spool, *Salvage) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "queue.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, salvage, err := Open(path, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, salvage
}

func TestADamagedFileIsSetAsideAndNothingGoesMissingUnsaid(t *testing.T) {
	sound, used, bodies, delivered := filled(t)
	page := os.Getpagesize()
	r := rand.New(rand.NewPCG(3, 4))
	damages := map[string]func([]byte){
		"both first pages zeroed": func(data []byte) { clear(data[:2*page]) },
		"the newer first page":    func(data []byte) { clear(data[:page]) },
		"the other first page":    func(data []byte) { clear(data[page : 2*page]) },
		"cut in half":             nil,
	}
	for n, at := range used {
		if head := binary.NativeEndian.Uint64(sound[at*page:]) == uint64(at); !head && n%50 != 0 {
			continue // within a large value: a few of them will do
		}
		damages[fmt.Sprintf("page %d zeroed (%d)", at, n)] = func(data []byte) { clear(data[at*page : (at+1)*page]) }
		damages[fmt.Sprintf("page %d, its header (%d)", at, n)] = func(data []byte) {
			for i := range 16 {
				data[at*page+i] ^= byte(r.Uint32())
			}
		}
		damages[fmt.Sprintf("a bit in page %d (%d)", at, n)] = func(data []byte) { data[at*page+r.IntN(page)] ^= 1 << r.IntN(8) }
	}
	salvaged, lost, held := 0, 0, 0
	for name, damage := range damages {
		data := bytes.Clone(sound)
		if damage == nil {
			data = data[:len(data)/2/page*page]
		} else {
			damage(data)
		}
		s, report := reopen(t, data)
		said := make(map[trace.ID]bool)
		if report != nil {
			salvaged++
			lost, held = lost+len(report.Missing), held+report.Held
			if aside, err := os.ReadFile(report.Aside); err != nil || !bytes.Equal(aside, data) {
				t.Errorf("%s: the damaged file is not set aside as it was (error %v)", name, err)
			}
			for _, missing := range report.Missing {
				said[missing.ID] = true
			}
		}
		newest := name != "both first pages zeroed" && name != "cut in half" && name != "the newer first page" && name != "the other first page"
		for id, want := range bodies {
			e, err := s.Get(id)
			if err != nil {
				if newest && !said[id] && report != nil {
					t.Errorf("%s: message %s is gone, and the report does not say so: %v", name, id, err)
				}
				continue
			}
			got, err := io.ReadAll(s.Body(id, e.Size))
			if err == nil && !bytes.Equal(got, want) {
				t.Errorf("%s: message %s came back different, unnoticed", name, id)
			}
			if err != nil && report != nil {
				t.Errorf("%s: message %s was salvaged, but: %v", name, id, err)
			}
		}
		for id := range delivered {
			if e, err := s.Get(id); err == nil && e.Hold == nil {
				t.Errorf("%s: message %s was delivered and would be sent again", name, id)
			}
		}
		s.Close()
	}
	t.Logf("%d damages: %d files salvaged, %d messages lost and listed, %d on hold", len(damages), salvaged, lost, held)
	if salvaged == 0 || lost == 0 {
		t.Error("no damage did anything: the test tests nothing")
	}
}

func TestASalvagedQueueGoesOnWorking(t *testing.T) {
	sound, _, bodies, _ := filled(t)
	data := bytes.Clone(sound)
	for id := range bodies { // the envelope of one message, in every state of its page that the file has
		text := []byte(`{"id":"` + id.String())
		data = bytes.ReplaceAll(data, text, bytes.ToUpper(text))
		break
	}
	path := filepath.Join(t.TempDir(), "queue.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, salvage, err := Open(path, testOptions())
	if err != nil || salvage != nil {
		t.Fatalf("a wrong byte in an envelope is not seen until it is read: %v, %v", salvage, err)
	}
	if _, err := s.List(0, 1000, func(*Envelope) bool { return true }); err == nil {
		t.Fatal("a damaged envelope was read")
	}
	<-s.Failed()
	s.Close()
	s, salvage, err = Open(path, testOptions())
	if err != nil || salvage == nil || len(salvage.Missing) != 1 || salvage.Saved != len(bodies)-1 {
		t.Fatalf("the next start: %+v, %v", salvage, err)
	}
	defer s.Close()
	records, err := s.Outcomes(100)
	if err != nil || !containsRecord(records, salvage.Missing[0].ID) {
		t.Errorf("the trace will not show what was lost: %v", err)
	}
	id := hand(t, s, letter("copier", "a@contoso.com"), scan(100_000))
	if err := s.Change(id, settle); err != nil {
		t.Error(err)
	}
}

func containsRecord(records []trace.Record, id trace.ID) bool {
	for _, r := range records {
		if r.ID == id {
			return true
		}
	}
	return false
}

// TestSectorsThatCannotBeReadAreSalvagedAround: the disk answers with faults of the memory map, here because the file
// was cut after it was mapped.
func TestSectorsThatCannotBeReadAreSalvagedAround(t *testing.T) {
	sound, used, bodies, _ := filled(t)
	for n, at := range used {
		if n%6 != 0 {
			continue
		}
		path := filepath.Join(t.TempDir(), "queue.db")
		if err := os.WriteFile(path, sound, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := boltfile.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, int64(at*os.Getpagesize())); err != nil {
			t.Fatal(err)
		}
		var salvage Salvage
		if err := salvage.take(file, path+".salvaged", noon); err != nil {
			t.Errorf("from page %d on: %v", at, err)
		}
		if salvage.Saved-salvage.Held > len(bodies) {
			t.Errorf("from page %d on: %+v", at, salvage)
		}
		file.Close()
	}
}

func FuzzASalvageEndsWhateverTheFile(f *testing.F) {
	s := open(f, f.TempDir(), testOptions())
	hand(f, s, letter("copier", "a@contoso.com"), scan(100))
	s.Close()
	data, err := os.ReadFile(s.path)
	if err != nil {
		f.Fatal(err)
	}
	page := os.Getpagesize()
	f.Add(uint32(0), []byte{1})
	f.Add(uint32(2*page+8), []byte{9, 9, 9, 9, 9, 9, 9, 9})
	f.Add(uint32(3*page+16), []byte{255, 255, 255, 255, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		damaged := bytes.Clone(data[:min(len(data), 8*page)])
		copy(damaged[int(at)%len(damaged):], patch)
		s, _ := reopen(t, damaged)
		s.Close()
	})
}
