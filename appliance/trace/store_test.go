package trace

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
)

// morning is when the messages of these tests are handed in.
var morning = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// open opens a trace that is closed with the test.
func open(t testing.TB, path string) *Store {
	t.Helper()
	store, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func create(t testing.TB) *Store { return open(t, filepath.Join(t.TempDir(), "trace.db")) }

// scan is a message from one of the office's scanners.
func scan(minute int, device, to string, state State) Record {
	accepted := morning.Add(time.Duration(minute) * time.Minute)
	return Record{
		ID: IDAt(accepted), Accepted: accepted, Device: device, Client: "192.168.1.40", Listener: ":25",
		Sender:     "Scanner@Contoso.com",
		Recipients: []Recipient{{Address: to, State: state, Connector: "m365"}},
		Subject:    "Scan", Size: 4096,
		Events: []Event{{Time: accepted, Kind: Accepted}, {Time: accepted, Kind: Delivered, Reply: "250 2.6.0 Queued"}},
		Done:   accepted,
	}
}

func add(t testing.TB, store *Store, records ...Record) {
	t.Helper()
	if err := store.Add(records); err != nil {
		t.Fatal(err)
	}
}

func TestGet(t *testing.T) {
	store := create(t)
	record := scan(1, "Floor 2", "anna@contoso.com", Sent)
	add(t, store, record)
	got, err := store.Get(record.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(record, got); diff != "" {
		t.Error(diff)
	}
	if _, err := store.Get(record.ID + 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("an id that is not there: %v", err)
	}
}

func TestFind(t *testing.T) {
	store := create(t)
	records := []Record{
		scan(0, "Floor 1", "anna@contoso.com", Sent),
		scan(1, "Floor 2", "bert@contoso.com", Sent),
		scan(2, "Floor 2", "anna@fabrikam.example", Failed),
		scan(3, "Floor 1", "anna@contoso.com", Deleted),
	}
	records[3].Client = "fd00::7"
	// Two of them at once and not in order, as a message that had to wait comes in late.
	add(t, store, records[3], records[1])
	add(t, store, records[0], records[2])

	for _, test := range []struct {
		name  string
		query Query
		want  []int
	}{
		{"all, the newest first", Query{}, []int{3, 2, 1, 0}},
		{"a recipient", Query{Address: "anna@contoso.com"}, []int{3, 0}},
		{"in any case", Query{Address: "ANNA@contoso.COM"}, []int{3, 0}},
		{"the sender", Query{Address: "scanner@contoso.com"}, []int{3, 2, 1, 0}},
		{"a domain", Query{Address: "@fabrikam.example"}, []int{2}},
		{"not a part of a domain", Query{Address: "@example"}, nil},
		{"nobody", Query{Address: "nobody@contoso.com"}, nil},
		{"a device", Query{Device: "floor 2"}, []int{2, 1}},
		{"a client", Query{Client: netip.MustParseAddr("fd00::7")}, []int{3}},
		{"a client, mapped", Query{Client: netip.MustParseAddr("::ffff:192.168.1.40")}, []int{2, 1, 0}},
		{"a state", Query{State: Failed}, []int{2}},
		{"two at once", Query{Device: "Floor 1", State: Sent}, []int{0}},
		{"from, inclusive", Query{From: morning.Add(2 * time.Minute)}, []int{3, 2}},
		{"until, exclusive", Query{Until: morning.Add(2 * time.Minute)}, []int{1, 0}},
		{"from a fraction later", Query{From: morning.Add(2*time.Minute + 1)}, []int{3}},
		{"until a fraction later", Query{Until: morning.Add(2*time.Minute + 1)}, []int{2, 1, 0}},
		{"a time and an address", Query{Address: "anna@contoso.com", From: morning.Add(time.Minute)}, []int{3}},
		{"an address until", Query{Address: "anna@contoso.com", Until: morning.Add(time.Minute)}, []int{0}},
		{"until 1970", Query{Until: time.Unix(0, 0)}, nil},
		{"the next page", Query{Before: records[3].ID, Limit: 2}, []int{2, 1}},
		{"the next page of an address", Query{Address: "@contoso.com", Before: records[2].ID, Limit: 1}, []int{1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := store.Find(test.query)
			if err != nil {
				t.Fatal(err)
			}
			var want []Record
			for _, i := range test.want {
				want = append(want, records[i])
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestFindHasALimit: no answer grows with the trace.
func TestFindHasALimit(t *testing.T) {
	store := create(t)
	var records []Record
	for minute := range MaxLimit + 1 {
		records = append(records, scan(minute, "Floor 1", "anna@contoso.com", Sent))
	}
	add(t, store, records...)
	for asked, want := range map[int]int{0: DefaultLimit, 7: 7, MaxLimit + 1: MaxLimit, -1: DefaultLimit} {
		for _, query := range []Query{{Limit: asked}, {Limit: asked, Device: "Floor 1"}} {
			found, err := store.Find(query)
			if err != nil || len(found) != want {
				t.Errorf("limit %d: %d records, want %d: %v", asked, len(found), want, err)
			}
		}
	}
}

// TestAddTwice: after a crash the queue hands over again what it does not know to be written.
func TestAddTwice(t *testing.T) {
	store := create(t)
	first, second := scan(1, "Floor 1", "anna@contoso.com", Sent), scan(2, "Floor 1", "anna@contoso.com", Failed)
	add(t, store, first, second)
	second.Recipients[0].State = Deleted
	add(t, store, second, first)
	found, err := store.Find(Query{Address: "anna@contoso.com"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Record{second, first}, found); diff != "" {
		t.Error(diff)
	}
	if found, err = store.Find(Query{State: Failed}); err != nil || len(found) != 0 {
		t.Errorf("by the state it had before: %v %v", found, err)
	}
}

func TestReopened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.db")
	store, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	record := scan(1, "Floor 1", "anna@contoso.com", Sent)
	add(t, store, record)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	for what, err := range map[string]error{
		"Add":   store.Add([]Record{record}),
		"Get":   second(store.Get(record.ID)),
		"Find":  second(store.Find(Query{})),
		"Prune": second(store.Prune(morning)),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
	again := open(t, path)
	if again.SetAside() != "" {
		t.Errorf("a whole file was set aside as %s", again.SetAside())
	}
	if got, err := again.Get(record.ID); err != nil || !cmp.Equal(got, record) {
		t.Errorf("%v %v", got, err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestLongRecord: a message to very many, each refused at length many times, is kept with what became of
// everybody, in bounded room.
func TestLongRecord(t *testing.T) {
	store := create(t)
	record := scan(1, "Floor 1", "", Failed)
	record.Recipients = nil
	var all []string
	for i := range 1000 {
		address := fmt.Sprintf("user%04d@contoso.com", i)
		all = append(all, address)
		record.Recipients = append(record.Recipients, Recipient{Address: address, State: Failed, Reply: strings.Repeat("ö", 2000)})
	}
	for range 40 {
		record.Add(Event{Kind: Refused, Recipients: all, Reply: strings.Repeat("x", 20000)})
	}
	short := scan(2, "Floor 1", "user0999@contoso.com", Sent)
	add(t, store, record, short)
	err := store.db.View(func(tx *bbolt.Tx) error {
		_, value := tx.Bucket(recordBucket).Cursor().First()
		if len(value) > largeRecord {
			t.Errorf("%d bytes were stored", len(value))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	found, err := store.Find(Query{Address: "user0999@contoso.com"})
	if err != nil || len(found) != 2 {
		t.Fatalf("%d records: %v", len(found), err)
	}
	got := found[1].Recipients[999]
	if want := (Recipient{Address: all[999], State: Failed, Reply: strings.Repeat("ö", 150)}); got != want {
		t.Errorf("the last recipient: %+v", got)
	}
	if listed := found[1].Events[5].Recipients; len(listed) != 21 || listed[20] != "and 980 more" {
		t.Errorf("the recipients of an event: %q", listed)
	}
}

// TestLargeBatch: a batch of more than one transaction is written whole.
func TestLargeBatch(t *testing.T) {
	store := create(t)
	var records []Record
	for minute := range 6 {
		record := scan(minute, "Floor 1", "anna@contoso.com", Sent)
		record.Events[0].Text = strings.Repeat("x", batchSize/4)
		records = append(records, record)
	}
	add(t, store, records...)
	if found, err := store.Find(Query{}); err != nil || len(found) != len(records) {
		t.Errorf("%d of %d records: %v", len(found), len(records), err)
	}
}

func TestOpenErrors(t *testing.T) {
	folder := t.TempDir()
	if _, err := Open(filepath.Join(folder, "nowhere", "trace.db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
	path := filepath.Join(folder, "trace.db")
	open(t, path)
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "another mailchute runs on this state folder") {
		t.Errorf("a file in use: %v", err)
	}
	if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) != 0 {
		t.Errorf("a file in use was set aside: %v", aside)
	}
}
