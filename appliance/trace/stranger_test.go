package trace

import (
	"encoding/binary"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
)

func stranger4(i uint32) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24+i)))
}

func TestStrangers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.db")
	store, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::2")
	store.strangers.refused(one, "a@contoso.com", "", "no device entry", morning)
	store.strangers.refused(two, "", "b@contoso.com", "no device entry", morning.Add(time.Minute))
	mapped := netip.MustParseAddr("::ffff:192.0.2.1")
	store.strangers.refused(mapped, strings.Repeat("ö", 200), "", "not \xff set up", morning.Add(2*time.Minute))
	want := []Stranger{
		{Address: one, First: morning, Last: morning.Add(2 * time.Minute), Count: 2, Sender: strings.Repeat("ö", 128), Reason: "not  set up"},
		{Address: two, First: morning.Add(time.Minute), Last: morning.Add(time.Minute), Count: 1, Recipient: "b@contoso.com", Reason: "no device entry"},
	}
	address := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(want, store.Strangers(), address); diff != "" {
		t.Error(diff)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, open(t, path).Strangers(), address); diff != "" {
		t.Errorf("after a restart: %s", diff)
	}
}

// TestManyStrangers: a flood from ever new addresses takes the room of a thousand, in memory and on disk.
func TestManyStrangers(t *testing.T) {
	store := create(t)
	stored := func() (count int) {
		err := store.db.View(func(tx *bbolt.Tx) error {
			return tx.Bucket(strangerBucket).ForEach(func(_, _ []byte) error { count++; return nil })
		})
		if err != nil {
			t.Fatal(err)
		}
		return count
	}
	for i := range uint32(5 * maxStrangers) {
		store.Refused(stranger4(i), "", "", "")
		store.Refused(stranger4(0), "", "", "") // comes back again and again
		if i%700 == 0 {
			add(t, store)
			if count := stored(); count > maxStrangers {
				t.Fatalf("%d strangers are in the file", count)
			}
		}
	}
	add(t, store)
	all := store.Strangers()
	if len(all) != maxStrangers || stored() != maxStrangers || len(store.strangers.gone) != 0 {
		t.Errorf("%d strangers, %d in the file, %d to be deleted", len(all), stored(), len(store.strangers.gone))
	}
	if all[0].Address != stranger4(0) || all[0].Count != 5*maxStrangers+1 {
		t.Errorf("the one that comes back: %+v", all[0])
	}
	if all[1].Address != stranger4(5*maxStrangers-1) || all[999].Address != stranger4(4*maxStrangers+1) {
		t.Errorf("the list goes from %s to %s", all[1].Address, all[999].Address)
	}
}

// TestStrangersUnwritten: what a full disk kept from being written is written later.
func TestStrangersUnwritten(t *testing.T) {
	store := create(t)
	for i := range uint32(maxStrangers) {
		store.Refused(stranger4(i), "", "", "")
	}
	add(t, store)
	store.Refused(stranger4(maxStrangers), "", "", "") // the first one is forgotten
	changes := store.strangers.changes()
	store.Refused(stranger4(maxStrangers+1), "", "", "") // meanwhile
	store.strangers.unwritten(changes)
	add(t, store)
	var got []string
	err := store.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(strangerBucket).ForEach(func(key, _ []byte) error { got = append(got, string(key)); return nil })
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []uint32{maxStrangers, maxStrangers + 1} {
		if !slices.Contains(got, stranger4(i).String()) {
			t.Errorf("%s is not in the file", stranger4(i))
		}
	}
	if len(got) != maxStrangers {
		t.Errorf("%d strangers are in the file", len(got))
	}
}
