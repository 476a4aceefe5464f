package trace

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// office makes records as an office does: thirty devices, each with an address, mail to a few hundred people, and
// now and then a message elsewhere.
func office(first, count int) []Record {
	records := make([]Record, count)
	for i := range records {
		n := first + i
		accepted := morning.Add(time.Duration(n) * 200 * time.Millisecond)
		to := fmt.Sprintf("user%d@contoso.com", n%400)
		if n%1000 == 0 {
			to = fmt.Sprintf("person%d@fabrikam%d.example", n, n%7000)
		}
		records[i] = Record{
			ID: IDAt(accepted), Accepted: accepted, Device: fmt.Sprintf("Floor %d", n%30), Client: fmt.Sprintf("192.168.1.%d", n%30),
			Listener: "[::]:25", Helo: "SCANNER", Sender: fmt.Sprintf("scanner%d@contoso.com", n%30),
			Recipients: []Recipient{{Address: to, State: Sent, Connector: "m365", Reply: "250 2.6.0 <id@contoso.com> Queued mail for delivery"}},
			MessageID:  fmt.Sprintf("<%d@contoso.com>", n), Subject: "Scan", Size: 4096, Done: accepted,
			Events: []Event{
				{Time: accepted, Kind: Accepted},
				{Time: accepted, Kind: Attempted, Connector: "m365", Next: accepted.Add(time.Minute)},
				{Time: accepted, Kind: Delivered, Connector: "m365", Peer: "contoso-com.mail.protection.outlook.com [192.0.2.25]:25 TLS 1.3", Class: "sent",
					Reply: "250 2.6.0 <id@contoso.com> Queued mail for delivery"},
			},
		}
	}
	return records
}

// BenchmarkAdd is the cost of one record in batches of 4000.
func BenchmarkAdd(b *testing.B) {
	store := create(b)
	const size = 4000
	records := office(0, size)
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += size {
		batch := records[:min(size, b.N-done)]
		for i := range batch {
			batch[i].ID += 1 << 32
		}
		if err := store.Add(batch); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFind searches a million records.
func BenchmarkFind(b *testing.B) {
	path := filepath.Join(b.TempDir(), "trace.db")
	store, err := Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	store.db.NoSync = true
	for first := 0; first < 1_000_000; first += 5000 {
		if err := store.Add(office(first, 5000)); err != nil {
			b.Fatal(err)
		}
	}
	for _, bench := range []struct {
		name  string
		query Query
	}{
		{"one address among all", Query{Address: "person1000@fabrikam1000.example"}},
		{"a rare domain", Query{Address: "@fabrikam1000.example"}},
		{"a frequent address", Query{Address: "user7@contoso.com"}},
		{"the own domain", Query{Address: "@contoso.com"}},
		{"nobody", Query{Address: "nobody@contoso.com"}},
		{"no failure", Query{State: Failed}},
		{"a device on one day", Query{Device: "Floor 3", From: morning.Add(12 * time.Hour), Until: morning.Add(36 * time.Hour)}},
		{"a minute", Query{From: morning.Add(12 * time.Hour), Until: morning.Add(12*time.Hour + time.Minute)}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := store.Find(bench.query); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
