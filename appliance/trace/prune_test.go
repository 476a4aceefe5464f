package trace

import (
	"os"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

func TestPruneByAge(t *testing.T) {
	store := create(t)
	var records []Record
	for minute := range pruneBatch + 10 { // more than one transaction
		records = append(records, scan(minute, "Floor 1", "anna@contoso.com", Sent))
	}
	add(t, store, records...)
	keptFrom := records[pruneBatch+5]
	count, err := store.Prune(keptFrom.Accepted.Add(30 * 24 * time.Hour))
	if err != nil || count != pruneBatch+5 {
		t.Errorf("%d records went: %v", count, err)
	}
	for _, query := range []Query{{}, {Device: "Floor 1"}} {
		found, err := store.Find(query)
		if err != nil || len(found) != 5 || found[4].ID != keptFrom.ID {
			t.Errorf("%d records are left: %v", len(found), err)
		}
	}
	if count, err := store.Prune(keptFrom.Accepted.Add(30 * 24 * time.Hour)); count != 0 || err != nil {
		t.Errorf("a second time, %d records went: %v", count, err)
	}
	// With the last record its signature goes.
	if _, err := store.Prune(morning.Add(365 * 24 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	err = store.db.View(func(tx *bbolt.Tx) error {
		if keys := tx.Bucket(signatureBucket).Stats().KeyN; keys != 0 {
			t.Errorf("%d blocks of signatures are left", keys)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPruneBySize(t *testing.T) {
	store := create(t)
	store.size = 4 << 20
	var newest ID
	for round := range 20 {
		var records []Record
		for minute := range 100 {
			record := scan(100*round+minute, "Floor 1", "anna@contoso.com", Sent)
			record.Events[1].Reply = strings.Repeat("x", 6000)
			records = append(records, record)
			newest = record.ID
		}
		add(t, store, records...)
		if _, err := store.Prune(morning); err != nil {
			t.Fatal(err)
		}
		var living int64
		if err := store.view(func(tx *bbolt.Tx) error { living = store.living(tx); return nil }); err != nil {
			t.Fatal(err)
		}
		if living > store.size {
			t.Errorf("round %d: %d bytes live, %d may", round, living, store.size)
		}
		if round > 10 && living < store.size/2 {
			t.Errorf("round %d: only %d bytes of %d are left", round, living, store.size)
		}
	}
	if found, err := store.Find(Query{Limit: 1}); err != nil || len(found) != 1 || found[0].ID != newest {
		t.Errorf("the newest record: %v %v", found, err)
	}
	if info, err := stat(store); err != nil || info > 4*store.size+32<<20 {
		t.Errorf("the file has grown to %d bytes: %v", info, err)
	}
}

// stat gives the size of the store's file.
func stat(store *Store) (int64, error) {
	info, err := os.Stat(store.db.Path())
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
