package trace

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestModel compares the store with a map: whatever is added, in any order and again, is found by whatever is asked,
// across restarts, until it is pruned.
func TestModel(t *testing.T) {
	folder := t.TempDir()
	run := 0
	devices := []string{"Floor 1", "Floor 2", "Étage"}
	addresses := []string{"", "anna@contoso.com", "ANNA@Contoso.com", "bert@fabrikam.example", "postmaster", "ärger@münchen.example"}
	clients := []string{"192.168.1.40", "fd00::7"}
	states := []State{Sent, Failed, Deleted}

	rapid.Check(t, func(t *rapid.T) {
		run++
		path := filepath.Join(folder, fmt.Sprint(run))
		store, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { store.Close() }()
		store.db.NoSync = true // nobody cuts the power here
		model := map[ID]Record{}

		drawTime := func(name string) time.Time {
			return morning.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, name)) * time.Minute)
		}
		record := func() Record {
			accepted := drawTime("accepted")
			r := Record{
				ID: IDAt(accepted), Accepted: accepted,
				Device: rapid.SampledFrom(devices).Draw(t, "device"), Client: rapid.SampledFrom(clients).Draw(t, "client"),
				Sender: rapid.SampledFrom(addresses).Draw(t, "sender"),
			}
			for range rapid.IntRange(1, 3).Draw(t, "recipients") {
				r.Recipients = append(r.Recipients, Recipient{
					Address: rapid.SampledFrom(addresses).Draw(t, "recipient"), State: rapid.SampledFrom(states).Draw(t, "state"),
				})
			}
			// Now and then so many that the signature gives up, and so long that blocks fill.
			more := 0
			switch size := rapid.IntRange(0, 99).Draw(t, "size"); {
			case size > 98:
				more = maxHashes
			case size > 90:
				more = 100
			}
			for i := range more {
				r.Recipients = append(r.Recipients, Recipient{Address: fmt.Sprintf("user%d@contoso.com", i), State: Sent})
			}
			return r
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				var records []Record
				for range rapid.IntRange(0, 10).Draw(t, "records") {
					r := record()
					records = append(records, r)
					model[r.ID] = r
				}
				if err := store.Add(records); err != nil {
					t.Fatal(err)
				}
			},
			"find": func(t *rapid.T) {
				maybe := func(name string) bool { return rapid.Bool().Draw(t, name) }
				var q Query
				if maybe("by address") {
					q.Address = rapid.SampledFrom(append(addresses, "@contoso.com", "@MÜNCHEN.example", "user7@contoso.com")).Draw(t, "address")
				}
				if maybe("by device") {
					q.Device = rapid.SampledFrom(append(devices, "étage")).Draw(t, "device")
				}
				if maybe("by client") {
					q.Client = netip.MustParseAddr(rapid.SampledFrom(clients).Draw(t, "client"))
				}
				if maybe("by state") {
					q.State = rapid.SampledFrom(states).Draw(t, "state")
				}
				if maybe("from") {
					q.From = drawTime("from")
				}
				if maybe("until") {
					q.Until = drawTime("until")
				}
				if maybe("before") {
					q.Before = IDAt(drawTime("before"))
				}
				q.Limit = rapid.IntRange(1, 20).Draw(t, "limit")

				var want []Record
				for _, id := range slices.Backward(slices.Sorted(maps.Keys(model))) {
					if r := model[id]; q.Match(&r) && len(want) < q.Limit {
						want = append(want, r)
					}
				}
				got, err := store.Find(q)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("%+v: %s", q, diff)
				}
			},
			"get": func(t *rapid.T) {
				id := IDAt(drawTime("id"))
				got, err := store.Get(id)
				want, ok := model[id]
				if ok != (err == nil) {
					t.Fatalf("%s: %v", id, err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatal(diff)
				}
			},
			"prune": func(t *rapid.T) {
				oldest := morning.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "minutes")) * time.Minute)
				before := len(model)
				maps.DeleteFunc(model, func(id ID, _ Record) bool { return id < IDAt(oldest) })
				count, err := store.Prune(oldest.Add(keepTime))
				if err != nil || count != before-len(model) {
					t.Fatalf("%d records went, want %d: %v", count, before-len(model), err)
				}
			},
			"restart": func(t *rapid.T) {
				if err := store.Close(); err != nil {
					t.Fatal(err)
				}
				if store, err = Open(path); err != nil || store.SetAside() != "" {
					t.Fatalf("%q %v", store.SetAside(), err)
				}
				store.db.NoSync = true
			},
		})
	})
}
