package appliance

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"mailchute/appliance/api"
	"mailchute/appliance/delivery"
	"mailchute/appliance/spool"
	"mailchute/appliance/trace"
)

// TestASelectionHasWhatCameInWhileTheClockWasAhead: ids go on from the highest, whatever the clock says later.
func TestASelectionHasWhatCameInWhileTheClockWasAhead(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	queue, _, err := spool.Open(filepath.Join(t.TempDir(), "queue.db"), spool.Options{
		Log: log, Now: func() time.Time { return time.Now().AddDate(1, 0, 0) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer queue.Close()
	b := &box{log: log, spool: queue, delivery: delivery.New(delivery.Options{Spool: queue, Log: log, Now: time.Now})}
	m := b.delivery.Create()
	e := &spool.Envelope{Record: trace.Record{Device: "copier", Sender: "copier@contoso.com",
		Recipients: []trace.Recipient{{Address: "anna@contoso.com", State: trace.Waiting}}}}
	if err := m.Accept(e); err != nil {
		t.Fatal(err)
	}
	n, err := b.Delete(context.Background(), api.Selection{Filter: api.QueueQuery{Device: "copier"}}, "eva")
	if n != 1 || err != nil {
		t.Errorf("%d messages deleted of 1, error %v", n, err)
	}
}
